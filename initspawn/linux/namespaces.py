"""namespaces(7): their flags, and what a new network namespace needs. Boot module."""

from __future__ import annotations

import struct

from initspawn.linux import process

# Names as in /proc/PID/ns, with the flag clone3 and unshare take.
FLAGS = {
    "user": process.CLONE_NEWUSER,
    "pid": process.CLONE_NEWPID,
    "mnt": process.CLONE_NEWNS,
    "ipc": process.CLONE_NEWIPC,
    "uts": process.CLONE_NEWUTS,
    "net": process.CLONE_NEWNET,
    "cgroup": process.CLONE_NEWCGROUP,
}

SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1
LOOPBACK_UP = struct.pack("16sh22x", b"lo", _IFF_UP)  # struct ifreq: name, flags (netdevice(7))
