"""ptrace(2), the little that is needed to hold a process at its exec. Boot module."""

from __future__ import annotations

import ctypes

from initspawn.linux.libc import libc, oserror

PTRACE_CONT = 7
PTRACE_DETACH = 17
PTRACE_SEIZE = 0x4206
PTRACE_O_TRACEEXEC = 1 << 4
PTRACE_O_EXITKILL = 1 << 20
PTRACE_EVENT_EXEC = 4

_ptrace = libc.ptrace
_ptrace.restype = ctypes.c_long
_ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def _call(request: int, pid: int, data: int) -> None:
    if _ptrace(request, pid, 0, data) < 0:
        raise oserror("ptrace")


def seize(pid: int) -> None:
    """Trace a process without stopping it: it stops at its exec, and dies if we do. Raises OSError."""
    _call(PTRACE_SEIZE, pid, PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL)


def cont(pid: int, signal: int = 0) -> None:
    """Let a stopped process go on, delivering `signal` to it. Raises OSError."""
    _call(PTRACE_CONT, pid, signal)


def detach(pid: int) -> None:
    """Let a stopped process go for good. Raises OSError."""
    _call(PTRACE_DETACH, pid, 0)


def stop_event(status: int) -> int:
    """The PTRACE_EVENT_* of a wait status that says stopped; 0 for a plain signal's stop."""
    return status >> 16
