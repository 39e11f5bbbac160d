"""System call filters: names and actions become BPF (seccomp(2), libseccomp).

A filter is made for one architecture, the machine's own; calls by another way in (i386 and x32 on x86-64)
end the process, or a filter for one numbering could be walked around with the other.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import NamedTuple

import pyseccomp

from initspawn.config import bpf
from initspawn.config.expand import ExpandFault, Names, expand
from initspawn.config.identity import Person
from initspawn.config.schema import Comparison, Seccomp, SeccompRule
from initspawn.config.spot import Spot, nearest, shown
from initspawn.late import is_late

# Action names, without the prefix that may be left out.
_PREFIX = re.compile(r"sc?mp_act_")  # without the c: a misspelling that configurations carry on
_ACTIONS = {
    "allow": pyseccomp.ALLOW,
    "kill": pyseccomp.KILL_THREAD,
    "kill_process": pyseccomp.KILL_PROCESS,
    "kill_thread": pyseccomp.KILL_THREAD,
    "log": pyseccomp.LOG,
    "trap": pyseccomp.TRAP,
}
_ERRNO = "errno"
_LATER = {
    "notify": "nobody would answer for the call and it would hang",
    "trace": "no tracer would be there and the call would fail",
}
_OPERATORS = {
    "==": pyseccomp.EQ, "!=": pyseccomp.NE, "<": pyseccomp.LT, "<=": pyseccomp.LE, ">": pyseccomp.GT,
    ">=": pyseccomp.GE, "eq": pyseccomp.EQ, "ne": pyseccomp.NE, "lt": pyseccomp.LT, "le": pyseccomp.LE,
    "gt": pyseccomp.GT, "ge": pyseccomp.GE, "masked_eq": pyseccomp.MASKED_EQ,
}  # fmt: skip
_DEFAULT = "SCMP_ACT_KILL"
_PARENTHESES = re.compile(r"(?P<name>\w+)\s*\(\s*(?P<errno>\w+)\s*\)")
_LAST_WORD = (1 << 64) - 1
_LAST_ERRNO = 4095  # MAX_ERRNO of the kernel

# What `locked` takes away: ways into another process's memory and kernel objects. PR_SET_DUMPABLE,
# which would keep others out of this one, does not survive the command's exec.
LOCKED = ("ptrace", "process_vm_readv", "process_vm_writev", "kcmp")

_EXECVE_HINT = (
    "write `default: SCMP_ACT_ALLOW`, or a rule for each system call the command needs, execve among them"
)

# seccomp_api_get(3): what Linux 4.14 knows, LOG and KILL_PROCESS among it; initspawn needs a newer one.
_API = 3

# Numbers a system call can have; the architectures' own tables end well below.
_NUMBERS = range(1024)


class _Rule(NamedTuple):
    """One rule worked out: the call's number is negative where the machine does not have it."""

    syscall: str
    number: int
    action: int
    conditions: tuple[tuple[int, int, int, int], ...]  # argument, operator, value or mask, masked value


def compile_filters(
    seccomp: Seccomp | None, names: Names, supervisor: Person, spot: Spot
) -> tuple[bytes, ...]:
    """The filters in the order they are loaded. What is wrong is noted at `spot`."""
    if seccomp is None:
        return ()
    arch = _arch(names.target.machine)
    if seccomp.rulespath is not None:
        filters = _ready(seccomp, names, supervisor, spot)
    else:
        filters = _from_rules(seccomp, arch, spot)
    if filters and seccomp.locked:
        # First, because the other one may not allow a further filter to be loaded.
        denied = pyseccomp.ERRNO(errno.EPERM)
        found = [(name, _number(name, arch)) for name in LOCKED]
        rules = [_Rule(name, number, denied, ()) for name, number in found if number is not None]
        filters = [_bpf(pyseccomp.ALLOW, rules, arch), *filters]
    return tuple(filters)


