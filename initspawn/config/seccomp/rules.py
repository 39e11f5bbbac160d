"""Rules of a configuration, checked: names, actions and comparisons become numbers (seccomp(2))."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

import pyseccomp

from initspawn.config.schema import Comparison, SeccompRule
from initspawn.config.seccomp.filter import Rule, nearest_call, number_of, only_by_number
from initspawn.config.spot import Spot, shown

# Action names, without the prefix that may be left out.
_PREFIX = re.compile(r"sc?mp_act_")  # without the c: a misspelling that configurations carry on
_ACTIONS = {
    "allow": pyseccomp.ALLOW,
    "kill": pyseccomp.KILL_THREAD,
    "kill_process": pyseccomp.KILL_PROCESS,
    "kill_thread": pyseccomp.KILL_THREAD,
    "log": pyseccomp.LOG,
    "notify": pyseccomp.NOTIFY,
    "trap": pyseccomp.TRAP,
}
_ERRNO = "errno"
_TRACE = "trace"
_LAST_MESSAGE = 0xFFFF  # SECCOMP_RET_DATA
_OPERATORS = {
    "==": pyseccomp.EQ, "!=": pyseccomp.NE, "<": pyseccomp.LT, "<=": pyseccomp.LE, ">": pyseccomp.GT,
    ">=": pyseccomp.GE, "eq": pyseccomp.EQ, "ne": pyseccomp.NE, "lt": pyseccomp.LT, "le": pyseccomp.LE,
    "gt": pyseccomp.GT, "ge": pyseccomp.GE, "masked_eq": pyseccomp.MASKED_EQ,
}  # fmt: skip
_PARENTHESES = re.compile(r"(?P<name>\w+)\s*\(\s*(?P<value>\w+)\s*\)")
_LAST_WORD = (1 << 64) - 1
_LAST_ERRNO = 4095  # MAX_ERRNO of the kernel


def read_rules(given: Iterable[SeccompRule], arch: int, default: int | None, spot: Spot) -> list[Rule]:
    """The rules as numbers, one for each call that they name. What is wrong is noted at `spot`.

    default: what they are exceptions from, None if that was refused, or is not one action.
    """
    rules: list[Rule] = []
    for index, item in enumerate(given):
        made = _rules(item, arch, spot[index])
        for rule in made:
            reason = _conflict(rule, default, rules)
            if reason:
                spot[index].refuse(*reason)
        rules += made
    return rules


def _rules(given: SeccompRule, arch: int, spot: Spot) -> list[Rule]:
    """One rule for each of its calls; none with the reason noted."""
    action = read_action(given.action, given.errno, spot["action"])
    conditions = [read_condition(item, spot["args"][index]) for index, item in enumerate(given.args)]
    if len({item.index for item in given.args}) < len(given.args):
        spot["args"].refuse("one argument is compared twice", "write a second rule")
    if action == pyseccomp.NOTIFY and "execve" in given.syscall:
        spot["syscall"].refuse("`execve` cannot be notified: the start itself would wait for an answer")
    if not given.syscall:
        spot["syscall"].refuse("names no system call")
    numbers: dict[str, int] = {}
    for index, name in enumerate(given.syscall):
        place = spot["syscall"][index]
        number = number_of(name, arch)
        if number is None:
            place.refuse(f"unknown system call {shown(name)}", nearest_call(name, arch))
        elif conditions and only_by_number(name):
            place.refuse(f"this libseccomp does not know `{name}` and compares no arguments", "remove `args`")
        else:
            numbers[name] = number
    # A rule without one of its conditions would hold for more calls than was meant.
    if action is None or not spot.clean:
        return []
    wanted = tuple(item for item in conditions if item)
    return [Rule(name, number, action, wanted) for name, number in numbers.items()]


def read_condition(given: Comparison, spot: Spot) -> tuple[int, int, int, int] | None:
    """A comparison as libseccomp takes it, or None with the reason noted."""
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


def _conflict(rule: Rule, default: int | None, before: Sequence[Rule]) -> tuple[str, str] | None:
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


def _are_apart(one: Rule, other: Rule) -> bool:
    """Whether no call fits both rules, as far as equal signs tell."""
    values = {index: value for index, operator, value, _ in one.conditions if operator == pyseccomp.EQ}
    return any(
        operator == pyseccomp.EQ and values.get(index, value) != value
        for index, operator, value, _ in other.conditions
    )


def notifies(text: str) -> bool:
    """Whether an action is the one that asks a handler."""
    return _PREFIX.sub("", text.lower(), count=1) == "notify"


def read_action(text: str, number: str | int | None, spot: Spot) -> int | None:
    """The number of an action, or None with the reason noted. `number`: its error, given apart."""
    found = _PARENTHESES.fullmatch(text.strip())
    name = _PREFIX.sub("", (found["name"] if found else text).lower(), count=1)
    if name == _ERRNO:
        if found and number is not None:
            spot.refuse("the error number is given twice", "keep `errno` or the parentheses")
            return None
        return _errno(found["value"] if found else number, spot)
    if number is not None:
        spot.refuse("`errno` goes only with SCMP_ACT_ERRNO")
    elif name == _TRACE:
        return _trace(found["value"] if found else "0", spot)
    elif name not in _ACTIONS or found:
        spot.refuse(f"unknown action {shown(text)}", _nearest_action(name))
    else:
        return int(_ACTIONS[name])
    return None


def _trace(number: str, spot: Spot) -> int | None:
    """The action that stops a call for a tracer, with a number for it."""
    if number.isdecimal() and len(number) < 6 and int(number) <= _LAST_MESSAGE:
        return int(pyseccomp.TRACE(int(number)))
    spot.refuse(f"unknown number {shown(number)} for a tracer", f"write 0 to {_LAST_MESSAGE}")
    return None


def _nearest_action(name: str) -> str:
    close = get_close_matches(name, [*_ACTIONS, _ERRNO, _TRACE], 1)
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
