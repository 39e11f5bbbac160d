"""The loop: descriptors, timers by a clock of our own, and callbacks that fail."""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initspawn.limits import EVENTS_PER_WAKE
from initspawn.linux import process
from initspawn.supervisor.reactor import READ, WRITE, Reactor


class Clock:
    """Time that passes when we say so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reactor(clock: Clock) -> Iterator[Reactor]:
    made = Reactor(clock)
    yield made
    made.close()


@pytest.fixture
def pipe() -> Iterator[Callable[[], tuple[int, int]]]:
    """pipe(): a new pipe, closed at the end of the test."""
    opened: list[int] = []

    def pipe() -> tuple[int, int]:
        ends = os.pipe()
        opened.extend(ends)
        return ends

    yield pipe
    for fd in opened:
        try:
            os.close(fd)
        except OSError:
            pass


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was told of exceptions that nobody caught."""
    told: list[str] = []
    monkeypatch.setattr(
        sys, "excepthook", lambda kind, error, trace: told.append(f"{kind.__name__}: {error}")
    )
    return told


def test_what_was_ready_is_not_told_to_who_has_the_number_now(
    reactor: Reactor, pipe: Callable[[], tuple[int, int]]
) -> None:
    told: list[str] = []
    ends = [pipe(), pipe()]
    fresh = pipe()[0]

    def replace(number: int) -> None:
        other = ends[1 - number][0]
        reactor.forget(other)
        os.dup2(fresh, other)
        reactor.watch(other, READ, lambda _: told.append("fresh"))
        told.append("first")

    for number, (reader, writer) in enumerate(ends):
        os.write(writer, b"x")
        reactor.watch(reader, READ, lambda _, number=number: replace(number))  # type: ignore[misc]
    reactor.turn()
    assert told == ["first"]


# Timers.


def test_a_timer_is_not_early_and_runs_once(reactor: Reactor, clock: Clock) -> None:
    ran: list[float] = []
    reactor.after(1.0, lambda: ran.append(clock.now))
    reactor.turn()
    clock.now += 0.999
    reactor.turn()
    assert ran == []
    clock.now += 0.002
    reactor.turn()
    clock.now += 10
    reactor.turn()
    assert ran == [pytest.approx(101.001)]


@given(st.lists(st.integers(0, 20), max_size=12))
def test_timers_run_in_their_order(delays: list[int]) -> None:
    clock, ran = Clock(), []
    reactor = Reactor(clock)
    for delay in delays:
        reactor.after(delay, lambda delay=delay: ran.append(delay))  # type: ignore[misc]
    clock.now += 100
    reactor.turn()
    reactor.close()
    assert ran == sorted(delays)


def test_a_cancelled_timer_does_not_run(reactor: Reactor, clock: Clock) -> None:
    ran: list[str] = []
    timer = reactor.after(1.0, lambda: ran.append("cancelled"))
    reactor.after(1.0, lambda: ran.append("other"))
    timer.cancel()
    timer.cancel()
    clock.now += 2
    reactor.turn()
    timer.cancel()
    assert ran == ["other"]


def test_a_timer_cancels_one_that_is_due_with_it(reactor: Reactor, clock: Clock) -> None:
    ran: list[str] = []
    reactor.after(1.0, lambda: later.cancel())
    later = reactor.after(2.0, lambda: ran.append("later"))
    clock.now += 5
    reactor.turn()
    assert ran == []


def test_a_timer_made_by_a_timer(reactor: Reactor, clock: Clock) -> None:
    ran: list[str] = []
    reactor.after(1.0, lambda: reactor.after(1.0, lambda: ran.append("second")))
    clock.now += 1
    reactor.turn()
    assert ran == []
    clock.now += 1
    reactor.turn()
    assert ran == ["second"]


