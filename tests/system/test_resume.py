"""Streams that are taken up again: over every door that tells events, and after every kind of loss."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import unix_connect

from initspawn.control.wire import encode
from initspawn.errors import RequestError
from tests.support.pace import SLOWER
from tests.system.server import PATIENCE, SUBPROTOCOL, Client, Server, serving, wait_for, write
from tests.system.test_serve import config, shell

pytestmark = pytest.mark.needs("userns")

LINES = 3000
TENS = f"i=0; while [ $i -lt {LINES // 10} ]; do seq $((i * 10 + 1)) $((i * 10 + 10)); i=$((i+1)); "
SLOWLY = TENS + "sleep 0.001; done"
COMMANDS = [
    shell("slowly", SLOWLY, encoder="line"),
    shell("brief", "echo a; echo b", encoder="line"),
    shell("begin", "echo begun; read x; seq 20", encoder="line", stdin=True),
    shell("bytes", "echo begun; read x; seq 20", terminal=True),
    shell("text", "seq 20"),
]  # fmt: skip
CLIENTS = 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = tmp_path_factory.mktemp("resume")
    file = write(place, "test.json", config(*COMMANDS, prefix=""))
    with serving(place, "--unix", str(place / "web"), file) as running:
        yield running


class Stream:
    """What one client has of a task's events; each must come once and in its order."""

    def __init__(self, task: str) -> None:
        self.task = task
        self.seen: list[dict[str, Any]] = []

    def note(self, task: str, seq: int, data: dict[str, Any]) -> None:
        if task == self.task:
            assert seq == len(self.seen) + 1, f"number {seq} after {len(self.seen)}"
            self.seen.append(data)

    @property
    def ended(self) -> bool:
        return bool(self.seen) and self.seen[-1]["type"] == "final-event"

    @property
    def following(self) -> dict[str, Any]:
        """The query that asks for the rest."""
        args = {"pid": int(self.task.rpartition("@")[2]), "from": len(self.seen) + 1}
        return {"action": "subscribe", "args": args}


class Door:
    """A connection that tells events with their numbers."""

    def __init__(self, ask: Callable[[str, Any], Any], read: Callable[[], tuple[str, int, Any]]) -> None:
        self.ask = ask
        self.read = read

    def follow(self, stream: Stream, verb: str, most: int = 1 << 30) -> None:
        """Take the stream up where it was, until the task has ended or so many events were seen."""
        self.ask(f"test/{verb}", stream.following)
        while not stream.ended and len(stream.seen) < most:
            stream.note(*self.read())


@contextmanager
def control(server: Server) -> Iterator[Door]:
    with server.local() as client:
        events = client.events()

        def read() -> tuple[str, int, Any]:
            event = next(events)
            return event.task, event.seq, event.data

        yield Door(lambda procedure, query: client.call(procedure, query).response, read)


def _of_web(client: Client) -> Door:
    kept: list[Any] = []

    def ask(procedure: str, query: Any) -> Any:
        number = client.send(procedure, query)
        while True:
            message = client.receive()
            if message[0] == 5:
                kept.append(message[2])
            elif message[1] == number:
                assert message[0] == 3, message
                return message[2].get("response")

    def read() -> tuple[str, int, Any]:
        while not kept:
            message = client.receive()
            if message[0] == 5:
                kept.append(message[2])
        event = kept.pop(0)
        return event["task"], event["seq"], event["data"]

    return Door(ask, read)


@contextmanager
def websocket(server: Server) -> Iterator[Door]:
    with server.client(f"{server.url}&events=numbered") as client:
        yield _of_web(client)
        client.socket.close_socket()  # lost; a polite end would wait for all that is on its way


@contextmanager
def unix(server: Server) -> Iterator[Door]:
    path = str(server.run_dir.parent / "web")
    address = "ws://localhost/api?events=numbered"
    with unix_connect(path, address, subprotocols=[SUBPROTOCOL], compression=None) as opened:  # type: ignore[list-item]
        yield _of_web(Client(opened))
        opened.close_socket()


DOORS: dict[str, Callable[[Server], AbstractContextManager[Door]]] = {
    "control": control, "websocket": websocket, "unix": unix,
}  # fmt: skip
each_door = pytest.mark.parametrize("door", DOORS)


