"""From the kernel's start of PID 1 to a unit of systemd's: nobody forgets what was started."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.exceptions import InvalidHandshake
from websockets.sync.client import connect

from qemu.__main__ import options
from qemu.guest import Guest
from qemu.image import Image
from qemu.machine import Shape

GROUP = "/sys/fs/cgroup/system.slice/initspawn.service"
# Reads a task's events from the first one on until it has as many lines.
READ = """
import sys
sys.path.insert(0, "/opt/initspawn")
from initspawn.control.client import Client
verb, wanted = sys.argv[1], int(sys.argv[2])
with Client("/run/initspawn/control", 60) as client:
    known = client.call("initspawn/tasks").response
    (pid,) = [task["pid"] for task in known if verb == task["api"] + "/" + task["command"]]
    client.call(verb, {"action": "subscribe", "args": {"pid": pid, "from": 1}})
    for _, event in zip(range(wanted), client.events()):
        print(event.seq, event.data.get("stdout"))
"""


PORT = 1234

# What comes behind the image's own: a command more in its last sandbox, and a sandbox more.
SMALL = """
      - {uid: fresh, encoder: sync, exec: {cmdpath: /usr/bin/echo, args: [fresh]}}
  - uid: small
    prefix: ""
    acls: {user: nobody}
    cgroups: {pids: %d, scope: sandbox}
    namespace: {}
    commands: {uid: keeps, exec: {cmdpath: /usr/bin/sleep, args: [infinity]}}
"""


@pytest.fixture(scope="module")
def early(image: Image) -> Iterator[Guest]:
    """A machine whose PID 1 was ours, with its unit adopted, as `make boot` boots it."""
    with Guest(Shape(image, cpus=2, memory=1024, append=options(PORT))) as machine:
        machine.wait_agent()
        machine.run("systemctl", "is-system-running", "--wait")
        yield machine


def tasks(guest: Guest) -> dict[str, dict[str, Any]]:
    """The tasks by the name of their command, as the control socket tells them."""
    found = json.loads(guest.check("initspawn", "call", "initspawn/tasks"))
    return {task["command"]: task for task in found}


def show(guest: Guest, name: str) -> str:
    """One property of the unit."""
    return guest.check("systemctl", "show", "initspawn", f"--property={name}", "--value").strip()


def since_boot(guest: Guest, pid: int | str) -> float:
    """When a process was started, in seconds of the kernel's clock."""
    fields = guest.read(f"/proc/{pid}/stat").decode().rpartition(")")[2].split()
    return int(fields[19]) / 100


def test_the_unit_has_the_supervisor_that_was_there_before(early: Guest) -> None:
    assert early.run("systemctl", "is-system-running", "--wait").out == "running\n"
    pid = show(early, "MainPID")
    assert show(early, "ActiveState") == "active"
    assert early.read("/proc/1/comm") == b"systemd\n"
    # systemd starts its first other process after ours.
    assert since_boot(early, pid) < since_boot(early, show_of(early, "systemd-journald", "MainPID"))
    assert early.run("test", "-e", "/sys/fs/cgroup/initspawn").code == 1
    assert re.search(rf"/initspawn-{pid}-\d+\.supervisor\n", early.read(f"/proc/{pid}/cgroup").decode())


def test_the_time_line_of_the_boot(early: Guest) -> None:
    """From PID 1's first work to the adoption, and what the handover waited for."""
    told = json.loads(early.check("initspawn", "explain", "--boot", "--json"))
    times = {mark["what"]: mark["time"] for mark in told["marks"]}
    marks = [what for what in sorted(times, key=times.__getitem__) if not what.startswith("stage")]
    assert marks[:6] == [
        "init started", "supervisor started", "plan loaded", "control socket answers", "handover decided",
        "adopted by a unit",
    ]  # fmt: skip
    began = since_boot(early, show(early, "MainPID"))
    assert times["init started"] <= began <= times["adopted by a unit"]
    assert times["supervisor started"] <= times["stage early"] <= times["handover decided"]
    assert times["adopted by a unit"] <= times["stage system"] <= times["stage api"]
    first, *_ = told["critical"]
    assert first["to"] == "handover decided"
    (step,) = first["path"]
    assert step["what"] == "boot/made"
    assert step["took"] >= 0.2
    assert step["at"] <= times["handover decided"]
    assert "critical path to: handover decided" in early.check("initspawn", "explain", "--boot")


def show_of(guest: Guest, unit: str, name: str) -> str:
    return guest.check("systemctl", "show", unit, f"--property={name}", "--value").strip()


