"""A request's arguments in an argument template: what becomes an argv item, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initspawn.errors import RequestError
from initspawn.limits import ARGUMENT_BYTES
from initspawn.plan import OPTIONAL, REQUIRED, TEXT, Command
from initspawn.sandbox.bind import bind

A = (REQUIRED, "a")
B = (OPTIONAL, "b")


def command(*arguments: tuple[tuple[str, str], ...]) -> Command:
    return Command(uid="c", verb="c", sandbox="s", path="/bin/c", arguments=arguments)


def bound(template: tuple[tuple[str, str], ...], arguments: Any) -> str:
    path, item = bind(command(template), arguments)
    assert path == "/bin/c"
    return item


def refused(template: tuple[tuple[str, str], ...], arguments: Any) -> str:
    with pytest.raises(RequestError) as caught:
        bind(command(template), arguments)
    assert caught.value.status == "invalid-request"
    return caught.value.info


@pytest.mark.parametrize(
    ("template", "arguments", "item"),
    [
        ((A,), {"a": "A"}, "A"),
        ((A,), {"a": "A", "more": 1}, "A"),
        ((A, A), {"a": "A"}, "AA"),
        (((TEXT, "--mode="), (OPTIONAL, "mode")), {"mode": "x"}, "--mode=x"),
        (((TEXT, "--mode="), (OPTIONAL, "mode")), {}, "--mode="),
        ((B,), {}, ""),
        ((B,), {"b": ""}, ""),
        ((B, A), {"a": "A", "b": "B"}, "BA"),
        (((TEXT, "u"), (OPTIONAL, "y=%a%"), (TEXT, "z")), {"z": 1}, "uz"),
        (((REQUIRED, "a.b"),), {"a.b": "flat"}, "flat"),
        (((REQUIRED, "a?"),), {"a?": "x"}, "x"),
        ((), {"a": "A"}, ""),
        # Nothing is expanded twice, and nothing is text for a shell.
        ((A,), {"a": "%a%?b?$HOME`id`; rm -rf / \n'\""}, "%a%?b?$HOME`id`; rm -rf / \n'\""),
        ((A,), {"a": "x" * 5000}, "x" * 5000),
        ((A,), {"a": "é€𐍈"}, "é€𐍈"),
    ],
)
def test_items(template: tuple[tuple[str, str], ...], arguments: Any, item: str) -> None:
    assert bound(template, arguments) == item


@pytest.mark.parametrize(
    ("value", "item"),
    [
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (12, "12"),
        (1.5, "1.5"),
        (1e30, "1e+30"),
        ([], "[]"),
        ({"x": [1, 2]}, '{"x": [1, 2]}'),
        (["é", None], '["é", null]'),
        ("", ""),
    ],
)
def test_values_that_are_no_text(value: Any, item: str) -> None:
    assert bound(((TEXT, "="), A), {"a": value}) == "=" + item


@pytest.mark.parametrize("arguments", [None, {}, {"a": None}, {"A": 1}, {"b": 1}, [], ["a"], "a", 5, True])
def test_missing(arguments: Any) -> None:
    said = refused((A,), arguments)
    assert said.partition("; given: ")[0] == "argument `a` is missing"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"a": None}, ""),
        ("a", ""),
        ({"A": 1, "b\n": 2}, "'A', 'b\\n'"),
        ({"x" * 99: 1}, repr("x" * 32)),
        ({str(n): n for n in range(9)}, "'0', '1', '2', '3', '4', '5', '6', '7', ..."),
    ],
)
def test_what_was_given_instead_is_told(arguments: Any, named: str) -> None:
    assert refused((A,), arguments).partition("; given: ")[2] == named


@pytest.mark.parametrize("arguments", [None, {}, {"b": None}, {"B": 1}, [], "b", 5, True])
def test_optional(arguments: Any) -> None:
    assert bind(command((B,), ((TEXT, "x"),)), arguments) == ("/bin/c", "", "x")


def test_keys_are_no_paths() -> None:
    assert refused(((REQUIRED, "a.b"),), {"a": {"b": 1}}) == "argument `a.b` is missing; given: 'a'"


@pytest.mark.parametrize("template", [(A,), ((TEXT, "--x="), A)])
def test_nul(template: tuple[tuple[str, str], ...]) -> None:
    assert "NUL" in refused(template, {"a": "x\0y"})


def test_nul_in_a_key_of_an_object_is_escaped() -> None:
    assert bound(((TEXT, "="), A), {"a": {"\0": 1}}) == '={"\\u0000": 1}'


@pytest.mark.parametrize("text", ["a", "é", "€"])
def test_too_long(text: str) -> None:
    longest = (ARGUMENT_BYTES - 1) // len(text.encode())
    assert bound((A,), {"a": text * longest}) == text * longest
    assert f"longer than {ARGUMENT_BYTES - 1} bytes" in refused((A,), {"a": text * (longest + 1)})


def test_the_item_counts_not_the_value() -> None:
    half = "x" * (ARGUMENT_BYTES // 2)
    assert "longer than" in refused((A, A), {"a": half})


@pytest.mark.parametrize("value", ["-", "-rf", "--output=/etc/passwd", -1, -1.5])
@pytest.mark.parametrize("kind", [REQUIRED, OPTIONAL])
def test_a_value_becomes_no_option(kind: str, value: Any) -> None:
    assert refused(((kind, "a"),), {"a": value}) == "argument `a` may not begin with '-'"


@pytest.mark.parametrize(
    ("template", "item"), [(((TEXT, "--x="), A), "--x=-1"), (((TEXT, "-"), A), "--1"), ((B, A), "x-1")]
)
def test_a_dash_behind_something_is_harmless(template: tuple[tuple[str, str], ...], item: str) -> None:
    assert bound(template, {"a": "-1", "b": "x"}) == item


@pytest.mark.parametrize("arguments", [{"a": "-rf"}, {"a": "-rf", "b": ""}])
def test_a_dash_behind_nothing_is_no_less_an_option(arguments: dict[str, str]) -> None:
    """An empty optional part does not make the next value harmless."""
    assert refused((B, A), arguments) == "argument `a` may not begin with '-'"
    assert refused(((TEXT, ""), A), arguments) == "argument `a` may not begin with '-'"


def test_a_dash_behind_the_end_of_options_is_no_option() -> None:
    made = command(((TEXT, "--"),), (A,), (A,))
    assert bind(made, {"a": "-rf"}) == (made.path, "--", "-rf", "-rf")
    late = command((A,), ((TEXT, "--"),))
    with pytest.raises(RequestError, match="may not begin"):
        bind(late, {"a": "-rf"})


def test_lone_surrogates() -> None:
    assert refused((A,), {"a": "\ud800"}) == "argument `a` is not valid Unicode"
    assert refused((A,), {"a": "\udcff"}) == "argument `a` is not valid Unicode"


def test_the_template_is_not_checked_as_a_value() -> None:
    assert bound(((TEXT, "-x\udcff"),), None) == "-x\udcff"


names = st.sampled_from(["a", "b", "c"])
parts = st.tuples(st.just(TEXT), st.text("xy-=%? /", max_size=4)) | st.tuples(
    st.sampled_from([REQUIRED, OPTIONAL]), names
)
templates = st.lists(st.lists(parts, max_size=4).map(tuple), max_size=6)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.just("-x"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(templates, st.dictionaries(names, json_values) | json_values)
def test_one_item_per_template_or_none_at_all(
    arguments: list[tuple[tuple[str, str], ...]], values: Any
) -> None:
    refusal = None
    try:
        argv = bind(command(*arguments), values)
    except RequestError as error:
        refusal = error
    if refusal is not None:
        assert refusal.status == "invalid-request"
        assert refusal.info
        return
    assert len(argv) == len(arguments) + 1
    assert argv[0] == "/bin/c"
    behind = False
    for template, item in zip(arguments, argv[1:], strict=True):
        assert "\0" not in item
        given = values if isinstance(values, dict) else {}
        texts = [text if kind == TEXT else _text(given.get(text)) for kind, text in template]
        assert item == "".join(texts)
        if item.startswith("-") and not behind:
            first = next(kind for (kind, _), text in zip(template, texts, strict=True) if text)
            assert first == TEXT
        behind = behind or template == ((TEXT, "--"),)


def _text(value: Any) -> str:
    """What a value must look like, told another way."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@pytest.mark.parametrize(
    ("name", "hinted"),
    [("a", False), ("a-b.c_1", False), ("\u00e9t\u00e9", False), (" of 80", True), ("", True)],
)
def test_what_is_hardly_a_name_is_told_how_to_write_a_percent_sign(name: str, hinted: bool) -> None:
    said = refused(((REQUIRED, name),), {})
    assert said.startswith(f"argument `{name}` is missing")
    assert said.endswith("`%%` is a plain percent sign)") == hinted
