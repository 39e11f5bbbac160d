"""One client: how long its place in a task's events is kept. In virtual time."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

from initspawn.control.connection import Connection
from initspawn.limits import RETURN_SECONDS
from initspawn.supervisor.eventlog import EventLog
from initspawn.supervisor.reactor import Reactor
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