def test_the_demonstration_answers_from_here(early: Guest) -> None:
    """As a person's browser does, through the forwarded port."""
    said = rf"initspawn: ready at \S+ \(WebSocket: (ws://127\.0\.0\.1:{PORT}\S+)\)"
    announced = early.wait_console(said)
    address = announced[1].replace(f":{PORT}/", f":{early.forward(PORT)}/")
    end = time.monotonic() + 60
    while True:  # the port here is open before the guest's is
        try:
            socket = connect(address, subprotocols=["x-afb-ws-json1"], open_timeout=5, proxy=None)  # type: ignore[list-item]
            break
        except (OSError, EOFError, InvalidHandshake, TimeoutError):
            assert time.monotonic() < end
            time.sleep(0.2)
    with socket:
        socket.send(json.dumps([2, "1", "demo/ping", None]))
        answer = json.loads(socket.recv(timeout=60))
    assert answer[:2] == [3, "1"], answer
    assert "pong=" in early.check("initspawn", "call", "--run-dir", "/run/initspawn-demo", "demo/ping")


def test_five_tasks_keep_pid_group_and_state(early: Guest) -> None:
    found = tasks(early)
    assert set(found) == {"count", "boxed", "stopped", "silent", "ended", "made"}
    journald = since_boot(early, show_of(early, "systemd-journald", "MainPID"))
    for name in ("count", "boxed", "stopped", "silent"):
        task = found[name]
        assert task["state"] == "running"
        assert since_boot(early, task["pid"]) < journald
        assert (
            early.read(f"/proc/{task['pid']}/cgroup").decode().startswith("0::/system.slice/initspawn.serv")
        )
    assert found["ended"]["status"] == {"exit": 3}
    assert found["ended"]["reason"] == "exit"


@pytest.mark.parametrize("verb", ["boot/count", "boot/boxed"])
def test_no_line_is_lost_or_doubled(early: Guest, verb: str) -> None:
    """Across the exec of systemd and the adoption, both of which came at some line of these."""
    lines = early.check("python3", "-c", READ, verb, "60").splitlines()
    assert lines == [f"{number} {number}" for number in range(1, 61)]


def test_output_before_anybody_could_ask_is_kept(early: Guest) -> None:
    assert early.check("python3", "-c", READ, "boot/stopped", "1") == "1 before\n"


def test_one_that_was_stopped_goes_on_and_its_end_is_known(early: Guest) -> None:
    pid = tasks(early)["stopped"]["pid"]
    early.shell(f"kill -CONT {pid}; while test -e /proc/{pid}; do sleep 0.1; done; sleep 0.5")
    task = tasks(early)["stopped"]
    assert (task["status"], task["state"]) == ({"exit": 7}, "ended")


def test_what_it_says_goes_to_the_journal(early: Guest) -> None:
    early.shell(
        "kill -KILL $(pgrep -f 'boot/__main__.py early' | sed -n 2p)"
    )  # the spawner: its spare takes over
    said = early.shell(
        "for i in $(seq 50); do journalctl -u initspawn -o cat --no-pager | grep 'spawner died' && exit;"
        " sleep 0.2; done; exit 1"
    )
    assert "the spawner died; its spare takes its place" in said


def test_limits_of_who_did_not_run_at_the_adoption(early: Guest) -> None:
    assert early.check("initspawn", "call", "boot/weight") == "50\n"


def test_daemon_reexec_changes_nothing(early: Guest) -> None:
    before = show(early, "MainPID"), {name: task["pid"] for name, task in tasks(early).items()}
    early.check("systemctl", "daemon-reexec")
    early.check("systemctl", "daemon-reload")
    assert (show(early, "MainPID"), {name: task["pid"] for name, task in tasks(early).items()}) == before
    assert show(early, "ActiveState") == "active"


def test_reload_takes_the_plan_that_is_there_and_ends_nothing(early: Guest) -> None:
    """A verb more, other limits; then a plan that is damaged, and what is none: all goes on as it was."""

    def state() -> object:
        running = {name: one["pid"] for name, one in tasks(early).items() if one["state"] == "running"}
        return show(early, "MainPID"), show(early, "ActiveState"), running

    def limited(most: int) -> int:
        """Reload with this limit, start a task that has it; its pid."""
        small = SMALL % most
        early.write("/run/small.yaml", small.encode())
        early.shell(
            "cat /opt/initspawn/qemu/boot.yaml /run/small.yaml >/run/boot.yaml;"
            f" initspawn compile /run/boot.yaml -o {place}; systemctl reload initspawn"
        )
        started = early.check("initspawn", "call", "boot/keeps", "--no-follow", "--json")
        return int(json.loads(started)["response"]["pid"])

    before, place = state(), "/etc/initspawn/boot.plan"
    early.check("cp", place, "/run/first.plan")
    pids = [limited(50), limited(60)]
    assert early.check("initspawn", "call", "boot/fresh") == "fresh\n"
    for pid, home, most in zip(pids, ("/_boot.small/", "/+1_boot.small/"), ("50", "60"), strict=True):
        group = early.read(f"/proc/{pid}/cgroup").decode().partition("::")[2].strip()
        assert home in group
        path = f"/sys/fs/cgroup{group.partition(home)[0]}{home}pids.max"
        assert early.read(path).decode().strip() == most
    early.check("initspawn", "call", "boot/keeps", "--action", "stop", "signal=SIGKILL")
    early.shell(f"while test -e /proc/{pids[0]} -o -e /proc/{pids[1]}; do sleep 0.1; done; sleep 0.5")
    assert state() == before
    info = json.loads(early.check("initspawn", "call", "initspawn/info"))
    assert info["plan"] == {"file": place, "refused": []}
    for spoil in (f"truncate -s -1 {place}", f"mkdir -p {place}", f"ln -s nowhere {place}"):
        early.shell(spoil)
        assert early.run("systemctl", "reload", "initspawn").code == 1
        assert early.check("initspawn", "call", "boot/fresh") == "fresh\n"
        assert state() == before
        early.shell(f"rm -rf {place}")
    early.shell(f"rm -f {place}.last; cp /run/first.plan {place}")
    assert early.check("initspawn", "reload").startswith("initspawn: reloaded: 1 API, ")
    assert early.run("initspawn", "call", "boot/fresh").code == 127
    assert state() == before
    assert f"{place}: " in early.check("journalctl", "-u", "initspawn", "-o", "cat", "--no-pager")
    lines = early.check("python3", "-c", READ, "boot/boxed", "200").splitlines()
    assert lines == [f"{number} {number}" for number in range(1, 201)]


