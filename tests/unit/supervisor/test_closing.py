"""When a supervisor's end is over: nothing is left, or nothing more is to be expected. In virtual time."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from initspawn.limits import CLOSE_SECONDS, LOST_SECONDS
from initspawn.supervisor import task as life
from initspawn.supervisor.closing import Closing
from initspawn.supervisor.prepare import Preparer

STEP = 0.0625  # exact in binary: sums have no error


class Bench:
    """A supervisor with these tasks, and time that passes when it is told to."""

    def __init__(self, *tasks: Any) -> None:
        self.now = 0.0
        self.due: list[Any] = []
        self.empty = False  # whether no start has a process
        self.known: list[Any] = []
        self.closed = 0.0
        self.leaving: set[int] = set()
        self.tasks = list(tasks)
        self.reserve = SimpleNamespace(starts=["kept"], empty=True)
        self.roster = SimpleNamespace(every=lambda: self.tasks)
        self.reactor = SimpleNamespace(clock=lambda: self.now, after=self.after)
        closing: Any = self
        Closing(closing, closing, self.leaving, CLOSE_SECONDS, self.over).look()

    def after(self, seconds: float, then: Callable[[], None]) -> Any:
        timer: Any = SimpleNamespace(then=then, cancel=lambda: self.due.remove(timer))
        self.due.append(timer)
        return timer

    def end_others(self, known: list[Any]) -> None:
        self.known = known

    def close(self) -> None:
        self.closed = self.now

    def over(self) -> None:
        assert not self.due

    def run(self) -> float:
        """When it was over."""
        while self.due:
            (timer,) = self.due
            self.due.clear()
            self.now += STEP
            timer.then()
        return self.closed


def task(*, reading: bool = False, state: str = life.RUNNING) -> Any:
    return SimpleNamespace(start="its own", reading=reading, life=SimpleNamespace(state=state))


def test_nothing_is_waited_for_where_there_is_nothing() -> None:
    bench = Bench()
    bench.empty = True
    assert bench.run() == STEP


def test_what_lives_is_waited_for_to_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    bench = Bench(task())
    assert bench.run() == CLOSE_SECONDS + STEP
    assert "some tasks do not end" in capsys.readouterr().err
    assert bench.known == ["its own", "kept"]


def test_the_reaper_of_one_that_has_ended_is_ended() -> None:
    bench = Bench(task(state=life.DRAINING))
    bench.run()
    assert bench.known == ["kept"]


def test_what_nobody_remembers_is_waited_for_as_well() -> None:
    assert Bench().run() == CLOSE_SECONDS + STEP


def test_a_task_without_a_process_is_lost(capsys: pytest.CaptureFixture[str]) -> None:
    bench = Bench(task())
    bench.empty = True
    assert bench.run() == LOST_SECONDS + 2 * STEP
    assert "nothing is heard of some tasks" in capsys.readouterr().err


def test_its_output_is_told_first() -> None:
    bench = Bench(task(reading=True))
    bench.empty = True
    assert bench.run() == CLOSE_SECONDS + STEP


def test_a_reaper_that_leaves_is_waited_for_while_it_is_there() -> None:
    bench = Bench()
    bench.empty = True
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    bench.leaving.add(child)
    try:
        assert bench.run() == CLOSE_SECONDS + STEP
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    gone = Bench()
    gone.empty = True
    gone.leaving.add(child)
    assert gone.run() == LOST_SECONDS + 2 * STEP


class Start:
    """A start as the preparer sees it; its process is this test's parent, or was never made."""

    cgroup = None
    handshake = True

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.unheard = not pid
        self.done: list[str] = []

    def kill(self, *, reaper: bool) -> None:
        assert reaper
        self.done.append("killed")

    def dismiss(self) -> None:
        self.done.append("dismissed")


def test_starts_that_nobody_knows_of_are_ended() -> None:
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    known, lost, unborn, gone = Start(child), Start(child), Start(0), Start(os.getppid())
    launcher = SimpleNamespace(starts={known, lost, unborn, gone})
    preparer = Preparer(*[launcher] * 4)  # type: ignore[arg-type]
    try:
        preparer.end_others([known])  # type: ignore[list-item]
        assert [start.done for start in (known, lost, unborn, gone)] == [[], ["killed"], ["dismissed"], []]
        assert not preparer.empty
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert not preparer.empty  # the spawner may still make one
    launcher.starts.discard(unborn)
    assert preparer.empty