def started(server: Server, verb: str) -> Stream:
    """A task of that verb, which nobody of the test listens to."""
    with server.local() as client:
        return Stream(f"box/{verb}@{client.call(f'test/{verb}').response['pid']}")


def whole(server: Server, stream: Stream, verb: str) -> list[dict[str, Any]]:
    """All events of a task, for somebody who comes late."""
    late = Stream(stream.task)
    with control(server) as door:
        door.follow(late, verb)
    return late.seen


@each_door
def test_a_client_that_leaves_again_and_again_misses_nothing(server: Server, door: str) -> None:
    stream = started(server, "slowly")
    for most in range(250, LINES, 250):
        with DOORS[door](server) as opened:
            opened.follow(stream, "slowly", most)
    with DOORS[door](server) as opened:
        opened.follow(stream, "slowly")
    assert [data.get("stdout") for data in stream.seen[:-1]] == [str(number + 1) for number in range(LINES)]
    assert stream.seen[-1]["status"] == {"exit": 0}


@each_door
def test_from_any_number_the_rest_is_the_same(server: Server, door: str) -> None:
    """Also of what has ended, and of pieces."""
    for verb in ("begin", "bytes", "text"):
        stream = started(server, verb)
        if verb != "text":
            with server.local() as client:
                pid = stream.following["args"]["pid"]
                client.call(f"test/{verb}", {"action": "input", "args": {"pid": pid, "data": "x\n"}})
        everything = whole(server, stream, verb)
        for first in range(1, len(everything) + 1):
            with DOORS[door](server) as opened:
                rest = Stream(stream.task)
                rest.seen = [{"type": "data"}] * (first - 1)
                opened.follow(rest, verb)
                assert rest.seen[first - 1 :] == everything[first - 1 :]


@each_door
def test_a_number_that_is_not_there_yet(server: Server, door: str) -> None:
    stream = started(server, "begin")
    pid = stream.following["args"]["pid"]
    with DOORS[door](server) as opened:
        opened.follow(stream, "begin", 1)
        args = {"pid": pid, "from": 3}
        with pytest.raises((RequestError, AssertionError), match="the task's next event is number 2"):
            opened.ask("test/begin", {"action": "subscribe", "args": args})
        opened.ask("test/begin", {"action": "input", "args": {"pid": pid, "data": "x\n"}})
        while not stream.ended:
            stream.note(*opened.read())
    assert len(stream.seen) == 22


@pytest.mark.racy
@each_door
def test_who_subscribes_around_the_end_misses_and_doubles_nothing(server: Server, door: str) -> None:
    for _ in range(60):
        stream = started(server, "brief")
        with DOORS[door](server) as opened:
            opened.follow(stream, "brief")
        assert [data.get("stdout", data["type"]) for data in stream.seen] == ["a", "b", "final-event"]


@pytest.mark.racy
def test_many_clients_resume_after_the_gateway_was_killed_in_mid_stream(tmp_path: Path) -> None:
    file = write(tmp_path, "test.json", config(*COMMANDS, prefix=""))
    with serving(tmp_path, file) as server:
        _many_resume(server)


