"""Holes that were open once: each test fails if its hole opens again."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from initspawn.control.wire import FrameReader, encode, pack
from tests.conftest import MADE_UP
from tests.support.users import Ordinary
from tests.system.server import PATIENCE, Client, Server, children, read, serving, wait_for, write

pytestmark = pytest.mark.needs("userns")

STRANGER = {"acls": {"user": MADE_UP, "group": MADE_UP}}
LINKS = [
    {"target": name, "source": os.readlink(name), "mode": "symlink"}
    for name in ("/bin", "/sbin", "/lib", "/lib64")
    if os.path.islink(name)
]
PROGRAMS = [{"target": "/usr", "mode": "ro"}, *LINKS]
CONFIG = "test.json"


def config(*commands: dict[str, Any], **sandbox: Any) -> dict[str, Any]:
    """An API `t` with these commands; a root's run as nobody unless told otherwise."""
    acls = {"acls": {"user": "nobody"}} if os.geteuid() == 0 else {}
    box = {"uid": "box", **acls, "commands": list(commands), **sandbox}
    return {"metadata": {"uid": "t", "api": "t"}, "sandboxes": box}


def shell(uid: str, line: str, **keys: Any) -> dict[str, Any]:
    """A command that runs a shell line."""
    return {"uid": uid, "exec": {"cmdpath": "/bin/sh", "args": ["-c", line.replace("$", "$$")]}, **keys}


TRUE = shell("true", "true", encoder="sync")
TALKER = shell("talk", "echo out; echo err >&2")
ECHO = {"uid": "echo", "encoder": "sync", "exec": {"cmdpath": "/bin/echo", "args": ["%c%"]}}


@contextmanager
def serving_mounts(place: Path, command: dict[str, Any], *mounts: dict[str, str]) -> Iterator[Server]:
    """A server whose only command has a root of its own and belongs to a user that no file names."""
    box = config(command, namespace={"mounts": [*PROGRAMS, *mounts]}, **STRANGER)
    with serving(place, write(place, CONFIG, box)) as server:
        yield server


def owned(path: Path) -> Path:
    """A new directory of the command's user."""
    path.mkdir()
    os.chown(path, MADE_UP, MADE_UP)
    return path


class Raw:
    """A connection to a door that sends frames as they are and keeps all that comes."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.messages: list[dict[str, Any]] = []
        self._frames = FrameReader()

    def until(self, wanted: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """The first message that is wanted, of those that came and those to come."""
        while True:
            for message in self.messages:
                if wanted(message):
                    return message
            data = self.socket.recv(65536)
            assert data, f"closed after {self.messages}"
            self.messages += [json.loads(body) for body in self._frames.feed(data)]

    def answer(self, number: int) -> dict[str, Any]:
        return self.until(lambda message: message.get("id") == number)

    def ask(self, number: int, procedure: str, token: str | None = None) -> dict[str, Any]:
        message: dict[str, Any] = {"id": number, "call": procedure}
        self.socket.sendall(encode(message if token is None else {**message, "token": token}))
        return self.answer(number)

    def events(self) -> list[dict[str, Any]]:
        return [message for message in self.messages if "event" in message]


@contextmanager
def raw(path: Path) -> Iterator[Raw]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(str(path))
        yield Raw(sock)


@pytest.mark.root
def test_a_devfs_below_a_writable_bind_changes_no_file_of_the_host(tmp_path: Path) -> None:
    """The command led the `chmod` of /dev/shm away, by links in what it may write.

    Not in the temporary folder: the new root is staged on /tmp, where an absolute link finds nothing.
    """
    with tempfile.TemporaryDirectory(dir="/var") as outside:
        Path(outside).chmod(0o755)
        secret = Path(outside) / "secret"
        secret.write_text("secret")
        secret.chmod(0o600)
        place = owned(Path(outside) / "place")
        mounts = [
            {"target": str(place), "source": str(place), "mode": "rw"},
            {"target": f"{place}/root/dev", "mode": "devfs"},
        ]
        (place / "root" / "dev").mkdir(parents=True)
        with serving_mounts(tmp_path, TRUE, *mounts) as server, server.client() as client:
            (place / "root").rename(place / "root.old")
            (place / "q" / "dev").mkdir(parents=True)
            (place / "q" / "dev" / "shm").symlink_to(secret)
            (place / "root").symlink_to(place / "q")
            client.call("t/true")
            assert stat.S_IMODE(secret.stat().st_mode) == 0o600
            assert client.call("t/ping")["response"]


@pytest.mark.root
def test_the_spawners_do_not_know_the_token(tmp_path: Path) -> None:
    with serving(tmp_path, write(tmp_path, CONFIG, config(TRUE, namespace={}))) as server:
        for pid in both_spawners(server):
            memory = memory_of(pid)
            assert b"initspawn" in memory  # it is really read
            assert server.token.encode() not in memory


def memory_of(pid: int) -> bytes:
    """All of a process's memory that can be read."""
    found = bytearray()
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in read(f"/proc/{pid}/maps").decode().splitlines():
            area, rights = line.split()[:2]
            if not rights.startswith("r") or line.endswith(("[vvar]", "[vvar_vclock]", "[vsyscall]")):
                continue
            start, end = (int(number, 16) for number in area.split("-"))
            memory.seek(start)
            try:
                while start < end and (piece := memory.read(end - start)):
                    found += piece
                    start += len(piece)
            except OSError:  # behind the end of a mapped file
                continue
    return bytes(found)


