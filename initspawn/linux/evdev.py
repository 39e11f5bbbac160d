"""Keys of input devices (Documentation/input/input.rst, include/uapi/linux/input.h)."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

# include/uapi/linux/input-event-codes.h
EV_KEY = 1
KEY_POWER = 116
_KEYS = 0x300  # KEY_CNT
_EVIOCGBIT_KEYS = 2 << 30 | _KEYS // 8 << 16 | ord("E") << 8 | 0x20 + EV_KEY
_EVENT = struct.Struct("llHHi")  # seconds, microseconds, type, code, value
_EVENTS = 64  # of one read
_PRESSED = 1  # 0 is its release, 2 its repetition


def has_key(fd: int, key: int) -> bool:
    """Whether an input device can have this key pressed. Raises OSError for what is none."""
    bits = bytearray(_KEYS // 8)
    fcntl.ioctl(fd, _EVIOCGBIT_KEYS, bits)
    return bool(bits[key // 8] >> key % 8 & 1)


def presses(fd: int) -> list[int]:
    """The keys that were pressed since, of the next few events. Raises OSError: BlockingIOError without
    any, ENODEV when the device is gone.
    """
    data = os.read(fd, _EVENTS * _EVENT.size)
    if not data:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
    whole = len(data) // _EVENT.size * _EVENT.size
    events = _EVENT.iter_unpack(data[:whole])
    return [code for _, _, kind, code, value in events if kind == EV_KEY and value == _PRESSED]
