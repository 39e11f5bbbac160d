"""Commands that start by themselves, on a real server."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from initspawn.control.client import Client
from tests.system.server import PATIENCE, serving, wait_for, write
from tests.system.test_serve import config, shell

pytestmark = pytest.mark.needs("userns")

ENDLESS = "echo up; while :; do sleep 60; done"
QUICK = {"policy": "always", "jitter": 0, "pause": 0.05, "longest": 0.2, "ran_well": 60}


def service(client: Client, verb: str) -> dict[str, Any]:
    (found,) = (one for one in client.call("initspawn/services").response if one["command"] == f"test/{verb}")
    return found  # type: ignore[no-any-return]


def until(client: Client, verb: str, state: str) -> dict[str, Any]:
    """Its record, once it is in that state."""

    def there() -> dict[str, Any] | None:
        found = service(client, verb)
        return found if found["state"] == state else None

    return wait_for(there, f"{verb} to be {state}: {service(client, verb)}")  # type: ignore[no-any-return]


def pid_of(record: dict[str, Any]) -> int:
    return int(record["task"].partition("@")[2])


def check_times(client: Client, run_dir: Path) -> None:
    """What the commands of `test_order_and_results` leave on the time line, told by the command line too."""
    told = client.call("initspawn/timeline").response
    marks = {mark["what"]: mark["time"] for mark in told["marks"]}
    order = [
        "supervisor started", "plan loaded", "stage early", "stage system", "control socket answers",
        "gateway answers",
    ]  # fmt: skip
    assert [marks[what] for what in order] == sorted(marks[what] for what in order)
    assert "adopted by a unit" not in marks
    found = {record["command"].removeprefix("test/"): record for record in told["services"]}
    maker, user, last = found["maker"], found["user"], found["last"]
    assert maker["due"] <= maker["started"] <= maker["ended"] - 0.25
    assert maker["ended"] <= user["due"] <= user["started"] <= user["ready"] <= time.monotonic()
    assert (user["waited"], last["waited"]) == ("test/maker", "stage api")
    assert "due" not in found["without"]
    argv = [sys.executable, "-m", "initspawn", "explain", "--boot", "--json", "--run-dir", str(run_dir)]
    shown = json.loads(subprocess.run(argv, check=True, capture_output=True, timeout=60).stdout)
    assert shown["services"] == told["services"]
    (critical,) = shown["critical"]  # no boot waits
    assert critical["path"][0]["what"] in ("test/last", "test/user")


def test_order_and_results(tmp_path: Path) -> None:
    commands = [
        shell("last", ENDLESS, autostart={"stage": "api"}),
        shell("user", ENDLESS, autostart={"requires": "maker"}),
        shell("maker", "sleep 0.3", autostart={"ready": "exited", "stage": "early"}),
        shell("bad", "exit 4", autostart={"ready": "exited"}),
        shell("without", ENDLESS, autostart={"requires": "bad"}),
        shell(
            "helped", "exit 0", autostart={"conditions": {"task": {"command": "bad", "result": "failure"}}}
        ),
        shell(
            "never", ENDLESS, autostart={"conditions": {"kernel_command_line": "x.y.z", "otherwise": "skip"}}
        ),
        shell("called", ENDLESS),
    ]
    with serving(tmp_path, write(tmp_path, "test.json", config(*commands))) as server:
        with server.local() as client:
            for verb, state in (
                ("last", "running"), ("user", "running"), ("maker", "done"), ("bad", "failed"),
                ("without", "skipped"), ("helped", "done"), ("never", "skipped"),
            ):  # fmt: skip
                until(client, verb, state)
            assert len(client.call("initspawn/services").response) == 7
            assert service(client, "without")["why"] == "it requires test/bad, which is failed"
            assert service(client, "bad")["why"] == "exit 4"
            check_times(client, server.run_dir)
            order = [task["command"] for task in client.call("initspawn/tasks").response]
            assert order.index("maker") < order.index("user")
        code, told = server.stop()
        assert code == 0
        assert sorted(told.splitlines()) == [
            "initspawn: test/bad: exit 4; it is not started again",
            "initspawn: test/never: skipped: `x.y.z` is not so on the kernel's command line",
            "initspawn: test/without: skipped: it requires test/bad, which is failed",
        ]


def test_what_is_killed_comes_back_and_what_is_stopped_does_not(tmp_path: Path) -> None:
    commands = [
        shell("keep", ENDLESS, autostart={"restart": QUICK}),
        shell("needs", ENDLESS, autostart={"requires": "keep"}),
    ]
    with (
        serving(tmp_path, write(tmp_path, "test.json", config(*commands))) as server,
        server.local() as client,
    ):
        first = pid_of(until(client, "keep", "running"))
        until(client, "needs", "running")
        os.kill(first, signal.SIGKILL)
        second = wait_for(
            lambda: pid_of(service(client, "keep")) != first and until(client, "keep", "running"), "another"
        )
        assert second["starts"] == 2
        assert service(client, "needs")["state"] == "running"
        client.call("test/keep", {"action": "stop"})
        until(client, "keep", "stopped")
        until(client, "needs", "stopped")
        (needs,) = (task for task in client.call("initspawn/tasks").response if task["command"] == "needs")
        assert needs["reason"] == "requires"


def test_a_stop_ends_a_pause(tmp_path: Path) -> None:
    made = config(shell("bad", "exit 1", autostart={"restart": {**QUICK, "pause": 60, "longest": 60}}))
    with serving(tmp_path, write(tmp_path, "test.json", made)) as server, server.local() as client:
        until(client, "bad", "paused")
        client.call("test/bad", {"action": "stop", "args": {"signal": "SIGUSR1"}})
        assert service(client, "bad")["state"] == "paused", "only a signal"
        client.call("test/bad", {"action": "stop"})
        assert service(client, "bad")["state"] == "stopped"


def test_a_refused_start_is_no_exit_code_and_is_tried_again(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("no program\n")
    script.chmod(0o755)
    start = {"autostart": {"restart": {**QUICK, "tries": 3}}}
    made = config({"uid": "odd", "exec": {"cmdpath": str(script)}, **start})
    for directory in tmp_path.parents:  # the command's user is another
        if directory.stat().st_uid == os.getuid() and directory != Path("/"):
            directory.chmod(directory.stat().st_mode | 0o011)
    tmp_path.chmod(0o755)
    with serving(tmp_path, write(tmp_path, "test.json", made)) as server, server.local() as client:
        found = until(client, "odd", "failed")
        assert found["starts"] == 3
        assert "start refused at 'exec'" in found["why"]


def test_125_is_for_good(tmp_path: Path) -> None:
    made = config(shell("odd", "exit 125", autostart={"restart": QUICK}))
    with serving(tmp_path, write(tmp_path, "test.json", made)) as server, server.local() as client:
        assert until(client, "odd", "failed")["starts"] == 1


def test_a_path_is_waited_for(tmp_path: Path) -> None:
    there, gone = tmp_path / "a" / "there", tmp_path / "gone"
    gone.touch()
    made = config(shell("c", ENDLESS, autostart={"conditions": {"path": [str(there), f"!{gone}"]}}))
    with serving(tmp_path, write(tmp_path, "test.json", made)) as server, server.local() as client:
        assert service(client, "c")["why"] == f"{there} is not there"
        there.parent.mkdir()
        there.touch()
        wait_for(lambda: service(client, "c")["why"] == f"{gone} is there", "the other path")
        gone.unlink()
        until(client, "c", "running")


def test_what_is_not_ready_in_time_is_ended(tmp_path: Path) -> None:
    made = config(shell("slow", ENDLESS, autostart={"ready": "exited", "start_timeout": 1}))
    with serving(tmp_path, write(tmp_path, "test.json", made)) as server, server.local() as client:
        assert until(client, "slow", "failed")["why"] == "not ready after 1 s"


def test_a_crash_loop_leaves_the_supervisor_alone(tmp_path: Path) -> None:
    made = config(shell("bad", "exit 1", autostart={"restart": {**QUICK, "pause": 0.01, "longest": 0.01}}))
    with serving(tmp_path, write(tmp_path, "test.json", made)) as server:
        with server.local() as client:
            wait_for(lambda: service(client, "bad")["starts"] >= 20, "twenty starts")
            assert str(client.call("initspawn/ping").response).startswith("pong=")
        code, told = server.stop()
        assert code == 0
        assert set(told.splitlines()) == {"initspawn: test/bad: exit 1; it is started again in 0.01 s"}


def test_others_are_shown_nothing(tmp_path: Path) -> None:
    file = write(tmp_path, "test.json", config(shell("c", ENDLESS, autostart={})))
    with serving(tmp_path, file) as server:
        with server.client() as client:
            assert len(client.call("initspawn/services")["response"]) == 1
        with server.client(server.open_url) as client:
            assert client.call("initspawn/services")["request"]["status"] == "insufficient-scope"


# Notifications.

SEND = """
import os, socket, sys, time
def send(text, address=os.environ["NOTIFY_SOCKET"]):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect("\\0" + address[1:] if address[0] == "@" else address)
        sock.send(text)
