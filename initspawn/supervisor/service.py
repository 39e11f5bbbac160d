"""A command that starts by itself: its life as a table, and when it is started again. Boot module; pure.

    WAITING   its stage, others or its conditions are to come      RUNNING  it is ready
    STARTING  it has been started and is not ready yet             PAUSED   it failed, and is started again
    ENDING    it is being stopped by us
    DONE      it has ended well        FAILED   for good, it is not started again
    SKIPPED   it is not started        STOPPED  somebody has stopped it, or what it requires is gone
"""

from __future__ import annotations

from initspawn.errors import InitspawnError
from initspawn.plan import ALWAYS, EXITED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from initspawn.plan import Autostart, Restart

WAITING, STARTING, RUNNING, ENDING, PAUSED, DONE, FAILED, SKIPPED, STOPPED = STATES = (
    "waiting", "starting", "running", "ending", "paused", "done", "failed", "skipped", "stopped",
)  # fmt: skip

# What happens to a service.
START = "start"  # its turn has come
SKIP = "skip"  # its turn will not come
READY = "ready"
STOP = "stop"  # we have asked it to end
RETRY = "retry"  # it has ended, and will be started again
AGAIN = "again"  # the pause is over
FINISH = "finish"  # it has ended well, and is not started again
GIVE_UP = "give up"  # it has failed, and is not started again
HALT = "halt"  # somebody wanted it to end

# When these happened is remembered; the first three as of the first time, ends as of the last.
DUE, RUNS, IS_READY, ENDED = MOMENTS = ("due", "started", "ready", "ended")

_ENDS = {RETRY: PAUSED, FINISH: DONE, GIVE_UP: FAILED, HALT: STOPPED}
_LAST = (SKIP, *_ENDS)
TRANSITIONS = {
    (WAITING, START): STARTING,
    (WAITING, SKIP): SKIPPED,
    (STARTING, READY): RUNNING,
    (STARTING, STOP): ENDING,
    (RUNNING, STOP): ENDING,
    (PAUSED, AGAIN): WAITING,
    (PAUSED, SKIP): SKIPPED,
    (WAITING, HALT): STOPPED,
    (PAUSED, HALT): STOPPED,
    **{(state, event): end for state in (STARTING, RUNNING, ENDING) for event, end in _ENDS.items()},
}
ALIVE = (STARTING, RUNNING, ENDING)  # there is a task
SETTLED = (RUNNING, DONE, FAILED, SKIPPED, STOPPED)  # who comes after it need not wait any more
MET = (RUNNING, DONE)  # who requires it may start
BROKEN = (FAILED, SKIPPED, STOPPED)  # and may not


class ServiceError(InitspawnError):
    """Something happened to a service that cannot happen in its state: a fault of this program."""


class Service:
    """The state of one command that starts by itself. `name` is `API/VERB`; times are of the loop's clock."""

    def __init__(self, name: str, plan: Autostart, now: float) -> None:
        self.name = name
        self.plan = plan
        self.run = plan  # as it was when this run began; a reload makes `plan` another
        self.state = WAITING
        self.since = now
        self.starts = 0
        self.failures = 0  # in a row: since it last ran well
        self.why = ""  # it is in this state, where the state alone does not say
        self.ready_at = 0.0  # of this run; 0: not yet
        self.deadline = 0.0  # for getting ready, then for its next sign of life; 0: none
        self.told: dict[str, Any] = {}  # of itself, in this run
        self.moments: dict[str, float] = {}
        self.waited = ""  # for this last before its first start: a name, a stage, a condition in words
        self.intent = ""  # the event that its end will be, if we have asked for it; else its end decides

    def on(self, event: str, now: float, why: str = "") -> str:
        """The state after this event. Raises ServiceError."""
        try:
            self.state = TRANSITIONS[self.state, event]
        except KeyError:
            raise ServiceError(f"{event!r} for {self.name}, which is {self.state}") from None
        self.since, self.why = now, why
        if event == START:
            self.run = self.plan
            self.starts += 1
            self.ready_at, self.deadline, self.intent, self.told = 0.0, 0.0, "", {}
            self.moments.setdefault(DUE, now)
        elif event == READY:
            self.ready_at = now
            self.moments.setdefault(IS_READY, now)
        elif event in _LAST:
            self.moments[ENDED] = now
            if event == FINISH:  # what is ready by its end has no other moment
                self.moments.setdefault(IS_READY, now)
        return self.state

    def judge(self, code: int | None, now: float) -> str:
        """The event that its end is. `code`: the command's exit code; None: it was refused, it was too late,
        or a signal has ended it.
        """
        restart = self.plan.restart
        if restart is not None and self.ready_at and now - self.ready_at >= restart.ran_well:
            self.failures = 0
        # What is ready by a notification has not become what others wait for if it ends before.
        well = code == 0 and (self.run.ready == EXITED or bool(self.ready_at))
        if well and (restart is None or restart.policy != ALWAYS):
            return FINISH
        self.failures += 1
        if restart is None or code in restart.permanent or self.failures == restart.tries:
            return GIVE_UP
        return RETRY

    def pause(self, chance: float) -> float:
        """Seconds until it is started again. `chance`: from 0 to 1, for the jitter."""
        restart = self.plan.restart
        assert restart is not None
        return _doubled(restart, self.failures - 1) * (1 - restart.jitter * chance)

    def record(self, now: float) -> dict[str, Any]:
        """What is told of it."""
        told: dict[str, Any] = {
            "command": self.name,
            "stage": self.plan.stage,
            "state": self.state,
            "seconds": round(now - self.since, 3),
            "starts": self.starts,
            "failures": self.failures,
            **self.told,
        }
        return {**told, "why": self.why} if self.why else told

    def times(self) -> dict[str, Any]:
        """What the time line tells of it: the moments are seconds of the loop's clock."""
        known = {name: round(self.moments[name], 6) for name in MOMENTS if name in self.moments}
        told = {"command": self.name, "state": self.state, "handover": self.plan.handover, **known}
        return {**told, "waited": self.waited} if self.waited else told


def _doubled(restart: Restart, times: int) -> float:
    pause = restart.pause
    while times > 0 and pause < restart.longest:
        pause, times = pause * 2, times - 1
    return min(pause, restart.longest)
