"""Who has connected to a unix socket: what the kernel says, and whether it is still true."""

from __future__ import annotations

import _socket
import ctypes
import os
import signal
import socket
import struct
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from initspawn.control.server import GONE, Door, ServiceDoor, listen
from initspawn.control.state import State
from initspawn.control.tokens import NAME, write
from initspawn.linux import process
from initspawn.linux.libc import syscall
from initspawn.supervisor.reactor import Reactor
from initspawn.verbs.access import NOBODY, Identity, Token, Tokens
from tests.support.full import full
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


class Failing(set[Any]):
    """A set that has no room the first time."""

    full = True

    def add(self, item: object) -> None:
        if self.full:
            self.full = False
            raise MemoryError
        super().add(item)


STEPS = ("identify", "socketpair", "add", "watch", "sendmsg", "on_connect")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("kind", [Door, ServiceDoor])
def test_a_client_comes_in_once_where_memory_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Door], step: str
) -> None:
    """At any step of it, and is there again."""
    reactor = Reactor()
    reactor.room.keep()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setblocking(False)
    calls: list[str] = []

    def failing(name: str, whole: Any) -> Any:
        def call(*given: Any) -> Any:
            calls.append(name)
            if name == step and calls.count(name) == 1:
                raise MemoryError
            return whole(*given)

        return call

    more: dict[str, Any] = {}
    if kind is ServiceDoor:
        gateway = SimpleNamespace(sendmsg=failing("sendmsg", ours.sendmsg))
        more = {"gateway": gateway, "protocol": b"http", "serving": lambda: True}
    made = kind(
        listen(str(tmp_path / "s")), **more, name="control", reactor=reactor, tokens=Tokens(),
        registry=SimpleNamespace(
            supervisor=SimpleNamespace(disconnected=lambda _: None), watchers={}, limits={"connections": 4}
        ),
        identify=failing("identify", lambda *_: NOBODY), on_connect=failing("on_connect", lambda: None),
    )  # fmt: skip
    if step == "add":
        made.connections = Failing()
    monkeypatch.setattr(reactor, "watch", failing("watch", reactor.watch))
    monkeypatch.setattr("_socket.socketpair", failing("socketpair", _socket.socketpair))
    with socket.socket(socket.AF_UNIX) as client:
        before = len(os.listdir("/proc/self/fd"))
        client.connect(str(tmp_path / "s"))
        for _ in range(3):
            reactor.turn(0.01)
        assert calls.count("on_connect") == 1 + (step == "on_connect")
        assert len(made.connections) == 1
        assert len(os.listdir("/proc/self/fd")) == before + 1
        if kind is ServiceDoor:
            message, descriptors, _, _ = socket.recv_fds(theirs, 100, 2)
            assert (message, len(descriptors)) == (b"%d http" % os.getuid(), 2)
            with pytest.raises(BlockingIOError):
                theirs.recv(100)
            for fd in descriptors:
                os.close(fd)
    made.close()
    reactor.close()
    for one in (ours, theirs):
        one.close()


def test_a_door_that_pauses_without_memory_hears_again(
    tmp_path: Path, door: tuple[Reactor, Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    reactor, asked = door
    after = reactor.after

    def fails(seconds: float, callback: Any) -> Any:
        monkeypatch.setattr(reactor, "after", after)
        raise MemoryError

    with full(1), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "s"))
        monkeypatch.setattr(reactor, "after", fails)
        reactor.turn(0.2)
    before = time.monotonic()
    while not asked and time.monotonic() < before + 5:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as client:
            client.connect_ex(str(tmp_path / "s"))
            reactor.turn(0.2)
    assert asked


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
    pid = os.fork()
    if pid == 0:
        signal.pause()
    pidfd = process.pidfd_open(pid)
    # 0 is nobody's descendant, so the pidfd alone decides.
    alive = process.is_ours(0, pidfd)
    end(pid)
    gone = process.is_ours(0, pidfd)
    os.close(pidfd)
    assert (alive, gone) == (False, True)


def test_no_descriptor_left_to_look_is_no_answer() -> None:
    with full(), pytest.raises(OSError, match="Too many open files"):
        process.descends(os.getppid(), os.getpid())


