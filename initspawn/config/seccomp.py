"""System call filters: names and actions become BPF (seccomp(2), libseccomp).

A filter is made for the machine's own architecture; calls by another way in (i386 and x32 on x86-64)
end the process, or a filter for one numbering could be walked around with the other.
"""

from __future__ import annotations

import errno
import os
import re
from difflib import get_close_matches

import pyseccomp

from initspawn.config.schema import Seccomp
from initspawn.config.spot import Spot, nearest, shown

_ACTIONS = {
    "scmp_act_allow": pyseccomp.ALLOW,
    "scmp_act_kill": pyseccomp.KILL_THREAD,
    "scmp_act_kill_process": pyseccomp.KILL_PROCESS,
    "scmp_act_kill_thread": pyseccomp.KILL_THREAD,
    "scmp_act_log": pyseccomp.LOG,
    "scmp_act_trap": pyseccomp.TRAP,
    "smp_act_kill_thread": pyseccomp.KILL_THREAD,  # a misspelling that configurations carry on
}
_ERRNO = "scmp_act_errno"
_LATER = {
    "scmp_act_notify": "nobody would answer for the call and it would hang",
    "scmp_act_trace": "no tracer would be there and the call would fail",
}
_PARENTHESES = re.compile(r"(?P<name>\w+)\s*\(\s*(?P<errno>\w+)\s*\)")
_LAST_ERRNO = 4095  # MAX_ERRNO of the kernel

# What `locked` takes away: ways into another process's memory and kernel objects. PR_SET_DUMPABLE,
# which would keep others out of this one, does not survive the command's exec.
LOCKED = ("ptrace", "process_vm_readv", "process_vm_writev", "kcmp")

_EXECVE_HINT = (
    "write `default: SCMP_ACT_ALLOW`, or a rule for each system call the command needs, execve among them"
)

# Numbers a system call can have; the architectures' own tables end well below.
_NUMBERS = range(1024)


def compile_filters(seccomp: Seccomp, spot: Spot) -> tuple[bytes, ...]:
    """The filters in the order they are loaded. What is wrong is noted at `spot`."""
    before = len(spot.report.problems)
    default = _action(seccomp.default, None, spot["default"])
    rules: dict[str, int] = {}
    for index, rule in enumerate(seccomp.rules):
        place = spot["rules"][index]
        action = _action(rule.action, rule.errno, place["action"])
        if not _is_known(rule.syscall):
            place["syscall"].refuse(f"unknown system call {shown(rule.syscall)}", _nearest(rule.syscall))
        elif action is not None and rules.setdefault(rule.syscall, action) != action:
            place.refuse(f"another rule gives `{rule.syscall}` another action", "keep one of them")
    if default is None or len(spot.report.problems) > before:
        return ()
    if rules.get("execve", default) not in (pyseccomp.ALLOW, pyseccomp.LOG):
        spot.refuse("`execve` is not allowed, so no command could ever start", _EXECVE_HINT)
        return ()
    filters = [_bpf(default, rules)]
    if seccomp.locked:
        # First, because the other one may not allow a further filter to be loaded.
        filters.insert(0, _bpf(pyseccomp.ALLOW, dict.fromkeys(LOCKED, pyseccomp.ERRNO(errno.EPERM))))
    return tuple(filters)


def _action(text: str, number: str | int | None, spot: Spot) -> int | None:
    """The number of an action, or None with the reason noted."""
    found = _PARENTHESES.fullmatch(text.strip())
    name = (found["name"] if found else text).lower()
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
    full = name if name.startswith("scmp_act_") else f"scmp_act_{name}"
    close = get_close_matches(full, [*_ACTIONS, _ERRNO], 1)
    return f"did you mean `{close[0].upper()}`?" if close else "such as SCMP_ACT_ERRNO"


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


def _number(name: str) -> int | None:
    """A system call's number here, negative if only other architectures have it, None if none has."""
    number = int(pyseccomp.resolve_syscall(pyseccomp.system_arch(), name))
    return None if number == -1 else number


def _is_known(name: str) -> bool:
    return _number(name) is not None


def _nearest(name: str) -> str:
    arch = pyseccomp.system_arch()
    known = []
    for number in _NUMBERS:
        try:
            known.append(pyseccomp.resolve_syscall(arch, number).decode())
        except ValueError:  # no call of that number
            continue
    return nearest(name, known)


def _bpf(default: int, rules: dict[str, int]) -> bytes:
    """One filter's program: an array of `struct sock_filter`. Raises OSError."""
    program = pyseccomp.SyscallFilter(default)
    program.set_attr(pyseccomp.Attr.ACT_BADARCH, pyseccomp.KILL_PROCESS)
    for name, action in rules.items():
        number = _number(name)
        # libseccomp refuses a rule that says what the default says; a call that this machine
        # does not have needs none.
        if action != default and number is not None and number >= 0:
            program.add_rule(action, number)
    fd = os.memfd_create("filter")
    with os.fdopen(fd, "w+b", buffering=0) as file:
        program.export_bpf(file)
        file.seek(0)
        return file.read()