def spawners(server: Server) -> list[int]:
    """The spawner and its spare, in the order in which they were made."""
    return [pid for pid in server.children() if read(f"/proc/{pid}/comm") == b"initspawn-spawn\n"]


def both_spawners(server: Server) -> list[int]:
    """The same, once both are there."""

    def both() -> list[int] | None:
        found = spawners(server)
        return found if len(found) == 2 else None

    found: list[int] = wait_for(both, "two spawners")
    return found


@pytest.mark.root
def test_nothing_else_runs_as_the_gateways_user(tmp_path: Path) -> None:
    file = write(tmp_path, CONFIG, config(TRUE, namespace={}, acls={"user": 64999, "group": 64999}))
    refused = subprocess.run(serve(tmp_path, file), capture_output=True, text=True, timeout=PATIENCE)
    assert refused.returncode == 100
    assert "--gateway-user" in refused.stderr


def serve(place: Path, file: str) -> list[str]:
    """The command line of a server with its run directory in `place`."""
    return [sys.executable, "-m", "initspawn", "serve", "--port", "0", "--run-dir", str(place / "run"), file]


CALLER = """
import json, socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.settimeout(20)
sock.connect(sys.argv[1])
body = json.dumps({"id": 1, "call": "initspawn/tasks"}).encode()
sock.sendall(len(body).to_bytes(4, "little") + body)
data = b""
while len(data) < 4 or len(data) < 4 + int.from_bytes(data[:4], "little"):
    more = sock.recv(65536)
    if not more:
        break
    data += more
print(data[4:].decode())
"""


def test_a_command_is_no_local_client(as_user: Ordinary) -> None:
    """It has the supervisor's own user number, outside its user namespace."""
    control = str(as_user.home / "run" / "control")
    arguments = ["-c", CALLER.replace("$", "$$"), control]
    call = {"uid": "call", "encoder": "sync", "exec": {"cmdpath": "/usr/bin/python3", "args": arguments}}
    file = write(as_user.home, CONFIG, config(call, namespace={"shares": {"all": "disable"}}, acls={}))
    with serving(as_user.home, file, user=as_user) as server, server.client() as client:
        response = client.call("t/call")["response"]
        assert response["status"] == {"exit": 0}, response
        assert json.loads(response["stdout"][0]) == {"id": 1, "status": "insufficient-scope", "code": -9}


ORPHAN = """
import os, signal, sys, time
command, reaper = os.getpid(), os.getppid()
if os.fork():
    time.sleep(30)
sys.stdout = open(sys.argv[2], "w", buffering=1)
print(os.getpid())
os.kill(reaper, signal.SIGKILL)
while os.getppid() in (command, reaper):
    time.sleep(0.01)
time.sleep(0.2)  # the supervisor has noticed
"""


