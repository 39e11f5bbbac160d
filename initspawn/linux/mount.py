"""Constants of mount(2) and of the descriptor-based mount calls (Linux 5.12), and openat2(2). Boot module."""

from __future__ import annotations

import errno
import os
import stat
import struct

from initspawn.linux.libc import syscall

# mount(2)
MS_REC = 0x4000
MS_SLAVE = 0x80000
MNT_DETACH = 2

# include/uapi/linux/mount.h
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
AT_RECURSIVE = 0x8000
AT_EMPTY_PATH = 0x1000
AT_SYMLINK_NOFOLLOW = 0x100
AT_FDCWD = -100
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
FSOPEN_CLOEXEC = 1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6
FSMOUNT_CLOEXEC = 1

NULL = "/dev/null"
_NULL_DEVICE = os.makedev(1, 3)  # Documentation/admin-guide/devices.txt

# openat2(2)
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_IN_ROOT = 0x10


def unescaped(name: bytes) -> bytes:
    """A name of mountinfo as it is: space, tab, newline, backslash and `#` are written there in octal."""
    return name.decode("unicode_escape").encode("latin-1") if b"\\" in name else name


def open_in_root(root: int, path: str, flags: int) -> int:
    """openat2(2) below `root` as if it were the root directory: no link or `..` leads out of it.

    Raises OSError.
    """
    how = struct.pack("=3Q", flags | os.O_CLOEXEC, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    return syscall("openat2", root, os.fsencode(path), how, len(how), target=path)


def open_without_links(path: str, flags: int = os.O_PATH) -> int:
    """A descriptor on a path of the host none of whose parts is a symbolic link. Raises OSError."""
    how = struct.pack("=3Q", flags | os.O_CLOEXEC, 0, RESOLVE_NO_SYMLINKS)
    return syscall("openat2", AT_FDCWD, os.fsencode(path), how, len(how), target=path)


def open_to_append(path: str, mode: int) -> int:
    """A regular file of the host, or /dev/null, for appending; made with `mode` if it is missing. No part of
    the path may be a symbolic link; never waits, whatever is there. Raises OSError.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    how = struct.pack("=3Q", flags, mode, RESOLVE_NO_SYMLINKS)
    fd = syscall("openat2", AT_FDCWD, os.fsencode(path), how, len(how), target=path)
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode) and not is_null(found):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return fd


def is_null(found: os.stat_result) -> bool:
    """Whether this is the device that /dev/null should be."""
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == _NULL_DEVICE


def open_null(path: str = NULL) -> int:
    """That device for reading and writing: a file in its place would keep what one command writes, for the
    next to read. Raises OSError.
    """
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    if not is_null(os.fstat(fd)):
        os.close(fd)
        raise OSError(errno.ENODEV, "not the null device", path)
    return fd


def make_null(path: str = NULL) -> None:
    """mknod(2) of that device, in place of whatever file is there; nothing if it is there. Raises OSError."""
    try:
        if is_null(os.lstat(path)):
            return
        os.unlink(path)
    except FileNotFoundError:
        pass
    os.mknod(path, stat.S_IFCHR, _NULL_DEVICE)
    os.chmod(path, 0o666)  # whatever our umask


def open_file_in_root(root: int, path: str) -> int:
    """A regular file below `root` for reading; never waits, whatever was put in its place. Raises OSError."""
    fd = open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return fd
