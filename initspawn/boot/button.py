"""The power button, where nobody else listens to it: of every input device that has one. Boot module."""

from __future__ import annotations

import os

from initspawn.linux import evdev
from initspawn.supervisor.paths import Paths
from initspawn.supervisor.reactor import READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from initspawn.supervisor.reactor import Reactor

DIRECTORY = "/dev/input"
_NAME = "event"  # and a number


class Button:
    """Calls back when it is pressed. Devices may come and go."""

    def __init__(self, reactor: Reactor, callback: Callable[[], None], directory: str = DIRECTORY) -> None:
        self._reactor = reactor
        self._callback = callback
        self._directory = directory
        self._paths = Paths(reactor, self._look)
        self._known: set[tuple[str, int]] = set()  # name and inode: a name comes again, with another device
        self._fds: set[int] = set()
        self._look()

    def close(self) -> None:
        """Listen no more."""
        self._paths.close()
        for fd in tuple(self._fds):
            self._drop(fd)

    def _look(self) -> None:
        self._paths.follow(f"{self._directory}/{_NAME}")  # first: what comes from now on is another look's
        try:
            with os.scandir(self._directory) as entries:
                found = {(entry.name, entry.inode()) for entry in entries if entry.name.startswith(_NAME)}
        except OSError:  # not there yet
            found = set()
        new = found - self._known
        self._known = found
        for name, _ in sorted(new):
            self._add(os.path.join(self._directory, name))

    def _add(self, path: str) -> None:
        """Listen to a device, if it has the button."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:  # gone again
            return
        try:
            if evdev.has_key(fd, evdev.KEY_POWER):
                self._reactor.watch(fd, READ, lambda _: self._hear(fd))
                self._fds.add(fd)
                return
        except OSError:  # not an input device
            pass
        os.close(fd)

    def _hear(self, fd: int) -> None:
        try:
            pressed = evdev.KEY_POWER in evdev.presses(fd)
        except BlockingIOError:
            return
        except OSError:  # the device is gone
            self._drop(fd)
            return
        if pressed:
            self._callback()

    def _drop(self, fd: int) -> None:
        self._fds.discard(fd)
        self._reactor.forget(fd)
        os.close(fd)
