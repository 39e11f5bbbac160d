"""Processes: clone3(2), pidfds, signals as a descriptor, waiting. Boot module."""

from __future__ import annotations

import ctypes
import os
import struct
import time

from initspawn.linux import prctl
from initspawn.linux.libc import function, missing, oserror, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# include/uapi/linux/sched.h
CLONE_PARENT = 0x00008000
CLONE_PARENT_SETTID = 0x00100000
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_INTO_CGROUP = 0x200000000

PIDFD_SIGNAL_PROCESS_GROUP = 1 << 2
WALL = 0x40000000  # __WALL: also children made by clone and traced processes
SIGCHLD = 17
KEYCTL_JOIN_SESSION_KEYRING = 1  # keyctl(2)
SFD_CLOEXEC = os.O_CLOEXEC
SFD_NONBLOCK = os.O_NONBLOCK
_SIGINFO_SIZE = 128


def clone_arguments(flags: int = 0, *, parent_tid: int = 0, cgroup: int = -1) -> bytes:
    """struct clone_args of clone3(2), version 2, for a child like fork's in new namespaces.

    `parent_tid`: an address where the kernel stores the child's pid before it runs; `cgroup`: a
    descriptor of the cgroup v2 directory it is born in. With CLONE_PARENT the child is its caller's
    sibling, and signals its end as the caller does.
    """
    flags |= CLONE_PARENT_SETTID if parent_tid else 0
    flags |= CLONE_INTO_CGROUP if cgroup >= 0 else 0
    signal = 0 if flags & CLONE_PARENT else SIGCHLD
    # flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup
    return struct.pack("=11Q", flags, 0, 0, parent_tid, signal, 0, 0, 0, 0, 0, max(cgroup, 0))


def pidfd_open(pid: int) -> int:
    """pidfd_open(2): a descriptor that means this very process, whatever happens to its number."""
    return syscall("pidfd_open", pid, 0)


def pidfd_getfd(pidfd: int, number: int) -> int:
    """pidfd_getfd(2): a descriptor of ours for what that process has open as `number`. Raises OSError."""
    return syscall("pidfd_getfd", pidfd, number, 0)


def pidfd_send_signal(pidfd: int, signal: int, flags: int = 0) -> None:
    """pidfd_send_signal(2). Raises OSError; ProcessLookupError when the process has been reaped."""
    syscall("pidfd_send_signal", pidfd, signal, 0, flags)


def set_child_subreaper() -> None:
    """Orphans among the descendants become children of this process, not of PID 1 (prctl(2))."""
    prctl.prctl(prctl.PR_SET_CHILD_SUBREAPER, 1)


_signalfd = function("signalfd", ctypes.c_int, ctypes.c_void_p, ctypes.c_int)


def signalfd(signals: tuple[int, ...]) -> int:
    """signalfd(2): a non-blocking descriptor that reads these (blocked) signals. Raises OSError."""
    mask = ctypes.create_string_buffer(128)  # sigset_t of the C library: 1024 bits
    for signal in signals:
        bit = signal - 1
        mask[bit // 8] = bytes([mask.raw[bit // 8] | 1 << bit % 8])
    fd: int = _signalfd(-1, mask, SFD_CLOEXEC | SFD_NONBLOCK)
    if fd < 0:
        raise oserror("signalfd")
    return fd


def read_signals(fd: int) -> list[int]:
    """The signal numbers waiting in a signalfd, oldest first; none if there are none."""
    try:
        data = os.read(fd, 16 * _SIGINFO_SIZE)
    except BlockingIOError:
        return []
    return [struct.unpack_from("=I", data, start)[0] for start in range(0, len(data), _SIGINFO_SIZE)]


def began(pid: int | str = "self") -> int:
    """When a process began, in clock ticks since the machine did: field 22 of proc_pid_stat(5). Numbers come
    again, a number with this does not. Raises OSError.
    """
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])


def age() -> float:
    """For how many seconds this process has been there. Raises OSError."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - began() / os.sysconf("SC_CLK_TCK")


def wait_any() -> tuple[int, int, Any] | None:
    """One child or traced process with news: (pid, status, rusage); None if there is none now."""
    try:
        pid, status, usage = os.wait4(-1, os.WNOHANG | WALL)
    except ChildProcessError:
        return None
    return (pid, status, usage) if pid else None


def is_child(pid: int) -> bool:
    """Whether that is a child of ours that has not been waited for: until then its number is its own."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def pidfd_kill(pidfd: int, signal: int) -> None:
    """A signal to a process that may have ended, or become one that we may not signal; -1: to nobody."""
    if pidfd >= 0:
        try:
            pidfd_send_signal(pidfd, signal)
        except (ProcessLookupError, PermissionError):
            pass


def lives(pidfd: int) -> bool:
    """Whether that process has not been reaped: until then its number is nobody else's."""
    try:
        pidfd_send_signal(pidfd, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it may be another's, or outside of our pid namespace
        return True
    return True


def descends(pid: int, ancestor: int) -> bool:
    """Whether a process is this one or has it above; True as well where that is hidden, or changes while it
    is looked at: a parent's number is its own only as long as its child still names it. 0 is a process that
    is not in our pid namespace, and so below nobody in it. Raises OSError where there is no descriptor left.
    """
    try:
        found = lineage(pid)
        return ancestor in found or found != lineage(pid)
    except (OSError, ValueError, IndexError) as error:
        if missing(error):
            raise
        return True


def is_ours(pid: int, pidfd: int = -1) -> bool:
    """Whether a process is this one or below it. One that is gone or hidden is not to be trusted: it counts.
    With its pidfd it is certain that it was looked at, and none that has its number now. Raises OSError.
    """
    # Not from a reaper: it may be dead, and its orphans are ours.
    return descends(pid, os.getpid()) or (pidfd >= 0 and not lives(pidfd))


def lineage(pid: int) -> list[int]:
    """A process and all above it, as far as they can be seen. Raises OSError, ValueError, IndexError."""
    found: list[int] = []
    while pid:
        found.append(pid)
        with open(f"/proc/{pid}/stat", "rb") as file:
            pid = int(file.read().rpartition(b")")[2].split()[1])
    return found
