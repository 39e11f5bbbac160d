"""The monitor API: what development pages ask, and that they may look into every answer without asking."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from initspawn.verbs.answer import Answer


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        (True, ["monitor", "t", "guarded"]),
        ("t", ["t"]),
        (["guarded", "nope", 1], ["guarded"]),
        ({"t": True, "guarded": False}, ["t"]),
        ([], []),
        (0, []),
    ],
)
def test_described_apis(client: Any, asked: Any, names: list[str]) -> None:
    apis = client.call("monitor/get", {"apis": asked}).response["apis"]
    assert list(apis) == names
    for name, api in apis.items():
        # What the development page reads, without any guard.
        assert api["info"]["title"] == name
        assert isinstance(api["info"]["version"], str)
        assert isinstance(api["info"]["description"], str)
        for path, operations in api["paths"].items():
            assert path.startswith("/")
            assert isinstance(operations["get"]["responses"]["200"]["description"], str)


def test_a_privilege_is_said(client: Any) -> None:
    paths = client.call("monitor/get", {"apis": "guarded"}).response["apis"]["guarded"]["paths"]
    assert paths["/own"]["get"]["x-permissions"] == {"permission": "urn:own"}
    assert paths["/box"]["get"]["x-permissions"] == {"permission": "urn:box"}
    assert "x-permissions" not in paths["/plain"]["get"]


@pytest.mark.parametrize(
    ("asked", "levels"),
    [
        (True, ["", "t", "guarded", "monitor"]),
        ("*", ["t", "guarded", "monitor"]),
        (["", "t"], ["", "t"]),
        ({"t": 1, "nope": 1}, ["t"]),
    ],
)
def test_verbosity(client: Any, asked: Any, levels: list[str]) -> None:
    response = client.call("monitor/get", {"verbosity": asked}).response
    assert response == {"verbosity": dict.fromkeys(levels, "notice")}


@pytest.mark.parametrize("arguments", [None, {}, [], "x", {"verbosity": False}, {"verbosity": None}])
def test_nothing_asked(client: Any, arguments: Any) -> None:
    assert client.call("monitor/get", arguments) == Answer()


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("set", {"nope": 1}),
        ("set", None),
        ("subscribe", "disconnected"),
        ("subscribe", ["disconnected", "x"]),
        ("unsubscribe", "disconnected"),
        ("trace", {"drop": True}),
        ("trace", None),
    ],
)
def test_plain_success(client: Any, verb: str, arguments: Any) -> None:
    assert client.call(f"monitor/{verb}", arguments) == Answer()


@pytest.mark.parametrize(("verb", "arguments"), [("set", {"verbosity": "debug"}), ("trace", {"add": "x"})])
def test_what_cannot_be_done_is_said(client: Any, verb: str, arguments: Any) -> None:
    assert client.call(f"monitor/{verb}", arguments).status == "not-available"


def test_session_apis_info(client: Any) -> None:
    session = client.call("monitor/session").response
    assert session == {"uuid": "S", "timeout": 32_000_000, "remain": 32_000_000}
    assert client.call("monitor/apis").response == "t guarded monitor"
    info = client.call("monitor/info").response
    assert info["$schema"] == "afb-api-info/v2"
    assert {"name": "get", "info": "lists the APIs, or describes them"} in info["verbs"]


def test_monitor_takes_the_right_to_see(connect: Callable[..., Any]) -> None:
    for verb in ("get", "set", "session", "apis", "trace", "info", "subscribe", "nope"):
        assert connect("start").call(f"monitor/{verb}").status == "insufficient-scope"


def told(client: Any) -> list[str]:
    """What a client is told when the imported API `x` goes."""
    client.log.clear()
    for tell in list(client._registry.watchers.values()):
        tell("x")
    return list(client.log)


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("subscribe", "disconnected"),
        ("subscribe", ["x", "disconnected", "disconnected"]),
        ("set", {"subscribe": "disconnected"}),
    ],
)
@pytest.mark.parametrize(
    ("off", "end"), [("unsubscribe", ["disconnected"]), ("set", {"unsubscribe": "disconnected"})]
)
def test_disconnected(client: Any, verb: str, arguments: Any, off: str, end: Any) -> None:
    assert told(client) == []
    client.call(f"monitor/{verb}", arguments)
    client.call("monitor/unsubscribe", "else")
    assert told(client) == ["x has gone"]
    client.call(f"monitor/{off}", end)
    assert told(client) == []


@pytest.mark.parametrize("arguments", [None, "else", [], 3, {"disconnected": 0}, [["disconnected"]]])
def test_who_subscribes_to_nothing(client: Any, arguments: Any) -> None:
    assert client.call("monitor/subscribe", arguments) == Answer()
    assert told(client) == []


@pytest.mark.parametrize("asked", [3, 1.5, -1])
def test_numbers_are_no_names(client: Any, asked: Any) -> None:
    answer = client.call("monitor/get", {"apis": asked, "verbosity": asked})
    assert answer == Answer(response={"apis": {}, "verbosity": {}})
