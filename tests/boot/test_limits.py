"""Limits of cgroups where the controllers are: in delegated units of the guest, as root and as a user."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from qemu.guest import Guest
from qemu.testing import in_unit

NOBODY = "User=nobody"
MEMORY = "held = bytearray(400 << 20); print('got it')"
# Each is small, and their parent smaller: all of them have to go.
MEMORIES = """
import os, time
for _ in range(8):
    if os.fork() == 0:
        held = bytearray(20 << 20)
        time.sleep(60)
os.wait()
print('got it')
"""
FORKS = """
import os, signal
made = 0
try:
    while True:
        if os.fork() == 0:
            signal.pause()
        made += 1
except BlockingIOError:
    print(made)
"""
HOG = """
import os, time
end = time.monotonic() + 4
for _ in range(3):
    if os.fork() == 0: break
while time.monotonic() < end: pass
"""
SHARED = """
import time
held = bytearray(40 << 20)
time.sleep(8)
"""
PYTHON = {"memory": MEMORY, "memories": MEMORIES, "forks": FORKS, "hog": HOG, "shared": SHARED}
LIMITS = {
    "cset": "0", "mem": {"max": "64M", "swap": 0, "high": "max"}, "cpu": {"max": "20%", "weight": 50},
    "pids": 20, "io": "259:0 wbps=100M",
}  # fmt: skip


def config(*, root: bool, **more: Any) -> bytes:
    """As initspawn reads it: the same commands in a limited sandbox and in one of all tasks together."""
    commands = [
        {"uid": uid, "encoder": "sync", "exec": {"cmdpath": "/usr/bin/python3", "args": ["-I", "-c", text]}}
        for uid, text in PYTHON.items()
    ]
    boxes = []
    for uid, limits in (("box", LIMITS), ("all", {"mem": {"max": "64M", "swap": 0}, "scope": "sandbox"})):
        boxes.append(
            {"uid": uid, "prefix": uid, "namespace": {}, "cgroups": {**limits, **more}, "commands": commands}
        )
        if root:
            boxes[-1]["acls"] = {"user": "nobody"}
    return json.dumps({"metadata": {"uid": "t", "api": "t"}, "sandboxes": boxes}).encode()


# Of what is the same for both the long run tries the other one as well.
AS_ROOT = pytest.mark.parametrize(
    "who", ["root", pytest.param("user", marks=pytest.mark.soak)], indirect=True
)
AS_USER = pytest.mark.parametrize(
    "who", [pytest.param("root", marks=pytest.mark.soak), "user"], indirect=True
)


@pytest.fixture
def who(request: pytest.FixtureRequest, guest: Guest) -> tuple[str, list[str]]:
    """A configuration's path, and the properties of the unit that runs it."""
    root = request.param == "root"
    path = f"/run/limits-{request.param}.json"
    guest.write(path, config(root=root))
    return path, [] if root else [NOBODY]


def end_of(guest: Guest, who: tuple[str, list[str]], verb: str, *options: str) -> tuple[dict[str, Any], str]:
    """The last event of a command run in a unit, and what came on stderr."""
    path, properties = who
    done = guest.run(*in_unit("initspawn", "run", "--json", *options, path, verb, properties=properties))
    assert done.out, done.err
    end: dict[str, Any] = json.loads(done.out.splitlines()[-1])
    return end, done.out + done.err


@AS_USER
@pytest.mark.parametrize("bomb", ["memory", pytest.param("memories", marks=pytest.mark.soak)])
def test_a_memory_bomb_ends_at_its_limit(guest: Guest, who: tuple[str, list[str]], bomb: str) -> None:
    end, _ = end_of(guest, who, f"box/{bomb}")
    assert (end["status"], end["reason"]) == ({"signal": "Killed"}, "memory")
    assert "stdout" not in end
    if "peak-bytes" in end["usage"]:  # since Linux 5.19
        assert 32 << 20 < end["usage"]["peak-bytes"] <= 64 << 20


@AS_ROOT
def test_a_fork_bomb_ends_at_its_limit(guest: Guest, who: tuple[str, list[str]]) -> None:
    end, _ = end_of(guest, who, "box/forks")
    assert (end["status"], end["stdout"], end["reason"]) == ({"exit": 0}, ["19"], "exit")
    assert end["usage"].get("processes", 20) == 20
    assert guest.run("pgrep", "-u", "nobody", "python3").out == ""