"""


def python(uid: str, lines: str, **start: Any) -> dict[str, Any]:
    """A command that runs Python, with `send` for its messages."""
    program = {
        "cmdpath": os.path.realpath(sys.executable),
        "args": ["-I", "-S", "-c", (SEND + lines).replace("%", "%%")],
    }
    return {"uid": uid, "exec": program, "autostart": start}


def own_tree() -> dict[str, Any]:
    """The keys of a sandbox with a file tree and a network of its own."""
    there = [path for path in ("/bin", "/lib", "/lib64", "/usr", sys.base_prefix) if os.path.isdir(path)]
    mounts = [{"target": path, "mode": "ro"} for path in dict.fromkeys(there)]
    tree = [{"target": "/tmp", "mode": "tmpfs"}, {"target": "/proc", "mode": "procfs"}]
    return {"namespace": {"shares": {"net": "disable"}, "mounts": [*mounts, *tree]}}


@pytest.mark.parametrize("keys", [{}, {"namespace": {}}, own_tree()], ids=["plain", "own pid", "own tree"])
def test_a_command_says_when_it_is_ready(tmp_path: Path, keys: dict[str, Any]) -> None:
    lines = """
print(sorted(name for name in os.environ if name.startswith(("NOTIFY", "WATCHDOG"))), flush=True)
send(b"STATUS=getting up")
while not os.path.exists("/proc/self/root/tmp/never"):
    line = sys.stdin.readline()
    send(b"READY=1\\nSTATUS=up")
    time.sleep(60)
