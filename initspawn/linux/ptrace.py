"""ptrace(2), the little that is needed to hold a process, or its child, at its exec. Boot module."""

from __future__ import annotations

import ctypes
import os

from initspawn.linux.libc import libc, oserror

PTRACE_CONT = 7
PTRACE_DETACH = 17
PTRACE_SYSCALL = 24
PTRACE_SETOPTIONS = 0x4200
PTRACE_GETEVENTMSG = 0x4201
PTRACE_SEIZE = 0x4206
PTRACE_INTERRUPT = 0x4207
PTRACE_O_TRACESYSGOOD = 1
PTRACE_O_TRACEFORK = 1 << 1
PTRACE_O_TRACEVFORK = 1 << 2
PTRACE_O_TRACECLONE = 1 << 3
PTRACE_O_TRACEEXEC = 1 << 4
PTRACE_O_EXITKILL = 1 << 20
PTRACE_EVENT_EXEC = 4
CHILD_EVENTS = (1, 2, 3)  # PTRACE_EVENT_FORK, _VFORK, _CLONE
_AT_CALL = 0x80  # beside SIGTRAP: what PTRACE_O_TRACESYSGOOD marks the stop at a call with

_ptrace = libc.ptrace
_ptrace.restype = ctypes.c_long
_ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def _call(request: int, pid: int, data: int) -> None:
    if _ptrace(request, pid, 0, data) < 0:
        raise oserror("ptrace")


def seize(pid: int) -> None:
    """Trace a process without stopping it: it stops at its exec, and dies if we do. Raises OSError."""
    _call(PTRACE_SEIZE, pid, PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD)


def interrupt(pid: int) -> None:
    """Have a running process stop before it goes on in user mode. Raises OSError."""
    _call(PTRACE_INTERRUPT, pid, 0)


def cont_to_call(pid: int, signal: int = 0) -> None:
    """Let a stopped process go on to the begin or end of a system call, or another stop. Raises OSError."""
    _call(PTRACE_SYSCALL, pid, signal)


def follow(pid: int) -> None:
    """Trace the children of a stopped process too, from their first instruction. Raises OSError."""
    children = PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE
    _call(PTRACE_SETOPTIONS, pid, PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL | children)


def child_of(pid: int) -> int:
    """The child that a process stopped at one of CHILD_EVENTS has just made. Raises OSError."""
    child = ctypes.c_ulong()
    _call(PTRACE_GETEVENTMSG, pid, ctypes.addressof(child))
    return child.value


def cont(pid: int, signal: int = 0) -> None:
    """Let a stopped process go on, delivering `signal` to it. Raises OSError."""
    _call(PTRACE_CONT, pid, signal)


def detach(pid: int) -> None:
    """Let a stopped process go for good. Raises OSError."""
    _call(PTRACE_DETACH, pid, 0)


def stop_event(status: int) -> int:
    """The PTRACE_EVENT_* of a wait status that says stopped; 0 for a plain signal's stop."""
    return status >> 16


def stop_signal(status: int) -> int:
    """The signal that stopped it, to be delivered to it; 0 if that was an event, or a system call."""
    signal = os.WSTOPSIG(status)
    return 0 if stop_event(status) or signal & _AT_CALL else signal