def test_a_peer_gets_in_by_what_is_held_for_it(tmp_path: Path, door: tuple[Reactor, Asked]) -> None:
    reactor, asked = door
    reactor.room.keep()
    with socket.socket(socket.AF_UNIX) as client, full():
        client.connect(str(tmp_path / "s"))
        reactor.turn()
        reactor.turn()
        assert [seen for _, seen, _, _ in asked] == [os.getpid()]
        assert [lack["what"] for lack in reactor.room.told()] == ["descriptors"]


@pytest.mark.parametrize("free", [0, 1])
def test_a_peer_waits_until_it_can_be_seen_who_it_is(
    tmp_path: Path, door: tuple[Reactor, Asked], free: int
) -> None:
    """One is enough to let it in, and not for more: then nobody else comes in before it."""
    reactor, asked = door
    first, second = (socket.socket(socket.AF_UNIX) for _ in range(2))
    with first, second, full(free) as taken:
        for client in (first, second):
            client.connect(str(tmp_path / "s"))
        for _ in range(3):
            reactor.turn(0.2)
        assert asked == []
        assert reactor._epoll.poll(0) == [], "it waits, and does not turn"
        for _ in range(8):
            os.close(taken.pop())
        before = time.monotonic()
        while len(asked) < 2 and time.monotonic() < before + 30:
            reactor.turn(0.2)
        assert [seen for _, seen, _, _ in asked] == [os.getpid()] * 2


def test_others_leave_room_for_local_clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, admitted in (("network", 0), ("control", 1)):
        reactor = Reactor()
        asked: list[int] = []

        def identify(user: int, pid: int, pidfd: int, asked: list[int] = asked) -> Identity:
            asked.append(pid)
            return NOBODY

        registry: Any = SimpleNamespace(
            supervisor=SimpleNamespace(disconnected=lambda _: None), watchers={}, limits={"connections": 4}
        )
        path = str(tmp_path / name)
        made = Door(
            listen(path), name=name, reactor=reactor, registry=registry, tokens=Tokens(), identify=identify
        )
        monkeypatch.setattr(reactor.room, "ceiling", lambda share: 3 if share else sys.maxsize)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            client.connect(path)
            reactor.turn()
            assert len(asked) == admitted
            if not admitted:
                assert b"no descriptors left" in client.recv(1000)
                assert reactor.room.short
        made.close()
        reactor.close()


@pytest.mark.parametrize("held", [True, False])
def test_tokens_that_cannot_be_read_for_want_of_descriptors(
    tmp_path: Path, held: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are read with what is held; without, none is valid until they can be."""
    token = Token(name="a", digest="0" * 64, scopes=frozenset(("*",)), expires=None)
    write(str(tmp_path / NAME), [token])
    reactor, tokens = Reactor(), Tokens()
    if held:
        reactor.room.keep()
    state = State(str(tmp_path), reactor, tokens)
    valid = lambda: [one.name for one in tokens._stored]  # noqa: E731
    with full():
        os.utime(tmp_path / NAME)
        state._read()
        assert valid() == (["a"] if held else [])
    before = time.monotonic()
    while not valid() and time.monotonic() < before + 30:
        reactor.turn(0.5)
    assert valid() == ["a"]
    assert ("no token of the file is valid" in capsys.readouterr().err) is not held
    state.close(remove=True)
    reactor.close()


def test_a_peer_is_not_lost_for_want_of_memory(tmp_path: Path) -> None:
    reactor = Reactor()
    asked: list[int] = []

    def identify(user: int, pid: int, pidfd: int) -> Identity:
        asked.append(pid)
        if len(asked) < 3:
            raise MemoryError
        return NOBODY

    registry: Any = SimpleNamespace(
        supervisor=SimpleNamespace(disconnected=lambda _: None), watchers={}, limits={"connections": 4}
    )
    path = str(tmp_path / "s")
    made = Door(
        listen(path), name="control", reactor=reactor, registry=registry, tokens=Tokens(), identify=identify
    )
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        before = time.monotonic()
        while not made.connections and time.monotonic() < before + 30:
            reactor.turn(0.2)
        assert len(made.connections) == 1
        assert asked == [os.getpid()] * 3
    made.close()
    reactor.close()