def test_patience_is_the_first_timers(reactor: Reactor, clock: Clock) -> None:
    assert reactor._patience(None) is None
    assert reactor._patience(3.0) == 3.0
    first = reactor.after(1.0, lambda: None)
    reactor.after(2.0, lambda: None)
    assert reactor._patience(None) == pytest.approx(1.001)
    assert reactor._patience(0.5) == 0.5
    first.cancel()
    assert reactor._patience(None) == pytest.approx(2.001)
    clock.now += 50
    assert reactor._patience(None) == pytest.approx(0.001)


# Descriptors.


def test_a_descriptor_is_told_until_it_is_forgotten(reactor: Reactor, pipe: Any) -> None:
    reader, writer = pipe()
    told: list[int] = []
    reactor.watch(reader, READ, told.append)
    reactor.turn()
    assert told == []
    os.write(writer, b"x")
    reactor.turn()
    reactor.turn()
    assert told == [READ, READ]
    reactor.forget(reader)
    reactor.forget(reader)
    reactor.turn()
    assert len(told) == 2


def test_other_events(reactor: Reactor, pipe: Any) -> None:
    _, writer = pipe()
    told: list[int] = []
    reactor.watch(writer, READ, told.append)
    reactor.turn()
    assert told == []
    reactor.change(writer, WRITE)
    reactor.turn()
    reactor.change(writer, READ)
    reactor.turn()
    assert told == [WRITE]


def test_a_silent_descriptor_does_not_even_tell_its_end(reactor: Reactor, pipe: Any) -> None:
    reader, writer = pipe()
    told: list[int] = []
    reactor.watch(reader, READ, told.append)
    reactor.change(reader, 0)
    reactor.change(reader, 0)
    os.write(writer, b"x")
    os.close(writer)
    reactor.turn()
    assert told == []
    reactor.change(reader, READ)
    reactor.turn()
    assert len(told) == 1
    assert told[0] & READ
    assert told[0] & select.EPOLLHUP


def test_a_silent_descriptor_is_forgotten_and_watched_anew(reactor: Reactor, pipe: Any) -> None:
    reader, writer = pipe()
    told: list[str] = []
    reactor.watch(reader, READ, lambda _: told.append("before"))
    reactor.change(reader, 0)
    reactor.forget(reader)
    os.write(writer, b"x")
    reactor.turn()
    reactor.watch(reader, READ, lambda _: told.append("after"))
    reactor.turn()
    assert told == ["after"]


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.ENOSPC])
@pytest.mark.parametrize("left", ["", "silenced", "forgotten"])
def test_a_silent_descriptor_comes_back_when_there_is_room(
    reactor: Reactor, clock: Clock, pipe: Any, monkeypatch: pytest.MonkeyPatch, number: int, left: str
) -> None:
    """Of memory, or of watches."""
    reader, writer = pipe()
    told: list[int] = []
    reactor.watch(reader, READ, told.append)
    os.write(writer, b"x")
    reactor.change(reader, 0)

    def full(*_: int) -> None:
        raise OSError(number, os.strerror(number))

    real = reactor._epoll
    rest = {name: getattr(real, name) for name in ("modify", "unregister", "poll", "close")}
    monkeypatch.setattr(reactor, "_epoll", SimpleNamespace(register=full, **rest))
    reactor.change(reader, READ)
    for _ in range(3):
        clock.now += 1
        reactor.turn()
    assert len(reactor._timers) == 1
    monkeypatch.setattr(reactor, "_epoll", real)
    if left == "silenced":
        reactor.change(reader, 0)
    elif left:
        reactor.forget(reader)
    clock.now += 1
    reactor.turn()
    reactor.turn()
    assert told == ([] if left else [READ])


def test_one_that_cannot_come_back_keeps_no_other(reactor: Reactor, pipe: Any) -> None:
    ends = [pipe()[0] for _ in range(2)]
    for fd in ends:
        reactor.watch(fd, READ, lambda _: None)
        reactor.change(fd, 0)
    os.close(ends[0])
    with pytest.raises(OSError, match="Bad file"):
        reactor.change(ends[0], READ)
    reactor.change(ends[1], READ)
    reactor.forget(ends[1])