def _from_rules(seccomp: Seccomp, arch: int, spot: Spot) -> list[bytes]:
    """The filter that `default` and `rules` make; empty if it is refused."""
    default = _action(seccomp.default or _DEFAULT, None, spot["default"])
    rules: list[_Rule] = []
    for index, given in enumerate(seccomp.rules or ()):
        rule = _rule(given, arch, spot["rules"][index])
        if rule is None or default is None:
            continue
        reason = _conflict(rule, default, rules)
        if reason:
            spot["rules"][index].refuse(*reason)
        rules.append(rule)
    if default is None or not spot.clean:
        return []
    for_execve = [rule.action for rule in rules if rule.syscall == "execve" and not rule.conditions]
    if (for_execve or [default])[0] not in (pyseccomp.ALLOW, pyseccomp.LOG):
        spot.refuse("`execve` is not allowed, so no command could ever start", _EXECVE_HINT)
        return []
    try:
        program = _bpf(default, rules, arch)
    except OSError as error:
        spot["rules"].refuse(f"libseccomp makes no filter of these rules: {error.strerror or error}")
        return []
    fault = bpf.fault(program)
    if fault:
        spot["rules"].refuse(f"the filter of these rules {fault}", "write fewer rules")
        return []
    return [program]


def _rule(given: SeccompRule, arch: int, spot: Spot) -> _Rule | None:
    """One rule, or None with the reason noted."""
    action = _action(given.action, given.errno, spot["action"])
    number = _number(given.syscall, arch)
    if number is None:
        hint = _nearest(given.syscall, arch)
        spot["syscall"].refuse(f"unknown system call {shown(given.syscall)}", hint)
    conditions = [_condition(item, spot["args"][index]) for index, item in enumerate(given.args)]
    if len({item.index for item in given.args}) < len(given.args):
        spot["args"].refuse("one argument is compared twice", "write a second rule")
    # A rule without one of its conditions would hold for more calls than was meant.
    if action is None or number is None or not spot.clean:
        return None
    return _Rule(given.syscall, number, action, tuple(item for item in conditions if item))


def _condition(given: Comparison, spot: Spot) -> tuple[int, int, int, int] | None:
    for key in ("value", "mask"):
        if (getattr(given, key) or 0) > _LAST_WORD:
            spot[key].refuse("does not fit in 64 bits")
            return None
    operator = _OPERATORS.get(given.op.lower().removeprefix("scmp_cmp_"))
    if operator is None:
        spot["op"].refuse(f"unknown comparison {shown(given.op)}", f"write {', '.join(list(_OPERATORS)[:6])}")
    elif given.mask is not None and operator in (pyseccomp.EQ, pyseccomp.MASKED_EQ):
        if given.value & ~given.mask:
            spot["value"].refuse("has bits that `mask` takes away, so nothing is ever equal to it")
        return given.index, pyseccomp.MASKED_EQ, given.mask, given.value
    elif given.mask is not None:
        spot["mask"].refuse("a mask goes only with `==`")
    elif operator == pyseccomp.MASKED_EQ:
        spot.refuse("`mask` is missing", "write the bits that are compared")
    else:
        return given.index, operator, given.value, 0
    return None


def _conflict(rule: _Rule, default: int, before: Sequence[_Rule]) -> tuple[str, str] | None:
    """Why a rule does not go with those before it: libseccomp has no order among them."""
    if rule.conditions and rule.action == default:
        return "does what `default` does", "write a rule for the calls that are to do something else"
    for other in before:
        if other.syscall != rule.syscall or other.action == rule.action or _are_apart(other, rule):
            continue
        if not (other.conditions or rule.conditions):
            return f"another rule gives `{rule.syscall}` another action", "keep one of them"
        return (
            f"another rule gives `{rule.syscall}` another action for arguments that this one takes too",
            "compare the same argument with `==` and different values in both",
        )
    return None


def _are_apart(one: _Rule, other: _Rule) -> bool:
    """Whether no call fits both rules, as far as equal signs tell."""
    values = {index: value for index, operator, value, _ in one.conditions if operator == pyseccomp.EQ}
    return any(
        operator == pyseccomp.EQ and values.get(index, value) != value
        for index, operator, value, _ in other.conditions
    )


