"""The kernel gives the numbers of what has ended to others: nobody is taken for somebody else.

Numbers are given anew at once by `ns_last_pid` (pid_namespaces(7)), in a pid namespace of the test's own:
`STRANGER` and `LAST` refuse to touch the numbers of the namespace that the test itself is in.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from initspawn.control.client import Client, ErrorReply
from tests.support.leftovers import WORKER
from tests.support.probes import cgroup_mount
from tests.system import boxes
from tests.system.conftest import root
from tests.system.harness import PYTHON, Person, bench
from tests.system.server import PATIENCE, Server, children, read, serving, wait_for, write
from tests.system.test_serve import config, shell

pytestmark = [pytest.mark.needs("userns", "cgroup"), pytest.mark.root]

INIT = """
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
print("up", flush=True)
while True:
    signal.sigwait([signal.SIGCHLD])
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
"""
NUMBERS = """
import os, sys
assert os.readlink("/proc/self/ns/pid") != sys.argv[1]
def last(number):
    with open("/proc/sys/kernel/ns_last_pid", "w") as file:
        file.write(str(number))
"""
LAST = NUMBERS + "last(int(sys.argv[2]))"
# Gets the number, tells every signal that it is sent, and in the end that it lives.
STRANGER = (
    NUMBERS
    + """
import signal
for _ in range(100):
    last(int(sys.argv[2]) - 1)
    child = os.fork()
    if child == 0 and os.getpid() == int(sys.argv[2]):
        last(20000)  # the numbers that come next are nobody's here
        os.setsid()
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, lambda number, _: os.write(1, b"signal %d\\n" % number))
        os.write(1, b"here\\n")
        os.read(0, 1)
        os.write(1, b"untouched\\n")
        os._exit(0)
    elif child == 0:
        os._exit(9)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code != 9:
        sys.exit(abs(code))
sys.exit("its number is not to be had")
"""
)
# What may be asked about a task by its number.
LATE: list[dict[str, Any]] = [
    *({"action": "stop", "args": {"signal": name}} for name in ("SIGKILL", "SIGUSR1", 0)),
    *({"action": name, "args": {}} for name in ("stop", "subscribe", "unsubscribe")),
    {"action": "input", "args": {"data": "x"}},
    {"action": "resize", "args": {"rows": 2, "columns": 2}},
]


class Namespace:
    """A pid namespace with a PID 1 that only waits for children, and the group its processes are in."""

    def __init__(self, init: int, group: Path) -> None:
        self.group = group
        inside = ("sh", "-c", f'echo 0 >{group}/cgroup.procs; exec "$@"', "sh")
        self._enter = ("nsenter", "-t", str(init), "-m", "-p", "--", *inside)
        self._ours = os.readlink("/proc/self/ns/pid")

    @contextmanager
    def serving(self, place: Path, file: str) -> Iterator[Server]:
        """A supervisor that lives there."""
        with serving(place, file, before=self._enter) as server:
            (server.pid,) = children(server.process.pid)
            yield server

    @contextmanager
    def stranger(self, number: int) -> Iterator[subprocess.Popen[str]]:
        """A process that has this number there, and nothing to do with any supervisor; it is left alone."""
        line = [*self._enter, sys.executable, "-I", "-S", "-c", STRANGER, self._ours, str(number)]
        with subprocess.Popen(
            line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "here\n"
            yield process
            said, _ = process.communicate(timeout=PATIENCE)
            assert (process.returncode, said) == (0, "untouched\n")

    def last(self, number: int) -> None:
        """The next process there has the next number."""
        line = [*self._enter, sys.executable, "-I", "-S", "-c", LAST, self._ours, str(number)]
        subprocess.run(line, check=True, timeout=PATIENCE)


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    mount = cgroup_mount()
    assert mount is not None
    group = mount / f"initspawn-test-{WORKER}-{os.getpid()}-numbers"
    group.mkdir()
    line = [
        "unshare",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        sys.executable,
        "-I",
        "-S",
        "-c",
        INIT,
    ]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        try:
            yield Namespace(children(process.pid)[0], group)
        finally:
            process.kill()
            wait_for(lambda: not (group / "cgroup.procs").read_text(), "the end of all in it")
            group.rmdir()


def numbers(pid: int) -> list[int]:
    """A process's number for us, and in each namespace below."""
    status = read(f"/proc/{pid}/status").decode()
    return next(
        ([int(word) for word in line.split()[1:]] for line in status.splitlines() if "NSpid" in line), []
    )


