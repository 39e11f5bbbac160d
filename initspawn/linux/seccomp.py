"""seccomp(2): a ready filter as the kernel takes it. Boot module; filters are compiled elsewhere."""

from __future__ import annotations

import ctypes

MODE_FILTER = 2  # SECCOMP_MODE_FILTER of prctl(PR_SET_SECCOMP)
SET_MODE_FILTER = 1  # the same of seccomp(2)
NEW_LISTENER = 1 << 3  # SECCOMP_FILTER_FLAG_NEW_LISTENER
LISTENER = "anon_inode:seccomp notify"  # what /proc/PID/fd calls one
INSTRUCTION = 8  # bytes of a struct sock_filter
MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS


class Program(ctypes.Structure):
    """struct sock_fprog: how many instructions, and where they are."""

    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def program(bpf: bytes) -> Program:
    """What PR_SET_SECCOMP takes. Raises ValueError for bytes that cannot be a BPF program."""
    count, rest = divmod(len(bpf), INSTRUCTION)
    if rest or not 0 < count <= MAX_INSTRUCTIONS:
        raise ValueError(f"a BPF program of {len(bpf)} bytes, not 1 to {MAX_INSTRUCTIONS} instructions")
    return Program(count, bpf)