"""
    waits = python("waits", lines, ready="notify") | {"stdin": True}
    after = shell("after", ENDLESS, autostart={"after": "waits"})
    made = config(waits, after, **keys)
    with serving(tmp_path, write(tmp_path, "test.json", made)) as server, server.local() as client:
        wait_for(lambda: service(client, "waits").get("status") == "getting up", "its first message")
        assert service(client, "waits")["state"] == "starting"
        assert service(client, "after")["state"] == "waiting"
        pid = pid_of(service(client, "waits"))
        client.call("test/waits", {"action": "input", "args": {"pid": pid, "data": "go\n"}})
        until(client, "after", "running")
        assert service(client, "waits")["status"] == "up"
        told = client.call("initspawn/info").response["notifications"]
        assert told == {"heard": 2, "ignored": {}, "full": []}
    assert not list(tmp_path.glob("run/notify*"))


def test_a_child_of_the_command_may_say_it(tmp_path: Path) -> None:
    lines = """
if os.fork() == 0:
    send(b"READY=1")
    time.sleep(60)
time.sleep(60)
"""
    made = config(python("parent", lines, ready="notify"))
    with serving(tmp_path, write(tmp_path, "test.json", made)) as server, server.local() as client:
        until(client, "parent", "running")


def test_who_hangs_is_ended_and_started_again(tmp_path: Path) -> None:
    lines = """
for _ in range(3):
    send(b"WATCHDOG=1")
    time.sleep(0.4)
time.sleep(60)
"""
    made = config(python("hangs", lines, watchdog=1, restart={**QUICK, "tries": 2}))
    with serving(tmp_path, write(tmp_path, "test.json", made)) as server, server.local() as client:
        found = until(client, "hangs", "failed")
        assert (found["starts"], found["why"]) == (2, "no sign of life for 1 s")
        ended = [task for task in client.call("initspawn/tasks").response if task["command"] == "hangs"]
        assert {task["reason"] for task in ended} == {"watchdog"}
        assert all(task["usage"]["seconds"] > 1.7 for task in ended), "it was fed twice"


def test_a_flood_of_one_command_ends_no_other(tmp_path: Path) -> None:
    """They share a socket. Who really hangs is found when the flood is over."""
    flood = """
for _ in range(6):
    os.fork()
while True:
    send(b"x")