def test_an_orphan_of_a_command_is_no_local_client_either(as_user: Ordinary) -> None:
    """Its reaper was killed, so it has become a child of the supervisor."""
    told = as_user.home / "told"
    arguments = ["-c", (ORPHAN + CALLER).replace("$", "$$"), str(as_user.home / "run" / "control"), str(told)]
    call = {"uid": "call", "exec": {"cmdpath": "/usr/bin/python3", "args": arguments}}
    file = write(as_user.home, CONFIG, config(call, acls={}))
    with serving(as_user.home, file, user=as_user) as server, server.client() as client:
        client.call("t/call")
        pid = int(wait_for(lambda: read(told).partition(b"\n")[0], "the orphan"))
        wait_for(lambda: not read(f"/proc/{pid}/cmdline"), "its end")  # with cgroups, by force
        _, *answers = told.read_text().splitlines()
        assert all(json.loads(answer)["status"] == "insufficient-scope" for answer in answers)


@pytest.mark.root
def test_a_bind_source_that_became_a_link_is_refused(tmp_path: Path) -> None:
    source, out = owned(tmp_path / "source"), owned(tmp_path / "out")
    mounts = [
        {"target": "/data", "source": str(source), "mode": "ro"},
        {"target": "/out", "source": str(out), "mode": "rw"},
    ]
    touch = shell("touch", "echo > /out/ran", encoder="sync")
    with serving_mounts(tmp_path, touch, *mounts) as server, server.client() as client:
        assert client.call("t/touch")["response"]["status"] == {"exit": 0}
        (out / "ran").unlink()
        source.rmdir()
        source.symlink_to("/etc")
        request = client.call("t/touch")["request"]
        assert request["status"] == "internal-error"
        assert "refused at 'mounts'" in request["info"]
        assert "(ELOOP)" in request["info"]
        assert not (out / "ran").exists()


@pytest.mark.root
def test_a_lock_that_became_a_fifo_holds_nobody_up(tmp_path: Path) -> None:
    place = owned(tmp_path / "place")
    lock = place / "lock"
    lock.touch()
    mounts = [
        {"target": "/data", "source": str(place), "mode": "rw"},
        {"target": "/data/lock", "mode": "lock"},
    ]
    with serving_mounts(tmp_path, TRUE, *mounts) as server, server.client() as client:
        assert client.call("t/true")["response"]["status"] == {"exit": 0}
        lock.unlink()
        os.mkfifo(lock)
        request = client.call("t/true")["request"]
        assert request["status"] == "internal-error"
        assert "start refused" in request["info"]
        assert "not at its exec" not in request["info"]  # it did not hang until the end of its time
        assert client.call("t/ping")["response"] == "pong=1"


def test_a_bad_token_ends_the_events_of_a_start_on_its_way(tmp_path: Path) -> None:
    file = write(tmp_path, CONFIG, config(TALKER, namespace={}))
    with serving(tmp_path, file) as server, server.client() as other:
        door = server.run_dir / "gateway" / "door"
        with raw(door) as good:
            good.socket.sendall(encode({"id": 1, "call": "t/talk", "token": server.token}))
            good.until(lambda message: message.get("data", {}).get("type") == "final-event")
        start = encode({"id": 1, "call": "t/talk", "token": server.token})
        with raw(door) as client:
            client.socket.sendall(start + encode({"id": 2, "call": "t/ping", "token": "wrong"}))
            assert client.answer(2)["status"] == "insufficient-scope"
            pid = client.answer(1)["response"]["pid"]
            wait_for(lambda: (pid, "ended") in states(other), "the command's end")
            for number in (3, 4):  # whatever was to be sent has been sent before the second answer
                assert client.ask(number, "t/ping")["status"] == "insufficient-scope"
            assert client.events() == []


def states(client: Client) -> list[tuple[int, str]]:
    """The tasks a client may see, as (pid, state)."""
    return [(task["pid"], task["state"]) for task in client.call("initspawn/tasks")["response"]]


def gone(processes: list[subprocess.Popen[str]]) -> list[subprocess.Popen[str]]:
    """Those of our children that have ended."""
    return [process for process in processes if process.poll() is not None]


