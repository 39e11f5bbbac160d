"""A supervisor's end: when nothing is left, or nothing more is to be expected. Boot module."""

from __future__ import annotations

from initspawn.limits import LOST_SECONDS
from initspawn.linux import process
from initspawn.say import say
from initspawn.supervisor import task as life

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from initspawn.supervisor.core import Supervisor
    from initspawn.supervisor.prepare import Preparer

_LOOK_SECONDS = 0.01
_RUNNING = (life.STARTING, life.HELD, life.RUNNING, life.STOPPING)


class Closing:
    """Calls `then` when all that `supervisor` has started is gone, `seconds` from now at the latest.

    `leaving` are reapers that are to be waited for. What the kernel says counts, not only what is remembered:
    an error may have come between a task and whoever should have taken note of it. A start that nobody knows
    of is ended; a task without a process, whose output is at its end, is waited for LOST_SECONDS at most.
    """

    def __init__(
        self, supervisor: Supervisor, preparer: Preparer, leaving: set[int], seconds: float,
        then: Callable[[], None],
    ) -> None:  # fmt: skip
        self._supervisor = supervisor
        self._preparer = preparer
        self._leaving = leaving
        self._clock = supervisor.reactor.clock
        self._end = self._clock() + seconds
        self._lost_since: float | None = None
        self._then = then

    def look(self) -> None:
        """Soon, and again until it is over."""
        self._supervisor.reactor.after(0, self._look)

    def _look(self) -> None:
        again = self._supervisor.reactor.after(_LOOK_SECONDS, self._look)  # whatever comes now
        reserve, tasks = self._supervisor.reserve, self._supervisor.roster.every()
        # Of a task that drains, or has been left among the others, nothing but its reaper can be there.
        running = [task.start for task in tasks if task.start and task.life.state in _RUNNING]
        self._preparer.end_others([*running, *reserve.starts])
        if tasks or self._leaving or not reserve.empty or not self._preparer.empty:
            now = self._clock()
            if not self._lost():
                self._lost_since = None
            elif self._lost_since is None:
                self._lost_since = now
            over = self._lost_since is not None and now - self._lost_since > LOST_SECONDS
            if not over and now <= self._end:
                return
            if tasks:
                what = "nothing is heard of some tasks" if over else "some tasks do not end"
                say(f"{what}, they are left behind")
        again.cancel()
        self._preparer.close()
        self._then()

    def _lost(self) -> bool:
        """Whether all that is waited for has no process any more, and no output."""
        return (
            self._preparer.empty
            and not any(task.reading for task in self._supervisor.roster.every())
            and not any(process.is_child(pid) for pid in self._leaving)
        )