"""
    feeds = "while True:\n    send(b'WATCHDOG=1')\n    time.sleep(0.1)\n"
    lives = python("lives", feeds, watchdog=1)
    floods = python("floods", flood)
    del floods["autostart"]
    file = write(tmp_path, "test.json", config(lives, floods))
    with serving(tmp_path, file) as server, server.local() as client:
        until(client, "lives", "running")
        flooding = client.call("test/floods").response["pid"]
        full = lambda: client.call("initspawn/info").response["notifications"]["full"]  # noqa: E731
        assert wait_for(full, "the flood") == ["test/box"]
        time.sleep(5)
        found = service(client, "lives")
        assert (found["state"], found["starts"]) == ("running", 1)
        client.call("test/floods", {"action": "stop", "args": {"pid": flooding}})
        os.kill(pid_of(found), signal.SIGSTOP)
        assert until(client, "lives", "failed")["why"] == "no sign of life for 1 s"


def test_others_cannot_speak_for_a_command(tmp_path: Path) -> None:
    """Neither another task of the same sandbox, nor somebody outside."""
    speaks = python("speaks", 'send(b"READY=1"); time.sleep(60)', ready="started")
    waits = python("waits", "print(os.environ['NOTIFY_SOCKET'], flush=True); time.sleep(60)", ready="notify")
    waits["encoder"] = "line"
    with (
        serving(tmp_path, write(tmp_path, "test.json", config(waits, speaks))) as server,
        server.local() as client,
    ):

        def ignored(why: str) -> int:
            return int(client.call("initspawn/info").response["notifications"]["ignored"].get(why, 0))

        wait_for(lambda: ignored("not expected") == 1, "the other's message")
        reaper = wait_for(lambda: pid_of(service(client, "waits")), "its pid")
        environment = Path(f"/proc/{reaper}/environ").read_bytes().split(b"\0")
        (address,) = (item.partition(b"=")[2] for item in environment if item.startswith(b"NOTIFY_SOCKET="))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.connect(b"\0" + address[1:])
            sock.send(b"READY=1")
        wait_for(lambda: ignored("unknown sender") == 1, "ours")
        assert service(client, "waits")["state"] == "starting"


def test_they_end_in_the_reverse_of_their_order_and_each_has_its_time(tmp_path: Path) -> None:
    told = tmp_path / "told"
    told.touch()
    told.chmod(0o666)
    for directory in tmp_path.parents:  # the commands' user is another
        if directory.stat().st_uid == os.getuid() and directory != Path("/"):
            directory.chmod(directory.stat().st_mode | 0o011)
    tmp_path.chmod(0o755)

    def polite(name: str, seconds: float) -> str:
        end = f"sleep {seconds}; echo {name} ends >>{told}; exit 0"
        return f"trap '{end}' TERM; echo {name} >>{told}; while :; do sleep 0.2; done"

    deaf = f"trap '' TERM; echo deaf >>{told}; while :; do sleep 60; done"
    commands = [
        shell("base", polite("base", 0), autostart={}),
        shell("deaf", deaf, autostart={"requires": "base", "stop_timeout": 1}),
        # Longer than the time of commands that say nothing of it.
        shell("top", polite("top", 2.5), autostart={"after": "deaf", "stop_timeout": 20}),
    ]
    with serving(tmp_path, write(tmp_path, "test.json", config(*commands))) as server:
        wait_for(lambda: len(told.read_text().splitlines()) == 3, "all of them")
        with server.local() as client:
            pid = pid_of(until(client, "deaf", "running"))
        told.write_text("")
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: told.read_text() == "top ends\n", "the end of the last")
        assert time.monotonic() - began > 2.4
        assert Path(f"/proc/{pid}").exists()
        _, error = server.process.communicate(timeout=PATIENCE)
        assert (server.process.returncode, error) == (0, "")
        assert told.read_text() == "top ends\nbase ends\n"
        assert time.monotonic() - began > 3.4


def test_a_second_signal_ends_all_at_once(tmp_path: Path) -> None:
    deaf = "trap '' TERM; echo up; while :; do sleep 60; done"
    commands = [
        shell("base", deaf, autostart={"stop_timeout": 600}),
        shell("top", deaf, autostart={"requires": "base", "stop_timeout": 600}),
    ]
    with serving(tmp_path, write(tmp_path, "test.json", config(*commands))) as server:
        with server.local() as client:
            until(client, "top", "running")
            server.process.send_signal(signal.SIGTERM)
            until(client, "top", "ending")
            assert service(client, "base")["state"] == "running"
        assert server.stop() == (0, "")