def test_a_descriptor_is_watched_once(reactor: Reactor, pipe: Any) -> None:
    reader, _ = pipe()
    reactor.watch(reader, READ, lambda _: None)
    with pytest.raises(FileExistsError):
        reactor.watch(reader, READ, lambda _: None)


def test_a_callback_forgets_another_that_is_ready_too(reactor: Reactor, pipe: Any) -> None:
    ends = [pipe(), pipe()]
    told: list[int] = []

    def only_me(mine: int, other: int) -> None:
        told.append(mine)
        reactor.forget(other)

    for (mine, writer), (other, _) in zip(ends, reversed(ends), strict=True):
        reactor.watch(mine, READ, lambda _, mine=mine, other=other: only_me(mine, other))  # type: ignore[misc]
        os.write(writer, b"x")
    reactor.turn()
    assert len(told) == 1


def test_a_callback_forgets_itself(reactor: Reactor, pipe: Any) -> None:
    reader, writer = pipe()
    told: list[int] = []

    def once(events: int) -> None:
        told.append(events)
        reactor.forget(reader)
        os.close(reader)

    reactor.watch(reader, READ, once)
    os.write(writer, b"x")
    reactor.turn()
    reactor.turn()
    assert told == [READ]


def test_timers_have_their_turn_beside_busy_descriptors(reactor: Reactor, clock: Clock, pipe: Any) -> None:
    order: list[str] = []
    reader, writer = pipe()
    os.write(writer, b"x")
    reactor.watch(reader, READ, lambda _: order.append("descriptor"))
    reactor.after(0.0, lambda: order.append("timer"))
    reactor.turn()
    reactor.turn()
    assert order == ["descriptor", "timer", "descriptor"]


# Failing.


def test_an_exception_does_not_end_the_loop(
    reactor: Reactor, clock: Clock, pipe: Any, reported: list[str]
) -> None:
    reader, writer = pipe()
    ran: list[str] = []

    def fails(*_: int) -> None:
        ran.append("failing")
        raise ValueError("on purpose")

    reactor.watch(reader, READ, fails)
    os.write(writer, b"x")
    reactor.after(0.0, fails)
    reactor.after(0.0, lambda: ran.append("timer"))
    reactor.turn()
    assert ran == ["failing", "failing", "timer"]
    assert reported == ["ValueError: on purpose"] * 2


@pytest.mark.parametrize("kind", [MemoryError, KeyboardInterrupt])
@pytest.mark.parametrize("where", ["_patience", "clock", "callback"])
def test_nor_does_one_of_the_loops_own(
    reactor: Reactor, monkeypatch: pytest.MonkeyPatch, reported: list[str], kind: Any, where: str
) -> None:
    """Wherever it comes from, and the second turn is one like any other."""

    def fails(*_: Any) -> Any:
        monkeypatch.undo()
        monkeypatch.setattr(sys, "excepthook", lambda kind, error, _: reported.append(kind.__name__))
        raise kind

    reactor.after(-2.0, fails if where == "callback" else lambda: None)
    reactor.after(-1.0, reactor.stop)
    if where != "callback":
        monkeypatch.setattr(reactor, where, fails)
    reactor.run()
    assert reported == [kind.__name__]


