"""Numbered checks of the verbs that need no process: from a configuration to what is started or answered."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from initspawn.config.compile import compile_raw
from initspawn.errors import STATUS_CODES, ConfigError
from initspawn.plan import Plan
from initspawn.verbs.access import Identity
from initspawn.verbs.answer import Answer
from initspawn.verbs.registry import Registry
from tests.unit.verbs.conftest import LOCAL, Client, FakeSupervisor

TRUE = {"uid": "c", "exec": {"cmdpath": "/bin/true"}}
INVALID = "invalid-request"


class Api:
    """One configuration served by a supervisor that starts nothing. `sandboxes`: None leaves the key out."""

    def __init__(self, sandboxes: Any, identity: Identity = LOCAL, **root: Any) -> None:
        metadata = {"uid": "u", "api": "t", **root.pop("metadata", {})}
        raw = {"metadata": metadata, **({} if sandboxes is None else {"sandboxes": sandboxes}), **root}
        api = compile_raw(raw, file="test", user=1000, group=1000, environ={"HOME": "/h"})
        self.supervisor = FakeSupervisor(Plan(user=1000, group=1000, apis=(api,)))
        self.registry = Registry(self.supervisor)  # type: ignore[arg-type]
        self.client = Client(self.registry, identity)
        self.call = self.client.call

    def verbs(self) -> list[str]:
        """What `info` lists."""
        answer = self.call("t/info")
        assert answer is not None
        return [verb["verb"] for group in answer.response["groups"] for verb in group["verbs"]]

    def starts(self, query: Any = None) -> tuple[str, ...]:
        """The arguments that a call of t/c starts its command with."""
        assert self.call("t/c", query) is None, "refused"
        return tuple(self.supervisor.every[-1].argv[1:])

    def refuses(self, query: Any = None) -> str:
        """What a call of t/c is refused with, when nothing is started."""
        answer = self.call("t/c", query)
        assert answer is not None
        assert answer.status == INVALID
        assert self.supervisor.every == []
        return answer.info or ""


def with_args(args: Any, **keys: Any) -> Api:
    """t/c with these arguments."""
    command = {"uid": "c", "exec": {"cmdpath": "/bin/true", "args": args}, **keys}
    return Api({"uid": "sb", "commands": command})


# Verb names.


def named(sandboxes: Any, *verbs: str) -> None:
    """These sandboxes give these verbs, and each can be called."""
    api = Api(sandboxes)
    assert api.verbs() == list(verbs)
    for verb in verbs:
        assert api.call(f"t/{verb}") is None
    assert [task.command.verb for task in api.supervisor.every] == list(verbs)


def test_check_025_one_sandbox_without_prefix() -> None:
    named({"uid": "s", "commands": TRUE}, "c")


def test_check_026_a_list_of_one_sandbox() -> None:
    named([{"uid": "s", "commands": TRUE}], "c")


def test_check_027_two_sandboxes() -> None:
    named([{"uid": "s", "commands": TRUE}, {"uid": "s2", "commands": TRUE}], "s/c", "s2/c")


def test_check_028_prefix() -> None:
    named({"uid": "s", "prefix": "admin", "commands": TRUE}, "admin/c")


def test_check_029_empty_prefix() -> None:
    named({"uid": "s", "prefix": "", "commands": TRUE}, "c")


def test_check_030_prefix_of_two_parts() -> None:
    named({"uid": "s", "prefix": "a/b", "commands": TRUE}, "a/b/c")


def test_check_031_unknown_verb() -> None:
    assert Api({"uid": "s", "commands": TRUE}).call("t/C") == Answer(status="unknown-verb")
    assert STATUS_CODES["unknown-verb"] == -4


def test_check_032_unknown_api() -> None:
    assert Api({"uid": "s", "commands": TRUE}).call("nope/x") == Answer(status="unknown-api")
    assert STATUS_CODES["unknown-api"] == -3


# Built-in verbs.


def test_check_008_info_without_sandboxes() -> None:
    answer = Api(None).call("t/info")
    assert answer is not None
    assert answer.response == {"groups": [], "metadata": {"uid": "u"}}


def test_check_020_info_shows_samples() -> None:
    answer = Api({"uid": "sb", "commands": {**TRUE, "samples": [{}]}}).call("t/info")
    assert answer is not None
    (verb,) = answer.response["groups"][0]["verbs"]
    assert verb["sample"] == [{}]
    assert "samples" not in verb


@pytest.mark.parametrize(
    ("keys", "told"), [({}, None), ({"stdin": True}, "pipe"), ({"terminal": {"rows": 1}}, "terminal")]
)
def test_info_shows_what_reads_input(keys: dict[str, Any], told: str | None) -> None:
    answer = Api({"uid": "sb", "commands": {**TRUE, **keys}}).call("t/info")
    assert answer is not None
    (verb,) = answer.response["groups"][0]["verbs"]
    assert verb.get("input") == told


def test_check_033_ping_counts() -> None:
    api = Api([])
    assert [api.call("t/ping", query) for query in (None, {"any": 1})] == [
        Answer(response="pong=1"),
        Answer(response="pong=2"),
    ]


def test_check_034_info_in_full() -> None:
    metadata = {"version": "1.0", "info": "about", "author": "me", "date": "2026-11-21"}
    command = {**TRUE, "info": "does", "usage": {"x": "y"}, "sample": [{"args": {}}]}
    api = Api({"uid": "sb", "info": "box", "commands": command}, metadata=metadata)
    usage = {"action": ["start", "stop"], "args": {"x": "y"}}
    verb = {"uid": "c", "verb": "c", "info": "does", "sample": [{"args": {}}], "usage": usage}
    assert api.call("t/info") == Answer(
        response={
            "groups": [{"uid": "sb", "info": "box", "verbs": [verb]}],
            "metadata": {"uid": "u", "info": "about", "version": "1.0", "author": "me"},
        }
    )


def test_check_035_info_without_usage() -> None:
    answer = Api({"uid": "sb", "commands": TRUE}).call("t/info")
    assert answer is not None
    (verb,) = answer.response["groups"][0]["verbs"]
    assert verb == {"uid": "c", "verb": "c", "usage": {"action": ["start", "stop"]}}


# Arguments.


def test_check_070_argument() -> None:
    assert with_args("%a%").starts({"args": {"a": "A"}}) == ("A",)


@pytest.mark.parametrize("query", [{"a": "A"}, {"action": "start", "a": "A"}])
def test_check_071_argument_without_args(query: Any) -> None:
    assert with_args("%a%").starts(query) == ("A",)


def test_check_072_missing_argument() -> None:
    assert with_args("%a%").refuses({"args": {}}) == "argument `a` is missing"


@pytest.mark.parametrize("query", [{}, None, {"action": "start"}, {"args": None}, "text", [1], True])
def test_check_073_missing_argument_without_args(query: Any) -> None:
    assert with_args("%a%").refuses(query) == "argument `a` is missing"


@pytest.mark.parametrize("query", [None, {"args": {}}, {"args": {"a": 1}}, "text"])
def test_check_074_missing_optional_argument(query: Any) -> None:
    assert with_args(["x", "?b?", "y"]).starts(query) == ("x", "", "y")


@pytest.mark.parametrize("query", [None, {}, {"args": {}}, {"args": {"a": 1}}])
def test_check_075_doubled_marks(query: Any) -> None:
    assert with_args(["%%", "??", "100%%"]).starts(query) == ("%", "?", "100%")


@pytest.mark.parametrize("query", [{"args": {"z": 1}}, {}, {"z": "Z"}])
def test_check_076_mark_within_a_mark(query: Any) -> None:
    assert with_args("u?y=%a%?z").starts(query) == ("uz",)


def test_check_077_nested_value() -> None:
    assert with_args("%a%").starts({"args": {"a": {"x": [1, 2]}}}) == ('{"x": [1, 2]}',)


@pytest.mark.parametrize(
    ("value", "item"), [(True, "true"), (False, "false"), (12, "12"), (1.5, "1.5"), (1e30, "1e+30"), ("", "")]
)
def test_check_078_values_that_are_no_text(value: Any, item: str) -> None:
    assert with_args("%a%").starts({"args": {"a": value}}) == (item,)


def test_check_079_null_is_missing() -> None:
    assert with_args("%a%").refuses({"args": {"a": None}}) == "argument `a` is missing"
    assert with_args("?a?").starts({"args": {"a": None}}) == ("",)


def test_check_081_case_of_keys() -> None:
    assert with_args("%a%").refuses({"args": {"A": 1}}) == "argument `a` is missing; given: 'A'"


def test_check_082_keys_are_no_paths() -> None:
    assert with_args("%a.b%").refuses({"args": {"a": {"b": 1}}}) == "argument `a.b` is missing; given: 'a'"
    assert with_args("%a.b%").starts({"args": {"a.b": 1}}) == ("1",)


def test_surplus_arguments_are_not_used() -> None:
    assert with_args("%a%").starts({"args": {"a": "A", "more": "M", "c": None}}) == ("A",)
    assert with_args("x").starts({"more": "M"}) == ("x",)


def test_an_open_mark_is_plain_text() -> None:
    assert with_args(["http://h/x?y=1", "50%"]).starts({"args": {"y=1": "no"}}) == ("http://h/x?y=1", "50%")


@pytest.mark.parametrize(
    ("args", "keys", "items"),
    [
        (["%a%"], {}, None),
        (["-x", "%a%"], {}, None),
        (["--", "%a%"], {}, ("--", "-rf")),
        (["--x=%a%"], {}, ("--x=-rf",)),
        (["%a%"], {"dash": "allow"}, ("-rf",)),
        (["%a%"], {"dash": "refuse"}, None),
        (["--", "%a%"], {"dash": "refuse"}, ("--", "-rf")),
    ],
)
def test_where_a_value_may_begin_with_a_dash(args: Any, keys: Any, items: tuple[str, ...] | None) -> None:
    api = with_args(args, **keys)
    if items is None:
        assert api.refuses({"a": "-rf"}) == "argument `a` may not begin with '-'"
    else:
        assert api.starts({"a": "-rf"}) == items


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["-x", "%a%"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
)


@given(
    # A letter and a sign between two percent signs is taken for a date and refused when the file is read.
    st.lists(
        st.text("%?abx=").map(lambda text: f"- {text} -")
        | st.text("%?abx=")
        | st.sampled_from(["%a%", "?b?", "--", "%%"]),
        max_size=5,
    ),
    st.sampled_from(["allow", "refuse"]),
    json_values,
)
def test_as_many_items_as_the_configuration_has(args: list[str], dash: str, query: Any) -> None:
    """From the file to the argv: one item each, or nothing is started."""
    try:
        api = with_args(args, dash=dash)
    except ConfigError:  # `%a-%` was hardly meant so
        reject()
    answer = api.call("t/c", query)
    if answer is None:
        assert len(api.supervisor.every[0].argv) == 1 + len(args)
    else:
        assert answer.status == INVALID or (answer.response == [] and query["action"] != "start")
        assert api.supervisor.every == []


# Queries.


def test_check_088_invalid_action() -> None:
    assert Api({"uid": "s", "commands": TRUE}).refuses({"action": "foo"}) == "invalid action"


def test_check_089_action_in_any_case() -> None:
    assert Api({"uid": "s", "commands": TRUE}).starts({"action": "START"}) == ()


@pytest.mark.parametrize(
    ("query", "level"), [({"verbose": 3}, 3), ({"verbose": 0}, 0), ({"verbose": 7}, None), ({}, None)]
)
def test_check_090_verbosity_of_a_query(query: Any, level: int | None) -> None:
    """None: what the command says."""
    api = Api({"uid": "s", "commands": TRUE})
    api.starts(query)
    assert api.supervisor.every[0].verbose == level


@pytest.mark.parametrize(
    ("sandbox", "command", "level"),
    [({}, {}, 0), ({"verbose": 2}, {}, 2), ({"verbose": 2}, {"verbose": 0}, 0)],
)
def test_a_commands_verbosity_is_its_own_else_the_sandboxes(sandbox: Any, command: Any, level: int) -> None:
    api = Api({"uid": "s", "commands": {**TRUE, **command}, **sandbox})
    assert api.registry.apis["t"].commands[0].verbose == level


# Control.


def test_check_093_stop_when_nothing_runs() -> None:
    assert Api({"uid": "s", "commands": TRUE}).call("t/c", {"action": "stop"}) == Answer(response=[])


def test_check_094_invalid_stops() -> None:
    api = Api({"uid": "s", "commands": TRUE})
    assert api.call("t/c", {"action": "stop", "args": {}}) == Answer(status=INVALID)
    assert api.call("t/c", {"action": "stop", "args": {"pid": 1}}) == Answer(
        status=INVALID, info="invalid pid"
    )


def test_check_095_invalid_signal() -> None:
    api = Api({"uid": "s", "commands": TRUE})
    answer = api.call("t/c", {"action": "stop", "args": {"signal": "sigfoo"}})
    assert answer is not None
    assert answer.status == INVALID


# Others.


def test_check_139_the_list_of_apis() -> None:
    answer = Api([]).call("monitor/get", {"apis": True})
    assert answer is not None
    assert "t" in answer.response["apis"]


@pytest.mark.parametrize("keys", [({"privilege": "urn:p"}, {}), ({}, {"privilege": "urn:p"})])
@pytest.mark.parametrize("action", ["start", "stop", "subscribe", "unsubscribe"])
def test_check_140_a_privilege_that_is_not_held(keys: Any, action: str) -> None:
    sandbox, command = keys
    scopes = frozenset(("start", "stop", "output", "urn:other"))
    api = Api(
        {"uid": "s", "commands": {**TRUE, **command}, **sandbox},
        identity=Identity(kind="token", scopes=scopes),
    )
    answer = api.call("t/c", {"action": action})
    assert answer == Answer(status="insufficient-scope")
    assert STATUS_CODES["insufficient-scope"] == -9
    assert api.supervisor.every == []
