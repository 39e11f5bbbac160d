"""Devices that restart the machine when nobody feeds them (Documentation/watchdog/watchdog-api.rst,
include/uapi/linux/watchdog.h).
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

_INFO = struct.Struct("II32s")  # struct watchdog_info
_INT = struct.Struct("i")
_GETSUPPORT = 2 << 30 | _INFO.size << 16 | ord("W") << 8
_SETOPTIONS = 2 << 30 | _INT.size << 16 | ord("W") << 8 | 4
_DISABLECARD = 1
_SETTIMEOUT = 3 << 30 | _INT.size << 16 | ord("W") << 8 | 6
_GETTIMEOUT = 2 << 30 | _INT.size << 16 | ord("W") << 8 | 7
_FOOD = b"\0"
_MAGIC = b"V"  # with any other last byte it runs on when it is closed


def take(path: str) -> int:
    """Open one, which starts it. Returns its descriptor. Raises OSError: EBUSY when somebody else has it,
    ENOTTY for what is none, to which nothing is written.
    """
    fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _GETSUPPORT, bytearray(_INFO.size))
    except OSError:
        os.close(fd)
        raise
    return fd


def set_timeout(fd: int, seconds: int) -> int:
    """Feed it, and have it wait so long from now on. Returns what it makes of that, in seconds. Raises
    OSError when it cannot.
    """
    return _number(fd, _SETTIMEOUT, seconds)


def timeout(fd: int) -> int:
    """How many seconds it waits. Raises OSError when it does not tell."""
    return _number(fd, _GETTIMEOUT, 0)


def feed(fd: int) -> None:
    """It waits anew. Raises OSError."""
    os.write(fd, _FOOD)


def runs_on(fd: int) -> bool:
    """Stop it. Returns whether the kernel lets nobody do that: `nowayout`, of which watchdog_stop of its
    drivers/watchdog/watchdog_dev.c says EBUSY. A driver that knows no such order may stop when it is closed.
    """
    try:
        fcntl.ioctl(fd, _SETOPTIONS, bytearray(_INT.pack(_DISABLECARD)))
    except OSError as error:
        return error.errno == errno.EBUSY
    return False


def stop(fd: int) -> None:
    """End it and close it; a kernel with `nowayout` lets it run on. Raises OSError."""
    try:
        os.write(fd, _MAGIC)
    finally:
        os.close(fd)


def _number(fd: int, request: int, given: int) -> int:
    number = bytearray(_INT.pack(given))
    fcntl.ioctl(fd, request, number)
    (found,) = _INT.unpack(number)
    return int(found)