class Family:
    """A task's processes: `seen` is what their numbers are for us, the others those for its supervisor."""

    def __init__(self, server: Server, pid: int) -> None:
        reapers = [(one, child) for one in server.children() for child in children(one)]
        ((reaper, command),) = [pair for pair in reapers if numbers(pair[1])[1:2] == [pid]]
        (child,) = wait_for(lambda: children(command), "what the command starts")
        self.seen = (reaper, command, child)
        self.reaper, self.command, self.child = (numbers(one)[1] for one in self.seen)

    def ended(self) -> None:
        """Wait until nobody has their numbers any more."""
        wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in self.seen), "their end")


READS = "sleep 1000 & read code; exit $code"


def file(place: Path, kind: str = "pid") -> str:
    """A configuration with a command that reads its exit code; `kind`: whether in a pid namespace."""
    made = config(shell("reads", READS, stdin=True), shell("other", READS, stdin=True))
    if kind != "pid":
        del made["sandboxes"]["namespace"]
    return write(place, "test.json", made)


def begin(client: Client, verb: str = "reads") -> int:
    pid: int = client.call(f"test/{verb}", {"action": "start"}).response["pid"]
    return pid


def end(client: Client, pid: int, code: int, verb: str = "reads") -> dict[str, Any]:
    """Its record, when it has ended with this code."""
    client.call(f"test/{verb}", {"action": "input", "args": {"pid": pid, "data": f"{code}\n"}})
    return ended(client, pid)


def ended(client: Client, pid: int) -> dict[str, Any]:
    """The record of the last with this number, once it has ended."""
    wait_for(lambda: records(client, pid)[-1]["state"] == "ended", "its end")
    return records(client, pid)[-1]


def records(client: Client, pid: int) -> list[dict[str, Any]]:
    """Of all tasks that have, or had, this number; the newest is the last."""
    return [one for one in client.call("initspawn/tasks").response if one["pid"] == pid]


def replayed(client: Client, first: int, arguments: dict[str, Any]) -> list[Any]:
    """What a subscription from that number on brings, until a task's end."""
    client.call("test/reads", {"action": "subscribe", "args": {**arguments, "from": first}})
    found = []
    for event in client.events():
        found.append((event.seq, event.data))
        if event.data["type"] == "final-event":
            return found
    raise AssertionError


@pytest.mark.parametrize("kind", ["pid", "cgroup"])
def test_strangers_with_a_tasks_numbers_are_left_alone(
    namespace: Namespace, tmp_path: Path, kind: str
) -> None:
    with (
        ExitStack() as stack,
        namespace.serving(tmp_path, file(tmp_path, kind)) as server,
        server.local() as client,
    ):
        family = Family(server, begin(client))
        before = end(client, family.command, 0)
        family.ended()
        for number in (family.command, family.reaper, family.child):
            stack.enter_context(namespace.stranger(number))
            for late in LATE:
                with pytest.raises(ErrorReply) as refused:
                    client.call("test/reads", {**late, "args": {**late["args"], "pid": number}})
                assert refused.value.info == "invalid pid"
        assert client.call("test/reads", {"action": "stop"}).response == []
        assert records(client, family.command) == [before]
        assert before["status"] == {"exit": 0}
        with server.local() as late:
            *_, (_, last) = replayed(late, 1, {"pid": family.command})
            assert last["status"] == {"exit": 0}
        assert server.stop() == (0, "")


