"""The spawner's place: who has it, what waits for it, and what a start that came to nothing leaves."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from initspawn.errors import LaunchRefused
from initspawn.plan import Sandbox
from initspawn.sandbox import launcher as module
from initspawn.sandbox.launch import Start
from initspawn.sandbox.launcher import Launcher

PID, NEXT = 4194305, 4194306  # numbers that the kernel never gives
BOX = Sandbox(uid="box", user=os.getuid(), group=os.getgid())


class World:
    """A launcher whose spawner is a socket here, without a spare; `forks`: what comes of each os.fork."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.timers: list[Callable[[], None]] = []
        self.forks: list[int | OSError] = [PID]
        self.killed: list[int] = []
        self.ends: list[socket.socket] = []
        pair = socket.socketpair

        def pairs(*kind: int) -> tuple[socket.socket, socket.socket]:
            ours, theirs = pair(*kind)
            self.ends.append(theirs.dup())
            return ours, theirs

        with monkeypatch.context() as making:
            making.setattr(module, "_socket", _Sockets(pairs))
            making.setattr(os, "fork", self._fork)
            making.setattr(Launcher, "renew_spare", lambda _: None)
            self.launcher = Launcher([BOX], lambda _, then: self.timers.append(then))
        monkeypatch.setattr(module, "_socket", _Sockets(pairs))
        monkeypatch.setattr(os, "fork", self._fork)
        monkeypatch.setattr(os, "kill", lambda pid, _: self.killed.append(pid))
        monkeypatch.setattr(Launcher, "renew_spare", lambda _: None)

    def _fork(self) -> int:
        found = self.forks.pop(0)
        if isinstance(found, OSError):
            raise found
        return found

    def turn(self) -> None:
        """What is due, once."""
        due, self.timers = self.timers, []
        for callback in due:
            callback()

    def fill(self) -> int:
        """Jobs, until one of them waits; how many are on the socket."""
        sent = 0
        while not self.launcher._waiting:
            self.launcher.send(b"job", [])
            sent += 1
        return sent - 1

    def die(self) -> None:
        """The spawner ends, and is waited for."""
        self.ends.pop().close()
        self.launcher.on_child(self.launcher.spawner_pid, closing=False)


class _Sockets:
    """The module, but for one call."""

    def __init__(self, pairs: Any) -> None:
        self.socketpair = pairs

    def __getattr__(self, name: str) -> Any:
        return getattr(socket, name)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World(monkeypatch)
    yield made
    made.launcher.close()
    for end in made.ends:
        end.close()


def again() -> OSError:
    return OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_spawner_that_was_waited_for_is_not_killed(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its number may be another's, as long as there is no process for the next one."""
    world.forks = [again(), again(), NEXT]
    world.die()
    assert capsys.readouterr().err == "initspawn: the spawner died; nor can there be another now\n"
    world.launcher.kill()
    assert world.killed == []
    world.turn()
    assert world.launcher.spawner_pid == 0
    world.turn()
    assert world.launcher.spawner_pid == NEXT
    assert not world.timers
    world.launcher.kill()
    assert world.killed == [NEXT]


def test_what_waits_for_a_spawner_that_died_turns_in_no_circles(world: World) -> None:
    world.fill()
    world.forks = [again(), again(), NEXT]
    world.die()
    world.turn()
    assert len(world.timers) == 1  # for the spawner; nobody looks at the dead one's socket
    world.turn()
    assert world.launcher._waiting
    world.turn()
    assert not world.launcher._waiting
    assert not world.timers
    assert world.ends[-1].recv(10) == b"job"


def test_a_start_without_a_spawner_tries_for_one(world: World) -> None:
    world.forks = [again(), again(), NEXT]
    world.die()
    with pytest.raises(LaunchRefused, match="EAGAIN"):
        world.launcher.prepare(BOX)
    start = world.launcher.prepare(BOX)
    assert world.launcher.spawner_pid == NEXT
    start.close()


def test_a_spawner_that_dies_while_jobs_wait_has_one_timer_for_them(world: World) -> None:
    world.fill()
    world.forks = [NEXT]
    world.die()
    assert len(world.timers) == 1
    world.turn()
    assert not world.launcher._waiting


def test_a_job_that_cannot_wait_leaves_no_copies(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.fill()
    before, dup, left = descriptors(), os.dup, [1, 1]

    def dups(fd: int) -> int:
        if not left:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        left.pop()
        return dup(fd)

    monkeypatch.setattr(os, "dup", dups)
    with pytest.raises(OSError, match="Too many"):
        world.launcher.send(b"job", [0, 1, 2])
    assert descriptors() == before
    assert len(world.launcher._waiting) == 1


def test_a_start_that_finds_no_memory_leaves_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(start: Start) -> None:
        start.handshake = socket.socket()
        raise MemoryError

    monkeypatch.setattr(Start, "send", fails)
    before, free = descriptors(), len(world.launcher.ledger._free)
    with pytest.raises(MemoryError):
        world.launcher.prepare(BOX)
    assert not world.launcher.starts
    assert (descriptors(), len(world.launcher.ledger._free)) == (before, free)
