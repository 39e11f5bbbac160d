"""Starts that wait, confined and held, for somebody to ask for them. Boot module.

Building a sandbox takes longer than running a command in it. So a start finds, if it can, one that was
prepared up to its exec, and the next is prepared behind its back: one for each sandbox that was used lately;
every task has its own. One that fails, or is found at its exec to have been overtaken by what it shows (a
bound file was replaced), is thrown away, and the start goes through all steps itself.
"""

from __future__ import annotations

import os

from initspawn.errors import LaunchRefused
from initspawn.limits import RESERVE_SANDBOXES, RESERVE_SECONDS
from initspawn.sandbox.launch import HELD
from initspawn.supervisor.reactor import READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from initspawn.plan import Api, Sandbox
    from initspawn.sandbox.launch import Start
    from initspawn.supervisor.prepare import Preparer
    from initspawn.supervisor.reactor import Reactor, Timer


class Reserve:
    """The starts of one supervisor that wait."""

    def __init__(self, reactor: Reactor, preparer: Preparer) -> None:
        self._reactor = reactor
        self._preparer = preparer
        self._waiting: dict[int, tuple[Start, Timer]] = {}  # by id of their sandbox, which the plan keeps
        self._unborn: list[Start] = []  # dismissed, but the spawner may still be about to clone them
        self._ending: dict[int, Start] = {}  # by pid, until waited for

    def take(self, sandbox: Sandbox) -> Start | None:
        """One that waits in this sandbox, None if there is none."""
        if id(sandbox) not in self._waiting:
            return None
        start, timer = self._waiting.pop(id(sandbox))
        timer.cancel()
        assert start.handshake is not None
        self._reactor.forget(start.handshake.fileno())
        return start

    def refill(self, api: Api, sandbox: Sandbox) -> None:
        """Have one wait for the next start in this sandbox; where that cannot be, the start will say why."""
        if id(sandbox) in self._waiting or len(self._waiting) >= RESERVE_SANDBOXES:
            return
        try:
            start = self._preparer.prepare(api, sandbox)
        except LaunchRefused:
            return
        timer = self._reactor.after(RESERVE_SECONDS, lambda: self._dismiss(start))
        self._waiting[id(sandbox)] = start, timer
        self._watch(start)

    def on_child(self, pid: int, status: int) -> bool:
        """News of a child or of a process we trace: whether it was one of these."""
        start = self._ending.pop(pid, None)
        if start is None:
            known = [*self._unborn, *(one for one, _ in self._waiting.values())]
            start = next((one for one in known if pid in (one.pid, one.command_pid)), None)
            if start is None:
                return False
            if pid == start.command_pid:  # somebody has sent it a signal; if it ends, its reaper will say so
                if os.WIFSTOPPED(status):
                    self._pass_signal(start, status)
                return True
            self._forget(start)
        self._preparer.drop(start)
        return True

    def _pass_signal(self, start: Start, status: int) -> None:
        try:
            start.stopped(status)
        except LaunchRefused:
            self._dismiss(start)

    def close(self) -> None:
        """Send all away."""
        for start, _ in list(self._waiting.values()):
            self._dismiss(start)

    @property
    def empty(self) -> bool:
        """Whether none is left to be waited for."""
        return not self._waiting and not self._unborn and not self._ending

    @property
    def ready(self) -> bool:
        """Whether all that wait are at the end of their way."""
        return all(start.held for start, _ in self._waiting.values())

    def _dismiss(self, start: Start) -> None:
        if start.pid:
            start.kill(reaper=True)
            self._on_end(start)
        else:  # still with the spawner: it will find that nobody wants it
            self.take(start.sandbox)
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
        self._forget(start)
        if start.pid:
            if start.alone:
                start.kill(reaper=True)
            self._ending[start.pid] = start
        else:
            self._preparer.drop(start)

    def _watch(self, start: Start) -> None:
        assert start.handshake is not None
        self._reactor.watch(start.handshake.fileno(), READ, lambda _: self._on_handshake(start))

    def _forget(self, start: Start) -> None:
        if start in self._unborn:
            self._unborn.remove(start)
            assert start.handshake is not None
            self._reactor.forget(start.handshake.fileno())
        else:
            self.take(start.sandbox)
        start.drop_handshake()
