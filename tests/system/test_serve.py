"""The whole way: a file, `initspawn serve`, a WebSocket client, a confined command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidHandshake

from tests.support.users import Ordinary
from tests.system.server import Client, Server, children, read, serving, wait_for, write

ROOT = Path(__file__).parents[2]
DEMO = str(ROOT / "configs" / "demo.yaml")
DENIED = {"status": "insufficient-scope", "code": -9}

pytestmark = pytest.mark.needs("userns")


def config(*commands: dict[str, Any], **sandbox: Any) -> dict[str, Any]:
    """A configuration whose commands run in a private pid namespace, as nobody when we are root."""
    acls = {"acls": {"user": "nobody"}} if os.geteuid() == 0 else {}
    box = {"uid": "box", "namespace": {}, **acls, "commands": list(commands), **sandbox}
    return {"metadata": {"uid": "test", "api": "test"}, "sandboxes": box}


def shell(uid: str, line: str, **keys: Any) -> dict[str, Any]:
    """A command that runs a shell line."""
    return {"uid": uid, "exec": {"cmdpath": "/bin/sh", "args": ["-c", line.replace("$", "$$")]}, **keys}


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> str:
    lines = "i=0; while [ $i -lt 3 ]; do i=$((i+1)); echo line $i; done; echo problem >&2; exit 7"
    return write(
        tmp_path_factory.mktemp("config"),
        "test.json",
        config(
            shell("text", "echo out; echo err >&2; exit 3"),
            shell("line", lines, encoder="line"),
            shell("sync", "echo out; exit 4", encoder="sync"),
            {"uid": "echo", "encoder": "sync", "exec": {"cmdpath": "/bin/echo", "args": ["[%a%]", "?b?"]}},
            {"uid": "sleep", "exec": {"cmdpath": "/bin/sleep", "args": "100"}},
            {"uid": "once", "once": True, "exec": {"cmdpath": "/bin/sleep", "args": "100"}},
            {"uid": "slow", "timeout": 1, "exec": {"cmdpath": "/bin/sleep", "args": "100"}},
            {"uid": "yes", "encoder": "line", "exec": {"cmdpath": "/usr/bin/yes"}},
            shell("heedless", "exec yes", encoder="line", slow_clients="drop"),
            {"uid": "count", "encoder": "line", "exec": {"cmdpath": "/usr/bin/seq", "args": "300000"}},
            shell(
                "steps",
                "i=0; while [ $i -lt 600 ]; do seq $((i * 10 + 1)) $((i * 10 + 10)); i=$((i+1)); done",
                encoder="line",
            ),
            shell("bound", "echo up; exec sleep 100", encoder="line", kill_on_disconnect=True),
        ),
    )


@pytest.fixture
def server(tmp_path: Path, commands: str) -> Iterator[Server]:
    with serving(tmp_path, commands) as running:
        yield running


def test_demo_as_an_ordinary_user(as_user: Ordinary) -> None:
    with serving(as_user.home, DEMO, user=as_user) as server, server.client() as client:
        assert client.call("demo/ping")["response"] == "pong=1"
        started = client.call("demo/host/count")["response"]
        assert started["command"] == "count"
        first = client.until(lambda event: event["type"] == "data")
        assert (first["name"], first["stdout"]) == ("demo/host/count", "line 1")
        inside = client.call("demo/host/id")["response"]["stdout"]
        assert inside == ["uid=65534(nobody) gid=65534(nogroup) groups=65534(nogroup)"]
        assert server.stop() == (0, "")
        assert not server.run_dir.exists()


@pytest.mark.guest_too
@pytest.mark.root
def test_demo_as_root(tmp_path: Path) -> None:
    with serving(tmp_path, DEMO) as server, server.client() as client:
        assert client.call("demo/host/id")["response"]["stdout"][0].startswith("uid=65534(nobody)")
        pid = client.call("demo/host/count")["response"]["pid"]
        assert b"Uid:\t65534\t65534\t65534\t65534\n" in read(f"/proc/{pid}/status")
        assert server.stop() == (0, "")
    assert not server.run_dir.exists()


def test_replies_come_first_and_events_follow(server: Server) -> None:
    with server.client() as client:
        reply = client.call("test/text")
        pid = reply["response"]["pid"]
        assert reply == {
            "jtype": "afb-reply",
            "request": {"status": "success", "code": 0},
            "response": {"api": "test", "sandbox": "box", "command": "text", "pid": pid},
        }
        assert client.events == []
        client.final(pid)
        assert client.events[1].pop("usage")["seconds"] > 0
        end = {"type": "final-event", "pid": pid, "status": {"exit": 3}, "reason": "exit"}
        assert client.events == [
            {"name": "test/text", "type": "data", "pid": pid, "stdout": ["out"], "stderr": ["err"]},
            {"name": "test/text", **end},
        ]


def test_line_encoder(server: Server) -> None:
    with server.client() as client:
        pid = client.call("test/line")["response"]["pid"]
        client.final(pid)
        data = [event for event in client.events if event["type"] == "data"]
        assert [event["stdout"] for event in data if "stdout" in event] == ["line 1", "line 2", "line 3"]
        assert [event["stderr"] for event in data if "stderr" in event] == ["problem"]
        assert client.events[-1]["status"] == {"exit": 7}


def test_sync_encoder(server: Server) -> None:
    with server.client() as client:
        response = client.call("test/sync")["response"]
        assert (response["status"], response["stdout"]) == ({"exit": 4}, ["out"])
        assert [event["type"] for event in client.events] == ["initial-event"]


def test_arguments(server: Server) -> None:
    with server.client() as client:
        told = client.call("test/echo", {"args": {"a": "x y; $(reboot) 'z' %b%", "b": 12}})
        assert told["response"]["stdout"] == ["[x y; $(reboot) 'z' %b%] 12"]
        for wrong in ({"args": {}}, {}, {"args": {"a": "nul\0"}}, {"args": {"a": "x", "b": "-n"}}):
            request = client.call("test/echo", wrong)["request"]
            assert (request["status"], request["code"]) == ("invalid-request", -12), wrong
        assert client.call("test/echo", {"action": "fly"})["request"]["info"] == "invalid action"
        assert client.call("test/nope")["request"]["status"] == "unknown-verb"
        assert client.call("nope/nope")["request"]["status"] == "unknown-api"


def test_stop_once_and_timeout(server: Server) -> None:
    with server.client() as client:
        pids = [client.call("test/sleep")["response"]["pid"] for _ in range(2)]
        stopped = client.call("test/sleep", {"action": "stop"})["response"]
        assert sorted(stopped) == sorted(f"box/sleep@{pid}" for pid in pids)
        assert [client.final(pid)["status"] for pid in pids] == [{"signal": "Interrupt"}] * 2
        assert client.call("test/sleep", {"action": "stop"})["response"] == []

        pid = client.call("test/once")["response"]["pid"]
        assert client.call("test/once")["request"]["status"] == "bad-state"
        gone = client.call("test/once", {"action": "stop", "args": {"pid": pid, "signal": "SIGTERM"}})
        assert gone["response"] == f"box/once@{pid}"
        assert client.final(pid)["status"] == {"signal": "Terminated"}
        assert client.call("test/once")["request"]["status"] == "success"

        pid = client.call("test/slow")["response"]["pid"]
        assert client.final(pid)["status"] == {"signal": "Killed", "info": "timeout"}


def test_without_a_valid_token_nothing_is_told(server: Server) -> None:
    calls = ["test/ping", "test/info", "test/text", "test/nope", "nope/x", "monitor/get", "initspawn/tasks"]
    for url in (server.open_url, f"{server.open_url}?token=wrong", f"{server.open_url}?token="):
        with server.client(url) as client:
            for procedure in calls:
                assert client.call(procedure, {}) == {"jtype": "afb-reply", "request": DENIED}
    with server.client() as client:
        assert client.call("initspawn/tasks")["response"] == []


def test_a_killed_gateway_disturbs_no_task(server: Server) -> None:
    with server.client() as client:
        pid = client.call("test/sleep")["response"]["pid"]
        before = server.gateway()
        os.kill(before, signal.SIGKILL)
    wait_for(lambda: server.gateway() != before, "another gateway")
    with server.client() as client:
        assert [task["pid"] for task in client.call("initspawn/tasks")["response"]] == [pid]
        assert client.call("test/sleep", {"action": "subscribe"})["response"] == [f"box/sleep@{pid}"]
        client.call("test/sleep", {"action": "stop"})
        assert client.final(pid)["status"] == {"signal": "Interrupt"}


@pytest.mark.parametrize(
    ("verb", "count", "kept"),
    [pytest.param("steps", 6000, True, id="all-kept"), pytest.param("count", 300_000, False, id="much")],
)
def test_a_client_resumes_after_the_gateway_was_killed_in_mid_stream(
    server: Server, verb: str, count: int, kept: bool
) -> None:
    """Lines to a client that loses its connection three times: each comes once, in order. Of much more than
    the log keeps, what was on its way to a client that fell behind may be gone; then a marker says how much.
    """
    url, seen = f"{server.url}&events=numbered", []

    def note(event: dict[str, Any]) -> None:
        if event["data"]["type"] == "dropped-event":
            assert not kept
            seen.extend([None] * event["data"]["count"])
        else:
            seen.append(event["data"])
        assert event["seq"] == len(seen)

    def take(client: Client, most: int) -> bool:
        """Note what comes, as far as that number; True when the task has ended."""
        while len(seen) < most:
            if seen and seen[-1] and seen[-1]["type"] == "final-event":
                return True
            kind, _, event = client.receive()
            if kind == 5:
                assert event["task"] == f"box/{verb}@{pid}"
                if event["seq"] > len(seen):
                    note(event)
        return False

    def resume(client: Client) -> None:
        args = {"pid": pid, "from": len(seen) + 1}
        answer = client.send(f"test/{verb}", {"action": "subscribe", "args": args})
        while True:
            message = client.receive()
            if message[0] == 5 and message[2]["seq"] > len(seen):
                note(message[2])
            if message[:2] == [3, answer]:
                break

    def connected(stack: ExitStack) -> Client | None:
        try:
            return stack.enter_context(server.client(url))
        except (OSError, InvalidHandshake, EOFError):  # the next gateway is not there yet
            return None

    for most in (count // 6, count // 3, count // 2, 2 * count):
        with ExitStack() as stack:
            client = wait_for(lambda stack=stack: connected(stack), "a connection")  # type: ignore[misc]
            if not seen:
                pid = client.call(f"test/{verb}")["response"]["pid"]
            resume(client)
            if take(client, most):
                break
            os.kill(server.gateway(), signal.SIGKILL)
            client.socket.close_socket()
    assert len(seen) == count + 1
    for number, data in enumerate(seen[:-1], start=1):
        assert data is None or data["stdout"] == str(number)
    # It has ended, and what is kept of it can still be had.
    with server.client(url) as client:
        args = {"pid": pid, "from": len(seen)}
        assert client.call(f"test/{verb}", {"action": "subscribe", "args": args})["response"]
        assert client.final(pid)["status"] == {"exit": 0}


def test_a_task_ends_with_its_client_where_its_command_says_so(server: Server) -> None:
    with server.client() as other:
        with server.client() as client:
            pids = [client.call(f"test/{verb}")["response"]["pid"] for verb in ("bound", "sleep", "bound")]
            mine = other.call("test/bound")["response"]["pid"]
        states = {pid: "ended" if pid in (pids[0], pids[2]) else "running" for pid in (*pids, mine)}
        wait_for(
            lambda: {t["pid"]: t["state"] for t in other.call("initspawn/tasks")["response"]} == states,
            "the end of two tasks",
        )


def test_a_command_that_waits_for_no_slow_client(server: Server) -> None:
    with server.client() as lazy, server.local() as local:
        number = lazy.send("test/heedless")
        pid = lazy.reply(number)["response"]["pid"]

        def told() -> int:
            return int(next(t["events"] for t in local.call("initspawn/tasks").response if t["pid"] == pid))

        before = wait_for(told, "its first line")
        wait_for(lambda: told() > before + 200_000, "much more than anybody would keep")
        missed = lazy.until(lambda event: event["type"] == "dropped-event")
        assert missed["count"] > 0
        local.call("test/heedless", {"action": "stop"})


def test_a_client_that_does_not_read_delays_nobody(server: Server) -> None:
    with server.client() as lazy, server.client() as busy:
        lazy.send("test/yes")  # and never read again
        for count in range(1, 50):
            assert busy.call("test/ping")["response"] == f"pong={count}"
        assert busy.call("test/sync")["response"]["stdout"] == ["out"]
        task = wait_for(lambda: busy.call("initspawn/tasks")["response"][-1:], "the task")[0]
        assert task["command"] == "yes"
        assert resident(server.process.pid) < 100 << 20
        lazy.socket.close_socket()
        busy.call("test/yes", {"action": "stop"})


def resident(pid: int) -> int:
    """Resident bytes of a process."""
    return int(read(f"/proc/{pid}/statm").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_the_measurement_is_part_of_the_record(server: Server) -> None:
    with server.client() as client:
        client.call("test/sync")
        record = client.call("initspawn/tasks")["response"][-1]
        assert record["measurement"]["no-new-privileges"] == 1
        assert record["measurement"]["namespaces"]["pid"] == "private"
        assert record["measurement"]["mounts"] == "as planned"


def test_two_beside_each_other(tmp_path: Path, commands: str, server: Server) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with serving(other, commands) as second:
        assert second.url != server.url
        with second.client() as client:
            assert client.call("test/ping")["response"] == "pong=1"
    command = [sys.executable, "-m", "initspawn", "serve", "--port", "0", "--run-dir", str(server.run_dir)]
    refused = subprocess.run([*command, commands], capture_output=True, text=True, timeout=30)
    assert refused.returncode != 0
    assert "already running" in refused.stderr
    with server.client() as client:
        assert client.call("test/ping")["response"] == "pong=1"


def test_no_auth_is_for_loopback_only(tmp_path: Path, commands: str) -> None:
    command = [sys.executable, "-m", "initspawn", "serve", "--no-auth", "--host", "0.0.0.0", commands]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert refused.returncode == 100
    assert "loopback" in refused.stderr
    with serving(tmp_path, "--no-auth", commands) as server, server.client() as client:
        assert "token" not in server.url
        assert client.call("test/ping")["response"] == "pong=1"


@pytest.mark.parametrize("port", ["99999", "-1", "abc", ""])
def test_a_port_that_is_none(port: str, commands: str) -> None:
    command = [sys.executable, "-m", "initspawn", "serve", f"--port={port}", commands]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert refused.returncode == 100
    assert "write a number from 0 to 65535" in refused.stderr


def test_ending_the_server_ends_everything(tmp_path: Path, commands: str) -> None:
    with serving(tmp_path, commands) as server, server.client() as client:
        pid = client.call("test/sleep")["response"]["pid"]
        # The spawner, its spare, the reapers of the gateway and of this command, those of the next ones.
        wait_for(lambda: len(server.children()) >= 5, "all of its children")
        every = server.children()
        assert server.stop(signal.SIGTERM)[0] == 0
        assert not read(f"/proc/{pid}/status")
        assert all(gone(one) for one in every)


def test_killing_the_supervisor_ends_everything(tmp_path: Path, commands: str) -> None:
    with serving(tmp_path, commands) as server, server.client() as client:
        pid = client.call("test/sleep")["response"]["pid"]
        everybody = [pid, *server.children(), *[c for child in server.children() for c in children(child)]]
        server.process.kill()
        for one in everybody:
            wait_for(lambda one=one: gone(one), f"the end of {one}")


def gone(pid: int) -> bool:
    """Whether a process has ended; who waits for it is another matter."""
    status = read(f"/proc/{pid}/status")
    return not status or b"State:\tZ" in status


@pytest.mark.root
@pytest.mark.needs("cgroup")
def test_what_a_killed_supervisor_left_is_ended_by_the_next(tmp_path: Path) -> None:
    """Without a pid namespace a task's children outlive a supervisor that is killed, in their cgroup."""
    storm = shell("storm", "setsid sleep 1000 & echo $!; wait", encoder="line")
    plain = config(storm)
    del plain["sandboxes"]["namespace"]
    file = write(tmp_path, "plain.json", plain)
    with serving(tmp_path, file) as server, server.client() as client:
        client.call("test/storm")
        left = int(client.until(lambda event: event["type"] == "data")["stdout"])
        server.process.kill()
        server.process.wait()
        wait_for(lambda: b"sleep" in read(f"/proc/{left}/cmdline"), "the one that is left")
    with serving(tmp_path, file):
        wait_for(lambda: gone(left), "the end of what was left")


@pytest.mark.root
def test_root_must_name_a_user(tmp_path: Path) -> None:
    file = write(tmp_path, "rootless.json", {**config(shell("a", "true")), "x-note": "no user here"})
    text = Path(file).read_text().replace('"acls": {"user": "nobody"}, ', "")
    Path(file).write_text(text)
    command = [sys.executable, "-m", "initspawn", "serve", "--port", "0", file]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert refused.returncode == 100
    assert "as root a sandbox must name the user" in refused.stderr
