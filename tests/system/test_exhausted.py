"""A supervisor that has itself no descriptor, process or memory left: it serves, loses nothing, recovers."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from initspawn.control.client import Client, ErrorReply
from tests.support.users import Ordinary
from tests.system.server import Server, children, serving, wait_for, write
from tests.system.test_serve import config, shell

pytestmark = pytest.mark.needs("userns")

LINES = 3000
# What only the process's own user may do.
PRLIMIT = (
    os.path.realpath(sys.executable), "-I", "-S", "-c",
    "import resource, sys; pid, *both = map(int, sys.argv[1:]); resource.prlimit(pid, 6, both)",
)  # fmt: skip


class Held:
    """A server, a connection that is old, and a task that is to tell much and to end when `go` is called."""

    def __init__(self, server: Server, client: Client, gate: Path) -> None:
        self.server = server
        self.client = client
        self._gate = gate
        self.pid: int = client.call("test/count", {"action": "start"}).response["pid"]

    def go(self) -> None:
        """Let the task write and end, and hear of it."""
        self.write()
        self.end()

    def write(self) -> None:
        """Let the task write, and end."""
        with open(os.open(self._gate, os.O_WRONLY), "wb", buffering=0) as gate:
            gate.write(b"go\n")

    def end(self) -> None:
        """The whole of what it wrote has come, and its end with its status."""
        lines: list[str] = []
        for event in self.client.events():
            if event.data["pid"] == self.pid and event.data["type"] == "final-event":
                assert event.data["status"] == {"exit": 7}
                break
            lines += [event.data["stdout"]] if "stdout" in event.data else []
        assert lines == [f"{number}" for number in range(1, LINES + 1)]

    def limit(self, which: int, most: int) -> int:
        """Set one of the supervisor's soft limits; what it was."""
        before, hard = resource.prlimit(self.server.pid, which)
        resource.prlimit(self.server.pid, which, (most, hard))
        return before

    def answers(self) -> None:
        """On the old connection, and on new ones."""
        assert self.client.call("initspawn/ping").response
        for _ in range(3):
            with self.server.local() as other:
                assert other.call("initspawn/ping").response
                assert other.call("initspawn/tasks").response  # it is still known who asks

    def degraded(self) -> dict[str, dict[str, Any]]:
        """What the supervisor says that it is short of."""
        return {lack["what"]: lack for lack in self.client.call("initspawn/info").response["degraded"]}

    def recovers(self) -> None:
        """By itself."""
        wait_for(lambda: not self.degraded(), "the end of the shortage")
        assert self.client.call("test/true", {"action": "start"}).response["status"] == {"exit": 0}

    def fill(self, refusal: str) -> None:
        """Start until there is no room for more."""

        def forty() -> None:
            for _ in range(40):
                self.client.call("test/sleep", {"action": "start"})

        with pytest.raises(ErrorReply, match=refusal):
            forty()


@contextmanager
def holding(place: Path, user: Ordinary | None = None) -> Iterator[Held]:
    gate = place / "gate"
    os.mkfifo(gate)
    os.chmod(gate, 0o666)
    os.chmod(place, 0o755)
    commands = (
        {"uid": "sleep", "exec": {"cmdpath": "/bin/sleep", "args": "100"}},
        {"uid": "true", "encoder": "sync", "exec": {"cmdpath": "/bin/true"}},
        shell("count", f"read go <{gate}; seq {LINES}; exit 7", encoder="line"),
    )
    own = {"acls": {}} if user is not None else {}
    with serving(place, write(place, "test.json", config(*commands, **own)), user=user) as server:
        with server.local() as client:
            yield Held(server, client, gate)
        _, said = server.stop()
        assert "Traceback" not in said
        assert said.count("short of") == 1, said


def settled(pid: int) -> list[int]:
    """The descriptors of a supervisor, once the reserve waits behind its first start."""
    before = descriptors(pid)
    time.sleep(0.3)
    return before if before == descriptors(pid) else []


def descriptors(pid: int) -> list[int]:
    return [int(name) for name in os.listdir(f"/proc/{pid}/fd")]


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Held]:
    for above in tmp_path.parents[:3]:
        os.chmod(above, above.stat().st_mode | 0o055)
    with holding(tmp_path) as made:
        yield made


def test_tasks_leave_descriptors_for_connections(held: Held) -> None:
    """However many tasks are started: every connection that may be is answered."""
    held.limit(resource.RLIMIT_NOFILE, 128)
    held.fill(r"'room'.*EMFILE.*LimitNOFILE")
    assert max(descriptors(held.server.pid)) < 128 - 16
    held.answers()
    lack = held.degraded()["descriptors"]
    assert lack["times"] >= 1
    assert "LimitNOFILE" in lack["why"]
    held.go()
    held.client.call("test/sleep", {"action": "stop"})
    held.recovers()