def _many_resume(server: Server) -> None:
    stream = started(server, "slowly")
    failures: list[str] = []
    kill = threading.Barrier(CLIENTS + 1, timeout=PATIENCE)

    def client() -> None:
        mine = Stream(stream.task)
        try:
            with suppress(ConnectionClosed, EOFError, OSError), websocket(server) as door:
                door.follow(mine, "slowly", LINES // 10)
                kill.wait()
                door.follow(mine, "slowly")
            deadline = 200
            while not mine.ended and deadline:
                deadline -= 1
                try:
                    with websocket(server) as door:
                        door.follow(mine, "slowly")
                except (ConnectionClosed, EOFError, OSError, InvalidHandshake):
                    threading.Event().wait(0.05 * SLOWER)  # the next gateway is not there yet
            told = [data.get("stdout") for data in mine.seen[:-1]]
            assert told == [str(number + 1) for number in range(LINES)], len(told)
        except Exception as error:
            failures.append(f"{type(error).__name__}: {error}")
            kill.abort()

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    kill.wait()
    os.kill(server.gateway(), signal.SIGKILL)
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert failures == []


# A client that leaves in the middle of anything.

START = encode({"id": 1, "call": "test/begin", "args": None})
HALF = struct.pack("<I", 500) + b'{"id":2,'


def control_socket(server: Server) -> socket.socket:
    opened = socket.socket(socket.AF_UNIX)
    opened.settimeout(PATIENCE)
    opened.connect(str(server.run_dir / "control"))
    return opened


@pytest.mark.racy
def test_a_client_that_leaves_at_any_state_leaves_its_task_alone(server: Server) -> None:
    """Before the answer, amid a frame of its own or of ours, between events; with unread data or without."""
    size = 0
    with control_socket(server) as opened:  # how much there is to read up to the first line
        opened.sendall(START)
        while b"begun" not in (data := opened.recv(65536, socket.MSG_PEEK)):
            pass
        size = len(data)
    for more, reads in [(HALF, 0), *((b"", taken) for taken in range(0, size + 1, max(1, size // 12)))]:
        before = alive(server)
        with control_socket(server) as opened:
            opened.sendall(START + more)
            for _ in range(reads):
                assert opened.recv(1)
        fresh = wait_for(lambda before=before: alive(server) - before, "the task")  # type: ignore[misc]
        (task,) = fresh
        stream = Stream(task)
        pid = stream.following["args"]["pid"]
        with control(server) as door:
            door.follow(stream, "begin", 1)
            door.ask("test/begin", {"action": "input", "args": {"pid": pid, "data": "x\n"}})
            while not stream.ended:
                stream.note(*door.read())
        assert stream.seen == whole(server, stream, "begin")
        assert len(stream.seen) == 22
    with server.local() as client:
        client.call("test/begin", {"action": "stop"})


def alive(server: Server) -> set[str]:
    with server.local() as client:
        return {task["id"] for task in client.call("initspawn/tasks").response if task["state"] == "running"}


@pytest.mark.racy
def test_a_websocket_client_that_leaves_at_any_state(server: Server) -> None:
    """The same over the gateway: with a close frame, without one, in the middle of a frame of its own."""
    for how in ("close", "drop", "half a frame", "before the answer"):
        before = alive(server)
        with server.client() as client:
            client.send("test/begin")
            if how != "before the answer":
                client.until(lambda event: event.get("stdout") == "begun")
            if how == "half a frame":
                client.socket.socket.sendall(b"\x81\xfe\x01")
            if how != "close":
                client.socket.close_socket()
        (task,) = wait_for(lambda before=before: alive(server) - before, "the task")  # type: ignore[misc]
        stream = Stream(task)
        pid = stream.following["args"]["pid"]
        with websocket(server) as door:
            door.follow(stream, "begin", 1)
            door.ask("test/begin", {"action": "input", "args": {"pid": pid, "data": "x\n"}})
            while not stream.ended:
                stream.note(*door.read())
        assert len(stream.seen) == 22


def test_a_rest_start_can_be_followed_over_another_door(server: Server) -> None:
    address = server.page.partition("#")[0].rstrip("/")
    request = Request(f"{address}/api/test/text", headers={"Authorization": f"Bearer {server.token}"})
    with urlopen(request, timeout=PATIENCE) as answer:
        pid = json.load(answer)["response"]["pid"]
    stream = Stream(f"box/text@{pid}")
    with websocket(server) as door:
        door.follow(stream, "text")
    assert [data["type"] for data in stream.seen] == ["data", "final-event"]


def test_a_gap_is_marked_with_the_number_it_ends_at(tmp_path: Path) -> None:
    """Of what has ended only the newest is kept: a marker stands for the rest."""
    file = write(tmp_path, "test.json", config(shell("much", "seq 20000", encoder="line")))
    with serving(tmp_path, file) as server:
        with server.local() as client:
            pid = client.call("test/much").response["pid"]
            wait_for(lambda: client.call("initspawn/tasks").response[-1]["state"] == "ended", "the end")
        for first in (1, 7):
            with control(server) as door:
                door.ask("test/much", {"action": "subscribe", "args": {"pid": pid, "from": first}})
                _, seq, data = door.read()
                assert data == {"type": "dropped-event", "count": seq - first + 1}
                _, following, line = door.read()
                assert (following, line["stdout"]) == (seq + 1, str(seq + 1))
