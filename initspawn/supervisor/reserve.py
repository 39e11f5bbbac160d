"""Starts that wait, confined and held, for somebody to ask for them. Boot module.

Building a sandbox takes longer than running a command in it. So a start finds, if it can, one that was
prepared up to its exec, and the next is prepared when it has ended, or has run for a moment: two for each
sandbox that was used lately, or as many as a command asks for with `warm`; every task has its own. One that
fails, or is found at its exec to have been overtaken by what it shows (a bound file was replaced), is thrown
away, and the start goes through all steps itself.
"""

from __future__ import annotations

import os
import select

from initspawn.errors import LaunchRefused
from initspawn.limits import (
    REFILL_SECONDS,
    RESERVE_EACH,
    RESERVE_SANDBOXES,
    RESERVE_SECONDS,
    RESERVE_STARTS,
)
from initspawn.sandbox.launch import HELD
from initspawn.supervisor.reactor import READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from initspawn.plan import Api, Plan, Sandbox
    from initspawn.sandbox.launch import Start
    from initspawn.supervisor.prepare import Preparer
    from initspawn.supervisor.reactor import Reactor, Timer
    from initspawn.supervisor.running import Task


class Reserve:
    """The starts of one supervisor that wait. Nothing is kept before `fill` was called."""

    def __init__(self, reactor: Reactor, preparer: Preparer) -> None:
        self._reactor = reactor
        self._preparer = preparer
        self._open = False
        self._plan: Plan | None = None
        self._mounts = -1  # readable in an urgent way when our mounts have changed (proc(5))
        self._changes = select.poll()
        self._known: set[int] = set()  # the plan's sandboxes by id, which it keeps
        self._warm: dict[int, int] = {}  # how many by id of their sandbox
        self._waiting: list[tuple[Start, Timer]] = []  # oldest first
        self._unborn: list[Start] = []  # dismissed, but the spawner may still be about to clone them
        self._ending: dict[int, Start] = {}  # by pid, until waited for

    def fill(self, plan: Plan) -> None:
        """From now on have starts wait: those that a plan's commands ask for, and the next of every start."""
        if not self._open:
            self._open, self._plan = True, plan
            self._mounts = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
            self._changes.register(self._mounts, select.POLLPRI)
            self._reactor.watch(self._mounts, select.EPOLLPRI, lambda _: self._start_over())
            self._known = {id(sandbox) for sandbox in plan.sandboxes()}
        for api in plan.apis:
            for command in api.commands:
                if command.warm is not None:
                    sandbox = api.sandbox(command.sandbox)
                    self._warm[id(sandbox)] = max(command.warm, self._warm.get(id(sandbox), 0))
                    self.refill(api, sandbox)

    def renew(self, plan: Plan) -> None:
        """From now on this is the plan. What waits in sandboxes that are not in it is sent away."""
        self._warm.clear()
        if not self._open:  # whoever has closed it will open it
            return
        self._plan, self._known = plan, {id(sandbox) for sandbox in plan.sandboxes()}
        for start, _ in list(self._waiting):
            if id(start.sandbox) not in self._known:
                self._dismiss(start)
        self.fill(plan)

    def take(self, sandbox: Sandbox) -> Start | None:
        """One that waits in this sandbox, None if there is none."""
        if self._changes.poll(0):
            self._start_over()
        own = [start for start, _ in self._waiting if start.sandbox is sandbox]
        start = next((start for start in own if start.held), own[0] if own else None)
        if start is not None:
            self._leave(start)
        return start

    def follow_soon(self, task: Task) -> None:
        """Have the next starts made behind one that runs on."""
        task.timers.append(self._reactor.after(REFILL_SECONDS, lambda: self.follow(task)))

    def follow(self, task: Task) -> None:
        """Have the next starts made, now that nobody waits for this one: both would need the processors."""
        if task.start and not task.start.extra and not task.start.streams.fed:
            self.refill(task.api, task.sandbox)

    def refill(self, api: Api, sandbox: Sandbox) -> None:
        """Have as many wait in a sandbox as should; where that cannot be, a start will say why."""
        if not self._open or id(sandbox) not in self._known:  # it ran on after a reload
            return
        if self._reactor.room.short:  # others need it more
            return
        if any(entry.operation == "overlay" for entry in sandbox.mounts):
            return  # no measurement tells whether an overlay's directory is still the one of that name
        wanted = self._warm.get(id(sandbox))
        if wanted is None:  # nobody asked for any: a few, while there are not too many sandboxes
            others = {id(start.sandbox) for start, _ in self._waiting} - {id(sandbox)}
            wanted = RESERVE_EACH if len(others) < RESERVE_SANDBOXES else 0
        missing = wanted - sum(start.sandbox is sandbox for start, _ in self._waiting)
        missing = min(missing, RESERVE_STARTS - len(self._waiting))
        try:
            for _ in range(missing):
                self._add(api, sandbox)
        except LaunchRefused:
            pass

    def _add(self, api: Api, sandbox: Sandbox) -> None:
        start = self._preparer.prepare(api, sandbox, spare=True)
        timer = self._reactor.after(RESERVE_SECONDS, lambda: self._expire(api, start))
        self._waiting.append((start, timer))
        self._watch(start)

    def _expire(self, api: Api, start: Start) -> None:
        self._dismiss(start)
        if id(start.sandbox) in self._warm:
            self.refill(api, start.sandbox)

    def on_child(self, pid: int, status: int) -> bool:
        """News of a child or of a process we trace: whether it was one of these."""
        start = self._ending.pop(pid, None)
        if start is None:
            known = [*self._unborn, *(one for one, _ in self._waiting)]
            start = next((one for one in known if one.pid == pid), None)
            if start is None:  # a dead command's number may be a reaper's by now
                start = next((one for one in known if one.command_pid == pid), None)
                if start is not None and os.WIFSTOPPED(status):  # somebody has sent it a signal
                    self._pass_signal(start, status)
                return start is not None  # if it ends, its reaper will say so
            self._leave(start)
            start.drop_handshake()
        self._preparer.drop(start)
        return True

    def _pass_signal(self, start: Start, status: int) -> None:
        try:
            start.stopped(status)
        except LaunchRefused:
            self._dismiss(start)

    def close(self) -> None:
        """Send all away, and keep none any more."""
        if self._open:
            self._open = False
            self._reactor.forget(self._mounts)
            self._changes.unregister(self._mounts)
            os.close(self._mounts)
        self._dismiss_all()

    def give_up(self) -> bool:
        """Send all away, to make room. False if none waited. More come when there is room again."""
        waited = bool(self._waiting)
        self._dismiss_all()
        return waited

    def take_up(self) -> None:
        """There is room again for those that a plan's commands ask for."""
        if self._open and self._plan is not None:
            self.fill(self._plan)

    def end(self, start: Start) -> None:
        """End one that was somebody's, who has failed with it."""
        self._unborn.append(start)
        self._dismiss(start)

    def _start_over(self) -> None:
        """Mounts have come or gone: those that wait may not show them, or keep them from being released."""
        self._dismiss_all()
        self.take_up()

    def _dismiss_all(self) -> None:
        for start, _ in list(self._waiting):
            self._dismiss(start)

    @property
    def empty(self) -> bool:
        """Whether none is left to be waited for."""
        return not self._waiting and not self._unborn and not self._ending

    @property
    def starts(self) -> list[Start]:
        """All that wait, or are to be waited for."""
        return [*(start for start, _ in self._waiting), *self._unborn, *self._ending.values()]

    @property
    def ready(self) -> bool:
        """Whether all that wait are at the end of their way."""
        return all(start.held for start, _ in self._waiting)

    def _dismiss(self, start: Start) -> None:
        start.streams.close()
        if start.pid:
            start.kill(reaper=True)
            self._on_end(start)
        else:  # still with the spawner: it will find that nobody wants it
            self._leave(start)
            self._unborn.append(start)
            self._watch(start)
            start.dismiss()

    def _on_handshake(self, start: Start) -> None:
        try:
            if start.hear() != HELD:
                self._on_end(start)
        except LaunchRefused:
            self._dismiss(start)

    def _on_end(self, start: Start) -> None:
        """Its reaper has ended, or is to, or could not be cloned."""
        self._leave(start)
        start.drop_handshake()
        if start.pid:
            if start.alone:
                start.kill(reaper=True)
            self._ending[start.pid] = start
        else:
            self._preparer.drop(start)

    def _watch(self, start: Start) -> None:
        assert start.handshake is not None
        self._reactor.watch(start.handshake.fileno(), READ, lambda _: self._on_handshake(start))

    def _leave(self, start: Start) -> None:
        """It waits no more."""
        for entry in self._waiting:
            if entry[0] is start:
                self._waiting.remove(entry)
                entry[1].cancel()
                break
        else:
            self._unborn.remove(start)
        assert start.handshake is not None
        self._reactor.forget(start.handshake.fileno())
