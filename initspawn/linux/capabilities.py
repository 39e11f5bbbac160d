"""capabilities(7): names, numbers, and what capset(2) takes. Boot module."""

from __future__ import annotations

import struct

# include/uapi/linux/capability.h, in order of their numbers.
NAMES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID",
    "SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW",
    "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT",
    "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD",
    "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG",
    "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE",
)  # fmt: skip
NUMBERS = {name: number for number, name in enumerate(NAMES)}

_VERSION_3 = 0x20080522  # _LINUX_CAPABILITY_VERSION_3: two words per set


def names(mask: int) -> list[str]:
    """The names of a mask's capabilities, numbers for those this table does not know."""
    return [
        NAMES[number] if number < len(NAMES) else str(number)
        for number in range(mask.bit_length())
        if mask >> number & 1
    ]


def last_cap() -> int:
    """The highest capability number of the running kernel. Raises OSError."""
    with open("/proc/sys/kernel/cap_last_cap", "rb") as file:
        return int(file.read())


def bounding() -> int:
    """The calling process's bounding set, a mask. Raises OSError."""
    with open("/proc/self/status", "rb") as file:
        for line in file:
            if line.startswith(b"CapBnd:"):
                return int(line.split()[1], 16)
    raise OSError("/proc/self/status has no CapBnd")


def capset_arguments(effective: int, permitted: int, inheritable: int) -> tuple[bytes, bytes]:
    """Header and data of capset(2) for the calling process."""
    low, high = 0xFFFFFFFF, 32
    data = struct.pack(
        "=6I",
        effective & low, permitted & low, inheritable & low,
        effective >> high, permitted >> high, inheritable >> high,
    )  # fmt: skip
    return struct.pack("=Ii", _VERSION_3, 0), data
