"""Twenty thousand orphans that are dead already become the supervisor's children at the same moment."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from initspawn.control.client import Client
from tests.support.pace import EMULATED, IN_GUEST
from tests.system.server import Server, children, serving, wait_for, write
from tests.system.test_serve import config, shell

pytestmark = [pytest.mark.needs("userns"), pytest.mark.root]

ORPHANS = 2_000 if IN_GUEST or EMULATED else 20_000
TASKS = 20
MOST = "/proc/sys/kernel/pid_max"
# Has a child that makes ever so many, waits for none, and waits for its end; and becomes the supervisor.
PARENT = f"""
import os, signal, sys
if os.fork() == 0:
    for number in range({ORPHANS}):
        if os.fork() == 0:
            os._exit(0)
    open(sys.argv[1], "w").close()
    signal.pause()
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.fixture
def room() -> Iterator[None]:
    """The numbers of processes are the machine's: one such crowd at a time, and only where one fits."""
    with open(MOST) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        used = sum(name.isdigit() for name in os.listdir("/proc"))
        assert int(file.read()) > used + ORPHANS + 2_000, f"{MOST} leaves no room for {ORPHANS} processes"
        yield


def zombies(pid: int) -> int:
    """How many of a process's children nobody has waited for, roughly: they are counted, not looked at."""
    return len(children(pid))


@contextmanager
def supervising(place: Path, namespace: bool) -> Iterator[tuple[Server, int]]:
    """A server and its child with the zombies; as PID 1 of a namespace of its own if it is to be."""
    for number in range(TASKS):
        os.mkfifo(place / f"go-{number}", 0o622)
        os.chmod(place / f"go-{number}", 0o666)
    os.chmod(place, 0o755)
    for above in place.parents[:3]:
        os.chmod(above, above.stat().st_mode | 0o055)
    lines = [f"read line <{place}/go-{number}; exit {number}" for number in range(TASKS)]
    commands = [shell(f"c{number}", line) for number, line in enumerate(lines)]
    unshare = ("unshare", "--fork", "--pid", "--mount-proc", "--kill-child") if namespace else ()
    made = place / "made"
    before = (*unshare, sys.executable, "-I", "-S", "-c", PARENT, str(made))
    with serving(place, write(place, "test.json", config(*commands)), before=before) as server:
        server.pid = children(server.process.pid)[0] if namespace else server.process.pid
        wait_for(made.exists, "the crowd")
        (parent,) = (pid for pid in children(server.pid) if zombies(pid) == ORPHANS)
        yield server, parent


@pytest.mark.parametrize("namespace", [False, True], ids=["subreaper", "PID 1 of a namespace"])
def test_twenty_thousand_at_once(room: None, tmp_path: Path, namespace: bool) -> None:
    with supervising(tmp_path, namespace) as (server, parent), server.local() as client:
        starts = [client.call(f"test/c{number}", {"action": "start"}) for number in range(TASKS)]
        pids = [start.response["pid"] for start in starts]
        gates = [wait_for(partial(reader, tmp_path / f"go-{n}"), f"c{n} at its gate") for n in range(TASKS)]
        os.kill(server.pid, signal.SIGSTOP)
        os.kill(parent, signal.SIGKILL)  # all of them are ours now, and nobody has said so but once
        wait_for(lambda: zombies(server.pid) > ORPHANS, "the orphans")
        for gate in gates:
            with gate:
                gate.write(b"go\n")
        asked = client.post("test/ping")
        os.kill(server.pid, signal.SIGCONT)
        between = answered_between(client, asked, server.pid)
        wait_for(lambda: zombies(server.pid) < 200, "the end of the orphans")
        assert between, "they were reaped, and only then a ping was answered"
        ends = wait_for(lambda: all_ended(client), "the ends of all tasks")
        assert ends == {pid: {"exit": number} for number, pid in enumerate(pids)}


def reader(path: Path) -> io.FileIO | None:
    """The other end of a named pipe, as soon as somebody reads there."""
    try:
        return open(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC), "wb", buffering=0)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return None


def answered_between(client: Client, asked: int, supervisor: int) -> int:
    """How many pings were answered while orphans were left."""
    answered = 0
    while asked not in [heard[0] for heard in client.receive() if isinstance(heard, tuple)]:
        pass
    while (left := zombies(supervisor)) > 1_000:
        answered += 1
        assert client.call("test/ping").response is not None, f"{left} were left"
    return answered


def all_ended(client: Client) -> dict[int, dict[str, int]]:
    """The ends of the tasks by pid, once all have ended."""
    records = client.call("initspawn/tasks").response
    ended = {task["pid"]: task["status"] for task in records if task["state"] == "ended"}
    return ended if len(ended) == TASKS else {}
