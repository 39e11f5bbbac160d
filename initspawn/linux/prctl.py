"""prctl(2): what a process is and stays across exec. Boot module."""

from __future__ import annotations

import ctypes

from initspawn.linux.libc import function, oserror

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4

_prctl = function(
    "prctl", ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong
)


def prctl(option: int, value: int = 0) -> int:
    """prctl(2) with its unused arguments zero, as several options demand. Raises OSError."""
    result: int = _prctl(option, value, 0, 0, 0)
    if result < 0:
        raise oserror("prctl")
    return result
