"""A descriptor of ours copied to the standard input of a task in this very process."""

from __future__ import annotations

import os

from initspawn.errors import RequestError
from initspawn.supervisor.input import Input
from initspawn.supervisor.reactor import READ, Reactor

_AT_ONCE = 65536  # bytes of one read
_NAME = "run"


class Pour:
    """Copies `fd`, -1 for nothing, as fast as the task reads, and then the end of it."""

    def __init__(self, reactor: Reactor, target: Input, fd: int) -> None:
        self.closed = False
        self._reactor = reactor
        self._input = target
        self._fd = fd
        self._watched = False
        self._input.hold(self, _NAME)
        self._wait()

    def resize(self, rows: int, columns: int) -> None:
        """Give the task's terminal another size, if it still is there."""
        try:
            self._input.resize(self, _NAME, rows, columns)
        except RequestError:
            pass

    def close(self) -> None:
        """Read no more."""
        self.closed = True
        self._forget()

    def _wait(self) -> None:
        if self._fd >= 0:
            try:
                self._reactor.watch(self._fd, READ, lambda _: self._copy())
                self._watched = True
                return
            except PermissionError:  # a plain file, which can always be read (epoll_ctl(2))
                pass
        self._reactor.after(0, self._copy)

    def _forget(self) -> None:
        if self._watched:
            self._watched = False
            self._reactor.forget(self._fd)

    def _copy(self) -> None:
        self._forget()
        if self.closed:
            return
        try:
            data = os.read(self._fd, _AT_ONCE) if self._fd >= 0 else b""
        except OSError:  # our terminal is gone
            data = b""
        try:
            self._input.give(data, not data, lambda taken, size: self._taken(data, taken))
        except RequestError:
            pass  # it has ended

    def _taken(self, data: bytes, taken: int) -> None:
        if data and taken == len(data):
            self._wait()
