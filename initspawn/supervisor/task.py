"""The life of a task as a table. Boot module; pure.

Only this file knows which state follows which. The rest asks `Life.on` and acts on the answer.

    QUEUED    it waits for its turn
    STARTING  its reaper is being made          RUNNING   it has been measured and let go
    HELD      it is on its way to its exec      STOPPING  it has been asked to end
    DRAINING  it has ended, output is left      ENDED     all is told
    REFUSED   it never ran: a step failed
"""

from __future__ import annotations

from initspawn.errors import InitspawnError

QUEUED, STARTING, HELD, RUNNING, STOPPING, DRAINING, ENDED, REFUSED = STATES = (
    "queued", "starting", "held", "running", "stopping", "draining", "ended", "refused",
)  # fmt: skip

# What happens to a task.
WAIT = "wait"  # there are as many of its command as there may be
TURN = "turn"  # one of them has ended
READY = "ready"  # the command waits to be held
MEASURED = "measured"  # it stood at its exec, had what was planned, and runs
STOP = "stop"  # somebody asked, or its time is over
GONE = "gone"  # nothing of it is left but its output
AGAIN = "again"  # the same, but the start is tried anew
DRAINED = "drained"  # both streams have ended

TRANSITIONS = {
    (STARTING, WAIT): QUEUED,
    (QUEUED, TURN): STARTING,
    (QUEUED, GONE): REFUSED,
    (STARTING, READY): HELD,
    (STARTING, STOP): STARTING,  # the kill makes it go
    (STARTING, GONE): REFUSED,
    (STARTING, AGAIN): STARTING,
    (HELD, MEASURED): RUNNING,
    (HELD, STOP): HELD,
    (HELD, GONE): REFUSED,
    (HELD, AGAIN): STARTING,
    (RUNNING, STOP): STOPPING,
    (RUNNING, GONE): DRAINING,
    (STOPPING, STOP): STOPPING,
    (STOPPING, GONE): DRAINING,
    (DRAINING, STOP): DRAINING,  # a time limit that lost the race
    (DRAINING, DRAINED): ENDED,
    (ENDED, STOP): ENDED,
    (REFUSED, STOP): REFUSED,
}
ALIVE = (QUEUED, STARTING, HELD, RUNNING, STOPPING, DRAINING)


class LifeError(InitspawnError):
    """Something happened to a task that cannot happen in its state: a fault of this program."""


class Life:
    """The state of one task."""

    def __init__(self) -> None:
        self.state = STARTING

    def on(self, event: str) -> str:
        """The state after this event. Raises LifeError."""
        try:
            self.state = TRANSITIONS[self.state, event]
        except KeyError:
            raise LifeError(f"{event!r} for a task that is {self.state}") from None
        return self.state

    @property
    def alive(self) -> bool:
        """Whether it may still cause events."""
        return self.state in ALIVE

    @property
    def started(self) -> bool:
        """Whether the command has run at all."""
        return self.state in (RUNNING, STOPPING, DRAINING, ENDED)
