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
TRAP = 0x00030000
I386 = 0x40000003

Build = Callable[..., Api]
Problems = Callable[..., list[str]]


def run(program: bytes, number: int, arch: int | None = None) -> int:
    """What a filter answers to a system call (linux/filter.h, the instructions libseccomp uses)."""
    data = struct.pack("=iIQ6Q", number, arch or pyseccomp.system_arch(), 0, *[0] * 6)
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
    ],
)
def test_every_action(build: Build, action: str, answer: int) -> None:
    (program,) = filters(build, default="SCMP_ACT_ALLOW", rules=rule("mkdirat", action))
    assert run(program, number("mkdirat")) == answer
    assert run(program, number("read")) == ALLOW


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
        ({"default": "KILL"}, "did you mean `SCMP_ACT_KILL`?"),
        ({"default": "SCMP_ACT_NOTIFY"}, "nobody would answer"),
        ({"default": "SCMP_ACT_TRACE"}, "no tracer"),
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