@pytest.mark.parametrize("kind", [MemoryError(), OSError(errno.EMFILE, ""), OSError(errno.ENFILE, "")])
def test_what_finds_no_room_is_called_again_and_nobody_turns_in_circles(
    reactor: Reactor,
    pipe: Callable[[], tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
    reported: list[str],
    capsys: pytest.CaptureFixture[str],
    kind: BaseException,
) -> None:
    reader, writer = pipe()
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    left = [kind] * 5
    read: list[bytes] = []

    def reads(_: int) -> None:
        if left:
            raise left.pop()
        read.append(os.read(reader, 10))

    reactor.watch(reader, READ, reads)
    os.write(writer, b"x")
    for _ in range(6):
        reactor.turn()
    assert read == [b"x"]
    assert slept == [0.01] * 5
    assert len(reported) == 1  # where it was
    assert capsys.readouterr().err.count("initspawn: short of ") == 1
    assert reactor.room.told()[0]["times"] == 5


@pytest.fixture
def starved(monkeypatch: pytest.MonkeyPatch, reported: list[str]) -> Callable[[], None]:
    """starved() finds no room, the first three times."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    left: list[BaseException] = [OSError(errno.EMFILE, ""), MemoryError(), MemoryError()]

    def starved() -> None:
        if left:
            raise left.pop()

    return starved


def test_a_timer_that_finds_no_room_is_set_anew(
    reactor: Reactor, clock: Clock, starved: Callable[[], None]
) -> None:
    ran: list[str] = []
    reactor.after(1.0, lambda: (starved(), ran.append("at last")))
    cancelled = reactor.after(1.0, lambda: (starved(), ran.append("cancelled")))
    clock.now += 1
    reactor.turn()
    cancelled.cancel()
    reactor.turn()
    assert (ran, reactor._patience(None)) == ([], pytest.approx(0.011))
    for _ in range(3):
        clock.now += 0.02
        reactor.turn()
    assert ran == ["at last"]


def test_a_timer_that_sees_to_itself_does_not_become_two(
    reactor: Reactor, clock: Clock, starved: Callable[[], None]
) -> None:
    ran: list[float] = []

    class Periodic:
        def run(self) -> None:
            reactor.after(1.0, self.run)
            ran.append(clock.now)
            starved()

    reactor.after(0.0, Periodic().run)
    for _ in range(1000):
        reactor.turn()
        clock.now += 0.01
    assert len(ran) == 10


def test_news_of_a_child_that_find_no_room_are_told_again_and_keep_nobody_up(
    reactor: Reactor, monkeypatch: pytest.MonkeyPatch, starved: Callable[[], None]
) -> None:
    news = iter([(5, 1, "stopped"), (5, 0, "ended"), (6, 0, None), *[None] * 9])
    monkeypatch.setattr(process, "wait_any", lambda: next(news))
    told: list[tuple[int, int]] = []

    def on_child(pid: int, status: int, _: Any) -> None:
        if pid == 5:
            starved()
        told.append((pid, status))

    reactor.on_child = on_child
    reactor.reap()
    assert told == [(6, 0)]
    assert reactor._patience(None) == 0
    for _ in range(3):
        reactor.turn(None)
    assert told == [(6, 0), (5, 1), (5, 0)]
    reactor.turn()
    assert reactor._patience(None) == 2.001  # that of `room`
    assert len(told) == 3


def test_the_next_to_be_told_again_is_another_child(
    reactor: Reactor, monkeypatch: pytest.MonkeyPatch, starved: Callable[[], None]
) -> None:
    """It may be the one whose end makes room."""
    monkeypatch.setattr(process, "wait_any", lambda: next(news, None))
    news = iter([(5, 1, None), (5, 0, None), (6, 0, None)])
    told: list[tuple[int, int]] = []

    def on_child(pid: int, status: int, _: Any) -> None:
        starved()
        told.append((pid, status))

    reactor.on_child = on_child
    for _ in range(3):
        reactor.reap()
    assert told == [(6, 0), (5, 1), (5, 0)]


def test_a_signal_that_finds_no_room_is_told_again(
    reactor: Reactor, clock: Clock, monkeypatch: pytest.MonkeyPatch, starved: Callable[[], None]
) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    monkeypatch.setattr(process, "wait_any", lambda: None)
    told: list[str] = []
    try:
        reactor.signals({signal.SIGUSR2: lambda: (starved(), told.append("usr2"))})
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR2)
        reactor.turn(5.0)
        for _ in range(5):
            clock.now += 0.02
            reactor.turn()
        assert told == ["usr2"]
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_news_that_a_failure_lost_are_looked_for_again(
    reactor: Reactor, clock: Clock, monkeypatch: pytest.MonkeyPatch, reported: list[str]
) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    news: list[Any] = [MemoryError("once"), (5, 0, "a"), None]

    def wait_any() -> Any:
        if isinstance(news[0], MemoryError):
            raise news.pop(0)
        return news.pop(0)

    monkeypatch.setattr(process, "wait_any", wait_any)
    told: list[int] = []
    reactor.on_child = lambda pid, status, usage: told.append(pid)
    try:
        reactor.signals({})
        signal.pthread_kill(threading.get_ident(), signal.SIGCHLD)
        reactor.turn(5.0)
        assert (told, reported) == ([], ["MemoryError: once"])
        clock.now += 1
        reactor.turn()
        assert told == [5]
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_an_exit_ends_it(reactor: Reactor, reported: list[str]) -> None:
    reactor.after(0.0, sys.exit)
    with pytest.raises(SystemExit):
        reactor.turn()
    assert reported == []


# Running.


def test_run_serves_until_stop(reactor: Reactor, clock: Clock, pipe: Any) -> None:
    reader, writer = pipe()
    ran: list[str] = []

    def readable(_: int) -> None:
        ran.append(os.read(reader, 1).decode())
        if ran[-1] == "b":
            reactor.stop()

    reactor.watch(reader, READ, readable)
    os.write(writer, b"abc")
    reactor.run()
    assert ran == ["a", "b"]


def test_it_can_run_again(reactor: Reactor) -> None:
    ran: list[int] = []
    for number in range(2):
        reactor.after(0.0, lambda number=number: (ran.append(number), reactor.stop()))  # type: ignore[misc]
        reactor.run()
    assert ran == [0, 1]


# Children. What the kernel says is made up: no process is made here.


def test_all_news_of_children_is_told(reactor: Reactor, monkeypatch: pytest.MonkeyPatch) -> None:
    news = iter([(5, 0, "a"), (6, 256, "b"), None])
    monkeypatch.setattr(process, "wait_any", lambda: next(news))
    told: list[Any] = []
    reactor.on_child = lambda *what: told.append(what)
    reactor.reap()
    assert told == [(5, 0, "a"), (6, 256, "b")]


def test_a_failing_callback_loses_no_other_child(
    reactor: Reactor, monkeypatch: pytest.MonkeyPatch, reported: list[str]
) -> None:
    news = iter([(5, 0, "a"), (6, 0, "b"), None])
    monkeypatch.setattr(process, "wait_any", lambda: next(news))
    told: list[int] = []

    def on_child(pid: int, _: int, __: Any) -> None:
        told.append(pid)
        raise RuntimeError(str(pid))

    reactor.on_child = on_child
    reactor.reap()
    assert told == [5, 6]
    assert reported == ["RuntimeError: 5", "RuntimeError: 6"]


def test_many_children_leave_room_for_others(
    reactor: Reactor, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    total = EVENTS_PER_WAKE * 2 + 3
    news = iter([*((pid, 0, None) for pid in range(total)), *[None] * 5])
    monkeypatch.setattr(process, "wait_any", lambda: next(news))
    told: list[int] = []
    reactor.on_child = lambda pid, status, usage: told.append(pid)
    reactor.reap()
    assert len(told) == EVENTS_PER_WAKE
    reactor.turn()
    assert len(told) > EVENTS_PER_WAKE
    for _ in range(3):
        reactor.turn()
    assert told == list(range(total))


def test_signals_come_as_callbacks(reactor: Reactor, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    monkeypatch.setattr(process, "wait_any", lambda: None)
    told: list[str] = []
    try:
        reactor.signals({signal.SIGUSR2: lambda: told.append("usr2")})
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR2)
        reactor.turn(5.0)
        assert told == ["usr2"]
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