@AS_USER
def test_a_processor_hog_gets_its_share(guest: Guest, who: tuple[str, list[str]]) -> None:
    end, _ = end_of(guest, who, "box/hog")
    usage = end["usage"]
    assert end["reason"] == "exit"
    assert usage["seconds"] > 3.5
    assert usage["user-seconds"] + usage["system-seconds"] < 0.3 * usage["seconds"]


@AS_ROOT
def test_what_is_in_force_is_measured(guest: Guest, who: tuple[str, list[str]]) -> None:
    _, told = end_of(guest, who, "box/forks", "--verbose", "9")
    for text in (
        "'memory.max': '67108864'", "'memory.swap.max': '0'", "'cpu.max': '20000 100000'", "'pids.max': '20'",
        "'cpuset.cpus': '0'", "'cpu.weight': '50'", "wbps=104857600",
        ".service/initspawn-",
    ):  # fmt: skip
        assert text in told
    assert "/_t.box/task-1/main" in told


@AS_ROOT
def test_nothing_is_left_of_the_groups(guest: Guest, who: tuple[str, list[str]]) -> None:
    path, properties = who
    script = f"""
        cd /sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup)
        initspawn run {path} box/forks & wait $!
        find . -type d; cat cgroup.subtree_control
    """
    # Not alone in its group: refused with the remedy, and as it was.
    done = guest.run(*in_unit("sh", "-c", script, properties=properties))
    assert "others are in" in done.err
    assert "Delegate=yes" in done.err
    assert done.out == ".\n"
    # A shell that goes away first leaves it alone, and its end is looked at from a sibling.
    script = f"""
        cd /sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup)
        mkdir here there
        echo $$ >here/cgroup.procs
        echo "+cpuset +cpu +io +memory +pids" >cgroup.subtree_control
        sh -c 'echo $$ >there/cgroup.procs; exec initspawn run {path} box/forks'
        find there -type d; cat there/cgroup.subtree_control
    """
    done = guest.run(*in_unit("sh", "-c", script, properties=properties))
    assert done.out == "19\nthere\n", done.err


def test_without_delegation_a_user_is_told(guest: Guest) -> None:
    guest.write("/run/limits-user.json", config(root=False))
    done = guest.run(
        *in_unit("initspawn", "run", "/run/limits-user.json", "box/forks", properties=[NOBODY, "Delegate=no"])
    )
    assert done.code != 0
    assert "Permission denied" in done.err
    assert "Delegate=yes" in done.err
    guest.write("/run/limits-optional.json", config(root=False, optional=True, pids=20))
    done = guest.run(
        *in_unit(
            "initspawn", "run", "/run/limits-optional.json", "all/hog", properties=[NOBODY, "Delegate=no"]
        )
    )
    assert done.code == 0, done.err
    assert "runs without its limits" in done.err


def test_the_supervisor_serves_while_its_tasks_are_contained(guest: Guest) -> None:
    """Under a unit, with all bombs at once; its stop leaves nothing."""
    guest.write("/run/limits-root.json", config(root=True))
    unit = ("--unit=limits", "--quiet", "--collect", "--property=Delegate=yes", "--property=KillMode=mixed")
    serve = ("initspawn", "serve", "--port", "0", "--run-dir", "/run/limits", "/run/limits-root.json")
    guest.check("systemd-run", *unit, *serve)
    call = ("initspawn", "call", "--run-dir", "/run/limits")
    try:
        guest.shell(f"until {' '.join(call)} initspawn/ping; do sleep 0.2; done", timeout=120)
        bombs = [guest.start(*call, verb) for verb in ("t/box/hog", "t/box/memory", "t/box/memories")]
        slowest = 0.0
        while not all(bomb.code is not None for bomb in bombs):
            began = time.monotonic()
            assert guest.check(*call, "initspawn/ping").strip().strip('"').startswith("pong=")
            slowest = max(slowest, time.monotonic() - began)
        assert slowest < 20
        assert bombs[1].wait().code == bombs[2].wait().code == 137
        assert bombs[0].wait().code == 0
        # Two tasks of 40 MB do not fit into the 64 MB of all: the kernel chooses which one ends.
        pair = [guest.start(*call, "t/all/shared") for _ in range(2)]
        assert 137 in [one.wait().code for one in pair]
    finally:
        guest.check("systemctl", "stop", "limits")
    assert guest.run("test", "-e", "/sys/fs/cgroup/system.slice/limits.service").code == 1
    assert "failed" not in guest.run("systemctl", "is-failed", "limits").out
