"""One client: how long its place in a task's events is kept. In virtual time."""

from __future__ import annotations

import json
import socket
from types import SimpleNamespace
from typing import Any

import pytest

from initspawn.control import wire
from initspawn.control.connection import Connection
from initspawn.limits import RETURN_SECONDS
from initspawn.supervisor.eventlog import EventLog
from initspawn.supervisor.reactor import READ, Reactor
from initspawn.verbs.access import Identity


class Told:
    """A task with one event."""

    event_name, id, pid = "a/c", "s/c@1", 1

    def __init__(self) -> None:
        self.life = SimpleNamespace(alive=True)
        self.log = EventLog()
        self.log.append({"type": "data"})


class Hall:
    """A door of which the test opens the connections, and a task."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.reactor = Reactor(clock=lambda: self.now)
        supervisor = SimpleNamespace(disconnected=lambda client: None)
        self.door: Any = SimpleNamespace(
            name="test", reactor=self.reactor, connections=set(),
            registry=SimpleNamespace(watchers={}, supervisor=supervisor),
        )  # fmt: skip
        self.task: Any = Told()

    def connect(self, first: int | None) -> tuple[Connection, socket.socket]:
        """Somebody who subscribes from that number on."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        made = Connection(self.door, ours, Identity(kind="local", user=0, name="me"))
        self.reactor.watch(ours.fileno(), READ, made.on_ready)
        made.subscribe(self.task, first)
        self.turn()
        return made, theirs

    def turn(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.reactor.turn()

    def kept(self) -> bool:
        return bool(self.task.log.keeps("me"))


def test_the_place_of_who_may_come_back_is_kept_so_long() -> None:
    hall = Hall()
    _, peer = hall.connect(1)
    assert not hall.kept()
    peer.close()
    hall.turn()
    assert hall.kept()
    hall.turn(RETURN_SECONDS - 0.01)
    assert hall.kept()
    hall.turn(0.02)
    assert not hall.kept()
    assert hall.task.log.readers == []
    hall.reactor.close()


def test_who_comes_back_gives_its_place_up_and_who_never_said_so_has_none() -> None:
    hall = Hall()
    for first in (1, None):
        _, peer = hall.connect(first)
        peer.close()
        hall.turn()
    assert len(hall.task.log.readers) == 1
    made, peer = hall.connect(2)
    assert not hall.kept()
    made.close()
    peer.close()
    assert hall.kept()
    hall.reactor.close()


def call(peer: socket.socket, body: bytes) -> None:
    peer.send(len(body).to_bytes(4, "little") + body)


def heard(peer: socket.socket) -> list[dict[str, Any]]:
    try:
        return [json.loads(body) for body in wire.FrameReader().feed(peer.recv(1 << 16))]
    except BlockingIOError:
        return []


def test_a_call_that_there_is_no_memory_for_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    hall = Hall()
    made, peer = hall.connect(None)
    heard(peer)

    def no_memory(body: bytes) -> wire.Request:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(wire, "decode_call", no_memory)
        call(peer, b'{"id": 17,"call":"a/c","args":[[],[]]}')
        call(peer, b'{"id":18,"login":"x"}')
        hall.turn()
        hall.turn()
    answers = heard(peer)
    assert [(one["id"], one["status"]) for one in answers] == [(17, "not-available"), (18, "not-available")]
    assert "no memory" in answers[0]["info"]
    assert hall.reactor.room.short
    assert made._pending == 0
    with monkeypatch.context() as patch:
        patch.setattr(wire, "decode_call", no_memory)
        call(peer, b'{"call":"a/c","id":17}')  # nobody knows which
        hall.turn()
    (fault,) = heard(peer)
    assert "no memory" in fault["fault"]
    assert made.closed
    made.close()
    peer.close()
    hall.reactor.close()


def test_a_call_is_read_with_what_was_given_up_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    hall = Hall()
    made, peer = hall.connect(None)
    heard(peer)
    gave: list[int] = []
    hall.reactor.room.give_up = lambda: not gave.append(1)
    real = wire.decode_call

    def little_memory(body: bytes) -> wire.Request:
        if not gave:
            raise MemoryError
        return real(body)

    monkeypatch.setattr(wire, "decode_call", little_memory)
    called: list[str] = []
    hall.door.registry.call = lambda caller, procedure, *rest: called.append(procedure)
    call(peer, b'{"id":1,"call":"a/c"}')
    hall.turn()
    assert called == ["a/c"]
    made.close()
    peer.close()
    hall.reactor.close()


def test_a_frame_that_there_is_no_memory_for_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    hall = Hall()
    made, peer = hall.connect(None)
    heard(peer)

    def no_memory(self: wire.FrameReader, data: bytes) -> list[bytes]:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(wire.FrameReader, "feed", no_memory)
        call(peer, b'{"id":1,"call":"a/c"}')
        hall.turn()
    assert "no memory" in heard(peer)[0]["fault"]
    assert made.closed
    made.close()
    peer.close()
    hall.reactor.close()
