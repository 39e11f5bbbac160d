"""A start that cannot be done says at which step and why, and nothing of the command has run."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from initspawn.plan import Api, Mount, Sandbox, Scheduling
from initspawn.supervisor import roster
from tests.system import boxes
from tests.system.conftest import everybody, root, root_and_a_user
from tests.system.harness import PYTHON, Person, Result, bench

pytestmark = pytest.mark.needs("userns", "seccomp")

KILL_EXECVE = boxes.bpf({"execve": boxes.KILL})
DENY_EXECVE = boxes.bpf({"execve": boxes.ERRNO | 13})
DENY_EXECVE_AND_WRITE = boxes.bpf({"execve": boxes.ERRNO | 13, "write": boxes.KILL})


def executable(home: Path, name: str, content: bytes, mode: int = 0o755) -> str:
    path = home / name
    path.write_bytes(content)
    path.chmod(mode)
    return f"/data/{name}"


ELF = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xff\xff" + bytes(100)  # for no machine there is
Make = Callable[[Path], str]
EXECUTABLES: dict[str, tuple[Make, str, str]] = {
    "missing": (lambda home: "/data/nothing", "ENOENT", "does not exist"),
    "directory": (lambda home: "/data", "EACCES", "/data"),
    "not executable": (
        lambda home: executable(home, "plain", b"#!/bin/sh\n", 0o644), "EACCES", "/data/plain",
    ),
    "wrong format": (lambda home: executable(home, "junk", b"no program\n"), "ENOEXEC", "/data/junk"),
    "empty": (lambda home: executable(home, "empty", b""), "ENOEXEC", "/data/empty"),
    "no interpreter": (
        lambda home: executable(home, "script", b"#!/nothing/here\n"), "ENOENT", "the interpreter it names",
    ),
    "below a file": (lambda home: executable(home, "file", b"") + "/x", "ENOTDIR", "/data/file/x"),
    "other machine": (lambda home: executable(home, "elf", ELF), "ENOEXEC", "/data/elf"),
    "too long": (lambda home: "/data/" + "x" * 300, "ENAMETOOLONG", "/data/xxx"),
}  # fmt: skip


@everybody
@pytest.mark.parametrize("kind", EXECUTABLES)
def test_what_cannot_be_executed_is_refused_at_exec(who: Person, kind: str) -> None:
    make, number, word = EXECUTABLES[kind]
    result = who.run(boxes.full(who), make(who.home))
    refused(result, "exec", number)
    assert word in result.detail


def refused(result: Result, step: str, number: str) -> None:
    assert result.refused_at() == (step, number), result
    assert (result.status, result.out, result.err) == ({}, "", "")


@everybody
def test_a_script_runs_by_its_interpreter(who: Person) -> None:
    path = executable(who.home, "script", b'#!/bin/sh -u\necho "$0" "$@"\n')
    result = who.run(boxes.full(who), path, "a b", "")
    assert (result.step, result.out) == ("", "/data/script a b ")


@everybody
def test_a_script_may_be_a_scripts_interpreter(who: Person) -> None:
    executable(who.home, "first", b'#!/bin/sh\necho "$@"\n')
    path = executable(who.home, "second", b"#! /data/first  with one\n")
    result = who.run(boxes.full(who), path, "more")
    assert (result.step, result.out) == ("", "with one /data/second more")


FILTERS: dict[str, tuple[tuple[bytes, ...], str, str]] = {
    "kill": ((KILL_EXECVE,), "exec", "0"),
    "errno": ((DENY_EXECVE,), "exec", "EACCES"),
    "errno and no write": ((DENY_EXECVE_AND_WRITE,), "exec", "EACCES"),
    "first forbids to load the second": (
        (boxes.bpf({"prctl": boxes.ERRNO | 1}), boxes.bpf({})), "seccomp", "EPERM",
    ),
    "all but execve, exit and prctl killed": (
        (boxes.bpf({"execve": boxes.ERRNO | 7, "exit_group": boxes.ALLOW}, boxes.KILL),), "exec", "E2BIG",
    ),
    "not a program": ((b"\x06\0\0\0\0\0\0\0" * 2 + b"\xff\0\0\0\0\0\0\0",), "seccomp", "EINVAL"),
}  # fmt: skip


@everybody
@pytest.mark.parametrize("kind", FILTERS)
def test_a_filter_that_lets_nothing_start_is_refused(who: Person, kind: str) -> None:
    filters, step, number = FILTERS[kind]
    result = who.run(boxes.full(who, filters=filters), "/bin/sh", "-c", ": > /data/ran")
    refused(result, step, number)
    assert not (who.home / "ran").exists()
    if kind == "kill":
        assert "seccomp filter" in result.detail


@everybody
def test_a_command_that_its_filter_kills_later_has_run(who: Person) -> None:
    result = who.run(boxes.full(who, filters=(boxes.bpf({"write": boxes.KILL}),)), "/bin/echo", "x")
    assert (result.step, result.status, result.out) == ("", {"signal": "Bad system call"}, "")


def vanished(home: Path) -> Mount:
    return boxes.bind(str(home / "gone"), "/gone")


Values = Callable[[Person], dict[str, Any]]
SANDBOXES: dict[str, tuple[Values, str, str, str]] = {
    "no directory": (lambda who: {"directory": "/nothing"}, "directory", "ENOENT", "/nothing"),
    "a file as directory": (lambda who: {"directory": "/etc/passwd"}, "directory", "ENOTDIR", "/etc/passwd"),
    "no source": (
        lambda who: {"mounts": (*boxes.tree(who), vanished(who.home))}, "mounts", "ENOENT", "gone",
    ),
    "no place in a read-only directory": (
        lambda who: {"mounts": (*boxes.tree(who), Mount(operation="tmpfs", target="/usr/no/such"))},
        "mounts", "EROFS", "/usr/no",
    ),
    "a link over what is there": (
        lambda who: {"mounts": (*boxes.tree(who), Mount(operation="symlink", target="/data", source="x"))},
        "mounts", "EEXIST", "/data",
    ),
    "nothing to lock": (
        lambda who: {"mounts": (*boxes.tree(who), Mount(operation="lock", target="/data/lock"))},
        "mounts", "ENOENT", "/data/lock",
    ),
    "a long host name": (lambda who: {"hostname": "x" * 65}, "host name", "EINVAL", "xxx"),
    "a soft limit above the hard one": (
        lambda who: {"limits": ((7, 100, 50),)}, "limits", "EINVAL", "7 100:50",
    ),
    "an unknown limit": (lambda who: {"limits": ((99, 1, 1),)}, "limits", "EINVAL", "99"),
}  # fmt: skip


@pytest.mark.guest_too
@everybody
@pytest.mark.parametrize("kind", SANDBOXES)
def test_a_sandbox_that_cannot_be_built_is_refused(who: Person, kind: str) -> None:
    values, step, number, word = SANDBOXES[kind]
    result = who.run(boxes.full(who, **values(who)), "/bin/sh", "-c", ": > /data/ran")
    refused(result, step, number)
    assert word in result.detail
    assert not (who.home / "ran").exists()


USER_CANNOT: dict[str, tuple[dict[str, Any], str, str]] = {
    "hard limit": ({"limits": ((5, 1, 1), (5, 2, 2))}, "limits", "EPERM"),
    "nice value": ({"scheduling": Scheduling(nice=-1)}, "scheduling", "EACCES"),
    "first at the disks": ({"scheduling": Scheduling(io=1 << 13)}, "scheduling", "EPERM"),
    "never ended": ({"scheduling": Scheduling(oom_score_adj=-1000)}, "oom score", "EACCES"),
}


@pytest.mark.parametrize("kind", USER_CANNOT)
@root_and_a_user
def test_what_the_kernel_refuses_is_refused(who: Person, kind: str) -> None:
    """RLIMIT_RSS lowered and raised again, and places before others: only for who has the capability."""
    values, step, number = USER_CANNOT[kind]
    result = who.run(boxes.full(who, **values), "/bin/true")
    if result.step:  # root may have CAP_SYS_RESOURCE
        refused(result, step, number)
    else:
        assert who.root


@everybody
def test_a_source_that_vanishes_between_two_starts(who: Person) -> None:
    (who.home / "gone").mkdir()
    box = boxes.full(who, mounts=(*boxes.tree(who), vanished(who.home)))
    first, second, third = who.call(_vanish, box, who.home / "gone")
    assert (first.step, first.status) == ("", {"exit": 0})
    refused(second, "mounts", "ENOENT")
    assert (third.step, third.status) == ("", {"exit": 0})


def _vanish(box: Sandbox, gone: Path) -> list[Result]:
    results = []
    away = gone.with_name("away")
    with bench(box) as made:
        results.append(made.run("/bin/true"))
        gone.rename(away)
        results.append(made.run("/bin/true"))
        away.rename(gone)
        results.append(made.run("/bin/true"))
    return results


@everybody
def test_a_source_that_is_exchanged_is_the_new_one(who: Person) -> None:
    """What is mounted is what is there at the start, and the measurement agrees."""
    (who.home / "gone").mkdir()
    box = boxes.full(who, mounts=(*boxes.tree(who), vanished(who.home)))
    assert who.call(_exchange, box, who.home / "gone") == ["", "new"]


def _exchange(box: Sandbox, gone: Path) -> list[str]:
    with bench(box) as made:
        first = made.run("/bin/ls", "/gone")
        gone.rename(gone.with_name("away"))
        gone.mkdir()
        (gone / "new").touch()
        return [first.out, made.run("/bin/ls", "/gone").out]


@everybody
def test_arguments_that_are_too_many_are_refused_at_exec(who: Person) -> None:
    result = who.run(boxes.full(who), "/bin/true", *["x" * 100_000] * 80)
    refused(result, "exec", "E2BIG")


LIMITS = {
    "as": (resource.RLIMIT_AS, 65536, "`as: 65536`"),
    "data": (resource.RLIMIT_DATA, 4096, "`data: 4096`"),
}


@root_and_a_user
@pytest.mark.parametrize("limit", LIMITS)
def test_a_limit_that_ends_the_program_in_its_exec_is_named(who: Person, limit: str) -> None:
    which, value, named = LIMITS[limit]
    result = who.run(boxes.sandbox(who, limits=((which, value, value),)), "/bin/true")
    assert (result.step, result.status) == ("exec", {})
    assert result.detail == f"its `limits` are too low for a program to begin: {named}"


@root
def test_the_limit_of_processes_is_named(who: Person) -> None:
    one = boxes.sandbox(who, uid="one")
    no_more = boxes.sandbox(who, uid="no more", limits=((resource.RLIMIT_NPROC, 0, 0),))
    result = who.call(_one_too_many, one, no_more)
    refused(result, "exec", "EAGAIN")
    assert result.detail == "/bin/true: its user has more processes than `limits.nproc` allows"


def _one_too_many(one: Sandbox, no_more: Sandbox) -> Result:
    with bench(one, no_more) as made:
        run = made.start("/bin/sleep", "60", sandbox=one).begin()
        result = made.run("/bin/true", sandbox=no_more)
        run.signal(9).end()
    return result


@everybody
def test_many_arguments_and_an_odd_one_come_as_they_are(who: Person) -> None:
    odd = ["", " ", "a\nb", "\\", "'", '"', "$HOME", "ä€😀", "\udcff", "-", "--"]
    many = [*odd, *(str(number) for number in range(20_000))]
    script = """
