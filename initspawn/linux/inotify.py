"""Changes of a directory's files, as a descriptor (inotify(7)). Loaded after the boot."""

from __future__ import annotations

import ctypes
import os
import struct

from initspawn.linux.libc import function, oserror

# include/uapi/linux/inotify.h
IN_CLOSE_WRITE = 0x8
IN_MOVED_FROM = 0x40
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_DELETE_SELF = 0x400
IN_MOVE_SELF = 0x800
WRITTEN = IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE
NAMES = IN_CREATE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE | IN_DELETE_SELF | IN_MOVE_SELF
_HEADER = struct.Struct("iIII")

_init1 = function("inotify_init1", ctypes.c_int)
_add_watch = function("inotify_add_watch", ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)


def watch(directory: str, events: int = WRITTEN) -> int:
    """A descriptor that is readable, without waiting, when a file was written, renamed or removed
    (`WRITTEN`), or when a name came or went (`NAMES`).

    Raises OSError.
    """
    fd: int = _init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if fd < 0:
        raise oserror("inotify_init1")
    if _add_watch(fd, os.fsencode(directory), events) < 0:
        error = oserror("inotify_add_watch", directory)
        os.close(fd)
        raise error
    return fd


def changed(fd: int) -> set[bytes]:
    """The names of the files that have changed since; an empty name means that there were too many."""
    data = os.read(fd, 65536)
    names, at = set(), 0
    while at < len(data):
        _, _, _, size = _HEADER.unpack_from(data, at)
        at += _HEADER.size
        names.add(data[at : at + size].rstrip(b"\0"))
        at += size
    return names
