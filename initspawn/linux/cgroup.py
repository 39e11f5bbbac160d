"""cgroups(7), version 2 (Documentation/admin-guide/cgroup-v2.rst). Boot module.

A hierarchy without controllers is enough to hold a tree of processes and to end it.
"""

from __future__ import annotations

import errno
import os


def mount_point() -> str | None:
    """Where the cgroup2 file system is mounted: /sys/fs/cgroup, or `unified` below it; None if not."""
    with open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            before, _, after = line.partition(b" - ")
            if after.startswith(b"cgroup2 "):
                return os.fsdecode(before.split()[4])
    return None


def own_path() -> str:
    """The calling process's cgroup below the mount point, `/` for the root. Raises OSError."""
    with open("/proc/self/cgroup", "rb") as file:
        for line in file:
            if line.startswith(b"0::"):
                return os.fsdecode(line[3:].rstrip(b"\n"))
    raise FileNotFoundError(errno.ENOENT, "no cgroup v2 hierarchy")


def write(group: str, name: str, text: str) -> None:
    """Write one interface file of a cgroup. Raises OSError."""
    fd = os.open(f"{group}/{name}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def kill(group: str) -> None:
    """cgroup.kill (Linux 5.14): SIGKILL for every process of the whole subtree. Raises OSError."""
    write(group, "cgroup.kill", "1")


def populated(group: str) -> bool:
    """Whether any process lives in the subtree. Raises OSError."""
    with open(f"{group}/cgroup.events", "rb") as file:
        return b"populated 1" in file.read()
