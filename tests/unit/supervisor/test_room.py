"""What is kept back, what is given up for it, and what is said of a shortage."""

from __future__ import annotations

import errno
import mmap
import os
import resource
import sys
from collections.abc import Callable, Iterator

import pytest

from initspawn.limits import CALM_SECONDS, OWN_BYTES, OWN_DESCRIPTORS
from initspawn.linux.libc import missing
from initspawn.supervisor.room import CALLER, CLIENT, RESERVE, Room
from tests.support.full import Deaf


class Loop:
    """Time that passes when we say so."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def clock(self) -> float:
        return self.now

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        self.timers.append((self.now + seconds, callback))

    def go(self, seconds: float) -> None:
        """Let so much time pass."""
        until = self.now + seconds
        while due := sorted(at for at, _ in self.timers if at <= until):
            self.now = due[0]
            ready = [timer for timer in self.timers if timer[0] <= self.now]
            self.timers = [timer for timer in self.timers if timer[0] > self.now]
            for _, callback in ready:
                callback()
        self.now = until


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def room(loop: Loop) -> Iterator[Room]:
    made = Room(loop.clock, loop.later)
    made.keep()
    yield made
    made.close()


@pytest.fixture
def soft(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """What the limit of open files seems to be."""

    def limit(most: int) -> None:
        monkeypatch.setattr(resource, "getrlimit", lambda _: (most, most))

    return limit


@pytest.fixture
def nothing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`nothing(number)`: from now on there are no descriptors, with this errno; 0: there are again."""
    real = os.eventfd

    def none(number: int) -> None:
        def fails(*_: int) -> int:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "eventfd", fails if number else real)

    return none


@pytest.fixture
def no_memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """`no_memory(most)`: from now on there is none for more than so many bytes."""
    real = mmap.mmap

    def none(most: int) -> None:
        def little(fd: int, size: int, flags: int) -> mmap.mmap:
            if size > most:
                raise OSError(errno.ENOMEM, "no memory")
            return real(fd, size, flags)

        monkeypatch.setattr(mmap, "mmap", little)

    return none


def whats(room: Room) -> list[str]:
    return [lack["what"] for lack in room.told()]


def test_who_may_take_how_many(room: Room, soft: Callable[[int], None]) -> None:
    soft(1 << 20)
    kept = [(1 << 20) - room.ceiling(share) for share in (RESERVE, CALLER, CLIENT, 0.0)]
    assert kept == [2 * OWN_DESCRIPTORS, OWN_DESCRIPTORS, OWN_DESCRIPTORS // 2, 0]
    soft(64)
    assert [room.ceiling(share) for share in (RESERVE, CALLER, CLIENT, 0.0)] == [32, 48, 56, 64]
    soft(resource.RLIM_INFINITY)
    assert room.ceiling(CALLER) == sys.maxsize


def test_who_keeps_nothing_back_is_never_short(loop: Loop, no_memory: Callable[[int], None]) -> None:
    before = len(os.listdir("/proc/self/fd"))
    room = Room(loop.clock, loop.later)
    no_memory(0)
    assert room.ceiling(RESERVE) == sys.maxsize
    assert room.fits(65536) == 65536
    assert room.told() == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_is_held_is_given_back(loop: Loop) -> None:
    before = len(os.listdir("/proc/self/fd"))
    room = Room(loop.clock, loop.later)
    room.keep()
    assert len(os.listdir("/proc/self/fd")) == before + 8
    room.close()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (MemoryError(), errno.ENOMEM),
        (OSError(errno.EMFILE, ""), errno.EMFILE),
        (OSError(errno.ENFILE, ""), errno.ENFILE),
        (OSError(errno.ENOMEM, ""), errno.ENOMEM),
        (BlockingIOError(errno.EAGAIN, ""), 0),
        (OSError("without a number"), 0),
        (ValueError(errno.EMFILE), 0),
    ],
)
def test_what_says_that_something_is_missing(error: BaseException, number: int) -> None:
    assert missing(error) == number


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_our_own_needs_get_what_is_held(
    room: Room, loop: Loop, nothing: Callable[[int], None], number: int
) -> None:
    held = len(os.listdir("/proc/self/fd"))
    nothing(number)
    assert room.spend(number)
    assert len(os.listdir("/proc/self/fd")) == held - 8
    assert not room.spend(number)  # there is no more of it
    (lack,) = room.told()
    assert (lack["what"], lack["times"], lack["seconds"]) == ("descriptors", 2, 0)
    assert lack["why"].startswith(f"{os.strerror(number)}: raise the ")
    loop.go(10 * CALM_SECONDS)
    assert room.told()[0]["seconds"] == 10 * CALM_SECONDS  # still none
    nothing(0)
    loop.go(2 * CALM_SECONDS)
    assert room.told() == []
    assert len(os.listdir("/proc/self/fd")) == held