def _ready(seccomp: Seccomp, names: Names, supervisor: Person, spot: Spot) -> list[bytes]:
    """The filter of a file; empty if it is refused."""
    for key in ("rules", "default"):
        if getattr(seccomp, key) is not None:
            spot[key].refuse("does not go together with `rulespath`, which is a whole filter", "remove one")
    place = spot["rulespath"]
    try:
        path = expand(seccomp.rulespath or "", names)
        if is_late(path):
            place.refuse("needs a value that only the running machine knows", "name a file of the image")
            return []
        program = bpf.read(path, (0, supervisor.user), names.target.tree)
    except (ExpandFault, bpf.FilterFault) as fault:
        place.refuse(str(fault))
        return []
    return [program] if spot.clean else []


def _action(text: str, number: str | int | None, spot: Spot) -> int | None:
    """The number of an action, or None with the reason noted."""
    found = _PARENTHESES.fullmatch(text.strip())
    name = _PREFIX.sub("", (found["name"] if found else text).lower(), count=1)
    if name == _ERRNO:
        if found and number is not None:
            spot.refuse("the error number is given twice", "keep `errno` or the parentheses")
            return None
        return _errno(found["errno"] if found else number, spot)
    if name in _LATER:
        spot.refuse(f"{shown(text)} is not built: {_LATER[name]}")
    elif name not in _ACTIONS or found:
        spot.refuse(f"unknown action {shown(text)}", _nearest_action(name))
    elif number is not None:
        spot.refuse("`errno` goes only with SCMP_ACT_ERRNO")
    else:
        return int(_ACTIONS[name])
    return None


def _nearest_action(name: str) -> str:
    close = get_close_matches(name, [*_ACTIONS, _ERRNO], 1)
    return f"did you mean `SCMP_ACT_{close[0].upper()}`?" if close else "such as SCMP_ACT_ERRNO"


def _errno(number: str | int | None, spot: Spot) -> int | None:
    """The action that fails a call with an error number, given as 13, "13", "EACCES" or not at all."""
    value: int | None = errno.EPERM
    if isinstance(number, int):
        value = number
    elif isinstance(number, str):
        by_name = {name: code for code, name in errno.errorcode.items()}
        value = int(number) if number.isdecimal() and len(number) < 6 else by_name.get(number.upper())
    if value is None or not 0 < value <= _LAST_ERRNO:
        spot.refuse(f"unknown error number {shown(number)}", "write a name such as EACCES, or 1 to 4095")
        return None
    return int(pyseccomp.ERRNO(value))


def _arch(machine: str) -> int:
    """libseccomp's number of a processor; one that no plan is made ahead for is our own."""
    known = {"x86_64": pyseccomp.Arch.X86_64, "aarch64": pyseccomp.Arch.AARCH64}
    return int(known.get(machine, pyseccomp.system_arch()))


def _number(name: str, arch: int) -> int | None:
    """A system call's number there, negative if only other architectures have it, None if none has."""
    number = int(pyseccomp.resolve_syscall(arch, name))
    return None if number == -1 else number


def _nearest(name: str, arch: int) -> str:
    known = []
    for number in _NUMBERS:
        try:
            known.append(pyseccomp.resolve_syscall(arch, number).decode())
        except ValueError:  # no call of that number
            continue
    return nearest(name, known)


def _bpf(default: int, rules: Sequence[_Rule], arch: int) -> bytes:
    """One filter's program: an array of `struct sock_filter`. Raises OSError."""
    # Else libseccomp asks the kernel it runs on, and under an emulator that knows less than the target's.
    pyseccomp.set_api(_API)
    program = pyseccomp.SyscallFilter(default)
    program.set_attr(pyseccomp.Attr.ACT_BADARCH, pyseccomp.KILL_PROCESS)
    own = pyseccomp.system_arch()
    if arch != own:
        program.add_arch(arch)
        program.remove_arch(own)
    for rule in dict.fromkeys(rules):
        # libseccomp refuses a rule that says what the default says; a call that the machine does not
        # have needs none. It wants our own number of a call, a negative one included, and translates it.
        if rule.action != default and rule.number >= 0:
            conditions = [pyseccomp.Arg(*condition) for condition in rule.conditions]
            program.add_rule(rule.action, _number(rule.syscall, own), *conditions)
    fd = os.memfd_create("filter")
    with os.fdopen(fd, "w+b", buffering=0) as file:
        program.export_bpf(file)
        file.seek(0)
        return file.read()
