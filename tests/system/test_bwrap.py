"""Sandboxes that bubblewrap builds: measured like any other, ended like any other."""

from __future__ import annotations

import errno
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from initspawn.linux.capabilities import NUMBERS
from initspawn.plan import Mount, Sandbox
from initspawn.sandbox import bwrap
from tests.system import boxes
from tests.system.conftest import root_and_a_user
from tests.system.harness import Person, Result, bench, marked

pytestmark = pytest.mark.needs("userns", "seccomp", "bwrap")

BWRAP = "/usr/bin/bwrap"


def box(who: Person, **values: Any) -> Sandbox:
    """Everything that a sandbox of bubblewrap's can have."""
    mounts = tuple(entry for entry in boxes.tree(who) if entry.operation != "mqueue")
    given = {"mounts": mounts, "bwrap": BWRAP, "directory": "/tmp", "capabilities": 1 << NUMBERS["NET_RAW"]}
    return boxes.full(who, **given | values)


@root_and_a_user
def test_it_runs_as_planned(who: Person) -> None:
    result = who.run(box(who), "/bin/sh", "-c", "hostname; pwd; cat /etc/passwd; echo x >&2; exit 3")
    assert (result.step, result.status) == ("", {"exit": 3}), result
    assert result.out.split("\n")[:2] == [boxes.HOSTNAME, "/tmp"]
    assert "somebody" in result.out
    assert result.err == "x"
    assert result.measurement["mounts"] == "as planned"


def options(who: Person) -> list[list[str]]:
    """Bubblewrap's options for that sandbox, each with its arguments."""
    words = bwrap.options(box(who), [], 10)
    starts = [at for at, word in enumerate(words) if word.startswith("--")] + [len(words)]
    return [words[start:end] for start, end in pairwise(starts)]


# What cannot be seen from outside, or is done elsewhere as well. `--dir` is made with what lies on it.
UNSEEN = {"--hostname", "--perms", "--dir", "--chmod", "--clearenv", "--symlink", "--die-with-parent"}


@root_and_a_user
def test_each_option_that_is_left_out_is_noticed(who: Person) -> None:
    every = options(who)
    seen = [at for at, option in enumerate(every) if option[0] not in UNSEEN and option[1:] != ["PWD"]]
    for at, result in zip(seen, who.call(_without_each, box(who), every, seen), strict=True):
        assert result.step in ("measurement", "bubblewrap", "lock"), (every[at], result)
        assert (result.status, result.out) == ({}, ""), every[at]


def _without_each(sandbox: Sandbox, every: list[list[str]], seen: list[int]) -> list[Result]:
    original, found = bwrap.options, []
    with bench(sandbox) as made:
        for at in seen:

            def less(*arguments: Any, at: int = at) -> list[str]:
                original(*arguments)
                return [word for number, option in enumerate(every) if number != at for word in option]

            bwrap.options = less
            made.supervisor.reserve._dismiss_all()  # none that was made with other options
            run = made.start("/bin/sh", "-c", "echo ran")
            found.append(run.end())
    return found


@root_and_a_user
def test_ends_of_trees(who: Person) -> None:
    result = who.run(box(who), "/bin/sh", "-c", "kill -9 $$")
    assert result.status == {"exit": 137}
    who.call(_stopped, box(who))


def _stopped(sandbox: Sandbox) -> None:
    with bench(sandbox) as made:
        for number in (15, 9):
            word = f"left-by-{os.getpid()}-{number}"
            line = f"setsid sh -c 'trap : TERM; while :; do sleep 1; done' {word} & sleep 60; :"
            run = made.shell(line).begin()
            made.until(lambda word=word: marked(word), "the child")  # type: ignore[misc]
            run.stop(number).end()
            made.until(lambda word=word: not marked(word), "its end")  # type: ignore[misc]


@root_and_a_user
def test_signals_and_time_limits_reach_it(who: Person) -> None:
    assert who.call(_signalled, box(who)) == ("caught", {"exit": 137}, "timeout")


def _signalled(sandbox: Sandbox) -> tuple[str, Any, str]:
    with bench(sandbox) as made:
        run = made.shell("trap 'echo caught; exit' USR1; echo up; while :; do sleep 0.05; done").begin()
        run.until("up").signal(10).end()
        late = made.start("/bin/sleep", "60", timeout=0.3)
        late.end()
        assert late.task is not None
        return run.result().out.split("\n")[-1], late.task.status, late.task.reason


@root_and_a_user
def test_what_it_says_when_it_gives_up(who: Person) -> None:
    result = who.run(box(who), "/nowhere")
    assert (result.step, result.detail) == (
        "bubblewrap", "bwrap: execvp /nowhere: No such file or directory",
    )  # fmt: skip
    result = who.run(box(who, bwrap="/nowhere/bwrap"), "/bin/true")
    assert (result.step, result.errno) == ("exec", errno.ENOENT)


@root_and_a_user
def test_a_bubblewrap_that_builds_nothing_runs_nothing(who: Person) -> None:
    for number, line in enumerate(('shift 3; exec "$@"', 'shift 3; "$@"', "exit 0")):
        place = who.home / f"fake-{number}"
        place.write_text(f"#!/bin/sh\n{line}\n")
        place.chmod(0o755)
        trace = who.home / "ran"
        result = who.run(box(who, bwrap=str(place), filters=()), "/bin/sh", "-c", f": > {trace}")
        assert result.step == ("measurement" if number < 2 else "bubblewrap"), result
        assert not trace.exists()


@root_and_a_user
def test_locks_are_held_by_initspawn(who: Person) -> None:
    lock = (*box(who).mounts, Mount(operation="lock", target="/etc/passwd"))
    assert who.run(box(who, mounts=lock), "/bin/true").status == {"exit": 0}
    missing = (*lock, Mount(operation="lock", target="/nowhere"))
    assert who.run(box(who, mounts=missing), "/bin/true").step == "lock"


@root_and_a_user
def test_the_environment_is_no_argument(who: Person) -> None:
    assert "ODD=" not in who.call(_lines_of, box(who))


def _lines_of(sandbox: Sandbox) -> str:
    with bench(sandbox) as made:
        run = made.start("/bin/sleep", "60").begin()
        lines = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                line = Path(f"/proc/{name}/cmdline").read_text(errors="replace")
            except OSError:
                continue
            if BWRAP in line:
                lines.append(line)
        run.stop(9).end()
        assert lines
        return "".join(lines)
