"""The supervisor's heart: it starts, stops and waits for tasks, and remembers them. Boot module."""

from __future__ import annotations

import os

from initspawn.errors import LaunchRefused, RequestError
from initspawn.limits import CLOSE_SECONDS, ENDED_LOG_BYTES, LAUNCH_EACH_SECONDS, LAUNCH_SECONDS
from initspawn.plan import PLUGIN
from initspawn.sandbox import launch
from initspawn.supervisor import handler
from initspawn.supervisor import task as life
from initspawn.supervisor.closing import Closing
from initspawn.supervisor.groups import Groups
from initspawn.supervisor.images import Images
from initspawn.supervisor.plugin import PluginEncoder
from initspawn.supervisor.prepare import Preparer, begin, fitted
from initspawn.supervisor.reactor import READ
from initspawn.supervisor.reserve import Reserve
from initspawn.supervisor.roster import Roster
from initspawn.supervisor.running import Task

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from initspawn.plan import Api, Command, Plan
    from initspawn.supervisor.reactor import Reactor


class Supervisor:
    """Owns the tasks of one plan. `reactor` must already hold SIGCHLD. Raises PlanError: see Groups.fit."""

    def __init__(self, plan: Plan, reactor: Reactor) -> None:
        self.groups = Groups()
        self.images = Images()
        self.plan = plan = fitted(plan, self.groups, self.images)  # before the spawner: it is where we are
        self.reactor = reactor
        self.roster = Roster()
        self.tasks = self.roster.tasks  # alive and past their handshake, oldest first
        self.ended = self.roster.ended
        self.closing = False
        self._reapers: dict[int, Task] = {}  # by pid, until waited for
        self._held: dict[int, Task] = {}  # by the pid of a command that we trace
        self._leaving: set[int] = set()  # reapers that have told the end of their task, and are not gone yet
        self.launcher = begin(plan, self.groups, self.images, reactor)
        self._preparer = Preparer(self.launcher, self.groups, self.images, reactor)
        self.reserve = Reserve(reactor, self._preparer)
        reactor.room.give_up, reactor.room.again = self.reserve.give_up, self.reserve.take_up
        reactor.on_child = self._on_child

    def start(
        self,
        api: Api,
        command: Command,
        argv: tuple[str, ...],
        *,
        on_start: Callable[[Task], None] = lambda _: None,
        on_end: Callable[[Task], None] = lambda _: None,
        descriptors: tuple[int, ...] = (),
        verbose: int | None = None,
    ) -> Task:
        """Start a command. What becomes of it is told by the callbacks; a refusal is in `task.refusal`.
        `verbose`: how much it tells of itself, None: what the command says.

        Raises RequestError when it cannot even be tried: there is no place for it, or we are closing.
        """
        if self.closing:
            raise RequestError("not-available", "the supervisor is stopping")
        task = Task(
            reactor=self.reactor, api=api, command=command, sandbox=api.sandbox(command.sandbox),
            argv=argv, on_start=on_start, on_end=on_end,
            verbose=command.verbose if verbose is None else verbose,
            encoder=PluginEncoder(self, command.encoder_options) if command.encoder == PLUGIN else None,
        )  # fmt: skip
        lost = self.roster.admit(task)
        try:
            if lost is not None:
                refusal = RequestError("bad-state", "a later start has taken its place in the queue")
                self.turn_away(lost, refusal)
            if task.life.state != life.QUEUED:
                self._begin(task, descriptors)
        except BaseException:  # whatever it is: nobody else would end it, and who closes waits for it
            self.roster.remove(task)
            raise
        return task

    def _begin(self, task: Task, descriptors: tuple[int, ...] = ()) -> None:
        """Its first step. Raises RequestError, LaunchRefused."""
        try:
            task.open()
            streams = task.streams()  # those that wait read /dev/null
            task.start = None if descriptors or streams.fed else self.reserve.take(task.sandbox)
            task.spared = task.start is not None
            if task.start is None:
                task.start = self._preparer.prepare(task.api, task.sandbox, descriptors, streams=streams)
            task.timers.append(self.reactor.after(LAUNCH_SECONDS, lambda: self._on_launch_timeout(task)))
            self._launch(task)
        except BaseException:
            task.close()
            if task.start is not None:
                self._reapers.pop(task.start.pid, None)
                if self._held.get(task.pid) is task:
                    del self._held[task.pid]
                self.reserve.end(task.start)
            raise

    def turn_away(self, task: Task, refusal: RequestError | LaunchRefused) -> None:
        """It never got as far as its first step."""
        self.roster.remove(task)
        task.life.on(life.GONE)
        task.refusal = refusal
        task.on_start(task)
        task.on_end(task)

    def _next(self, api: Api, command: Command) -> None:
        """A task of this command is gone: the turn of those that wait."""
        while (task := self.roster.turn(api, command)) is not None:
            task.began = self.reactor.clock()
            try:
                self._begin(task)
            except RequestError as refusal:
                self.turn_away(task, refusal)
            except BaseException:
                self.reactor.after(0, lambda: self._next(api, command))  # for those behind it
                self.turn_away(task, RequestError("internal-error"))
                raise

    def _launch(self, task: Task) -> None:
        start = task.start
        assert start is not None
        assert start.handshake is not None
        self.reactor.watch(start.handshake.fileno(), READ, lambda _: self._on_handshake(task))
        start.launch(task.argv)
        if start.held:
            self._on_held(task)

    def stop(self, task: Task, signal: int | None = None, *, reason: str = "stop") -> None:
        """End a task: the signal, or the usual one, to its group; after a grace the whole tree by force."""
        if task.life.state == life.QUEUED:
            self.turn_away(task, RequestError("not-available", "it was stopped before its turn"))
        if not task.life.alive or task.start is None:
            return
        before = task.life.state
        state = task.life.on(life.STOP)
        task.reason = task.reason or reason
        if before in (life.STARTING, life.HELD):
            self._refuse(task, LaunchRefused("start", 0, "it was stopped before it ran"))
        elif state == life.STOPPING:
            if before != life.STOPPING:
                task.timers.append(self.reactor.after(task.command.grace, lambda: self._preparer.kill(task)))
            task.start.signal(task.start.streams.farewell if signal is None else signal)

    def disconnected(self, client: object) -> None:
        """A client's connection has ended, and so do those of its tasks whose command says so."""
        for task in self.roster.every():
            if task.client is client and task.command.kill_on_disconnect:
                self.stop(task, reason="disconnected")

    def signal(self, task: Task, number: int) -> None:
        """Send a signal to a running task's process group, and nothing more."""
        if task.life.state in (life.RUNNING, life.STOPPING) and task.start is not None:
            task.start.signal(number)

    def close(self, then: Callable[[], None], *, but: Sequence[Task] = (), seconds: float = 0.0) -> None:
        """Stop everything, politely and then by force, and call back when nothing is left. `but`: what
        somebody else stops, within so many seconds.
        """
        self.closing = True
        for task in reversed(self.roster.every()):
            if task not in but:
                self.stop(task)
        self.reserve.close()
        Closing(self, self._preparer, self._leaving, CLOSE_SECONDS + seconds, then).look()

    def kill_all(self) -> None:
        """End everything at once, without asking."""
        for task in self.roster.every():
            self._preparer.kill(task, late=True)

    # A start, step by step.

    def _on_handshake(self, task: Task) -> None:
        start = task.start
        assert start is not None
        assert start.handshake is not None
        number = start.handshake.fileno()
        try:
            heard = start.hear()
            if heard == launch.HELD:
                self._on_held(task)
                return
            self.reactor.forget(number)
            if heard == launch.ALONE or not start.pid:  # otherwise its reaper will be waited for
                self._on_gone(task, waited=False)
        except (LaunchRefused, OSError) as error:
            refusal = error if isinstance(error, LaunchRefused) else LaunchRefused("start", error.errno or 0)
            self._refuse(task, refusal)

    def _on_held(self, task: Task) -> None:
        start = task.start
        assert start is not None
        task.life.on(life.READY)
        task.pid = start.command_pid
        self.roster.starting.remove(task)
        self.tasks.append(task)
        self._held[task.pid] = task
        self._reapers[start.pid] = task
        if task.refusal is not None:  # given up while it was still being made
            self._preparer.kill(task)

    def _on_launch_timeout(self, task: Task) -> None:
        if task.life.state not in (life.STARTING, life.HELD):
            return
        seconds = LAUNCH_SECONDS + LAUNCH_EACH_SECONDS * (len(self.roster.every()) - 1)
        left = task.began + seconds - self.reactor.clock()
        if left > 0:
            task.timers.append(self.reactor.after(left, lambda: self._on_launch_timeout(task)))
        else:
            task.reason = "timeout"
            late = LaunchRefused("start", 0, f"not at its exec after {seconds:g} s")
            self._refuse(task, late, late=True)

    def _refuse(self, task: Task, refusal: LaunchRefused, *, late: bool = False) -> None:
        task.refusal = task.refusal or refusal
        self._preparer.kill(task, late=late)
        self._preparer.short(refusal)

    def _on_child(self, pid: int, status: int, _: Any) -> None:
        """News of a child, or of a command we trace."""
        if (held := self._held.get(pid)) is not None:
            self._on_command(held, status)
            return
        task = self._reapers.get(pid)
        task = task or next((one for one in self.roster.starting if one.start and one.start.pid == pid), None)
        if task is not None and not os.WIFSTOPPED(status):
            self._on_gone(task, waited=True)
        elif pid in self._leaving:
            self._leaving.discard(pid)
        elif not self.reserve.on_child(pid, status):
            self.launcher.on_child(pid, closing=self.closing)

    def _on_command(self, task: Task, status: int) -> None:
        """The command stopped on its way to its exec, or ended there (we hear it as its tracer)."""
        if not os.WIFSTOPPED(status):
            task.command_status = status
            del self._held[task.pid]  # once its reaper has waited for it, the number may be another's
            return
        assert task.start is not None
        try:
            at_exec = task.start.stopped(status)
        except LaunchRefused as refusal:
            self._refuse(task, refusal)
            return
        del self._held[task.pid]
        task.pid = task.start.command_pid  # a child of who was held, where others build the sandbox
        if not at_exec:
            self._held[task.pid] = task
            return
        task.life.on(life.MEASURED)
        task.measurement = task.start.measurement
        if task.command.timeout:
            task.timers.append(self.reactor.after(task.command.timeout, lambda: self._on_timeout(task)))
        task.on_start(task)
        task.read()
        handler.begin(self, task)
        self.reserve.follow_soon(task)

    def _on_timeout(self, task: Task) -> None:
        if task.life.state in (life.RUNNING, life.STOPPING):
            task.reason = task.reason or "timeout"
            task.life.on(life.STOP)
            self._preparer.kill(task)

    # An end.

    def _on_gone(self, task: Task, *, waited: bool) -> None:
        """The command and all it started are gone, its output may not be. `waited`: so is its reaper."""
        start = task.start
        assert start is not None
        handler.end(self, task)
        self._preparer.kill_group(task.start)  # who finds no room up to here is called again
        self._reapers.pop(start.pid, None)
        if start.pid and not waited:
            self._leaving.add(start.pid)
        if self._held.get(task.pid) is task:  # and not one that was given the number of its dead command
            del self._held[task.pid]
        if not self.closing and task.worth_another and self._again(task):
            return
        if task.life.on(life.GONE) == life.REFUSED:
            if task.refusal is None:
                task.refusal = self._preparer.failed(start, start.refusal(task.command_status))
            self._forget(task)
            task.on_start(task)
            task.on_end(task)
            return
        task.conclude()
        on_end = task.on_end

        def drained(task: Task) -> None:
            task.life.on(life.DRAINED)
            self.roster.remove(task)
            if not task.api.hidden:
                self.ended.append(task)
            try:
                on_end(task)
            finally:  # nobody need wait for this
                self._forget(task)
                self.reserve.follow(task)
            task.log.shrink(ENDED_LOG_BYTES)

        task.on_end = drained
        task.drain()

    def _again(self, task: Task) -> bool:
        """Start it anew, from the first step. False if that cannot even be tried."""
        try:
            extra = task.start.extra if task.start else ()
            start = self._preparer.prepare(task.api, task.sandbox, extra, streams=task.streams())
        except LaunchRefused:
            return False
        self._detach(task)
        task.life.on(life.AGAIN)
        task.retried = task.retried or not task.spared
        task.spared = False
        task.start, task.pid, task.refusal, task.command_status = start, 0, None, None
        self.roster.starting.append(task)
        self._launch(task)
        return True

    def _forget(self, task: Task) -> None:
        self._detach(task)
        task.close()
        if self.roster.waiting and not self.closing:
            self.reactor.after(0, lambda: self._next(task.api, task.command))

    def _detach(self, task: Task) -> None:
        """Let go of what was started for a task."""
        self.roster.remove(task)
        assert task.start is not None
        if task.start.handshake is not None:
            self.reactor.forget(task.start.handshake.fileno())
        if task.start.pid in self._leaving:
            task.start.kill(reaper=True)
        self._preparer.drop(task.start)
