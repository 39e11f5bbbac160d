"""What supervisors have left that were killed: their cgroups, and whoever lives there. Boot module."""

from __future__ import annotations

import os

from initspawn.linux import cgroup, process
from initspawn.linux.libc import missing
from initspawn.say import say
from initspawn.supervisor.groups import OURSELVES, PREFIX, Groups


def end(base: str | None) -> None:
    """End the tasks that are below this group of supervisors which could not do it themselves."""
    for name in os.listdir(base) if base else ():
        stem = name.removesuffix(OURSELVES)
        pid, _, began = stem.removeprefix(PREFIX).partition("-")
        ours = name.startswith(PREFIX) and pid.isdecimal() and began.isdecimal()
        if not ours or _lives(f"{base}", stem, pid, int(began)) or _holds_strangers(f"{base}/{name}"):
            continue
        left = Groups()
        left.root = f"{base}/{name}"
        try:
            left.close()
            say(f"ended what a killed supervisor ({pid}) had left")
        except OSError as error:
            say(f"{left.root} stays: {error.strerror}")


def _lives(base: str, stem: str, pid: str, began: int) -> bool:
    """Whether the supervisor is there that has made a group of this name, and not just one of its number.

    One of a pid namespace below ours has another number for us, one of a namespace above has none: but it is
    in `base`, or in its own group there.
    """
    if _may_be(pid, began):
        return True
    for group in (base, f"{base}/{stem}{OURSELVES}"):
        for other in _members(group):
            if other == "0" or (_may_be(other, began) and pid in (_numbers(other) or (pid,))):
                return True
    return False


def _may_be(pid: str, began: int) -> bool:
    """Whether there is a process of this number that began then, or does not show when it did: /proc hides
    some (`hidepid`, proc(5)), or we have no descriptor left.
    """
    try:
        return process.began(pid) == began
    except OSError:
        pass
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # another user's
        pass
    return True


def _numbers(pid: str) -> list[str]:
    """What a process is called in its pid namespace and those above: `NSpid` of proc_pid_status(5); nothing
    where that is hidden.
    """
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            return next((line.split()[1:] for line in file if line.startswith("NSpid:")), [])
    except OSError:
        return []


def _members(group: str) -> list[str]:
    """The processes in a group, `0` for each that we cannot see (cgroups(7)), as where we cannot look."""
    try:
        return cgroup.read(group, "cgroup.procs").split()
    except OSError as error:
        return ["0"] if missing(error) else []


def _holds_strangers(root: str) -> bool:
    """Whether processes of another pid namespace live below: then the number in its name is not ours."""
    return any("0" in _members(path) for path, _, _ in os.walk(root))
