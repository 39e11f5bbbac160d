"""Another configuration for what starts by itself: what runs goes on, the next start is by the new one."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from initspawn.control.client import Client
from tests.system.harness import PYTHON
from tests.system.server import serving, wait_for, write
from tests.system.test_reload import box, command, config, reloaded, said, tasks

pytestmark = pytest.mark.needs("userns")

# Is ready, and from then on alive for as long as there is no file with its name.
NOTIFIES = """
import os, socket, sys, time
address = os.environ["NOTIFY_SOCKET"]
sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sock.connect(address if address[0] == "/" else "\\0" + address[1:])
sock.send(b"READY=1")
number = 0
while True:
    number += 1
    sock.send(b"WATCHDOG=1\\nSTATUS=" + str(number).encode())
    time.sleep(0.1)
"""


def notifying(uid: str, **autostart: Any) -> dict[str, Any]:
    run = {"cmdpath": PYTHON, "args": ["-I", "-S", "-c", NOTIFIES]}
    return {"uid": uid, "exec": run, "encoder": "line", "autostart": {"ready": "notify", **autostart}}


def services(client: Client) -> dict[str, dict[str, Any]]:
    return {one["command"].removeprefix("t/"): one for one in client.call("initspawn/services").response}


def pids(client: Client) -> dict[str, int]:
    return {task["command"]: task["pid"] for task in tasks(client).values()}


def all_run(client: Client, *names: str) -> bool:
    found = services(client)
    return all(name in found and found[name]["state"] == "running" for name in names)


def test_what_started_by_itself(tmp_path: Path) -> None:
    """It goes on, restarts by the new file, and ends when its verb is gone; not if it is still a verb."""
    sleep = "exec sleep 1000"
    again = {"autostart": {"restart": {"policy": "always", "pause": 0.1}}}

    def tells(uid: str, **autostart: Any) -> dict[str, Any]:
        tell = f"trap 'echo {uid} >>{tmp_path}/out; exit' TERM; while :; do sleep 0.1; done"
        return command(uid, tell, autostart=autostart)

    first, last = tells("first"), tells("last", requires="first")
    changes, plain = command("changes", sleep, **again), command("plain", sleep, autostart={})
    outer = {"namespace": {}} if os.geteuid() else {"namespace": {}, "acls": {"user": "root"}}
    file = write(tmp_path, "t.json", config(box(first, last, changes, plain, **outer)))
    with serving(tmp_path, file) as server, server.local() as client:
        wait_for(lambda: all_run(client, "first", "last", "changes", "plain"), "all of them")
        before = pids(client)
        now = command("changes", "echo new; exec sleep 1000", **again), command("plain", sleep)
        fresh = command("fresh", sleep, autostart={"after": "changes"})
        write(tmp_path, "t.json", config(box(*now, fresh, **outer)))
        reloaded(server)
        wait_for(lambda: all_run(client, "fresh"), "the new one")
        wait_for(lambda: not pids(client).keys() & {"first", "last"}, "the end of what is gone")
        assert (tmp_path / "out").read_text().split() == ["last", "first"]
        assert services(client).keys() == {"changes", "fresh"}
        after = pids(client)
        assert {name: after[name] for name in ("changes", "plain")} == {
            name: before[name] for name in ("changes", "plain")
        }
        os.kill(after["changes"], signal.SIGKILL)
        wait_for(lambda: pids(client).get("changes", before["changes"]) != before["changes"], "its restart")
        (told,) = [task for task in tasks(client).values() if task["command"] == "changes"]
        assert "echo new" in told["argv"][-1]
        assert services(client)["changes"]["starts"] == 2
        os.kill(after["plain"], signal.SIGKILL)
        wait_for(lambda: "plain" not in pids(client), "its end")


def test_who_has_failed_is_mended(tmp_path: Path) -> None:
    broken = command("broken", "exit 3", autostart={})
    needs = command("needs", "exec sleep 1000", autostart={"requires": "broken"})
    file = write(tmp_path, "t.json", config(box(broken, needs)))
    with serving(tmp_path, file) as server, server.local() as client:
        wait_for(lambda: services(client)["broken"]["state"] == "failed", "the failure")
        wait_for(lambda: services(client)["needs"]["state"] in ("skipped", "stopped"), "what follows")
        reloaded(server)
        assert services(client)["broken"]["starts"] == 1, "nothing is another"
        mended = command("broken", "exec sleep 1000", autostart={})
        needing = command("needs", "exec sleep 1001", autostart={"requires": "broken"})
        write(tmp_path, "t.json", config(box(mended, needing)))
        reloaded(server)
        wait_for(lambda: all_run(client, "broken"), "the mended one")


@pytest.mark.parametrize("own_root", [True, False])
def test_messages_of_a_run_that_goes_on_are_heard(tmp_path: Path, own_root: bool) -> None:
    """Its sandbox becomes another; the next run, too, finds a socket. One that comes later has its own."""
    root = {"mounts": [{"target": path, "mode": "ro"} for path in ("/usr", "/lib", "/lib64", "/bin")]}
    space: dict[str, Any] = {"namespace": root if own_root else {}}
    lively = notifying("lively", watchdog=2, restart={"policy": "always", "pause": 0.1})
    file = write(tmp_path, "t.json", config(box(command("a", "true"), **space, uid="none")))
    with serving(tmp_path, file) as server, server.local() as client:

        def number() -> int:
            return int(services(client)["lively"]["status"])

        info = client.call("initspawn/info").response
        assert "notifications" not in info
        descriptors = len(os.listdir(f"/proc/{server.pid}/fd"))
        write(tmp_path, "t.json", config(box(lively, **space)))
        reloaded(server)
        wait_for(lambda: all_run(client, "lively"), "that it is ready")
        first = pids(client)["lively"]
        for umask in ("077", "027"):
            write(tmp_path, "t.json", config(box(lively, umask=umask, **space)))
            reloaded(server)
            heard = number()
            wait_for(lambda heard=heard: number() > heard + 25, "more than its watchdog's time")
        assert pids(client)["lively"] == first
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: pids(client).get("lively", first) != first and all_run(client, "lively"), "the next")
        (task,) = tasks(client).values()
        assert task["measurement"]["umask"] == 0o027
        write(tmp_path, "t.json", config(box(command("a", "true"), **space, uid="none")))
        reloaded(server)
        wait_for(lambda: not pids(client), "its end")
        reloaded(server)
        assert len(os.listdir(f"/proc/{server.pid}/fd")) == descriptors
        assert not [name for name in os.listdir(server.run_dir) if name.startswith("notify")]
        assert said(client, "t/a") == []


def test_the_network_is_followed_when_somebody_begins_to_wait_for_it(tmp_path: Path) -> None:
    file = write(tmp_path, "t.json", config(box(command("a", "true"))))
    with serving(tmp_path, file) as server, server.local() as client:
        waits = command("waits", "exec sleep 1000", autostart={"conditions": {"link": "!none-such"}})
        write(tmp_path, "t.json", config(box(waits)))
        reloaded(server)
        wait_for(lambda: all_run(client, "waits"), "its start")