def test_what_waits_goes_first_and_comes_again(room: Room, loop: Loop) -> None:
    held = len(os.listdir("/proc/self/fd"))
    asked: list[str] = []
    room.give_up, room.again = lambda: not asked.append("give up"), lambda: asked.append("again")
    assert room.lack(errno.EAGAIN)
    assert whats(room) == ["processes"]
    assert len(os.listdir("/proc/self/fd")) == held  # what may be refused gets nothing of that
    loop.go(CALM_SECONDS)
    assert (asked, room.short) == (["give up", "again"], False)
    room.give_up = lambda: False
    assert not room.lack(errno.EAGAIN)
    assert not room.lack(errno.EPERM)


def test_it_is_said_once(room: Room, loop: Loop, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(20):
        room.lack(errno.EAGAIN)
        loop.go(2 * CALM_SECONDS)
        assert not room.short
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 + int(40 * CALM_SECONDS // 60)
    assert said[0].startswith("initspawn: short of processes: Resource temporarily unavailable: raise ")


def test_it_is_over_when_nothing_is_heard_of_it(room: Room, loop: Loop) -> None:
    for _ in range(5):
        room.lack(errno.EMFILE)
        loop.go(0.75 * CALM_SECONDS)
        assert room.short
    assert room.told()[0]["times"] == 5
    loop.go(2 * CALM_SECONDS)
    assert not room.short
    room.lack(errno.EMFILE)
    assert room.told()[0]["times"] == 1


def test_a_descriptor_above_what_callers_may_have_is_a_shortage(
    room: Room, loop: Loop, soft: Callable[[int], None]
) -> None:
    soft(8)
    assert whats(room) == ["descriptors"]
    soft(1 << 16)
    loop.go(2 * CALM_SECONDS)
    assert whats(room) == []


def test_output_is_read_as_far_as_there_is_memory(
    room: Room, loop: Loop, no_memory: Callable[[int], None]
) -> None:
    assert room.fits(65536) == 65536
    no_memory(OWN_BYTES // 2)
    assert room.fits(65536) == 512
    assert room.fits(100) == 100
    assert whats(room) == ["memory"]
    no_memory(0)
    assert room.fits(100) == 0
    loop.go(10 * CALM_SECONDS)
    assert whats(room) == ["memory"]
    no_memory(2 * OWN_BYTES)
    assert room.fits(65536) == 65536
    loop.go(2 * CALM_SECONDS)
    assert whats(room) == []


def test_a_line_that_cannot_be_written_costs_nothing(
    room: Room, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    gave: list[str] = []
    room.give_up = lambda: not gave.append("give up")
    monkeypatch.setattr(sys, "stderr", Deaf())
    assert room.lack(errno.EMFILE)
    assert gave
    assert loop.timers


def test_a_control_group_more_than_may_be_is_no_process(
    room: Room, capsys: pytest.CaptureFixture[str]
) -> None:
    room.lack(errno.EAGAIN, group=True)
    room.lack(errno.EMFILE, group=True)
    assert whats(room) == ["descriptors", "control groups"]
    said = capsys.readouterr().err
    assert "initspawn: short of control groups: Resource temporarily unavailable: raise cgroup.max." in said
    assert "cgroup.max.descendants" in room.told()[1]["why"]
    assert "ulimit -u" not in said


def test_who_begins_without_memory_says_so(
    loop: Loop, no_memory: Callable[[int], None], capsys: pytest.CaptureFixture[str]
) -> None:
    room = Room(loop.clock, loop.later)
    no_memory(OWN_BYTES - 1)
    room.keep()
    assert room.short
    assert room.told()[0]["times"] == 1
    for _ in range(5):
        assert room.fits(100) == 100
    assert room.told()[0]["times"] == 1
    assert capsys.readouterr().err.count("short of memory") == 1
    no_memory(2 * OWN_BYTES)
    loop.go(2 * CALM_SECONDS)
    assert not room.short
    room.close()