def test_no_descriptor_is_left(held: Held) -> None:
    """Not one below its limit, whatever it was good for."""
    taken = wait_for(lambda: settled(held.server.pid), "the reserve")
    before = held.limit(resource.RLIMIT_NOFILE, len(taken))
    assert max(taken) <= len(taken)
    held.answers()
    held.fill("EMFILE")
    held.answers()
    assert "descriptors" in held.degraded()
    os.kill(spawner_of(held.server.pid), signal.SIGKILL)  # its spare needs none to take its place
    held.go()
    held.limit(resource.RLIMIT_NOFILE, before)
    held.recovers()


def test_connections_take_no_more_than_they_may(held: Held) -> None:
    """Connections of root alone take what they want: who comes to a full house waits, and is let in then."""
    held.limit(resource.RLIMIT_NOFILE, 128)
    held.fill("EMFILE")
    crowd = []
    try:
        while len(crowd) < 120:
            crowd.append(held.server.local())
            held.client.call("initspawn/ping")
        assert max(descriptors(held.server.pid)) > 120
        with held.server.local() as waits:
            number = waits.post("initspawn/ping")
            assert held.client.call("initspawn/ping").response
            for other in crowd:
                other.close()
            assert number in [heard[0] for heard in waits.receive() if isinstance(heard, tuple)]
    finally:
        for other in crowd:
            other.close()
    held.client.call("test/sleep", {"action": "stop"})
    held.go()
    held.recovers()


@pytest.mark.parametrize("more", [0, 2 << 20], ids=["exactly what it has", "a little more"])
def test_no_memory_is_left(held: Held, more: int) -> None:
    pages = int(Path(f"/proc/{held.server.pid}/statm").read_text().split()[0])
    before = held.limit(resource.RLIMIT_AS, pages * resource.getpagesize() + more)
    held.answers()
    held.fill("ENOMEM")
    assert "memory" in held.degraded()
    held.write()
    for _ in range(20):
        held.answers()
    held.limit(resource.RLIMIT_AS, before)
    held.end()
    held.recovers()


def test_no_process_is_left(as_user: Ordinary) -> None:
    """For its user, who is refused one more; root is not."""
    with holding(as_user.home, as_user) as held:
        spawner = spawner_of(held.server.pid)
        _, most = resource.getrlimit(resource.RLIMIT_NPROC)
        as_user.run([*PRLIMIT, f"{spawner}", "0", f"{most}"]).check_returncode()
        held.fill("EAGAIN.*TasksMax")
        held.answers()
        assert "processes" in held.degraded()
        held.go()
        as_user.run([*PRLIMIT, f"{spawner}", f"{most}", f"{most}"]).check_returncode()
        held.client.call("test/sleep", {"action": "stop"})
        held.recovers()


def spawner_of(pid: int) -> int:
    """The process that clones for a supervisor: the older of the two of that name."""
    return min(
        child for child in children(pid) if "initspawn-spawn" in Path(f"/proc/{child}/comm").read_text()
    )


def test_a_call_too_large_for_the_memory_is_answered(held: Held) -> None:
    """Its answer says so; nobody waits for it for ever."""
    pages = int(Path(f"/proc/{held.server.pid}/statm").read_text().split()[0])
    before = held.limit(resource.RLIMIT_AS, pages * resource.getpagesize() + (16 << 20))
    with held.server.local() as other, pytest.raises(ErrorReply, match="no memory for this call"):
        other.call("test/true", [[] for _ in range(300_000)])
    held.answers()
    held.limit(resource.RLIMIT_AS, before)
    held.go()
    held.recovers()


def test_where_nothing_can_be_told_it_is_answered_and_ended_as_ever(tmp_path: Path) -> None:
    """Its standard error is full."""
    deaf = ("/bin/sh", "-c", 'exec "$@" 2>/dev/full', "sh")
    sleep = {"uid": "sleep", "exec": {"cmdpath": "/bin/sleep", "args": "100"}}
    with serving(tmp_path, write(tmp_path, "test.json", config(sleep)), before=deaf) as server:
        _, hard = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (128, hard))
        refused = []
        with server.local() as client:
            for _ in range(40):
                try:
                    client.call("test/sleep", {"action": "start"})
                except ErrorReply as error:
                    refused.append(f"{error}")
            alive = [task for task in client.call("initspawn/tasks").response if task["api"] == "test"]
        assert refused
        assert all("EMFILE" in reason for reason in refused), refused
        assert len(alive) == 40 - len(refused)
        server.stop()
