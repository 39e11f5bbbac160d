"""The blocking client against a scripted peer on the other end of its socket."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from initspawn.control import client as client_module
from initspawn.control.client import Client, ErrorReply, TaskEvent
from initspawn.control.wire import FrameReader, decode, encode
from initspawn.errors import RequestError

Script = Callable[["Peer"], None]


class Peer:
    """The supervisor's end: `read` gives the next call, `write` sends messages in one piece."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.reader = FrameReader()
        self.waiting: list[bytes] = []

    def read(self) -> dict[str, Any]:
        while not self.waiting:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError
            self.waiting += self.reader.feed(data)
        return decode(self.waiting.pop(0))

    def write(self, *messages: dict[str, Any]) -> None:
        self.socket.sendall(b"".join(map(encode, messages)))


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[Script], str]]:
    """Run a script as the peer of one connection; gives the socket's path."""
    threads: list[threading.Thread] = []
    path = str(tmp_path / "control")

    def start(script: Script) -> str:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
        listener.settimeout(10)

        def run() -> None:
            with listener:
                connection, _ = listener.accept()
            with connection:
                connection.settimeout(10)
                script(Peer(connection))

        threads.append(threading.Thread(target=run))
        threads[0].start()
        return path

    yield start
    for thread in threads:
        thread.join()


def until_closed(peer: Peer) -> None:
    """Wait for the client's end."""
    with pytest.raises(EOFError):
        peer.read()


def test_call(serve: Callable[[Script], str]) -> None:
    def script(peer: Peer) -> None:
        assert peer.read() == {"id": 1, "call": "a/b", "args": {"x": 1}, "token": "t"}
        peer.write({"id": 1, "status": "success", "code": 0, "response": [1, "é"]})
        assert peer.read() == {"id": 2, "call": "a/c", "args": None}
        peer.write({"id": 2, "status": "success", "code": 3, "info": "why"})

    with Client(serve(script), timeout=10) as client:
        reply = client.call("a/b", {"x": 1}, "t")
        assert (reply.code, reply.info, reply.response) == (0, "", [1, "é"])
        reply = client.call("a/c")
        assert (reply.code, reply.info, reply.response) == (3, "why", None)


@pytest.mark.parametrize(("status", "code"), [("unknown-verb", -4), ("error", -1001)])
def test_error_reply(serve: Callable[[Script], str], status: str, code: int) -> None:
    def script(peer: Peer) -> None:
        peer.read()
        peer.write({"id": 1, "status": status, "code": code, "info": "why", "response": {"a": 1}})

    with Client(serve(script), timeout=10) as client:
        with pytest.raises(ErrorReply, match="why") as caught:
            client.call("a/b")
        assert (caught.value.status, caught.value.code) == (status, code)
        assert (caught.value.info, caught.value.response) == ("why", {"a": 1})


def test_events_before_and_after_an_answer(serve: Callable[[Script], str]) -> None:
    def event(seq: int) -> dict[str, Any]:
        return {"event": "a/b", "task": "s/c@1", "seq": seq, "data": {"type": "data"}}

    def script(peer: Peer) -> None:
        peer.read()
        peer.write(
            event(1),
            {"id": 99, "status": "success", "code": 0},
            {"id": 1, "status": "x", "code": 0},
            event(2),
        )
        peer.read()
        peer.write({"id": 2, "status": "success", "code": 0}, event(3))

    with Client(serve(script), timeout=10) as client:
        client.call("a/b")
        client.call("a/b")
        events = client.events()
        assert [next(events).seq for _ in range(3)] == [1, 2, 3]
        with pytest.raises(RequestError, match="disconnected"):
            next(events)


def test_what_came_is_received_in_order_and_without_waiting(serve: Callable[[Script], str]) -> None:
    """Also what was read together with an answer."""

    def event(number: int) -> dict[str, Any]:
        return {"event": "a/b", "task": "b@1", "seq": number, "data": number}

    def script(peer: Peer) -> None:
        peer.read()
        peer.write(event(1), {"id": 1, "status": "success", "code": 0}, event(2))
        posted = peer.read()
        peer.write(event(3), {"id": posted["id"], "status": "bad-state", "code": -14, "info": "no"}, event(4))

    with Client(serve(script), timeout=10) as client:
        client.call("a/b")
        found = list(client.receive(wait=False))
        assert [message.data for message in found if isinstance(message, TaskEvent)] == [1, 2]
        assert list(client.receive(wait=False)) == []
        number = client.post("a/b", {"x": 1})
        found = []
        while len(found) < 3:
            found += client.receive()
        first, (answered, reply), last = found
        assert (first.data, last.data) == (3, 4)
        assert answered == number
        assert isinstance(reply, ErrorReply)
        assert (reply.status, reply.info, reply.code) == ("bad-state", "no", -14)
        with pytest.raises(RequestError, match="closed"):
            list(client.receive())


