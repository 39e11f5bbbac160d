"""A command's standard input, output and error: pipes, or one pseudo-terminal for all three. Boot module."""

from __future__ import annotations

import _signal
import fcntl
import os
import sys

from initspawn.linux import terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    Identity = tuple[int, int, int]

_FIONREAD = 0x541B  # ioctl_tty(2), pipe(7); the module termios is no boot module


def pending(fd: int) -> int:
    """How many bytes can be read from a pipe or a terminal at once. Raises OSError."""
    return int.from_bytes(fcntl.ioctl(fd, _FIONREAD, b"\0" * 4), sys.byteorder)


def identity(found: os.stat_result) -> Identity:
    """What tells a file from all others."""
    return found.st_dev, found.st_ino, found.st_rdev


class Streams:
    """Our ends: `stdin` to write to, `stdout` and `stderr` to read from, non-blocking; -1 where none is.

    `fed`: standard input is a pipe, otherwise /dev/null. `size`: rows and columns of a terminal that takes
    the place of all pipes; then both `stdin` and `stdout` are our end of it, and there is no `stderr`.
    """

    def __init__(self, *, fed: bool = False, size: tuple[int, int] | None = None) -> None:
        self.fed = fed or size is not None  # whether anything can be written to it
        self.size = size
        self.terminal = size is not None
        self.stdin = self.stdout = self.stderr = -1
        self._theirs: Identity | None = None  # the terminal's

    @property
    def kind(self) -> str:
        """What is made of the machine for it, to name what failed."""
        return "terminal" if self.terminal else "pipes"

    def open(self, user: int) -> list[int]:
        """Make them for a command of that user. Returns its ends, for the caller to hand on and to close:
        standard input unless it is /dev/null, output, error. Raises OSError.
        """
        if self.size is not None:
            return self._open_terminal(self.size, user)
        theirs: list[int] = []
        try:
            if self.fed:
                other, self.stdin = os.pipe2(os.O_CLOEXEC)
                theirs.append(other)
            for name in ("stdout", "stderr"):
                ours, other = os.pipe2(os.O_CLOEXEC)
                setattr(self, name, ours)
                theirs.append(other)
            for fd in (self.stdin, self.stdout, self.stderr):
                if fd >= 0:
                    os.set_blocking(fd, False)
        except BaseException:
            _close(theirs)
            raise
        return theirs

    def _open_terminal(self, size: tuple[int, int], user: int) -> list[int]:
        self.stdout, other = terminal.pair()
        theirs = [other]
        try:
            self.stdin = os.dup(self.stdout)  # each is watched, and closed, for itself
            found = os.fstat(other)
            if found.st_uid != user:  # it may open its own terminal once more, as /dev/stdin is
                os.fchown(other, user, -1)
            os.fchmod(other, 0o600)
            terminal.resize(self.stdout, *size)
            self._theirs = identity(found)
            theirs += [os.dup(other), os.dup(other)]
        except BaseException:
            _close(theirs)
            raise
        return theirs

    def expected(self, null: Identity) -> tuple[Identity, Identity, Identity]:
        """What the command's descriptors 0, 1 and 2 are to be; `null` is /dev/null."""
        if self._theirs is not None:
            return (self._theirs,) * 3
        ours = [identity(os.fstat(fd)) for fd in (self.stdout, self.stderr)]  # both ends are one inode
        return identity(os.fstat(self.stdin)) if self.fed else null, ours[0], ours[1]

    @property
    def farewell(self) -> int:
        """The signal that politely ends who uses them: shells on a terminal ignore SIGTERM."""
        return int(_signal.SIGHUP if self.terminal else _signal.SIGTERM)

    @property
    def device(self) -> int:
        """The number of the terminal, 0 without one."""
        return terminal.number(self._theirs[2]) if self._theirs is not None else 0

    def resize(self, rows: int, columns: int) -> None:
        """Make the terminal another size. Raises OSError, also when our end is closed."""
        terminal.resize(self.stdin, rows, columns)

    def close_stream(self, name: str) -> None:
        """Close our end of `stdin`, `stdout` or `stderr`, if it is open."""
        fd = getattr(self, name)
        if fd >= 0:
            setattr(self, name, -1)
            os.close(fd)

    def close(self) -> None:
        """Close all of them."""
        for name in ("stdin", "stdout", "stderr"):
            self.close_stream(name)


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
