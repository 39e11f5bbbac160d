"""Rules by number become one filter: BPF made by libseccomp, with a few instructions of our own before it.

A filter is made for one architecture, the machine's own; calls by another way in (i386 and x32 on x86-64,
32-bit Arm on aarch64) end the process, or a filter for one numbering could be walked around with the other.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import pyseccomp

from initspawn.config.spot import nearest

# seccomp_api_get(3): what Linux 4.14 knows, LOG and KILL_PROCESS among it; initspawn needs a newer one.
_API = 3
_API_OF_NOTIFY = 5
_BINARY_TREE = 2  # of SCMP_FLTATR_CTL_OPTIMIZE, seccomp_attr_set(3)

# Numbers a system call can have; the architectures' own tables end well below.
_NUMBERS = range(1024)

# Calls that a libseccomp in use may not know yet. Since 424 all architectures number new calls alike
# (include/uapi/asm-generic/unistd.h).
NEWER: Mapping[str, int] = {
    "clone3": 435, "close_range": 436, "openat2": 437, "pidfd_getfd": 438, "faccessat2": 439,
    "process_madvise": 440, "epoll_pwait2": 441, "mount_setattr": 442, "quotactl_fd": 443,
    "landlock_create_ruleset": 444, "landlock_add_rule": 445, "landlock_restrict_self": 446,
    "memfd_secret": 447, "process_mrelease": 448, "futex_waitv": 449, "set_mempolicy_home_node": 450,
    "cachestat": 451, "fchmodat2": 452, "map_shadow_stack": 453, "futex_wake": 454, "futex_wait": 455,
    "futex_requeue": 456, "statmount": 457, "listmount": 458, "lsm_get_self_attr": 459,
    "lsm_set_self_attr": 460, "lsm_list_modules": 461, "mseal": 462, "setxattrat": 463, "getxattrat": 464,
    "listxattrat": 465, "removexattrat": 466, "open_tree_attr": 467, "file_getattr": 468,
    "file_setattr": 469,
}  # fmt: skip
_FIRST_UNKNOWN = max(NEWER.values()) + 1
_X32 = 0x40000000  # __X32_SYSCALL_BIT; no number of another architecture is as high

# linux/filter.h: load a word, jump if equal, jump if greater or equal, return; struct seccomp_data.
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER_AT, _ARCH_AT = 0, 4


class Rule(NamedTuple):
    """What one call does; its number is negative where the machine does not have it.

    conditions: argument, operator, value or mask, masked value, as libseccomp takes them.
    """

    syscall: str
    number: int
    action: int
    conditions: tuple[tuple[int, int, int, int], ...] = ()


def architecture(machine: str) -> int:
    """libseccomp's number of a processor; one that no plan is made ahead for is our own."""
    known = {"x86_64": pyseccomp.Arch.X86_64, "aarch64": pyseccomp.Arch.AARCH64}
    return int(known.get(machine, pyseccomp.system_arch()))


def number_of(name: str, arch: int) -> int | None:
    """A system call's number there, negative if only other architectures have it, None if none has."""
    number = _resolved(name, arch)
    return NEWER.get(name) if number is None else number


def only_by_number(name: str) -> bool:
    """Whether this libseccomp does not know a call that we know."""
    return _resolved(name, pyseccomp.system_arch()) is None


def nearest_call(name: str, arch: int) -> str:
    """A hint with the known name that is most like this one."""
    known = list(NEWER)
    for number in _NUMBERS:
        try:
            known.append(pyseccomp.resolve_syscall(arch, number).decode())
        except ValueError:  # no call of that number
            continue
    return nearest(name, known)


def assemble(default: int, rules: Sequence[Rule], arch: int, newer: int | None = None) -> bytes:
    """One filter's program: an array of `struct sock_filter`. Raises OSError.

    newer: what calls do that are newer than all that is known here, if not the default.
    """
    # Else libseccomp asks the kernel it runs on, and under an emulator that knows less than the target's.
    notifies = pyseccomp.NOTIFY in (default, *(rule.action for rule in rules))
    pyseccomp.set_api(_API_OF_NOTIFY if notifies else _API)
    program = pyseccomp.SyscallFilter(default)
    program.set_attr(pyseccomp.Attr.ACT_BADARCH, pyseccomp.KILL_PROCESS)
    if len(rules) > 32:
        # The kernel tries every call when a filter is loaded (seccomp_cache_prepare): a list of hundreds
        # of comparisons costs each start more than the rest of the filter does.
        program.set_attr(pyseccomp.Attr.CTL_OPTIMIZE, _BINARY_TREE)
    own = pyseccomp.system_arch()
    if arch != own:
        program.add_arch(arch)
        program.remove_arch(own)
    ahead: dict[int, int] = {}
    for rule in dict.fromkeys(rules):
        # libseccomp refuses a rule that says what the default says; a call that the machine does not
        # have needs none.
        if rule.action == default or rule.number < 0:
            continue
        # It wants our own number of a call, a negative one included, and translates it.
        here = _resolved(rule.syscall, own)
        if here is None:
            ahead[rule.number] = rule.action
        else:
            program.add_rule(rule.action, here, *[pyseccomp.Arg(*item) for item in rule.conditions])
    fd = os.memfd_create("filter")
    with os.fdopen(fd, "w+b", buffering=0) as file:
        program.export_bpf(file)
        file.seek(0)
        return _ahead(arch, ahead, newer) + file.read()


def _ahead(arch: int, answers: Mapping[int, int], newer: int | None) -> bytes:
    """Instructions that answer some numbers of one architecture, and leave all else to what follows."""
    if newer is not None and _FIRST_UNKNOWN not in answers:
        ranged = [(_AT_LEAST, _FIRST_UNKNOWN, newer)]
    else:
        ranged = []
    tests = [*((_EQUAL, number, action) for number, action in sorted(answers.items())), *ranged]
    if not tests:
        return b""
    behind = 2 * len(tests)  # instructions between here and what follows
    code: list[tuple[int, int, int, int]] = [
        (_LOAD, 0, 0, _ARCH_AT),
        (_EQUAL, 0, behind + 2, arch),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_AT_LEAST, behind, 0, _X32),
    ]
    for operation, number, action in tests:
        code += [(operation, 0, 1, number), (_RETURN, 0, 0, action)]
    return _packed(code)


def _packed(code: Iterable[tuple[int, int, int, int]]) -> bytes:
    return b"".join(struct.pack("=HBBI", *line) for line in code)


def _resolved(name: str, arch: int) -> int | None:
    """libseccomp's number of a call, None if it does not know it."""
    number = int(pyseccomp.resolve_syscall(arch, name))
    return None if number == -1 else number
