"""What PID 1 is told, by a pipe, in records of eight bytes: `head -c 8` reads them. Boot module."""

from __future__ import annotations

import os

from initspawn.plan import BOOT, REBOOT, RECOVERY

DESCRIPTOR = 3  # the end of the pipe with which we are started
ALIVE = b"alive..."
POWER_OFF = "poweroff"
WORDS = {BOOT: b"go......", RECOVERY: b"recovery", REBOOT: b"reboot..", POWER_OFF: b"poweroff"}


class Barrier:
    """Where PID 1 waits for us: as long as there are signs of life, until it is told to go on."""

    def __init__(self, fd: int = DESCRIPTOR) -> None:
        self._fd = fd
        os.set_inheritable(fd, False)
        os.set_blocking(fd, False)

    def renew(self) -> None:
        """Give a sign of life."""
        self._say(ALIVE)

    def announce(self, what: str) -> None:
        """Say what shall become of the machine when we have ended, to a PID 1 that stays."""
        self._say(WORDS[what])

    def decide(self, what: str) -> None:
        """Say what becomes of the boot; the last word."""
        self._say(WORDS[what])
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @property
    def waiting(self) -> bool:
        """Whether it has not been told yet."""
        return self._fd >= 0

    def _say(self, record: bytes) -> None:
        try:
            if self._fd >= 0:
                os.write(self._fd, record)
        except OSError:  # full: it has enough to read; or nobody is there any more
            pass
