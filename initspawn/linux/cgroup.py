"""cgroups(7), version 2 (Documentation/admin-guide/cgroup-v2.rst). Boot module.

A hierarchy without controllers is enough to hold a tree of processes, to account its processor time, and to
end it. Directories are given as absolute paths.
"""

from __future__ import annotations

import errno
import os
import resource

from initspawn.linux import mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_SEPARATOR = " - "


def mount_point() -> str | None:
    """Where the cgroup2 file system is mounted: /sys/fs/cgroup, or `unified` below it; None if not."""
    for before, after in _mounts():
        if after.startswith("cgroup2 "):
            return os.fsdecode(mount.unescaped(os.fsencode(before.split(" ")[4])))
    return None


def old_controllers() -> set[str]:
    """The controllers that a version 1 hierarchy has, which version 2 then cannot have."""
    found: set[str] = set()
    for _, after in _mounts():
        if after.startswith("cgroup "):
            found.update(after.split(" ")[2].split(","))
    return found


def _mounts() -> list[tuple[str, str]]:
    with open("/proc/self/mountinfo", "rb") as file:
        lines = os.fsdecode(file.read()).split("\n")
    return [(before, after) for before, _, after in (line.partition(_SEPARATOR) for line in lines)]


def own_path() -> str:
    """The calling process's cgroup below the mount point, `/` for the root. Raises OSError."""
    with open("/proc/self/cgroup", "rb") as file:
        for line in file:
            if line.startswith(b"0::"):
                return os.fsdecode(line[3:].rstrip(b"\n"))
    raise FileNotFoundError(errno.ENOENT, "no cgroup v2 hierarchy")


def write(group: str, name: str, text: str) -> None:
    """Write one interface file of a cgroup, one call for each line. Raises OSError with its path."""
    path = f"{group}/{name}"
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        for line in text.split("\n"):
            os.write(fd, line.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(fd)


def read(group: str, name: str) -> str:
    """One interface file of a cgroup, without its last line end. Raises OSError."""
    with open(f"{group}/{name}", "rb") as file:
        return file.read().decode().rstrip("\n")


def controllers(group: str) -> set[str]:
    """What can be limited below a cgroup. Raises OSError."""
    return set(read(group, "cgroup.controllers").split())


def enable(group: str, names: Iterable[str]) -> set[str]:
    """Hand controllers on to the groups below. Returns those that were not yet. Raises OSError."""
    lacking = set(names) - set(read(group, "cgroup.subtree_control").split())
    if lacking:
        write(group, "cgroup.subtree_control", " ".join(f"+{name}" for name in sorted(lacking)))
    return lacking


def disable(group: str, names: Iterable[str]) -> None:
    """Take them from the groups below. Raises OSError."""
    for name in names:
        write(group, "cgroup.subtree_control", f"-{name}")


def kept(name: str, value: str) -> str:
    """What a limit's file says when this value was written to it."""
    if name.startswith("memory.") and value.isdecimal():
        page = resource.getpagesize()
        return str(int(value) // page * page)
    return value


def in_force(group: str, names: Iterable[str]) -> dict[str, str]:
    """What these files say; of a set that is not in effect as it stands, what is. Raises OSError."""
    found = {}
    for name in names:
        found[name] = "\n".join(sorted(read(group, name).split("\n"), key=_device))
        if name.startswith("cpuset."):
            effective = read(group, f"{name}.effective")
            if not members(effective) <= members(found[name]):
                found[name] = f"{effective} in effect"
    return found


def _device(line: str) -> tuple[int, ...]:
    number = line.partition(" ")[0].split(":")
    return tuple(map(int, number)) if len(number) == 2 else ()


def members(text: str) -> set[int]:
    """The numbers of a list such as `0-1,4`."""
    found: set[int] = set()
    for part in text.split(",") if text else ():
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def usage(group: str, before: Mapping[str, float]) -> dict[str, float]:
    """What a cgroup and all below have used, as far as its controllers know; what they do not, is absent.
    `before`: the same of a group that its processes have left.
    """
    times = _pairs(group, "cpu.stat")
    found = {
        name: times[key] / 1e6
        for name, key in (("user-seconds", "user_usec"), ("system-seconds", "system_usec"))
        if key in times
    }
    for name, file in (("peak-bytes", "memory.peak"), ("processes", "pids.peak")):
        try:
            found[name] = int(read(group, file))
        except (OSError, ValueError):  # no such controller, or a kernel that does not count it
            pass
    try:
        pairs = [pair.partition("=") for pair in read(group, "io.stat").split() if "=" in pair]
        for name, key in (("read-bytes", "rbytes"), ("written-bytes", "wbytes")):
            found[name] = sum(int(value) for word, _, value in pairs if word == key)
    except OSError:
        pass
    for name, earlier in before.items():
        now = found.get(name, 0)
        found[name] = max(now, earlier) if name in ("peak-bytes", "processes") else now + earlier
    return found


def out_of_memory(group: str) -> bool:
    """Whether the kernel has ended a process of the subtree because memory was used up."""
    return bool(_pairs(group, "memory.events").get("oom_kill"))


def _pairs(group: str, name: str) -> dict[str, int]:
    """A file of `NAME NUMBER` lines; empty where there is none."""
    try:
        lines = read(group, name).splitlines()
    except OSError:
        return {}
    return {word: int(value) for word, _, value in (line.partition(" ") for line in lines)}


def kill(group: str) -> None:
    """cgroup.kill (Linux 5.14): SIGKILL for every process of the whole subtree. Raises OSError."""
    write(group, "cgroup.kill", "1")
