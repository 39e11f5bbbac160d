"""The machine's own watchdog, where no other init feeds it. Boot module.

The supervisor's loop feeds it. Closed without `watchdog.stop`, as by a crash, it goes on to wait: for the
next supervisor, or it restarts the machine.
"""

from __future__ import annotations

import os
import time

from initspawn.boot.log import NOTICE, tell
from initspawn.linux import watchdog
from initspawn.linux.cmdline import option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

DEVICE = "/dev/watchdog0"
LEAST, MOST = 10, 86_400  # seconds
END_SECONDS = 90  # for the end of the machine, when nobody feeds it any more
_PAUSE = 1.0  # seconds


class Watchdog:
    """Taken as soon as it is there; what is wrong is told in the kernel's log, once, and never stops anybody.

    `asked`: seconds, as the kernel's command line has them; `problem`: why there can be none.
    """

    def __init__(self, asked: str, path: str = DEVICE, problem: str = "") -> None:
        self._path = path
        self._seconds = _seconds(asked)
        self._fd = -1
        self._waits = 0
        self._problem = ""
        if not self._seconds:
            problem = f"initspawn.watchdog={asked}: write seconds, from {LEAST} to {MOST}, such as 30"
        if problem:
            self._seconds = 0
            self._complain(problem)

    def feed(self) -> None:
        """It waits anew, or begins to; nothing happens while there is none."""
        if not self._seconds:
            return
        try:
            if self._fd < 0:
                self._take()
            else:
                watchdog.feed(self._fd)
        except OSError as error:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
            self._complain(f"{self._path}: {error.strerror}")

    def stop(self) -> None:
        """For good: from now on the machine is not restarted by it."""
        self._seconds = 0
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            try:
                watchdog.stop(fd)
            except OSError as error:
                self._complain(f"{self._path}: {error.strerror}")

    def leave(self, way: str) -> None:
        """The machine ends: a restart that hangs is to come nevertheless, a power off not to be undone, if
        that can be had. One that runs on and does not wait so long is fed by a child of ours for so long.
        """
        self.feed()
        if way != "reboot" and not (self._fd >= 0 and watchdog.runs_on(self._fd)):
            self.stop()
            return
        try:
            if self._fd >= 0 and self._waits < END_SECONDS and os.fork() == 0:
                _feed_for_a_while(self._fd)
        except OSError as error:
            self._complain(f"nobody feeds {self._path}: {error.strerror}")

    def told(self) -> dict[str, Any]:
        """For `initspawn/info`."""
        return {
            "device": self._path,
            "fed": self._fd >= 0,
            "seconds": self._waits if self._fd >= 0 else 0,
            "problem": self._problem,
        }

    def _take(self) -> None:
        self._fd = watchdog.take(self._path)
        self._waits, problem = _set(self._fd, self._seconds)
        if problem:
            self._complain(f"{self._path}: {problem}")
        else:
            self._problem = ""
        waits = f"{self._waits} s" if self._waits else "a time that it does not tell"
        tell(f"watchdog: {self._path} restarts the machine after {waits} without a sign of life", NOTICE)

    def _complain(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            tell(f"watchdog: {problem}")


def last() -> Watchdog | None:
    """For the end of the machine, when no supervisor has it: it waits longer, if it can."""
    seconds = _seconds(option("watchdog"))
    if not seconds:
        return None
    return Watchdog(str(max(seconds, END_SECONDS)), option("watchdog_device") or DEVICE)


def _feed_for_a_while(fd: int) -> NoReturn:
    try:
        end = time.monotonic() + END_SECONDS
        while time.monotonic() < end:
            watchdog.feed(fd)
            time.sleep(_PAUSE)
    finally:
        os._exit(0)


def _set(fd: int, seconds: int) -> tuple[int, str]:
    """How many seconds it waits now, 0 if it does not tell; and why these are not those."""
    try:
        return watchdog.set_timeout(fd, seconds), ""
    except OSError as error:
        problem = f"cannot be set to {seconds} s: {error.strerror}"
    try:
        return watchdog.timeout(fd), problem
    except OSError:
        return 0, problem


def _seconds(text: str) -> int:
    """0 for what is no such number."""
    number = int(text[:9]) if text.isascii() and text.isdecimal() else 0
    return number if LEAST <= number <= MOST else 0
