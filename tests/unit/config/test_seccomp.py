"""Filters: their program is run here, by a BPF machine of twenty lines, instead of by a kernel."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from typing import Any

import pyseccomp
import pytest

from initspawn.plan import Api

ALLOW = 0x7FFF0000
KILL_PROCESS = 0x80000000
KILL_THREAD = 0
ERRNO = 0x00050000
LOG = 0x7FFC0000
NOTIFY = 0x7FC00000
TRACE = 0x7FF00000
TRAP = 0x00030000
I386 = 0x40000003

Build = Callable[..., Api]
Problems = Callable[..., list[str]]


def run(program: bytes, number: int, *args: int, arch: int | None = None) -> int:
    """What a filter answers to a system call (linux/filter.h, the instructions libseccomp uses)."""
    padded = [*args, *[0] * (6 - len(args))]
    data = struct.pack("=iIQ6Q", number, arch or pyseccomp.system_arch(), 0, *padded)
    code = list(struct.iter_unpack("=HBBI", program))
    at = accumulator = 0
    while True:
        operation, true, false, value = code[at]
        at += 1
        if operation == 0x20:  # load a word
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif operation == 0x06:  # return
            return int(value)
        elif operation == 0x05:  # jump
            at += value
        elif operation == 0x54:  # and
            accumulator &= value
        else:  # jump if equal, greater, greater or equal
            holds = {0x15: accumulator == value, 0x25: accumulator > value, 0x35: accumulator >= value}
            at += true if holds[operation] else false


def number(name: str) -> int:
    return int(pyseccomp.resolve_syscall(pyseccomp.system_arch(), name))


def rule(syscall: str, action: str, **more: Any) -> dict[str, Any]:
    return {"syscall": syscall, "action": action, **more}


def filters(build: Build, **seccomp: Any) -> tuple[bytes, ...]:
    return build({"seccomp": seccomp}).sandboxes[0].filters


@pytest.mark.parametrize(
    ("action", "answer"),
    [
        ("SCMP_ACT_KILL", KILL_THREAD),
        ("SCMP_ACT_KILL_THREAD", KILL_THREAD),
        ("SMP_ACT_KILL_THREAD", KILL_THREAD),
        ("scmp_act_kill_process", KILL_PROCESS),
        ("SCMP_ACT_TRAP", TRAP),
        ("SCMP_ACT_LOG", LOG),
        ("SCMP_ACT_ALLOW", ALLOW),
        ("SCMP_ACT_ERRNO", ERRNO | errno.EPERM),
        ("SCMP_ACT_ERRNO(13)", ERRNO | 13),
        ("SCMP_ACT_ERRNO(enoent)", ERRNO | errno.ENOENT),
        ("kill", KILL_THREAD),
        ("Kill_Process", KILL_PROCESS),
        ("trap", TRAP),
        ("log", LOG),
        ("SCMP_ACT_TRACE", TRACE),
        ("trace(7)", TRACE | 7),
        ("errno(13)", ERRNO | 13),
    ],
)
def test_every_action(build: Build, action: str, answer: int) -> None:
    (program,) = filters(build, default="SCMP_ACT_ALLOW", rules=rule("mkdirat", action))
    assert run(program, number("mkdirat")) == answer
    assert run(program, number("read")) == ALLOW
    # As the default it is what all other calls do.
    if answer != ALLOW:
        (program,) = filters(build, default=action, rules=rule(["execve", "read"], "allow"))
        assert [run(program, number(name)) for name in ("mkdirat", "read")] == [answer, ALLOW]


def handled(**seccomp: Any) -> dict[str, Any]:
    """A configuration with a sandbox whose calls are notified, and one with the command that answers."""
    asks = {"uid": "asks", "seccomp": {"default": "allow", "handler": "guard/answer", **seccomp}}
    answer = {"uid": "answer", "exec": {"cmdpath": "/bin/true", "args": ["?a?"]}}
    guard = {"uid": "guard", "commands": answer}
    return {"metadata": {"uid": "u", "api": "t"}, "sandboxes": [asks, guard]}


def test_calls_are_notified(build: Build) -> None:
    asks, guard = build(raw=handled(rules=rule("mkdirat", "SCMP_ACT_NOTIFY"))).sandboxes
    assert (asks.handler, guard.handler) == ("guard/answer", "")
    assert run(asks.filters[-1], number("mkdirat")) == NOTIFY
    assert run(asks.filters[-1], number("read")) == ALLOW
    asks, _ = build(raw=handled(default="notify", rules=rule("execve", "allow"))).sandboxes
    assert run(asks.filters[-1], number("read")) == NOTIFY
    # A profile leaves them to the last filter, which asks, also where it would refuse them.
    raw = handled(rules=rule(["mkdirat", "mount"], "notify"), profile="default")
    del raw["sandboxes"][0]["seccomp"]["default"]
    *profiles, last = build(raw=raw).sandboxes[0].filters
    for name in ("mkdirat", "mount"):
        assert [run(one, number(name)) for one in (*profiles, last)] == [ALLOW, NOTIFY]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda raw: raw["sandboxes"][0]["seccomp"].update(handler="guard/anser"), "mean `guard/answer`?"),
        (lambda raw: raw["sandboxes"][1].update(seccomp=raw["sandboxes"][0]["seccomp"]), "has a handler too"),
        (lambda raw: raw["sandboxes"][1]["commands"]["exec"].update(args=["%a%"]), "it needs arguments"),
        (lambda raw: raw["sandboxes"][1]["commands"].update(single=True), "its `max` does not go with"),
        (lambda raw: raw["sandboxes"][1]["commands"].update(stdin=True), "its `stdin` does not go with"),
    ],
)
def test_what_cannot_be_a_handler(problems: Problems, change: Callable[[Any], None], said: str) -> None:
    raw = handled(rules=rule("mkdirat", "notify"))
    change(raw)
    found = problems(raw=raw)
    assert "sandboxes[0].seccomp.handler: " in found[0]
    assert said in found[0]


@pytest.mark.parametrize(("given", "code"), [(13, 13), ("13", 13), ("EACCES", 13), ("eacces", 13)])
def test_errno_beside_the_action(build: Build, given: Any, code: int) -> None:
    rules = rule("mkdirat", "SCMP_ACT_ERRNO", errno=given)
    (program,) = filters(build, default="SCMP_ACT_ALLOW", rules=rules)
    assert run(program, number("mkdirat")) == ERRNO | code


def test_the_default_kills(build: Build) -> None:
    (program,) = filters(build, rules=[rule("execve", "SCMP_ACT_ALLOW"), rule("write", "SCMP_ACT_ALLOW")])
    assert run(program, number("execve")) == ALLOW
    assert run(program, number("write")) == ALLOW
    assert run(program, number("read")) == KILL_THREAD


def test_a_list_of_calls(build: Build) -> None:
    (program,) = filters(build, default="allow", rules=rule(["mkdirat", "dup3"], "errno(7)"))
    answers = [run(program, number(name)) for name in ("mkdirat", "dup3", "dup")]
    assert answers == [ERRNO | 7, ERRNO | 7, ALLOW]


def test_other_ways_into_the_kernel_end_the_process(build: Build) -> None:
    for program in filters(build, default="SCMP_ACT_ALLOW", locked=True):
        assert run(program, number("read"), arch=I386) == KILL_PROCESS
        if pyseccomp.system_arch() == pyseccomp.Arch.X86_64:
            assert run(program, number("read") | 0x40000000) == KILL_PROCESS


def test_locked_comes_first_and_denies_looking_into_others(build: Build) -> None:
    rules = rule("mkdirat", "SCMP_ACT_KILL")
    locked, own = filters(build, default="SCMP_ACT_ALLOW", locked=True, rules=rules)
    for name in ("ptrace", "process_vm_readv", "process_vm_writev", "kcmp"):
        assert run(locked, number(name)) == ERRNO | errno.EPERM
    assert run(locked, number("mkdirat")) == ALLOW
    assert run(own, number("mkdirat")) == KILL_THREAD


def test_what_libseccomp_takes_is_taken(build: Build) -> None:
    (program,) = filters(
        build,
        default="SCMP_ACT_ALLOW",
        rules=[
            rule("breakpoint", "SCMP_ACT_KILL"),  # exists on 32-bit Arm only
            rule("read", "SCMP_ACT_ALLOW"),  # says what the default says
            rule("mkdirat", "SCMP_ACT_LOG"),
            rule("mkdirat", "SCMP_ACT_LOG"),
        ],
    )
    assert run(program, number("read")) == ALLOW
    assert run(program, number("mkdirat")) == LOG


@pytest.mark.parametrize(
    ("seccomp", "said"),
    [
        ({}, "`execve` is not allowed"),
        ({"locked": True}, "`execve` is not allowed"),
        ({"default": "SCMP_ACT_ALLOW", "rules": rule("execve", "SCMP_ACT_KILL")}, "`execve` is not allowed"),
        ({"default": "KILLS"}, "did you mean `SCMP_ACT_KILL`?"),
        ({"default": "SCMP_ACT_NOTIFY", "rules": rule("execve", "allow")}, "needs a `handler`"),
        ({"default": "allow", "rules": rule("read", "notify")}, "needs a `handler`"),
        ({"default": "allow", "handler": "c"}, "seccomp.handler: no call is notified"),
        ({"default": "allow", "handler": "c", "rules": rule("read", "log")}, "no call is notified"),
        ({"default": "notify", "handler": "c"}, "`execve` is not allowed"),
        ({"default": "allow", "handler": "c", "rules": rule("execve", "notify")}, "`execve` cannot be"),
        ({"profile": "default", "default": "notify", "handler": "c"}, "a profile's refusals are not"),
        ({"default": "SCMP_ACT_TRACE"}, "`execve` is not allowed"),
        ({"default": "allow", "rules": rule("read", "trace(65536)")}, "unknown number '65536' for a tracer"),
        ({"default": "allow", "rules": rule("read", "trace(x)")}, "unknown number 'x' for a tracer"),
        ({"default": "allow", "rules": rule("read", "trace", errno=1)}, "only with"),
        ({"default": "allow", "rules": rule([], "kill")}, "names no system call"),
        ({"default": "allow", "rules": rule(["read", "raed"], "kill")}, "rules.syscall[1]: unknown system"),
        ({"default": "allow", "foreign": "allow"}, "goes only with `rulespath`"),
        ({"default": "allow", "foreign": "allow", "locked": True}, "goes only with `rulespath`"),
        ({"default": "SCMP_ACT_ERRNO(0)"}, "unknown error number"),
        ({"default": "SCMP_ACT_ERRNO(4096)"}, "unknown error number"),
        ({"default": "SCMP_ACT_ERRNO(EFOO)"}, "unknown error number"),
        ({"default": "SCMP_ACT_ALLOW(1)"}, "unknown action"),
        ({"default": "SCMP_ACT_ALLOW", "rules": rule("mkdri", "SCMP_ACT_KILL")}, "did you mean `mkdir"),
        ({"default": "SCMP_ACT_ALLOW", "rules": rule("read", "SCMP_ACT_KILL", errno=1)}, "only with"),
        ({"default": "SCMP_ACT_ALLOW", "rules": rule("read", "SCMP_ACT_ERRNO(1)", errno=1)}, "twice"),
        ({"rules": [rule("read", "SCMP_ACT_TRAP"), rule("read", "SCMP_ACT_LOG")]}, "another action"),
        ({"defaults": "x", "default": "SCMP_ACT_ALLOW"}, "unknown key in seccomp"),
    ],
)
def test_refused(problems: Problems, seccomp: dict[str, Any], said: str) -> None:
    (problem,) = problems({"seccomp": seccomp})
    assert said in problem


def test_setuid_programs_and_filters_exclude_each_other(build: Build, problems: Problems) -> None:
    assert build().sandboxes[0].no_new_privileges
    assert not build({"allow_setuid": True}).sandboxes[0].no_new_privileges
    (said,) = problems({"allow_setuid": True, "seccomp": {"default": "SCMP_ACT_ALLOW"}})
    assert "does not go together with `seccomp`" in said


@pytest.mark.parametrize(
    ("condition", "met", "unmet"),
    [
        ({"value": 5}, [5], [4, 6, 5 | 1 << 32]),
        ({"op": "SCMP_CMP_EQ", "value": "0x100000005"}, [5 | 1 << 32], [5]),
        ({"op": "!=", "value": 5}, [4, 5 | 1 << 32], [5]),
        ({"op": "<", "value": 5}, [0, 4], [5, 1 << 40]),
        ({"op": "le", "value": 5}, [5], [6]),
        ({"op": ">", "value": 5}, [6, 1 << 63], [5]),
        ({"op": "scmp_cmp_ge", "value": (1 << 64) - 1}, [(1 << 64) - 1], [0]),
        ({"mask": 3, "value": 1}, [1, 5, 1 | 1 << 40], [0, 2, 3]),
        ({"op": "SCMP_CMP_MASKED_EQ", "mask": 3, "value": 1}, [1], [3]),
    ],
)
def test_arguments_are_compared(build: Build, condition: Any, met: list[int], unmet: list[int]) -> None:
    rules = rule("dup3", "trap", args={"index": 1, "op": "==", **condition})
    (program,) = filters(build, default="allow", rules=rules)
    call = number("dup3")
    assert {run(program, call, 9, value) for value in met} == {TRAP}
    assert {run(program, call, 9, value) for value in unmet} == {ALLOW}
    assert run(program, number("read"), 9, met[0]) == ALLOW


def test_all_comparisons_of_a_rule_must_hold_and_rules_apart_do_not_meet(build: Build) -> None:
    both = [{"index": 0, "op": "==", "value": 1}, {"index": 1, "op": "==", "value": 2}]
    rules = [
        rule("dup3", "trap", args=both),
        rule("dup3", "log", args={"index": 0, "op": "==", "value": 7}),
        rule("dup3", "log", args={"index": 0, "op": "==", "value": 8}),
    ]
    (program,) = filters(build, default="allow", rules=rules)
    answers = {call: run(program, number("dup3"), *call) for call in ((1, 2), (1, 3), (0, 2), (7, 2), (8, 0))}
    assert answers == {(1, 2): TRAP, (1, 3): ALLOW, (0, 2): ALLOW, (7, 2): LOG, (8, 0): LOG}


ONE = {"index": 0, "op": "==", "value": 1}


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (rule("dup3", "trap", args={**ONE, "op": "~"}), "unknown comparison '~' (write ==, !=,"),
        (rule("dup3", "trap", args={**ONE, "index": 6}), "must be from 0 to 5"),
        (rule("dup3", "trap", args={**ONE, "value": -1}), "must be 0 or more"),
        (rule("dup3", "trap", args={**ONE, "value": "0x1" + "0" * 16}), "does not fit in 64 bits"),
        (rule("dup3", "trap", args={**ONE, "mask": 2}), "has bits that `mask` takes away"),
        (rule("dup3", "trap", args={**ONE, "op": "<", "mask": 2}), "goes only with `==`"),
        (rule("dup3", "trap", args={**ONE, "op": "masked_eq"}), "`mask` is missing"),
        (rule("dup3", "trap", args=[ONE, {**ONE, "value": 2}]), "compared twice"),
        (rule("dup3", "trap", args=5), "must be an object"),
        (rule("dup3", "allow", args=ONE), "does what `default` does"),
        ([rule("dup3", "trap"), rule("dup3", "log", args=ONE)], "that this one takes too"),
        (
            [rule("dup3", "trap", args={**ONE, "op": "<"}), rule("dup3", "log", args=ONE)],
            "that this one takes too",
        ),
    ],
)
def test_comparisons_refused(problems: Problems, rules: Any, said: str) -> None:
    (problem,) = problems({"seccomp": {"default": "allow", "rules": rules}})
    assert said in problem


def test_more_rules_than_the_kernel_takes(build: Build, problems: Problems) -> None:
    rules = [rule("openat", "log", args={**ONE, "value": value}) for value in range(4200)]
    (said,) = problems({"seccomp": {"default": "allow", "rules": rules}})
    assert "seccomp.rules: the filter of these rules has more than 4096 instructions (write fewer" in said
    (program,) = filters(build, default="allow", rules=rules[:1000])
    assert run(program, number("openat"), 999) == LOG
    assert run(program, number("openat"), 1000) == ALLOW


def test_a_failing_library_is_told(problems: Problems, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(pyseccomp.SyscallFilter, "export_bpf", failing)
    (said,) = problems({"seccomp": {"default": "allow", "rules": rule("mkdir", "log")}})
    assert "libseccomp makes no filter of these rules: Cannot allocate memory" in said
