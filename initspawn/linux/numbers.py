"""System call numbers of the running machine. Boot module.

Numbers from 424 up are the same everywhere. Below, x86_64 has its own (arch/x86/entry/syscalls) and
all newer architectures share one list (include/uapi/asm-generic/unistd.h).
"""

from __future__ import annotations

import os

_SHARED = {
    "pidfd_send_signal": 424, "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431,
    "fsmount": 432, "pidfd_open": 434, "pidfd_getfd": 438, "clone3": 435, "close_range": 436, "openat2": 437,
    "mount_setattr": 442, "landlock_create_ruleset": 444, "landlock_add_rule": 445,
    "landlock_restrict_self": 446,
}  # fmt: skip
_X86_64 = {
    "shutdown": 48, "munmap": 11,
    "read": 0, "write": 1, "close": 3, "rt_sigaction": 13, "rt_sigprocmask": 14, "ioctl": 16,
    "socket": 41, "execve": 59, "wait4": 61, "chdir": 80, "getppid": 110, "setpriority": 141,
    "sched_setscheduler": 144, "ioprio_set": 251, "ioprio_get": 252, "fchdir": 81, "umask": 95, "setsid": 112,
    "setgroups": 116, "setresuid": 117, "setresgid": 119, "capset": 126, "pivot_root": 155,
    "prctl": 157, "mount": 165, "umount2": 166, "sethostname": 170, "exit_group": 231, "openat": 257,
    "mkdirat": 258, "mknodat": 259, "fchownat": 260, "unlinkat": 263, "symlinkat": 266,
    "keyctl": 250, "seccomp": 317, "fchmodat": 268, "unshare": 272, "dup3": 292, "prlimit64": 302,
    "reboot": 169,
}  # fmt: skip
_GENERIC = {
    "shutdown": 210, "munmap": 215,
    "read": 63, "write": 64, "close": 57, "rt_sigaction": 134, "rt_sigprocmask": 135, "ioctl": 29,
    "socket": 198, "execve": 221, "wait4": 260, "chdir": 49, "getppid": 173, "setpriority": 140,
    "sched_setscheduler": 119, "ioprio_set": 30, "ioprio_get": 31, "fchdir": 50, "umask": 166, "setsid": 157,
    "setgroups": 159, "setresuid": 147, "setresgid": 149, "capset": 91, "pivot_root": 41,
    "prctl": 167, "mount": 40, "umount2": 39, "sethostname": 161, "exit_group": 94, "openat": 56,
    "mkdirat": 34, "mknodat": 33, "fchownat": 54, "unlinkat": 35, "symlinkat": 36,
    "keyctl": 219, "seccomp": 277, "fchmodat": 53, "unshare": 97, "dup3": 24, "prlimit64": 261,
    "reboot": 142,
}  # fmt: skip
TABLES = {
    "x86_64": _X86_64 | _SHARED,
    "aarch64": _GENERIC | _SHARED,
    "riscv64": _GENERIC | _SHARED,
    "loongarch64": _GENERIC | _SHARED,
}


def table(machine: str | None = None) -> dict[str, int]:
    """System call name to number. Raises OSError(ENOSYS) for a machine that has no table here."""
    machine = machine or os.uname().machine
    try:
        return TABLES[machine]
    except KeyError:
        import errno

        raise OSError(errno.ENOSYS, f"no system call numbers for {machine}") from None
