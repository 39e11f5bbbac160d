"""Waiting for a file to come or to go. Loaded when the first is waited for."""

from __future__ import annotations

import os

from initspawn.linux import inotify
from initspawn.supervisor.reactor import READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from initspawn.supervisor.reactor import Reactor, Timer

_SETTLE = 0.02  # seconds from the first change to the call: changes come together
_POLL = 1.0  # seconds between looks where the kernel tells no changes
_SILENT = ("/proc/", "/sys/")  # there it tells none (inotify(7))


class Paths:
    """Calls back once when something may have changed about a path that was asked for since the last call."""

    def __init__(self, reactor: Reactor, callback: Callable[[], None]) -> None:
        self._reactor = reactor
        self._callback = callback
        self._watches: dict[str, int] = {}
        self._timer: Timer | None = None

    def follow(self, path: str) -> None:
        """Call back when what is at `path`, or leads there, comes or goes."""
        directory = _nearest(path)
        while directory not in self._watches:
            if f"{directory}/".startswith(_SILENT):
                self._call_in(_POLL)
                return
            try:
                fd = inotify.watch(directory, inotify.NAMES)
            except OSError:  # too many watches, or not ours to read
                self._call_in(_POLL)
                return
            self._watches[directory] = fd
            self._reactor.watch(fd, READ, lambda _: self._call_in(_SETTLE))
            directory = _nearest(path)  # more of it may have come before the watch

    def close(self) -> None:
        """Follow nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for fd in self._watches.values():
            self._reactor.forget(fd)
            os.close(fd)
        self._watches.clear()

    def _call_in(self, seconds: float) -> None:
        for fd in self._watches.values() if seconds == _SETTLE else ():
            self._reactor.change(fd, 0)  # one is enough
        due = self._reactor.clock() + seconds
        if self._timer is not None and self._timer.callback is not None and self._timer.when <= due:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._reactor.after(seconds, self._call)

    def _call(self) -> None:
        self.close()
        self._callback()


def _nearest(path: str) -> str:
    """The directory in which the next part of a path would appear or disappear, links followed."""
    directory = os.path.dirname(path)
    while not os.path.isdir(directory):
        directory = os.path.dirname(directory)
    return os.path.realpath(directory)
