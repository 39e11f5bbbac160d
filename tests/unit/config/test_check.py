"""Holding data against the schema: strict scalars, known keys, and every problem at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from initspawn.config.check import check
from initspawn.config.compile import compile_files
from initspawn.config.later import LATER, MISPLACED
from initspawn.config.part import Part
from initspawn.config.schema import Config
from initspawn.config.spot import Report
from initspawn.errors import ConfigError
from initspawn.plan import Api

Build = Callable[..., Api]
Problems = Callable[..., list[str]]


def checked(data: Any) -> tuple[Config | None, list[str]]:
    report = Report("test", {})
    return check(data, report.root()), [str(problem) for problem in report.sorted()]


def test_every_problem_of_a_file_at_once_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        "metadata: {uid: u, api: t, versio: '1'}\n"
        "sandboxes:\n"
        "  uid: s\n"
        "  acl: {umask: 22, user: true}\n"
        "  namespace: {opts: {hostnam: x}}\n"
        "  commands:\n"
        "    - {uid: c, once: yes, timeout: 2.5, exec: 3}\n"
        "    - uid: d\n"
    )
    with pytest.raises(ConfigError) as caught:
        compile_files([str(file)], user=1000, group=1000, environ={})
    found = [(problem.line, problem.key) for problem in caught.value.problems]
    assert found == [
        (1, "metadata.versio"),
        (4, "sandboxes.acl.umask"),
        (4, "sandboxes.acl.user"),
        (5, "sandboxes.namespace.opts.hostnam"),
        (7, "sandboxes.commands[0].once"),
        (7, "sandboxes.commands[0].timeout"),
        (7, "sandboxes.commands[0].exec"),
        (8, "sandboxes.commands[1]"),
    ]
    text = str(caught.value)
    assert "did you mean `version`?" in text
    assert "did you mean `hostname`?" in text
    assert f"{file}:8: sandboxes.commands[1]: `exec` is missing (every command needs it)" in text


@pytest.mark.parametrize(
    "data", [None, 1, "x", [], [{}], {}, {"metadata": None}, {"metadata": []}, {1: 2}, {"metadata": {}}]
)
def test_no_configuration_at_all(data: Any) -> None:
    config, problems = checked(data)
    assert config is None
    assert problems


def test_keys_of_the_author_are_left_alone(build: Build) -> None:
    raw = {"$schema": "x", "x-mine": [1], "metadata": {"uid": "u", "api": "t", "x-y": None}}
    assert build(raw=raw).api == "t"


def test_two_spellings_of_one_key_are_one_too_many(problems: Problems) -> None:
    (said,) = problems({}, single=True, once=True)
    assert "`once` and `single` are the same key: keep one" in said


@pytest.mark.parametrize(
    ("given", "read"),
    [(3, 3), (3.0, 3), ("3", 3), ("0x1f", 31), ("0b11", 3), ("0o17", 15), ("017", 15), ("0d9", 9),
     ("1_0", 10), ("+3", 3), ("0", 0), (0, 0)],
)  # fmt: skip
def test_whole_numbers(build: Build, given: Any, read: int) -> None:
    assert build({}, timeout=given).commands[0].timeout == read


NOT_WHOLE = [2.5, "x", "", "2.5", "5m", True, None, [], {}, -1, "-1", 1e300, "9" * 50, "٣"]


@pytest.mark.parametrize("given", NOT_WHOLE)
def test_no_whole_numbers(problems: Problems, given: Any) -> None:
    (said,) = problems({}, timeout=given)
    assert "timeout" in said
    assert ("write the number alone; times are in seconds" in said) == (given == "5m")


@pytest.mark.parametrize("given", [1, 0, "true", "yes", None, []])
def test_only_true_and_false_are_true_and_false(problems: Problems, given: Any) -> None:
    (said,) = problems({}, single=given)
    assert "must be true or false" in said


@pytest.mark.parametrize("given", [1, 1.5, True, None, [], {}])
def test_text_comes_from_text_only(problems: Problems, given: Any) -> None:
    (said,) = problems({}, info=given)
    assert "must be text" in said


@pytest.mark.parametrize("given", ["a\0b", "a\ud800b"])
def test_text_is_clean(problems: Problems, given: str) -> None:
    (said,) = problems({}, info=given)
    assert "NUL" in said or "Unicode" in said


def test_words_are_compared_without_case(build: Build, problems: Problems) -> None:
    assert "net" in build({"namespace": {"shares": {"net": "DISABLE"}}}).sandboxes[0].namespaces
    (said,) = problems({"namespace": {"shares": {"net": "disabled"}}})
    assert "did you mean `disable`?" in said


@pytest.mark.parametrize(
    ("section", "value"),
    [("envs", {"name": "A"}), ("caps", []), ("commands", [])],
)
def test_a_list_or_one_of_it(build: Build, section: str, value: Any) -> None:
    assert build({section: value}).sandboxes


def test_the_key_of_a_single_object_has_no_index(problems: Problems) -> None:
    (said,) = problems({"envs": {"nam": "A", "name": "B"}})
    assert "sandboxes.envs.nam:" in said


def test_true_and_false_are_told_as_files_spell_them(problems: Problems) -> None:
    (said,) = problems({"namespace": {"shares": {"net": False}}})
    assert said.endswith("must be one of default, disable, enable, not false")


@pytest.mark.parametrize(
    ("key", "form"),
    [
        ("envs", "(write {name: NAME, value: TEXT})"),
        ("caps", "(write {cap: NAME, mode: set})"),
        ("acls", "(write {user: NAME})"),
        ("commands", "(write {uid: NAME, exec: {cmdpath: /PATH}})"),
    ],
)
@pytest.mark.parametrize("value", [3, "x", None, [["x"]]])
def test_a_section_of_the_wrong_type_is_told_its_form(
    key: str, form: str, value: Any, problems: Problems
) -> None:
    assert any(form in said for said in problems({key: value}))


def test_a_command_line_as_exec_is_told_its_form(problems: Problems) -> None:
    (said,) = problems(exec="/bin/true")
    assert said.endswith("must be an object, not '/bin/true' (write {cmdpath: /PATH, args: [TEXT]})")


@pytest.mark.parametrize(
    ("sandbox", "said"),
    [
        ({"acls": "user:daemon"}, "not 'user:daemon' (write `user: daemon`, with a space)"),
        ({"acls": {"user:daemon": None}}, "unknown key in acls (write `user: daemon`, with a space)"),
        ({"acls": "root:daemon"}, "must be an object, not 'root:daemon' (write {user: NAME})"),
        ({"umask": "027"}, "unknown key in sandbox (it is a key of acls)"),
        ({"timeout": 3}, "unknown key in sandbox (it is a key of acls or command)"),
        ({"acls": {"umask": None}}, "must be text, not null (leave the key out)"),
    ],
)
def test_hints(problems: Problems, sandbox: dict[str, Any], said: str) -> None:
    (problem,) = problems(sandbox)
    assert said in problem


def test_what_is_built_is_not_in_the_tables_of_what_is_not() -> None:
    parts = {part.__name__: part for part in Part.__subclasses__()}
    for table in (LATER, MISPLACED):
        for name, keys in table.items():
            fields = set(parts[name].__struct_fields__)
            assert not fields & keys.keys(), name