def test_what_an_event_holds(serve: Callable[[Script], str]) -> None:
    def script(peer: Peer) -> None:
        peer.write({"event": "a/b", "task": "s/c@1", "seq": 7, "data": {"x": 1}, "later": "addition"})

    with Client(serve(script), timeout=10) as client:
        assert next(client.events()) == TaskEvent(event="a/b", task="s/c@1", seq=7, data={"x": 1})


def test_events_nobody_asks_for_are_bounded(
    serve: Callable[[Script], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def script(peer: Peer) -> None:
        peer.read()
        peer.write(
            *({"event": "a/b", "seq": seq} for seq in range(10)), {"id": 1, "status": "success", "code": 0}
        )

    monkeypatch.setattr(client_module, "LOG_EVENTS", 4)
    with Client(serve(script), timeout=10) as client:
        client.call("a/b")
        assert client.missed == 6
        events = client.events()
        assert [next(events).seq for _ in range(4)] == [6, 7, 8, 9]


@pytest.mark.parametrize(
    ("goodbye", "status"),
    [
        (b"", "disconnected"),
        (encode({"fault": "too many"}), "disconnected"),
        (b"\0\0\0\0", "disconnected"),
        (b"\x02\0\0\0[]", "disconnected"),
        (b"\x09\0\0\0{", "disconnected"),
    ],
)
def test_a_supervisor_that_ends_or_talks_nonsense(
    serve: Callable[[Script], str], goodbye: bytes, status: str
) -> None:
    def script(peer: Peer) -> None:
        peer.read()
        peer.socket.sendall(goodbye)

    with Client(serve(script), timeout=10) as client:
        with pytest.raises(RequestError) as caught:
            client.call("a/b")
        assert caught.value.status == status
        if goodbye.endswith(b"}"):
            assert caught.value.info == "too many"
        with pytest.raises(RequestError, match="disconnected"):
            client.call("a/b")


def test_an_answer_before_an_impossible_length_counts(serve: Callable[[Script], str]) -> None:
    def script(peer: Peer) -> None:
        number = peer.read()["id"]
        peer.socket.sendall(encode({"id": number, "status": "success", "code": 0, "response": 7}) + bytes(4))

    with Client(serve(script), timeout=10) as client:
        assert client.call("a/b").response == 7
        with pytest.raises(RequestError, match="disconnected"):
            client.call("a/b")


def test_timeout(serve: Callable[[Script], str]) -> None:
    with Client(serve(until_closed_after_a_call), timeout=0.05) as client:
        with pytest.raises(RequestError) as caught:
            client.call("a/b")
        assert (caught.value.status, caught.value.code) == ("timeout", -16)


def until_closed_after_a_call(peer: Peer) -> None:
    peer.read()
    until_closed(peer)


def test_timeout_holds_although_events_arrive(serve: Callable[[Script], str]) -> None:
    """A busy stream must not keep a call alive for ever."""

    def script(peer: Peer) -> None:
        peer.read()
        with contextlib.suppress(OSError):
            while True:
                peer.write({"event": "a/b", "seq": 1, "data": "x" * 1000})

    with Client(serve(script), timeout=0.2) as client, pytest.raises(RequestError, match="timeout"):
        client.call("a/b")


def test_arguments_that_do_not_fit(serve: Callable[[Script], str]) -> None:
    def script(peer: Peer) -> None:
        assert peer.read()["id"] == 2
        peer.write({"id": 2, "status": "success", "code": 0, "response": json.loads("[]")})

    with Client(serve(script), timeout=10) as client:
        with pytest.raises(RequestError, match="invalid-request"):
            client.call("a/b", "x" * 1_200_000)
        assert client.call("a/b").response == []


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Client(str(tmp_path / "nowhere"))