def test_two_servers_at_the_same_moment(tmp_path: Path) -> None:
    file = write(tmp_path, CONFIG, config(TRUE, namespace={}))
    options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "text": True}
    options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    for _ in range(3):
        two = [subprocess.Popen(serve(tmp_path, file), **options) for _ in range(2)]
        try:
            ended = wait_for(partial(gone, two), "the end of one")
            assert len(ended) == 1
            (lives,) = (one for one in two if one is not ended[0])
            assert ended[0].returncode != 0
            assert "already running" in ended[0].communicate(timeout=PATIENCE)[1]
            server = Server(lives, tmp_path / "run")
            with server.client() as client:
                assert client.call("t/true")["response"]["status"] == {"exit": 0}
            assert server.stop() == (0, "")
        finally:
            for one in two:
                if one.poll() is None:
                    one.send_signal(signal.SIGINT)
                    one.communicate(timeout=PATIENCE)
                for pipe in (one.stdout, one.stderr):
                    if pipe:
                        pipe.close()


# What a JSON reader takes and a writer may not: which depth that is, is the interpreter's affair.
DEPTHS = (*range(940, 1010, 10), *range(976, 990))


@pytest.mark.parametrize("door", ["control", "gateway/door"])
def test_odd_arguments_are_answered(tmp_path: Path, door: str) -> None:
    file = write(tmp_path, CONFIG, config(ECHO, namespace={}))
    with serving(tmp_path, file) as server:

        def echo(value: bytes) -> str:
            """The status of the answer, or `fault`."""
            with raw(server.run_dir / door) as client:
                assert client.ask(1, "t/ping", server.token)["status"] == "success"
                client.socket.sendall(pack(b'{"id":2,"call":"t/echo","args":{"c":%b}}' % value))
                answer = client.until(lambda message: message.get("id") == 2 or "fault" in message)
                return str(answer.get("status", "fault"))

        assert echo(b'["\\ud800"]') == "invalid-request"
        told = {depth: echo(b"[" * depth + b"]" * depth) for depth in sorted(DEPTHS)}
        assert set(told.values()) <= {"success", "invalid-request", "fault"}, told


@pytest.mark.root
def test_the_gateway_comes_up_whatever_the_umask(tmp_path: Path) -> None:
    file = write(tmp_path, CONFIG, config(TRUE, namespace={}))
    before = os.umask(0o077)
    try:
        with serving(tmp_path, file) as server, server.client() as client:
            assert client.call("t/true")["response"]["status"] == {"exit": 0}
    finally:
        os.umask(before)


@pytest.mark.root
def test_a_spawner_that_stops_or_dies_is_replaced_by_its_spare(tmp_path: Path) -> None:
    file = write(tmp_path, CONFIG, config(TRUE, namespace={}))
    with serving(tmp_path, file) as server, server.client() as client:
        first, spare = both_spawners(server)
        os.kill(first, signal.SIGSTOP)
        began = time.monotonic()
        request = client.call("t/true")["request"]
        assert time.monotonic() - began < 30
        assert request["status"] == "internal-error"
        assert "start refused" in request["info"]
        assert client.call("t/true")["response"]["status"] == {"exit": 0}
        second, next_spare = both_spawners(server)
        assert second == spare
        os.kill(second, signal.SIGKILL)
        assert client.call("t/true")["response"]["status"] == {"exit": 0}
        third, _ = both_spawners(server)
        assert third == next_spare  # it was there before, and not copied from what we are now


def test_a_command_that_stops_its_reaper_ends(as_user: Ordinary) -> None:
    stop = shell("stop", "kill -STOP $PPID; sleep 30", timeout=1)
    file = write(as_user.home, CONFIG, config(stop, acls={}))
    with serving(as_user.home, file, user=as_user) as server, server.client() as client:
        began = time.monotonic()
        pid = client.call("t/stop")["response"]["pid"]
        assert client.final(pid)["status"]["info"] == "timeout"
        assert time.monotonic() - began < 10
        assert server.stop()[0] == 0
        assert not children(server.process.pid)
