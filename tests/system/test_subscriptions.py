"""Start, subscribe, unsubscribe and stop over each door that hears events: what comes, and what does not."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import unix_connect

from initspawn.control.client import Client as ControlClient
from initspawn.verbs import wsapi
from tests.system.server import PATIENCE, Server, serving, wait_for, write
from tests.system.server import Client as WebClient
from tests.system.test_serve import config, shell

pytestmark = pytest.mark.needs("userns")

DOORS = ("websocket", "unix", "wsapi", "control")


class Web:
    """A WebSocket, over TCP or a unix socket."""

    def __init__(self, client: WebClient) -> None:
        self._client = client

    def call(self, verb: str, query: Any) -> Any:
        reply = self._client.call(f"test/{verb}", query)
        assert reply["request"]["status"] == "success", reply
        return reply.get("response")

    def heard(self) -> list[Any]:
        """The data of the events so far."""
        return list(self._client.events)


class Service:
    """The service protocol."""

    def __init__(self, peer: socket.socket) -> None:
        self._peer = peer
        self._frames = wsapi.Frames()
        self._number = 0
        self._names: dict[int, str] = {}
        self._heard: list[Any] = []
        peer.sendall(wsapi.frame(wsapi.HELLO))

    def call(self, verb: str, query: Any) -> Any:
        self._number += 1
        self._peer.sendall(wsapi.call(self._number, verb, query))
        reply = None
        while reply is None:  # what came behind the reply in the same read is heard as well
            for _, payload in self._frames.feed(self._peer.recv(65536)):
                message = wsapi.decode(payload)
                if message is None:
                    continue
                if message.kind == wsapi.EVENT:
                    self._names[message.number] = message.name
                if message.kind == wsapi.FORGET:
                    del self._names[message.number]
                if message.kind == wsapi.PUSH:
                    assert self._names[message.number] == "test/tick"
                    self._heard.append(wsapi.value(message.data))
                if message.kind == wsapi.REPLY:
                    assert message.name == "", message
                    reply = message
        return wsapi.value(reply.data)

    def heard(self) -> list[Any]:
        return list(self._heard)


class Control:
    """The control socket."""

    def __init__(self, client: ControlClient) -> None:
        self._client = client
        self._heard: list[Any] = []
        client.on_event = lambda event: self._heard.append(event.data)

    def call(self, verb: str, query: Any) -> Any:
        return self._client.call(f"test/{verb}", query).response

    def heard(self) -> list[Any]:
        return list(self._heard)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    place = tmp_path_factory.mktemp("doors")
    file = write(
        place, "t.json", config(shell("tick", "while :; do echo tick; sleep 0.02; done", encoder="line"))
    )
    with serving(place, "--unix", f"{place}/web", "--ws-server", f"unix:{place}/test", file) as running:
        yield running, place
        assert running.stop() == (0, "")


@contextmanager
def client(server: tuple[Server, Path], door: str) -> Iterator[Web | Service | Control]:
    running, place = server
    if door == "websocket":
        with running.client() as web:
            yield Web(web)
    elif door == "unix":
        with unix_connect(f"{place}/web", "ws://localhost/api", compression=None) as opened:
            yield Web(WebClient(opened))
    elif door == "control":
        with running.local() as local:
            yield Control(local)
    else:
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(PATIENCE)
            peer.connect(f"{place}/test")
            yield Service(peer)


def lines(door: Web | Service | Control) -> int:
    """How many lines it has heard; a call lets it read what has come."""
    door.call("ping", None)
    return sum(event.get("stdout") == "tick" for event in door.heard())


@pytest.mark.racy
@pytest.mark.parametrize("door", DOORS)
def test_who_starts_hears_and_stops(server: tuple[Server, Path], door: str) -> None:
    with client(server, door) as one:
        pid = one.call("tick", {"action": "start"})["pid"]
        wait_for(lambda: lines(one) > 3, "lines")
        query = {"action": "stop", "args": {"pid": pid, "signal": "SIGTERM"}}
        assert one.call("tick", query) == f"box/tick@{pid}"
        wait_for(lambda: lines(one) and one.heard()[-1]["type"] == "final-event", "the end")
        assert one.heard()[-1]["status"] == {"signal": "Terminated"}


@pytest.mark.parametrize("door", DOORS)
def test_who_subscribes_hears_until_it_unsubscribes(server: tuple[Server, Path], door: str) -> None:
    with client(server, "control") as starter, client(server, door) as other:
        pid = starter.call("tick", None)["pid"]
        assert lines(other) == 0
        wanted = {"args": {"pid": pid}}
        assert other.call("tick", {"action": "subscribe", **wanted}) == f"box/tick@{pid}"
        wait_for(lambda: lines(other) > 3, "lines")
        assert other.call("tick", {"action": "unsubscribe", **wanted}) == f"box/tick@{pid}"
        heard, going_on = lines(other), lines(starter)
        wait_for(lambda: lines(starter) > going_on + 10, "more lines for who has started it")
        assert lines(other) == heard
        assert other.call("tick", {"action": "subscribe", **wanted}) == f"box/tick@{pid}"
        wait_for(lambda: lines(other) > heard, "lines again")
        assert other.call("tick", {"action": "stop", **wanted}) == f"box/tick@{pid}"
        for one in (starter, other):
            wait_for(lambda one=one: lines(one) and one.heard()[-1]["type"] == "final-event", "the end")  # type: ignore[misc]


def test_rest_starts_and_stops_and_hears_nothing(server: tuple[Server, Path]) -> None:
    running, _ = server
    connection = http.client.HTTPConnection(running.page.split("/")[2], timeout=PATIENCE)

    def call(query: Any) -> Any:
        headers = {"Authorization": f"Bearer {running.token}", "Content-Type": "application/json"}
        connection.request("POST", "/api/test/tick", json.dumps(query), headers)
        return json.loads(connection.getresponse().read())

    pid = call({"action": "start"})["response"]["pid"]
    assert call({"action": "subscribe", "args": {"pid": pid}})["response"] == f"box/tick@{pid}"
    time.sleep(0.1)
    assert call({"action": "unsubscribe", "args": {"pid": pid}})["response"] == f"box/tick@{pid}"
    assert call({"action": "stop", "args": {"pid": pid}})["response"] == f"box/tick@{pid}"
    connection.close()
