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