def test_a_stranger_is_left_alone_while_the_last_output_is_awaited(
    namespace: Namespace, tmp_path: Path
) -> None:
    with namespace.serving(tmp_path, file(tmp_path)) as server, server.local() as client:
        family = Family(server, begin(client))
        with open(f"/proc/{family.seen[1]}/fd/1", "wb"):  # it might be written to still
            client.call("test/reads", {"action": "input", "args": {"pid": family.command, "data": "0\n"}})
            family.ended()
            with namespace.stranger(family.command), namespace.stranger(family.reaper):
                for late in LATE:  # answered in the one way or the other: it may have ended meanwhile
                    with suppress(ErrorReply):
                        client.call("test/reads", {**late, "args": {**late["args"], "pid": family.command}})
                client.call("test/reads", {"action": "stop"})
                assert ended(client, family.command)["status"] == {"exit": 0}


def test_a_task_with_the_number_of_another_is_another(namespace: Namespace, tmp_path: Path) -> None:
    """It has its own events, its own end; and who comes back for the other's events gets those."""
    with namespace.serving(tmp_path, file(tmp_path)) as server:
        with server.local() as client:
            family = Family(server, begin(client))
            first = end(client, family.command, 3)
            family.ended()
            namespace.last(family.command - 2)
            again = Family(server, begin(client))
            assert (again.reaper, again.command) == (family.command - 1, family.command)
            assert [one["state"] for one in records(client, family.command)] == ["ended", "running"]
            with server.local() as late:
                late.call(
                    "test/reads", {"action": "stop", "args": {"pid": family.command, "signal": "SIGKILL"}}
                )
                (seq, _), *_, (_, data) = replayed(late, 1, {"pid": family.command})
            assert (seq, data["status"]) == (1, {"signal": "Killed"})
            again.ended()
            assert records(client, family.command)[0] == first
            assert first["status"] == {"exit": 3}
        with server.local() as client:  # a reaper, and a task of another command, with that number
            namespace.last(family.command - 1)
            beside = Family(server, begin(client, "other"))
            assert beside.reaper == family.command
            with pytest.raises(ErrorReply, match="invalid pid"):
                client.call("test/other", {"action": "stop", "args": {"pid": family.command}})
            end(client, beside.command, 0, "other")
            beside.ended()
            namespace.last(family.command - 2)
            beside = Family(server, begin(client, "other"))
            assert beside.command == family.command
            with pytest.raises(ErrorReply, match="invalid pid"):
                client.call("test/reads", {"action": "stop", "args": {"pid": family.command}})
            assert end(client, beside.command, 5, "other")["status"] == {"exit": 5}
        assert server.stop() == (0, "")


CONNECTS = """
import json, os, socket, sys, time
with socket.socket(socket.AF_UNIX) as peer:
    child = os.fork()
    if child == 0:
        peer.connect(sys.argv[1])
        os._exit(0)
    os.waitpid(child, 0)
    with open(f"{sys.argv[2]}/child", "w") as file:
        file.write(str(child))
    while not os.path.exists(f"{sys.argv[2]}/given"):
        time.sleep(0.01)
    body = json.dumps({"id": 1, "call": "initspawn/tasks", "args": None}).encode()
    peer.sendall(len(body).to_bytes(4, "little") + body)
    print(peer.recv(65536)[4:].decode(), flush=True)
"""


def go_on(server: Server) -> None:
    """Continue one that was stopped, and nsenter, which stops as its child does."""
    for pid in (server.pid, server.process.pid):
        os.kill(pid, signal.SIGCONT)


