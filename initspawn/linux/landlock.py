"""Landlock (landlock(7)): what a process lets itself, and all it starts, do from now on. Boot module."""

from __future__ import annotations

import errno
import struct

from initspawn.linux.libc import syscall

# include/uapi/linux/landlock.h
CREATE_RULESET_VERSION = 1
RULE_PATH_BENEATH = 1
RULE_NET_PORT = 2
# LANDLOCK_ACCESS_FS_*, by what a configuration calls it.
FS = {
    "execute": 1 << 0,
    "write": 1 << 1 | 1 << 14,  # WRITE_FILE, TRUNCATE
    "read": 1 << 2 | 1 << 3,  # READ_FILE, READ_DIR
    "remove": 1 << 4 | 1 << 5,  # REMOVE_DIR, REMOVE_FILE
    "device": 1 << 6 | 1 << 11,  # MAKE_CHAR, MAKE_BLOCK
    "create": 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 12,  # MAKE_DIR, _REG, _SOCK, _FIFO, _SYM
    "move": 1 << 13,  # REFER: to another directory, by rename or link
    "ioctl": 1 << 15,  # IOCTL_DEV
}
OF_FILES = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15  # what a rule for a single file may name
BIND, CONNECT = 1, 2  # LANDLOCK_ACCESS_NET_*_TCP
SCOPES = {"abstract-sockets": 1 << 0, "signals": 1 << 1}  # LANDLOCK_SCOPE_*
# The ABI from which on a kernel knows such masks: (file access, network access, scopes).
_KNOWN = (
    (0, (0, 0, 0)),
    (1, ((1 << 13) - 1, 0, 0)),
    (2, ((1 << 14) - 1, 0, 0)),
    (3, ((1 << 15) - 1, 0, 0)),
    (4, ((1 << 15) - 1, 3, 0)),
    (5, ((1 << 16) - 1, 3, 0)),
    (6, ((1 << 16) - 1, 3, 3)),
)


def version() -> int:
    """The running kernel's Landlock ABI, 0 where it has none. Raises OSError for anything else."""
    try:
        return syscall("landlock_create_ruleset", 0, 0, CREATE_RULESET_VERSION)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        return 0


def known(abi: int) -> tuple[int, int, int]:
    """The file access, network access and scopes that an ABI knows."""
    return [masks for since, masks in _KNOWN if since <= abi][-1]


def needed(fs: int, net: int, scopes: int) -> int:
    """The lowest ABI that knows all of that."""
    for abi, masks in _KNOWN:
        if not (fs & ~masks[0] or net & ~masks[1] or scopes & ~masks[2]):
            return abi
    raise ValueError("no Landlock ABI knows all of that")


def ruleset(fs: int, net: int, scopes: int) -> bytes:
    """struct landlock_ruleset_attr: what is held back but for rules."""
    return struct.pack("=3Q", fs, net, scopes)


def path_rule(access: int, fd: int) -> bytes:
    """struct landlock_path_beneath_attr, for what an O_PATH descriptor is on."""
    return struct.pack("=Qi", access, fd)


def port_rule(access: int, port: int) -> bytes:
    """struct landlock_net_port_attr."""
    return struct.pack("=2Q", access, port)