import hashlib, os, sys
print(hashlib.sha256(b"\\0".join(map(os.fsencode, sys.argv[1:]))).hexdigest())
"""
    result = who.run(boxes.full(who), PYTHON, "-I", "-S", "-c", script, *many)
    assert result.out == sha256(b"\0".join(map(os.fsencode, many))).hexdigest(), result


@root_and_a_user
def test_the_next_start_works_after_each_refusal(who: Person) -> None:
    good = boxes.full(who, uid="good")
    bad = [
        boxes.full(who, uid=f"bad{index}", **values(who))
        for index, (values, *_) in enumerate(SANDBOXES.values())
    ]
    assert who.call(_in_turn, good, bad) == [{"exit": 0}] * len(bad)


def _in_turn(good: Sandbox, bad: list[Sandbox]) -> list[dict[str, Any]]:
    found = []
    with bench(good, *bad) as made:
        for box in bad:
            assert made.run("/bin/true", sandbox=box).step
            found.append(made.run("/bin/true", sandbox=good).status)
        assert not made.supervisor.tasks
    return found


@root
def test_a_cgroup_that_cannot_be_made_is_refused(who: Person) -> None:
    refused(who.call(_no_cgroup, boxes.sandbox(who)), "cgroup", "ENOSPC")


def _no_cgroup(box: Sandbox) -> Result:
    def make(api: Api, sandbox: Sandbox, task: str) -> str:
        raise OSError(28, "no room")

    with bench(box) as made:
        made.supervisor.groups.make = make
        return made.run("/bin/true")


@root_and_a_user
def test_more_tasks_than_slots_are_refused_and_the_rest_goes_on(who: Person) -> None:
    refused_at, statuses = who.call(_too_many, boxes.sandbox(who, "pid"))
    assert refused_at == ("slot", "EAGAIN")
    assert set(map(str, statuses)) == {"{'signal': 'Killed'}"}


def _too_many(box: Sandbox) -> tuple[tuple[str, str], list[dict[str, Any]]]:
    roster.TASKS = 4
    with bench(box) as made:
        runs = [made.start("/bin/sleep", "60").begin() for _ in range(4)]
        fifth = made.run("/bin/true")
        statuses = [run.signal(9).end().status for run in runs]
        assert made.run("/bin/true").status == {"exit": 0}
        return fifth.refused_at(), statuses


@root_and_a_user
def test_a_start_that_is_stopped_before_it_runs_is_refused(who: Person) -> None:
    result = who.call(_stopped_early, boxes.full(who))
    assert (result.step, result.status) == ("start", {})


def _stopped_early(box: Sandbox) -> Result:
    with bench(box) as made:
        return made.shell(": > /data/ran").stop().end()


