"""What a test may leave behind outside its own process: nothing."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import time
from contextlib import suppress
from pathlib import Path

from tests.support.probes import cgroup_mount

SETTLE_SECONDS = 3.0
PR_SET_CHILD_SUBREAPER = 36
_REAPER = "initspawn-reap"  # comm of a reaper, and of its command before the exec
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")

Found = set[tuple[str, str]]  # (kind, what)


def adopt_orphans() -> None:
    """Make this process the parent of all its orphaned descendants, or they would escape our eyes."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def snapshot() -> Found:
    """Descendants, mounts, cgroups, named network namespaces and network interfaces, as of now."""
    found = {("process", f"{pid} (started {one[1]})") for pid, one in _descendants().items()}
    found |= {("mount", line.split()[4]) for line in _lines("/proc/self/mountinfo")}
    mount = cgroup_mount()
    if mount is not None:
        found |= {("cgroup", place) for place, _, _ in os.walk(mount) if not _of_another_worker(place)}
    for kind, folder in (("network namespace", "/run/netns"), ("network interface", "/sys/class/net")):
        with suppress(FileNotFoundError):
            found |= {(kind, name) for name in os.listdir(folder) if not _of_another_worker(name)}
    return found


def left_since(before: Found) -> list[str]:
    """What is there now and was not before; waits a little for what is just ending, and ends processes."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        _reap_since(before)
        left = snapshot() - before - _waiting(before)
        if not left or time.monotonic() > deadline:
            break
        time.sleep(0.02)
    told = []
    for kind, what in sorted(left):
        told.append(f"{kind} {what}")
        if kind == "process":
            pid = int(what.split()[0])
            told[-1] += f": {_command_line(pid)}"
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    return told


def _reap_since(before: Found) -> None:
    """Collect ended orphans: they were handed to us, and nobody else waits for them."""
    for pid, (parent, started, state, _) in _descendants().items():
        if state == "Z" and parent == os.getpid() and ("process", f"{pid} (started {started})") not in before:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def _waiting(before: Found) -> Found:
    """What a supervisor that is older than the test keeps ready for its next start: a reaper, and a command
    that has not executed anything yet. A task that was left behind has.
    """
    known = _descendants()
    found: Found = set()
    for pid, (parent, started, _, name) in known.items():
        while parent in known and known[parent][3] == _REAPER:
            parent = known[parent][0]
        older = parent in known and ("process", f"{parent} (started {known[parent][1]})") in before
        if name == _REAPER and older:
            found.add(("process", f"{pid} (started {started})"))
    return found


def _descendants() -> dict[int, tuple[int, str, str, str]]:
    """All processes below this one: pid to (parent, start time, state, name)."""
    everything: dict[int, tuple[int, str, str, str]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):
                # The command's name, in parentheses, may hold anything; what follows it may not.
                before, _, after = Path(f"/proc/{name}/stat").read_text(errors="replace").rpartition(")")
                fields, called = after.split(), before.partition("(")[2]
                everything[int(name)] = (int(fields[1]), fields[19], fields[0], called)
    known = {os.getpid()}
    while more := {pid for pid, (parent, *_) in everything.items() if parent in known} - known:
        known |= more
    return {pid: everything[pid] for pid in known - {os.getpid()}}


def _of_another_worker(name: str) -> bool:
    """Whether a name carries another worker's id, or the number of a living process that is neither us nor
    below us: another run of the tests has workers of the same ids.
    """
    if any(worker != WORKER for worker in re.findall(r"gw\d+", name)):
        return True
    owner = re.search(r"/initspawn-(?:[a-z]+-(?:(?:gw\d+)?-)?)?(\d+)(-|/|$)", name)
    if owner is None or not Path(f"/proc/{owner[1]}").exists():
        return False
    return int(owner[1]) not in {os.getpid(), *_descendants()}


def _command_line(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return "(gone)"


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines()
