"""Who has connected to a unix socket: what the kernel says, and whether it is still true."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from initspawn.control.server import GONE, Door, ServiceDoor, listen
from initspawn.linux import process
from initspawn.linux.libc import syscall
from initspawn.supervisor.core import Supervisor
from initspawn.supervisor.reactor import Reactor
from initspawn.verbs.access import NOBODY, Identity, Tokens
from tests.support.probes import missing

Asked = list[tuple[int, int, int, bool]]


@pytest.fixture
def door(tmp_path: Path) -> Any:
    """A door on `tmp_path/s` and what it asked: user, pid, pidfd, and whether that pidfd's process lived."""
    asked: Asked = []

    def identify(user: int, pid: int, pidfd: int) -> Identity:
        asked.append((user, pid, pidfd, pidfd >= 0 and process.lives(pidfd)))
        return NOBODY

    reactor = Reactor()
    supervisor = SimpleNamespace(disconnected=lambda _: None)
    registry: Any = SimpleNamespace(supervisor=supervisor, watchers={}, limits={"connections": 4})
    made = Door(
        listen(str(tmp_path / "s")), name="t", reactor=reactor, registry=registry, tokens=Tokens(),
        identify=identify,
    )  # fmt: skip
    yield reactor, asked
    made.close()
    reactor.close()


def test_without_a_gateway_its_clients_are_hung_up_on(tmp_path: Path) -> None:
    reactor, there = Reactor(), False
    registry: Any = SimpleNamespace(
        supervisor=SimpleNamespace(disconnected=lambda _: None), watchers={}, limits={"connections": 4}
    )
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made = ServiceDoor(
        listen(str(tmp_path / "s")), ours, b"http", lambda: there, name="t", reactor=reactor,
        registry=registry, tokens=Tokens(), identify=lambda *_: NOBODY,
    )  # fmt: skip
    theirs.setblocking(False)
    before = len(os.listdir("/proc/self/fd"))
    for there in (False, True):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            client.connect(str(tmp_path / "s"))
            reactor.turn()
            if there:
                message, descriptors, _, _ = socket.recv_fds(theirs, 100, 2)
                assert (message, len(descriptors)) == (b"%d http" % os.getuid(), 2)
                for fd in descriptors:
                    os.close(fd)
            else:
                assert client.recv(1) == b""
                with pytest.raises(BlockingIOError):
                    theirs.recv(100)
                assert len(os.listdir("/proc/self/fd")) == before + 1
    made.close()
    reactor.close()
    for one in (ours, theirs):
        one.close()


def connected_child(path: Path) -> int:
    """A process that has connected and waits; its pid."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            os.write(theirs, b"c")
            signal.pause()
    os.close(theirs)
    assert os.read(ours, 1) == b"c"
    os.close(ours)
    return pid


def end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_a_peer_is_asked_for_by_number_and_pidfd(tmp_path: Path, door: tuple[Reactor, Asked]) -> None:
    reactor, asked = door
    pid = connected_child(tmp_path / "s")
    try:
        reactor.turn()
        ((user, seen, pidfd, lived),) = asked
        assert (user, seen) == (os.geteuid(), pid)
        given = not missing("peerpidfd")
        assert (pidfd >= 0, lived) == (given, given)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(pidfd)  # it was closed again
    finally:
        end(pid)


def test_a_peer_that_is_gone_is_nobodys_number(tmp_path: Path, door: tuple[Reactor, Asked]) -> None:
    reactor, asked = door
    end(connected_child(tmp_path / "s"))
    reactor.turn()
    ((_, pid, _, lived),) = asked
    assert not lived
    assert process.descends(pid, os.getpid())  # so it is not trusted


@pytest.mark.needs("root", "peerpidfd")
def test_a_number_that_was_given_again_is_noticed(tmp_path: Path, door: tuple[Reactor, Asked]) -> None:
    """A task connects and dies, and a process that may be trusted gets its number."""
    reactor, asked = door
    pid = connected_child(tmp_path / "s")
    end(pid)
    wanted = ctypes.create_string_buffer(struct.pack("=i", pid))
    # struct clone_args with set_tid: a process of that very number
    arguments = struct.pack("=11Q", 0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, ctypes.addressof(wanted), 1, 0)
    other = syscall("clone3", arguments, len(arguments))
    if other == 0:
        while True:
            signal.pause()
    try:
        assert other == pid
        reactor.turn()
        ((_, seen, _, lived),) = asked
        assert not lived
        assert seen in (pid, GONE)
        assert not process.descends(other, 2**22)  # by its number alone it is none of ours
    finally:
        end(other)


def test_ancestors() -> None:
    pid = os.fork()
    if pid == 0:
        signal.pause()
    try:
        assert process.descends(pid, os.getpid())
        assert process.descends(pid, pid)
        assert not process.descends(os.getpid(), pid)
        assert not process.descends(0, os.getpid())  # outside of our pid namespace
        assert process.descends(-1, os.getpid())  # there is no such process
    finally:
        end(pid)
    assert process.descends(pid, 2**22)


def test_ancestors_that_change_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = iter([[7, 5, 1], [7, 1]])
    monkeypatch.setattr(process, "lineage", lambda _: next(lines))
    assert process.descends(7, 2)
    lines = iter([[7, 5, 1], [7, 5, 1]])
    assert not process.descends(7, 2)


def test_who_has_been_reaped_is_not_trusted_by_its_number() -> None:
    nobody: Any = None
    pid = os.fork()
    if pid == 0:
        signal.pause()
    pidfd = process.pidfd_open(pid)
    # 0 is nobody's descendant, so the pidfd alone decides.
    alive = Supervisor.owns(nobody, 0, pidfd)
    end(pid)
    gone = Supervisor.owns(nobody, 0, pidfd)
    os.close(pidfd)
    assert (alive, gone) == (False, True)
