"""How much of processor, disk and memory a process is given before others: nice(2), sched_setscheduler(2),
ioprio_set(2), and the out-of-memory killer's score (proc(5)). Boot module.
"""

from __future__ import annotations

from initspawn.linux.libc import syscall

PRIO_PROCESS = 0
NICE = range(-20, 20)
# SCHED_* of include/uapi/linux/sched.h; only those that need no further parameters.
POLICIES = {"other": 0, "batch": 3, "idle": 5}
# include/uapi/linux/ioprio.h
IOPRIO_WHO_PROCESS = 1
IO_CLASSES = {"realtime": 1, "best-effort": 2, "idle": 3}
IO_PRIORITIES = range(8)
OOM_SCORES = range(-1000, 1001)
_CLASS_SHIFT = 13


def io_priority(io_class: int, level: int) -> int:
    """What ioprio_set(2) takes: one of IO_CLASSES, and which of IO_PRIORITIES in it."""
    return io_class << _CLASS_SHIFT | level


def io_parts(value: int) -> tuple[int, int]:
    """The class and level in what `io_priority` made."""
    return value >> _CLASS_SHIFT, value & (1 << _CLASS_SHIFT) - 1


def ioprio_get(pid: int) -> int:
    """ioprio_get(2) of one process. Raises OSError."""
    return syscall("ioprio_get", IOPRIO_WHO_PROCESS, pid)