def test_restart_makes_everything_anew_and_leaves_nothing(early: Guest) -> None:
    before = {task["pid"] for task in tasks(early).values() if task["state"] == "running"}
    first = show(early, "MainPID")
    early.check("systemctl", "restart", "initspawn")
    assert show(early, "MainPID") != first
    after = tasks(early)
    assert {name for name, task in after.items() if task["state"] == "running"} >= {
        "count",
        "boxed",
        "silent",
    }
    assert not before & {task["pid"] for task in after.values()}
    for pid in before:
        assert early.run("test", "-e", f"/proc/{pid}").code == 1


def test_a_supervisor_that_is_killed_is_restarted(early: Guest) -> None:
    first = show(early, "MainPID")
    old = tasks(early)["count"]["pid"]
    early.shell(
        f"kill -KILL {first}; while systemctl show -p MainPID --value initspawn | grep -qx -e {first} -e 0;"
        " do sleep 0.1; done; systemctl start initspawn"
    )
    assert tasks(early)["count"]["pid"] != old
    assert early.run("test", "-e", f"/proc/{old}").code == 1
    assert int(show(early, "NRestarts")) >= 1


def test_the_watchdog_ends_one_that_hangs(early: Guest) -> None:
    place = "/run/systemd/system/initspawn.service.d"
    early.check("mkdir", "-p", place)
    early.write(f"{place}/soon.conf", b"[Service]\nWatchdogSec=6\n")
    early.shell("systemctl daemon-reload; systemctl restart initspawn")
    first = show(early, "MainPID")
    early.shell("sleep 8")
    assert show(early, "MainPID") == first  # it says that it lives
    early.shell(
        f"kill -STOP {first}; while test $(systemctl show -p MainPID --value initspawn) = {first};"
        " do sleep 0.2; done"
    )
    assert "Failed with result 'watchdog'" in early.shell("journalctl -u initspawn -o cat --no-pager")


def test_stop_ends_everything(early: Guest) -> None:
    early.check("systemctl", "start", "initspawn")
    pids = [task["pid"] for task in tasks(early).values() if task["state"] == "running"]
    assert len(pids) >= 3
    early.check("systemctl", "stop", "initspawn")
    assert show(early, "Result") == "success"
    assert early.run("test", "-e", GROUP).code == 1
    for pid in pids:
        assert early.run("test", "-e", f"/proc/{pid}").code == 1
    early.check("systemctl", "start", "initspawn")
    assert tasks(early)["count"]["state"] == "running"


def test_a_stop_takes_as_long_as_its_commands_may(early: Guest) -> None:
    early.check("touch", "/run/slow")
    early.shell(
        "until initspawn call initspawn/tasks | grep -q slow; do sleep 0.2; done; sleep 0.5; rm /run/slow"
    )
    place = "/run/systemd/system/initspawn.service.d"
    early.check("mkdir", "-p", place)
    early.write(f"{place}/short.conf", b"[Service]\nTimeoutStopSec=3\n")
    took = early.shell(
        "systemctl daemon-reload; read -r from _ </proc/uptime; systemctl stop initspawn;"
        ' read -r to _ </proc/uptime; echo $((${to%.*} - ${from%.*}))'
    )
    assert show(early, "Result") == "success"
    assert int(took) >= 3
    early.shell(f"rm {place}/short.conf; systemctl daemon-reload; systemctl start initspawn")


def test_power_off_is_orderly(early: Guest) -> None:
    """The last one."""
    early.power_off()
    assert re.search(r"reboot: Power down", early.console())
