"""Two servers: the one calls an API of the other, hears its events, and is told when it goes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.system.server import PATIENCE, Server, serving, wait_for, write
from tests.system.test_actions import ended, program
from tests.system.test_reload import reloaded
from tests.system.test_serve import config, shell

pytestmark = pytest.mark.needs("userns")


def place(above: Path, name: str) -> Path:
    (above / name).mkdir()
    return above / name


def lights(above: Path) -> tuple[str, ...]:
    """What serves the API `lights`."""
    made = config(
        shell("watch", "echo on; exec sleep 1000", encoder="line"), program("set", "%level%", encoder="sync")
    )
    made["metadata"]["api"] = "lights"
    return "--ws-server", f"unix:{above}/lights", write(above, "lights.json", made)


def house(above: Path, **actions: Any) -> str:
    """What imports it."""
    made = config(program("note", "?stdout?", "?data?"))
    made["metadata"]["require"] = f"unix:{above}/lights"
    return write(above, "house.json", {**made, **actions})


def imports(server: Server) -> dict[str, Any]:
    with server.local() as local:
        found: dict[str, Any] = local.call("initspawn/info").response["imports"]["lights"]
        return found


def notes(server: Server) -> list[list[str]]:
    with server.client() as client:
        return [task["argv"][1:] for task in ended(client, "note")]


def test_calls_and_events(tmp_path: Path) -> None:
    actions = {
        "onload": {"uid": "watch", "action": "api://lights#watch"},
        "events": {"uid": "lights/watch", "action": "api://test#note"},
        "extra": {"uid": "dim", "action": "api://lights#set", "args": {"level": 3}},
    }
    with (
        serving(place(tmp_path, "a"), *lights(tmp_path)),
        serving(place(tmp_path, "b"), house(tmp_path, **actions)) as server,
    ):
        wait_for(lambda: notes(server) == [["on", ""]], "the event")
        assert imports(server) == {"socket": f"{tmp_path}/lights", "connected": True, "failures": 0}
        with server.client() as client:
            assert client.call("test/dim", {"level": 9})["response"]["stdout"] == ["3"]  # `args` wins
            assert client.call("lights/set")["request"]["status"] == "unknown-api"  # it is not passed on
        with server.client(server.open_url) as nobody:
            assert nobody.call("test/dim")["request"]["status"] == "insufficient-scope"
        assert server.stop() == (0, "")


def test_it_goes_and_comes_back(tmp_path: Path) -> None:
    actions = {
        "onload": {"uid": "watch", "action": "api://lights#watch"},
        "events": [
            {"uid": "lights/*", "action": "api://test#note"},
            {"uid": "monitor/disconnected", "action": "api://test#note"},
        ],
        "extra": {"uid": "dim", "action": "api://lights#set"},
    }
    with serving(place(tmp_path, "b"), house(tmp_path, **actions)) as server, server.client() as client:
        assert not imports(server)["connected"]
        assert client.call("test/dim")["request"]["status"] == "not-available"
        client.call("monitor/subscribe", "disconnected")
        with serving(place(tmp_path, "a"), *lights(tmp_path)):
            wait_for(lambda: notes(server) == [["on", ""]], "the event of the first")
        gone = {"jtype": "afb-event", "event": "monitor/disconnected", "data": "lights"}
        assert json.loads(client.socket.recv(timeout=PATIENCE)) == [5, "monitor/disconnected", gone]
        wait_for(lambda: ["", "lights"] in notes(server), "the end as an event")
        assert imports(server)["problem"]
        os.rmdir(tmp_path / "a")
        with serving(place(tmp_path, "a"), *lights(tmp_path)):
            # What `onload` calls is called again: a server that comes back knows of no subscription.
            wait_for(lambda: notes(server).count(["on", ""]) == 2, "the event of the second")
            assert "problem" not in imports(server)
        code, error = server.stop()
        assert code == 0
        assert "initspawn: imported API lights: is not there: No such file or directory" in error
        assert "initspawn: imported API lights: is there" in error


def test_a_failing_call_is_told(tmp_path: Path) -> None:
    actions = {
        "onload": [
            {"uid": "one", "action": "api://lights#nope", "args": [1, {"a": None}]},
            {"uid": "two", "action": "api://lights#set", "args": "text"},
        ]
    }
    with (
        serving(place(tmp_path, "a"), *lights(tmp_path)),
        serving(place(tmp_path, "b"), house(tmp_path, **actions)) as server,
    ):
        wait_for(lambda: imports(server)["failures"] == 2, "both answers")
        code, error = server.stop()
    assert code == 0
    assert error.splitlines() == [
        "initspawn: test: onload `one`: unknown-verb",
        "initspawn: test: onload `two`: invalid-request: argument `level` is missing",
    ]


def test_after_a_reload_it_stays_connected_comes_or_goes(tmp_path: Path) -> None:
    """The new file's events are heard, and what is called at the load for the first time is called."""
    watch = {"uid": "watch", "action": "api://lights#watch"}
    note = {"uid": "lights/watch", "action": "api://test#note"}
    file = house(tmp_path)
    plain = json.loads(Path(file).read_text())
    del plain["metadata"]["require"]
    Path(file).write_text(json.dumps(plain))
    with (
        serving(place(tmp_path, "a"), *lights(tmp_path)) as other,
        serving(place(tmp_path, "b"), file) as server,
        server.local() as client,
    ):
        house(tmp_path)
        reloaded(server)
        wait_for(lambda: imports(server)["connected"], "the connection")
        house(tmp_path, onload=watch, events=note)
        reloaded(server)
        wait_for(lambda: notes(server) == [["on", ""]], "the event")
        silent = {"uid": "lights/other", "action": "api://test#note"}
        house(tmp_path, onload=[watch, {**watch, "uid": "again"}], events=silent)
        reloaded(server)
        house(tmp_path, onload=[watch], events=[note])
        reloaded(server)
        with other.local() as first:
            watching = [task["state"] for task in first.call("initspawn/tasks").response]
            assert watching == ["running"] * 2
        assert notes(server) == [["on", ""]]
        assert imports(server) == {"socket": f"{tmp_path}/lights", "connected": True, "failures": 0}
        Path(file).write_text(json.dumps(plain))
        reloaded(server)
        assert client.call("initspawn/info").response["imports"] == {}
        assert server.stop() == (0, "")
