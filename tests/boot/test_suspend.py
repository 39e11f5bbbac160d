"""A machine that sleeps: the time of its sleep is nobody's, so nothing is early, given up, or lost."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from typing import Any

import pytest

from qemu.guest import Guest
from qemu.image import Image
from qemu.machine import Shape

LIMIT = 20.0  # seconds that may pass before and after the sleep together
SLEEP = 30.0
DOG = 10  # seconds, of both watchdogs
CONFIG = f"""
metadata: {{uid: t, api: t}}
sandboxes:
  uid: s
  acls: {{user: root}}
  commands:
    - uid: again
      autostart: {{restart: {{policy: always, jitter: 0, pause: {LIMIT}, longest: {LIMIT}}}}}
      exec:
        cmdpath: /usr/bin/python3
        args: [-c, "import time; print(time.monotonic(), file=open('/run/again', 'a'))"]
    - uid: alive
      autostart: {{ready: notify, watchdog: {DOG}}}
      exec:
        cmdpath: /bin/sh
        args: [-c, "systemd-notify --ready; while sleep 1; do systemd-notify WATCHDOG=1; done"]
    - {{uid: limited, timeout: {LIMIT}, exec: {{cmdpath: /bin/sleep, args: ["900"]}}}}
    - uid: counts
      encoder: line
      exec: {{cmdpath: /bin/sh, args: [-c, "i=0; while sleep 0.1; do i=$$((i+1)); echo $$i; done"]}}
"""
RUN_DIR = "/run/sleeps"
CALL = ("initspawn", "call", "--run-dir", RUN_DIR)
CLOCKS = "import time; print(time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME))"
# Follows `counts` from its first event on, also while the machine sleeps; stops at its end.
FOLLOW = f"""
import sys
sys.path.insert(0, "/opt/initspawn")
from initspawn.control.client import Client
with Client("{RUN_DIR}/control") as client:
    client.call("t/counts", {{"action": "start"}})
    for event in client.events():
        print(event.seq, event.data.get("stdout", event.data["type"]), flush=True)
        if event.data["type"] == "final-event":
            break
"""


def told(guest: Guest, verb: str) -> dict[str, dict[str, Any]]:
    """What a verb answers that lists something, by the command it is about."""
    found = json.loads(guest.check(*CALL, verb))
    return {one["command"].rpartition("/")[2]: one for one in found}


def clocks(guest: Guest) -> tuple[float, float]:
    """Seconds since the kernel began: those that it was awake, and all."""
    awake, both = guest.check("python3", "-c", CLOCKS).split()
    return float(awake), float(both)


def sleep(guest: Guest) -> None:
    """Suspend it to memory, and wake it up."""
    asleep = guest.start("sh", "-c", "echo mem >/sys/power/state")
    end = time.monotonic() + 60
    while guest.qmp.execute("query-status")["status"] != "suspended":
        assert time.monotonic() < end
        time.sleep(0.2)
    time.sleep(SLEEP)
    guest.qmp.execute("system_wakeup")
    assert asleep.wait().code == 0


def supervisor(guest: Guest) -> str:
    return guest.check("systemctl", "show", "initspawn", "--property=MainPID", "--value").strip()


@pytest.mark.soak
def test_only_time_awake_counts(image: Image) -> None:
    with Guest(Shape(image, cpus=2, memory=1024, append="quiet init=/usr/sbin/initspawn-init")) as guest:
        guest.wait_agent()
        guest.run("systemctl", "is-system-running", "--wait")
        guest.check("mkdir", "-p", "/run/systemd/system/initspawn.service.d")
        dog = f"[Service]\nWatchdogSec={DOG}\n"
        guest.write("/run/systemd/system/initspawn.service.d/dog.conf", dog.encode())
        guest.shell("systemctl daemon-reload; systemctl restart initspawn")
        guest.write("/run/sleeps.yaml", CONFIG.encode())
        unit = ("--unit=sleeps", "--quiet", "--property=Delegate=yes", "--property=KillMode=mixed")
        serve = ("initspawn", "serve", "--port", "0", "--run-dir", RUN_DIR, "/run/sleeps.yaml")
        guest.check("systemd-run", *unit, *serve)
        guest.shell(f"until {' '.join(CALL)} initspawn/ping; do sleep 0.5; done")
        guest.shell(f"until {' '.join(CALL)} initspawn/services | grep running; do sleep 0.5; done")
        first, alive = supervisor(guest), told(guest, "initspawn/services")["alive"]
        follows = guest.start("python3", "-c", FOLLOW)
        guest.check(*CALL, "--no-follow", "t/limited")
        before = clocks(guest)
        sleep(guest)
        after = clocks(guest)
        slept = (after[1] - before[1]) - (after[0] - before[0])
        assert slept > SLEEP - 5
        guest.shell(f"until {' '.join(CALL)} initspawn/tasks | grep timeout; do sleep 0.5; done")
        limited = told(guest, "initspawn/tasks")["limited"]
        assert limited["reason"] == "timeout"
        assert limited["usage"]["seconds"] > LIMIT - 1  # they are counted from a little later on
        guest.shell("until [ $(wc -l </run/again) -ge 3 ]; do sleep 0.5; done")
        times = [float(line) for line in guest.read("/run/again").split()]
        assert all(later - earlier >= LIMIT for earlier, later in pairwise(times))
        guest.shell(f"sleep {1.5 * DOG}")  # whoever has not been heard is given up by now
        services = told(guest, "initspawn/services")
        assert (services["alive"]["state"], services["alive"]["task"]) == ("running", alive["task"])
        assert supervisor(guest) == first
        assert "watchdog" not in guest.shell("journalctl -u initspawn -u sleeps -o cat --no-pager")
        guest.run(*CALL, "t/counts", '{"action": "stop"}')
        heard = [line.split() for line in follows.wait().out.splitlines()]
        assert [int(seq) for seq, _ in heard] == list(range(1, len(heard) + 1))
        assert [line for _, line in heard[:-1]] == [str(number) for number in range(1, len(heard))]
