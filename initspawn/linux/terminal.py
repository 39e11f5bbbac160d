"""Pseudo-terminals: pty(7), ioctl_tty(2). Boot module."""

from __future__ import annotations

import fcntl
import os
import struct

# include/uapi/asm-generic/ioctls.h, the same on x86 and Arm
TCGETS = 0x5401
TIOCSCTTY = 0x540E
TIOCSWINSZ = 0x5414
TIOCSPTLCK = 0x40045431
TIOCGPTPEER = 0x5441

_FLAGS = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC  # a supervisor that leads a session takes none as its own
_TERMIOS = 60  # bytes, at least as many as struct termios has
_CHARACTERS = 4 * 4 + 1  # where c_cc begins in it
_VEOF = 4


def pair() -> tuple[int, int]:
    """A new pseudo-terminal: our end, non-blocking, and the one that programs use. Raises OSError."""
    ours = os.open("/dev/ptmx", _FLAGS | os.O_NONBLOCK)
    try:
        fcntl.ioctl(ours, TIOCSPTLCK, struct.pack("i", 0))
        # By descriptor: whatever is mounted on /dev/pts, this is the other end.
        return ours, fcntl.ioctl(ours, TIOCGPTPEER, _FLAGS)
    except BaseException:
        os.close(ours)
        raise


def resize(fd: int, rows: int, columns: int) -> None:
    """Set the size; who is in its foreground gets SIGWINCH when that is another one. Raises OSError."""
    fcntl.ioctl(fd, TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))


def end_character(fd: int) -> bytes:
    """The character that means the end of the input, as it is set now. Raises OSError."""
    return fcntl.ioctl(fd, TCGETS, bytes(_TERMIOS))[_CHARACTERS + _VEOF :][:1]


def number(device: int) -> int:
    """A device's number as proc(5) gives it for the controlling terminal."""
    major, minor = os.major(device), os.minor(device)
    return minor & 0xFF | major << 8 | (minor & ~0xFF) << 12
