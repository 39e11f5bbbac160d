"""All tasks of a supervisor, and how many of a command may be among them at once. Boot module; pure.

A start finds a place, waits for its turn, takes the turn of the one that has waited longest, or is refused.
Nothing happens between that look and the place being taken, so never are there more than there may be.
A command is known by the names of its API and its verb: after a reload it may be another object.
"""

from __future__ import annotations

from _collections import deque

from initspawn.errors import LaunchRefused, RequestError
from initspawn.limits import ENDED_TASKS, OWN_TASKS, TASKS
from initspawn.supervisor import task as life

TYPE_CHECKING = False
if TYPE_CHECKING:
    from initspawn.plan import Api, Command
    from initspawn.supervisor.running import Task

_EAGAIN = 11


class Roster:
    """`waiting` have been admitted to the queue of their command, oldest first; `starting` are on their way
    to their handshake, `tasks` past it; of `ended` the last ones are remembered.
    """

    def __init__(self) -> None:
        self.waiting: list[Task] = []
        self.starting: list[Task] = []
        self.tasks: list[Task] = []
        self.ended: deque[Task] = deque(maxlen=ENDED_TASKS)
        self._tickets = 0
        self.barred = ""  # why nothing may start that shares the network; empty: it may

    def every(self) -> list[Task]:
        """All that have not ended."""
        return [*self.tasks, *self.starting, *self.waiting]

    def alive(self, api: Api, command: Command) -> list[Task]:
        """The tasks of a command that have not ended, those that wait for their turn last."""
        return [task for task in self.every() if _is(task, api, command)]

    def known(self, api: Api, command: Command) -> list[Task]:
        """Before them those that have ended and are remembered."""
        ended = [task for task in self.ended if _is(task, api, command)]
        return ended + self.alive(api, command)

    def admit(self, task: Task) -> Task | None:
        """Find a place for a new task: afterwards it is among `starting`, or waits and its life says so.
        Returns one that has lost its place in the queue to it, whose life is to be ended.

        Raises RequestError(bad-state) where there is neither, LaunchRefused if there are too many tasks.
        """
        command = task.command
        if self.bars(task.api, command):
            raise RequestError("not-available", self.barred)
        most = TASKS + OWN_TASKS if task.api.own else TASKS  # callers leave room for what is our own
        if len(self.every()) >= most:
            raise LaunchRefused("slot", _EAGAIN, f"{most} tasks are alive already")
        known = self.alive(task.api, command)
        queue = [other for other in known if other.life.state == life.QUEUED]
        if not command.most or (not queue and len(known) < command.most):
            self.starting.append(task)
            return None
        lost = None
        if len(queue) >= command.queue:
            if not command.oldest_out or not queue:
                raise RequestError("bad-state", _full(command))
            lost = queue[0]
            self.waiting.remove(lost)
        self._tickets += 1
        task.ticket = self._tickets
        task.life.on(life.WAIT)
        self.waiting.append(task)
        return lost

    def bars(self, api: Api, command: Command) -> bool:
        """Whether a command may not be started because it could use the network."""
        return bool(self.barred) and not api.hidden and "net" not in api.sandbox(command.sandbox).namespaces

    def turn(self, api: Api, command: Command) -> Task | None:
        """The one whose turn it is, which from now on is among `starting`; None if nobody waits, or there is
        no place.
        """
        known = self.alive(api, command)
        queue = [task for task in known if task.life.state == life.QUEUED]
        if not queue or len(known) - len(queue) >= queue[0].command.most:
            return None
        self.waiting.remove(queue[0])
        queue[0].life.on(life.TURN)
        self.starting.append(queue[0])
        return queue[0]

    def remove(self, task: Task) -> None:
        """It is none of those alive any more."""
        for group in (self.starting, self.tasks, self.waiting):
            if task in group:
                group.remove(task)


def _is(task: Task, api: Api, command: Command) -> bool:
    # A configuration's API may be called as one of our own, and its verb as what `exec` has started.
    same = task.api.api == api.api and task.api.hidden == api.hidden
    return same and task.command.verb == command.verb and task.command.executed == command.executed


def _full(command: Command) -> str:
    if command.most == 1 and not command.queue:
        return f"`{command.verb}` is already running and may only run once"
    waiting = f", and {command.queue} wait for their turn" if command.queue else ""
    return f"`{command.verb}` is running {command.most} times already{waiting}"
