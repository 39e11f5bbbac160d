"""Reading files: what is accepted, what is refused, and where it says the fault is."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from initspawn.config.load import load
from initspawn.config.load_json import read_json
from initspawn.config.load_yaml import read_yaml
from initspawn.config.syntax import MAX_DEPTH, SyntaxFault
from initspawn.errors import ConfigError, Problem

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=20)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


def refused(path: Path) -> Problem:
    with pytest.raises(ConfigError) as caught:
        load(str(path))
    (problem,) = caught.value.problems
    return problem


@given(VALUES)
def test_json_reads_what_json_wrote(value: Any) -> None:
    assert read_json(json.dumps(value))[0] == value
    assert read_json(json.dumps(value, ensure_ascii=False, indent=2))[0] == value


@given(st.text(max_size=40))
@example("[" * 100_000)
@example('{"a":' * 70)
@example("'\\u12'")
def test_json_reader_only_ever_faults(text: str) -> None:
    with contextlib.suppress(SyntaxFault):
        read_json(text)


@given(st.text(alphabet=st.sampled_from(list("ab:-[]{},&*!|>#'\"%@ \n\t0.~?<")), max_size=40))
@example("&a [*a]")
@example("[" * 1000)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_yaml_reader_only_ever_faults(text: str) -> None:
    with contextlib.suppress(SyntaxFault):
        read_yaml(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{'a': 'it''s'}", None),
        ("{'a': \"it's\"}", {"a": "it's"}),
        ("[1, 2,]", [1, 2]),
        ('{"a": 1,}', {"a": 1}),
        ("/* one */ [1, // two\n 2] // three", [1, 2]),
        (r'"\u00e9\ud83d\ude00\/"', "é😀/"),
        ("[1e2, -0.5, 1.0]", [100.0, -0.5, 1.0]),
        ("['a\tb', True, FALSE, Null]", ["a\tb", True, False, None]),
    ],
)
def test_json_forgives_what_people_write(text: str, value: Any) -> None:
    if value is None:
        with pytest.raises(SyntaxFault):
            read_json(text)
    else:
        assert read_json(text)[0] == value


@pytest.mark.parametrize(
    ("text", "line", "column", "said"),
    [
        ("[NaN]", 1, 2, "`NaN` is no JSON value"),
        ("[-Infinity]", 1, 2, "`-Infinity`"),
        ("[1e999]", 1, 2, "too large"),
        ("[123456789012345678901]", 1, 2, "64 bits"),
        ("[01]", 1, 2, "`01` is no JSON value"),
        ('{"a": 1\n "b": 2}', 2, 2, "`,` or `}`"),
        ('{"a": {\n', 1, 7, "no `}` closes"),
        ("{a: 1}", 1, 2, "a key in quotes"),
        ('"\\ud800"', 1, 1, "surrogate"),
        ('"a\nb"', 1, 1, "not closed"),
        ('"\\q"', 1, 2, "unknown escape"),
        ("{} {}", 1, 4, "nothing may follow"),
        ("/* open", 1, 1, "never closed"),
        ("[" * (MAX_DEPTH + 2), 1, MAX_DEPTH + 2, "nested deeper"),
        ("[1,,2]", 1, 4, "not `,`"),
    ],
)
def test_json_faults_name_their_place(text: str, line: int, column: int, said: str) -> None:
    with pytest.raises(SyntaxFault) as caught:
        read_json(text)
    assert said in caught.value.message
    assert (caught.value.line, caught.value.column) == (line, column)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: yes", {"a": "yes"}),
        ("a: [true, False, ~, null, ]", {"a": [True, False, None, None]}),
        ("a: 0x1f\nb: 0o17\nc: -3\nd: 1.5\ne: 1e3", {"a": 31, "b": 15, "c": -3, "d": 1.5, "e": 1000.0}),
        ("a: '027'\nb: 2026-11-21\nc: 12:30:45", {"a": "027", "b": "2026-11-21", "c": "12:30:45"}),
        ("x: &x {a: 1, b: 2}\ny: {<<: *x, b: 3}", {"x": {"a": 1, "b": 2}, "y": {"a": 1, "b": 3}}),
        ("y: {<<: [{a: 1}, {a: 2, b: 2}]}", {"y": {"a": 1, "b": 2}}),
        ("a: !!str 5\nb: ! 7\nc: !!int 5", {"a": "5", "b": "7", "c": 5}),
        ("'<<': 1", {"<<": 1}),
        ("a: &e\nb: *e", {"a": None, "b": None}),
    ],
)
def test_yaml_core_schema(text: str, value: Any) -> None:
    assert read_yaml(text)[0] == value


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a: 1\n\tb: 2", 2, "tab"),
        ("a: 1\nb: 027", 2, "octal"),
        ("a: .nan", 1, "no number"),
        ("a: !!python/object:os.system x", 1, "means nothing"),
        ("a: !!timestamp 2026-11-21", 1, "means nothing"),
        ("a: &b [*b]", 1, "*b"),
        ("a: *nothing", 1, "nothing"),
        ("1: a", 1, "no text"),
        ("[a]: 1", 1, "must be text"),
        ("a: 1\n---\nb: 2", 2, "second document"),
        ("<<: 3", 1, "takes a mapping"),
        ("a: [1, 2", 1, "no `]` closes"),
        ("a: 99999999999999999999999", 1, "64 bits"),
        ("a: \x01", 1, "control character"),
        ("# only a comment\n", 2, "empty"),
    ],
)
def test_yaml_faults_name_their_line(text: str, line: int, said: str) -> None:
    with pytest.raises(SyntaxFault) as caught:
        read_yaml(text)
    assert said in caught.value.message
    assert caught.value.line == line


@pytest.mark.parametrize(
    ("text", "place", "said", "hint"),
    [
        ("args: [%Y]", (1, 8), "`%` cannot begin plain text", "in quotes"),
        ("args:\n  - @x", (2, 5), "`@` cannot begin plain text", "in quotes"),
        ("a: `x`", (1, 4), "a backtick cannot begin", "in quotes"),
        ("a: *.txt", (1, 5), "`*` has a meaning", "in quotes"),
        ("a: &(x)", (1, 5), "`&` has a meaning", "in quotes"),
        ("%Y: 1", (1, 3), "`%` has a meaning", "in quotes"),
        ("a: ,b", (1, 4), "`,` cannot begin", "in quotes"),
        ("a: ? b", (1, 4), "`?` and a space", "in quotes"),
        ("a: 1\nuid:mine\nb: 2", (2, 1), "behind the colon of `uid`", "write `uid: mine`"),
        ("m:\n  uid:mine\n  api: t", (2, 3), "behind the colon of `uid`", "write `uid: mine`"),
        ("s:\n  - uid:a b\n    c: []", (2, 5), "behind the colon of `uid`", "write `uid: a b`"),
        ("a: 1\nb\nc: 2", (2, 0), "a key without a colon", "in quotes"),
        ("a: b: c", (1, 5), "a second colon", "in quotes"),
        ("a:\n  b: 1\n   c: 2", (3, 5), "indented too far", "has a value already"),
        ("a:\n  b: 1\n c: 2", (3, 2), "begins where nothing else does", "same column"),
        ("  a: 1\nb: 2", (2, 1), "begins where nothing else does", "same column"),
        ("- a\nb: 1", (2, 1), "begins where nothing else does", "same column"),
        ("a:\n\tb: 1", (2, 1), "a tab", "spaces only"),
        ("a: 'x\nb: 1", (1, 4), "this quote is never closed", ""),
        ("a: 'it's'", (1, 8), "behind its closing quote", "twice"),
        ("a: |\n  x\n y\nb: 1", (3, 2), "begins where nothing else does", "same column"),
        ("a: {}}", (1, 6), "`}` closes nothing", "in quotes"),
        ("a: {b: 1\nc: 2", (2, 2), "`,` or `}` is expected", "in quotes"),
        ("a: [?b?]", (1, 7), "`,` or `]` is expected", "in quotes"),
        ("a: [x y: {]", (1, 11), "cannot begin plain text", "in quotes"),
        ('a: "\\d"', (1, 6), "unknown escape `\\d`", "single quotes"),
        ("a: - b", (1, 4), "a list cannot begin here", "line of its own"),
        ("a: |x", (1, 5), "begins a text of lines", "in quotes"),
    ],
)
def test_yaml_faults_say_what_to_write(text: str, place: tuple[int, int], said: str, hint: str) -> None:
    with pytest.raises(SyntaxFault) as caught:
        read_yaml(text)
    fault = caught.value
    assert said in fault.message
    assert hint in fault.hint
    assert bool(hint) == bool(fault.hint)
    assert (fault.line, fault.column) == place


def test_yaml_aliases_do_not_explode() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(SyntaxFault, match="with aliases written out"):
        read_yaml("\n".join(lines))


def test_positions_are_those_of_keys(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('{\n  "a": [\n    1,\n    {"b": 2}\n  ]\n}')
    found = load(str(file)).positions
    assert found["a",] == (2, 3)
    assert found["a", 0] == (3, 5)
    assert found["a", 1, "b"] == (4, 6)
    file = tmp_path / "a.yaml"
    file.write_text("a:\n  - 1\n  - b: 2\n")
    found = load(str(file)).positions
    assert found["a",] == (1, 1)
    assert found["a", 0] == (2, 5)
    assert found["a", 1, "b"] == (3, 5)


def test_doubled_keys_are_all_told(tmp_path: Path) -> None:
    for name, text in (("a.json", '{"a": 1,\n"a": 2,\n"a": 3}'), ("a.yaml", "a: 1\na: 2\na: 3\n")):
        file = tmp_path / name
        file.write_text(text)
        with pytest.raises(ConfigError) as caught:
            load(str(file))
        assert [problem.line for problem in caught.value.problems] == [2, 3]
        assert "key `a` again, it was given in line 1" in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "missing").message
    assert "is a directory" in refused(tmp_path).message
    assert "NUL" in refused(Path("a\0b")).message or "null" in refused(Path("a\0b")).message
    os.mkfifo(tmp_path / "fifo")
    assert "no plain file" in refused(tmp_path / "fifo").message
    for content, said in (
        (b"", "empty"),
        (b" \n\t\n", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (b'{"a":\n"\xff"}', "not UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "UTF-16"),
    ):
        file = tmp_path / "a.json"
        file.write_bytes(content)
        assert said in refused(file).message


def test_a_file_that_everybody_may_change_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("{}")
    file.chmod(0o666)
    assert "changed by everybody" in refused(file).message
    file.chmod(0o664)
    assert load(str(file)).data == {}


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert load(str(file)).data == {"a": 1}


def test_syntax_is_told_by_name_then_by_looks(tmp_path: Path) -> None:
    for name, text in (("a.conf", '{"a": [1],}'), ("a", "// hello\n{}"), ("b", "a: 1"), ("c.yml", "{a: 1}")):
        (tmp_path / name).write_text(text)
        assert isinstance(load(str(tmp_path / name)).data, dict)


def test_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("initspawn.config.load.MAX_BYTES", 10)
    file = tmp_path / "a.json"
    file.write_text('{"a": "0123456789"}')
    assert "larger" in refused(file).message


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.yaml", ""), ("a.yaml", "# this\n"), ("a.json", "// this\n/* and this */\n"), ("a", "// this\n")],
)
def test_a_file_without_content_is_empty(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    problem = refused(tmp_path / name)
    assert (problem.message, problem.hint) == ("is empty", "at least `metadata` is needed")
