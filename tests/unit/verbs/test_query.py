"""What a query means: each row of the protocol's tables, and some between the rows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initspawn.errors import RequestError
from initspawn.verbs.query import (
    ACTIONS,
    Control,
    Feed,
    blend,
    parse,
    parse_control,
    parse_input,
    parse_resize,
)

ARGS = {"a": 1}


@pytest.mark.parametrize(
    ("query", "action", "arguments"),
    [
        ({}, "start", None),
        ({"action": "start"}, "start", None),
        ({"args": ARGS}, "start", ARGS),
        ({"args": None}, "start", None),
        ({"args": "text"}, "start", "text"),
        ({"filename": "x"}, "start", ...),
        ({"action": "start", "filename": "x"}, "start", ...),
        ({"action": 1, "a": "A"}, "start", ...),
        ({"action": 1}, "start", ...),
        ({"action": None}, "start", ...),
        ({"args": ARGS, "verbose": "x"}, "start", ...),
        ({"args": ARGS, "verbose": 1.5}, "start", ...),
        ({"args": ARGS, "verbose": "3"}, "start", ARGS),
        ({"args": ARGS, "verbose": 3.0}, "start", ARGS),
        ({"args": ARGS, "verbose": True}, "start", ...),
        ({"args": ARGS, "verbose": 3}, "start", ARGS),
        ({"args": ARGS, "verbose": 7}, "start", ARGS),
        ({"args": ARGS, "verbose": None}, "start", ARGS),
        ({"action": "stop"}, "stop", None),
        ({"action": "stop", "foo": 1}, "stop", ...),
        ({"action": "STOP", "args": ARGS, "verbose": []}, "stop", ...),
        ({"Action": "stop"}, "start", ...),
        ("text", "start", ...),
        ("null", "start", ...),
        ('{"action":"start"', "start", ...),
        (True, "start", ...),
        ([1, 2], "start", ...),
        (5, "start", ...),
        (None, "start", None),
    ],
)
def test_queries(query: Any, action: str, arguments: Any) -> None:
    """`...`: the query as a whole."""
    assert parse(query)[:2] == (action, query if arguments is ... else arguments)


@pytest.mark.parametrize(
    ("query", "level"),
    [
        ({}, None),
        ({"verbose": 0}, 0),
        ({"verbose": 4, "args": ARGS}, 4),
        ({"verbose": 3.0}, 3),
        ({"verbose": "2"}, 2),
        ({"verbose": 5}, None),
        ({"verbose": 7}, None),
        ({"verbose": -1}, None),
        ({"verbose": True}, None),
        ({"verbose": "x"}, None),
        ({"verbose": [3]}, None),
        ({"verbose": 3, "filename": "x"}, 3),
        ({"action": 1, "verbose": 3}, None),
        ("verbose", None),
        (None, None),
    ],
)
def test_verbosity(query: Any, level: int | None) -> None:
    """What could be read stays in force, like the action; a number that is no level means nothing."""
    assert parse(query)[2] == level


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("how", [str.lower, str.upper, str.title])
def test_actions_in_any_case(action: str, how: Any) -> None:
    assert parse({"action": how(action), "args": ARGS}) == (action, ARGS, None)


@pytest.mark.parametrize("action", ["foo", "", "start ", "stop\0"])
@pytest.mark.parametrize("more", [{}, {"filename": "x"}])
def test_unknown_actions(action: str, more: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as caught:
        parse({"action": action, **more})
    assert (caught.value.status, caught.value.info) == ("invalid-request", "invalid action")


# Stop, subscribe, unsubscribe.


@pytest.mark.parametrize(
    ("arguments", "pid", "signal"),
    [
        (None, None, None),
        ({"pid": 12}, 12, None),
        ({"pid": "12"}, 12, None),
        ({"pid": 12.0}, 12, None),
        ({"pid": "0xc"}, 12, None),
        ({"pid": 12, "signal": 15}, 12, 15),
        ({"pid": 12, "signal": None}, 12, None),
        ({"pid": None, "signal": 9}, None, 9),
        ({"signal": "SIGTERM"}, None, 15),
        ({"signal": "sigterm"}, None, 15),
        ({"signal": "SigInt"}, None, 2),
        ({"signal": "SIGKILL"}, None, 9),
        ({"signal": "SIGUSR1"}, None, 10),
        ({"signal": "SIGUSR2"}, None, 12),
        ({"signal": 0}, None, 0),
        ({"signal": 64}, None, 64),
        ({"pid": 0, "signal": 2}, None, 2),
        ({"pid": "0", "signal": 2}, None, 2),
    ],
)
def test_control(arguments: Any, pid: int | None, signal: int | None) -> None:
    assert parse_control(arguments) == Control(pid=pid, signal=signal)


@pytest.mark.parametrize("given", [3, 3.0, "3", "0x3"])
def test_control_from_an_event_on(given: Any) -> None:
    assert parse_control({"pid": 7, "from": given}) == Control(pid=7, first=3)
    assert parse_control({"pid": 7, "from": None}) == Control(pid=7)
    assert parse_control({"queued": given}) == Control(ticket=3)


@pytest.mark.parametrize(
    ("arguments", "info"),
    [
        ({}, ""),
        ({"pid": 0}, ""),
        ({"pid": "0"}, ""),
        ({"pid": None}, ""),
        ({"signal": None}, ""),
        ({"pid": 0, "signal": None}, ""),
        ({"pid": 1, "more": 2}, ""),
        ({"PID": 1}, ""),
        ([], ""),
        ([1], ""),
        ("12", ""),
        (12, ""),
        (True, ""),
        ({"pid": -1}, "invalid pid"),
        ({"pid": "x"}, "invalid pid"),
        ({"pid": ""}, "invalid pid"),
        ({"pid": "-1"}, "invalid pid"),
        ({"pid": " 1"}, "invalid pid"),
        ({"pid": "1" * 20}, "invalid pid"),
        ({"pid": 1.5}, "invalid pid"),
        ({"pid": -1.0}, "invalid pid"),
        ({"pid": "٣"}, "invalid pid"),
        ({"pid": True}, "invalid pid"),
        ({"pid": [1]}, "invalid pid"),
        ({"signal": "SIGFOO"}, "invalid signal"),
        ({"signal": "TERM"}, "invalid signal"),
        ({"signal": ""}, "invalid signal"),
        ({"signal": -1}, "invalid signal"),
        ({"signal": 65}, "invalid signal"),
        ({"signal": 15.0}, "invalid signal"),
        ({"signal": True}, "invalid signal"),
        ({"pid": 1, "signal": []}, "invalid signal"),
        ({"from": 1}, ""),
        ({"queued": 0}, "`queued` is the number"),
        ({"queued": "x"}, "`queued` is the number"),
        ({"queued": 1, "pid": 1}, "`queued` is the number"),
        ({"signal": 2, "from": 1}, "`from` takes a `pid`"),
        ({"pid": 1, "signal": 2, "from": 1}, "`from` takes a `pid`"),
        ({"pid": 1, "from": 0}, "invalid from"),
        ({"pid": 1, "from": -1}, "invalid from"),
        ({"pid": 1, "from": "last"}, "invalid from"),
        ({"pid": 1, "from": True}, "invalid from"),
    ],
)
def test_invalid_control(arguments: Any, info: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_control(arguments)
    assert caught.value.status == "invalid-request"
    assert caught.value.info.startswith(info)
    assert bool(caught.value.info) == bool(info)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(ACTIONS),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["action", "args", "verbose", "pid", "signal", "from"]) | st.text(),
            inner,
            max_size=3,
        )
    ),
)


@given(values)
def test_whatever_is_sent_is_understood_or_refused(value: Any) -> None:
    try:
        action, _, level = parse(value)
        assert action in ACTIONS
        assert level is None or 0 <= level <= 4
    except RequestError:
        pass
    try:
        control = parse_control(value)
    except RequestError:
        return
    assert control.pid is None or control.pid > 0
    try:
        assert parse_input(value).pid > 0
    except RequestError:
        pass
    assert control.signal is None or 0 <= control.signal <= 64
    assert control.first is None or (control.first > 0 and control.pid)


# Input.


@pytest.mark.parametrize(
    ("arguments", "feed"),
    [
        ({"pid": 7}, Feed(pid=7)),
        ({"pid": "0x7", "data": "é\n"}, Feed(pid=7, data="é\n".encode())),
        ({"pid": 7, "base64": "AP8K"}, Feed(pid=7, data=b"\0\xff\n")),
        ({"pid": 7, "eof": True}, Feed(pid=7, end=True)),
        ({"pid": 7, "attach": True}, Feed(pid=7, attach=True)),
        ({"pid": 7, "data": "x", "base64": "", "detach": True}, Feed(pid=7, data=b"x", detach=True)),
    ],
)
def test_input(arguments: Any, feed: Feed) -> None:
    assert parse_input(arguments) == feed


@pytest.mark.parametrize(
    ("arguments", "info"),
    [
        (None, "write {pid"),
        ([], "write {pid"),
        ({"pid": 7, "text": ""}, "write {pid"),
        ({}, "invalid pid"),
        ({"pid": 0}, "invalid pid"),
        ({"pid": True}, "invalid pid"),
        ({"pid": 7, "eof": 1}, "`eof`, `attach` and `detach`"),
        ({"pid": 7, "attach": "x"}, "`eof`, `attach` and `detach`"),
        ({"pid": 7, "detach": None}, "`eof`, `attach` and `detach`"),
        ({"pid": 7, "data": 5}, "`data` is a text"),
        ({"pid": 7, "base64": None}, "`data` is a text"),
        ({"pid": 7, "data": "x", "base64": "eA=="}, "`data` is a text"),
        ({"pid": 7, "data": "\ud800"}, "`data` is no text"),
        ({"pid": 7, "base64": "eA"}, "`base64` is not base64"),
        ({"pid": 7, "base64": "é"}, "`base64` is not base64"),
        ({"pid": 7, "base64": "eA==\n"}, "`base64` is not base64"),
    ],
)
def test_invalid_input(arguments: Any, info: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_input(arguments)
    assert caught.value.status == "invalid-request"
    assert caught.value.info.startswith(info)


@pytest.mark.parametrize(
    ("arguments", "info"),
    [
        (None, "write {pid"),
        ({"pid": 7, "rows": 24}, "write {pid"),
        ({"pid": 7, "rows": 24, "columns": 80, "data": ""}, "write {pid"),
        ({"pid": 0, "rows": 24, "columns": 80}, "invalid pid"),
        ({"pid": 7, "rows": 0, "columns": 80}, "`rows` and `columns`"),
        ({"pid": 7, "rows": 24, "columns": 32768}, "`rows` and `columns`"),
        ({"pid": 7, "rows": 24, "columns": None}, "`rows` and `columns`"),
        ({"pid": 7, "rows": True, "columns": 80}, "`rows` and `columns`"),
    ],
)
def test_invalid_sizes(arguments: Any, info: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_resize(arguments)
    assert caught.value.status == "invalid-request"
    assert caught.value.info.startswith(info)


def test_sizes() -> None:
    assert parse_resize({"pid": "0x7", "rows": 1, "columns": 32767}) == (7, 1, 32767)


# Two queries in one.


@pytest.mark.parametrize(
    ("own", "given", "blended"),
    [
        (None, None, ("start", None, None)),
        (None, {"a": 1}, ("start", {"a": 1}, None)),
        ({}, {"a": 1}, ("start", {"a": 1}, None)),
        ({"args": {"z": "E"}}, {}, ("start", {"z": "E"}, None)),
        ({"args": {"z": "E"}}, {"args": {"a": 1, "z": 2}}, ("start", {"a": 1, "z": "E"}, None)),
        ({"z": "E"}, {"a": 1}, ("start", {"a": 1, "z": "E"}, None)),
        ("own", {"a": 1}, ("start", "own", None)),
        ({"z": "E"}, "given", ("start", {"z": "E"}, None)),
        ({"verbose": 1}, {"verbose": 3}, ("start", None, 1)),
        ({}, {"verbose": 3}, ("start", None, 3)),
        # The action decides whose arguments count.
        ({"args": {"z": "E"}}, {"action": "stop", "args": {"pid": 5}}, ("stop", {"pid": 5}, None)),
        ({"action": "stop"}, {"args": {"pid": 5}}, ("stop", {"pid": 5}, None)),
        ({"action": "STOP", "args": {"signal": 9}}, {"action": "stop", "args": {"pid": 5, "signal": 2}},
         ("stop", {"pid": 5, "signal": 9}, None)),
        ({"action": "stop"}, {"action": "start", "args": {"pid": 5}}, ("stop", None, None)),
        ({"action": "stop", "args": {"signal": 9}}, {"action": "start", "args": {"a": 5}},
         ("stop", {"signal": 9}, None)),
        ({"action": "start", "args": {"z": 1}}, {"action": "stop", "args": {"pid": 5}},
         ("start", {"z": 1}, None)),
    ],
)  # fmt: skip
def test_blend(own: Any, given: Any, blended: Any) -> None:
    assert blend(own, given) == blended


def test_blending_refuses_what_neither_may_say() -> None:
    for queries in (({}, {"action": "fly"}), ({"action": "fly"}, {})):
        with pytest.raises(RequestError, match="invalid action"):
            blend(*queries)
