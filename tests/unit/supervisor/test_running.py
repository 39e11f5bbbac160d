"""A task whose output nobody reads: how long its command waits. In virtual time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from initspawn.limits import LOG_EVENTS, STALL_SECONDS
from initspawn.plan import Api, Command, Sandbox
from initspawn.supervisor.eventlog import Reader
from initspawn.supervisor.reactor import Reactor
from initspawn.supervisor.running import Task
from initspawn.supervisor.task import MEASURED, READY

LINES = LOG_EVENTS // 2 + 100  # more than a reader may be behind


class Running:
    """A task that runs, of which the test is the command."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.reactor = Reactor(clock=lambda: self.now)
        box = Sandbox(uid="s", user=1, group=1)
        command = Command(uid="c", verb="c", sandbox="s", path="/c", encoder="line")
        self.task = Task(
            reactor=self.reactor, api=Api(uid="a", api="a", sandboxes=(box,), commands=(command,)),
            command=command, sandbox=box, argv=("/c",), on_start=lambda _: None, on_end=lambda _: None,
        )  # fmt: skip
        self.out, self.command = os.pipe()
        os.set_blocking(self.out, False)
        streams = SimpleNamespace(fed=False, stdout=self.out, stderr=-1)
        start: Any = SimpleNamespace(streams=streams)
        self.task.start = start
        for event in (READY, MEASURED):
            self.task.life.on(event)
        self.task.read()

    def write(self, lines: int) -> None:
        """The command writes, and the loop turns until nothing more is read."""
        os.write(self.command, b"x\n" * lines)
        self.turn()

    def turn(self, seconds: float = 0.0) -> None:
        self.now += seconds
        before = -1
        while before != self.told():
            before = self.told()
            self.reactor.turn()
            self.reactor.turn()  # the first may have been a timer's

    def told(self) -> int:
        return self.task.log.next - 1

    def close(self) -> None:
        self.reactor.forget(self.out)
        self.reactor.close()
        os.close(self.out)
        os.close(self.command)


@pytest.fixture
def running() -> Iterator[Running]:
    made = Running()
    yield made
    made.close()


def test_a_command_waits_so_long_for_one_that_does_not_read(running: Running) -> None:
    reader = Reader(running.task.log, lambda: None)
    running.write(LINES)
    running.write(10)
    assert running.told() == LINES
    running.turn(STALL_SECONDS - 0.01)
    assert running.told() == LINES
    assert reader.patient
    running.turn(0.02)
    assert running.told() == LINES + 10
    assert not reader.patient
    running.write(LOG_EVENTS)  # it is not waited for again before it has caught up
    assert running.told() == LINES + 10 + LOG_EVENTS
    marker = reader.take()
    assert marker is not None
    assert marker.data == {"type": "dropped-event", "count": LINES + 10}


def test_one_that_reads_in_time_is_waited_for_anew(running: Running) -> None:
    reader = Reader(running.task.log, lambda: None)
    for number in range(1, 4):
        running.write(LINES)
        told = running.told()
        running.turn(STALL_SECONDS - 0.01)
        running.write(1)
        assert running.told() == told
        while reader.take() is not None:
            pass
        running.turn()
        assert running.told() == number * (LINES + 1)
    assert reader.patient


def test_output_that_there_is_no_memory_for_is_waited_for_and_not_asked_for_at_every_turn(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(running.reactor.room, "fits", lambda size: 0)
        os.write(running.command, b"line\n")
        running.reactor.turn()
        assert running.reactor._epoll.poll(0) == []
    running.now += 1.0
    running.reactor.turn()
    assert running.reactor._epoll.poll(0) != []