@pytest.mark.needs("peerpidfd")
def test_a_task_is_not_trusted_with_the_number_of_a_stranger(namespace: Namespace, tmp_path: Path) -> None:
    """It is root, connects, and who has connected dies while nobody has looked at it."""
    line = {"cmdpath": PYTHON, "args": ["-I", "-S", "-c", CONNECTS, f"{tmp_path}/run/control", str(tmp_path)]}
    made = config({"uid": "connects", "encoder": "line", "exec": line}, acls={"user": "root"})
    del made["sandboxes"]["namespace"]
    with namespace.serving(tmp_path, write(tmp_path, "test.json", made)) as server, server.local() as client:
        client.call("test/connects", {"action": "start"})
        os.kill(server.pid, signal.SIGSTOP)
        try:
            number = int(wait_for(lambda: read(f"{tmp_path}/child"), "its child"))
            with namespace.stranger(number):
                (tmp_path / "given").touch()
                go_on(server)
                said = next(event.data for event in client.events() if "stdout" in event.data)
        finally:
            go_on(server)
        assert '"insufficient-scope"' in said["stdout"]


def test_what_a_killed_supervisor_left_is_ended_whoever_has_its_number(
    namespace: Namespace, tmp_path: Path
) -> None:
    """Its number is a stranger's, then the next supervisor's own; one that lives keeps what it has."""
    places = [tmp_path / name for name in ("killed", "lives", "next")]
    for place in places:
        place.mkdir()

    def groups(pid: int) -> list[Path]:
        return [*namespace.group.glob(f"initspawn-{numbers(pid)[1]}-*")]

    with namespace.serving(places[1], file(places[1], "cgroup")) as lives, lives.local() as client:
        pid = begin(client)
        for taken in (True, False):
            with namespace.serving(places[0], file(places[0], "cgroup")) as killed:
                with killed.local() as other:
                    begin(other)
                number, (left,) = numbers(killed.pid)[1], groups(killed.pid)
                os.kill(killed.pid, signal.SIGKILL)
            with ExitStack() as stack:
                if taken:
                    stack.enter_context(namespace.stranger(number))
                else:
                    namespace.last(number - 1)
                with namespace.serving(places[2], file(places[2], "cgroup")) as following:
                    assert taken or numbers(following.pid)[1] == number
                    assert not left.exists()
                    with following.local() as other:
                        assert end(other, begin(other), 4)["status"] == {"exit": 4}
                    assert following.stop()[0] == 0
        assert end(client, pid, 0)["status"] == {"exit": 0}
        assert groups(lives.pid)


def _held(who: Person) -> dict[str, Any]:
    with bench(boxes.sandbox(who, "pid")) as made:
        core, first = made.supervisor, made.shell("exit 3").begin()
        assert first.task is not None
        assert first.task.start is not None
        wait_for(lambda: first.task.start.alone, "the end of its command")  # nobody has been told yet
        second = made.shell("exit 4")
        assert second.task is not None
        assert second.task.start is not None
        if not second.task.start.held:
            assert second.task.start.handshake is not None
            select.select([second.task.start.handshake], [], [], PATIENCE)
            core._on_handshake(second.task)
        assert core._held[second.pid] is second.task
        first.task.pid = second.pid  # which the kernel may give it, now that the first is waited for
        core._on_handshake(first.task)
        return {"first": first.end().status, "second": second.end().status}


@root
def test_one_on_its_way_to_the_exec_is_not_lost_with_the_end_of_another(who: Person) -> None:
    assert who.call(_held, who) == {"first": {"exit": 3}, "second": {"exit": 4}}


def _dead(who: Person) -> tuple[int | None, int | None]:
    with bench(boxes.sandbox(who, "pid")) as made:
        core, run = made.supervisor, made.shell("exit 3", descriptors=(0,))
        assert run.task is not None
        made.until(lambda: run.task.pid, "its command")
        core._on_child(run.pid, signal.SIGKILL, None)  # what its tracer is told of its end
        seen = run.task.command_status
        core._on_child(run.pid, 0, None)  # somebody else's end
        return seen, run.task.command_status


@root
def test_of_one_that_has_died_before_its_exec_nothing_more_is_heard(who: Person) -> None:
    assert who.call(_dead, who) == (signal.SIGKILL, signal.SIGKILL)
