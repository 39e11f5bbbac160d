"""A clock that jumps, as where none is right until the network tells the time: nothing is early or late."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from qemu.guest import Guest

CONFIG = """
metadata: {uid: clock, api: clock}
sandboxes:
  uid: s
  acls: {user: root}
  commands:
    - uid: again
      autostart: {restart: {policy: always, jitter: 0, pause: 900, longest: 900}}
      exec: {cmdpath: /bin/true}
    - uid: late
      autostart: {ready: exited, start_timeout: 900}
      exec: &wait {cmdpath: /bin/sleep, args: ["900"]}
    - uid: alive
      autostart: {ready: notify, watchdog: 900}
      exec: {cmdpath: /bin/sh, args: [-c, systemd-notify --ready; exec sleep 900]}
    - {uid: limited, timeout: 900, exec: *wait}
    - {uid: soon, timeout: 2, exec: *wait}
"""
RUN_DIR = "/run/clock"
CALL = ("initspawn", "call", "--run-dir", RUN_DIR)


@pytest.fixture
def served(guest: Guest) -> Iterator[Guest]:
    """The guest with a supervisor of that file; its clock is right again at the end."""
    guest.write("/run/clock.yaml", CONFIG.encode())
    unit = ("--unit=clock", "--quiet", "--collect", "--property=Delegate=yes", "--property=KillMode=mixed")
    now = guest.check("date", "+%s").strip()
    serve = ("initspawn", "serve", "--port", "0", "--run-dir", RUN_DIR, "/run/clock.yaml")
    guest.check("systemd-run", *unit, *serve)
    try:
        yield guest
    finally:
        guest.check("date", "--set", f"@{now}")
        guest.check("systemctl", "stop", "clock")


def told(guest: Guest, verb: str) -> list[dict[str, Any]]:
    """What a verb answers that lists something."""
    found: list[dict[str, Any]] = json.loads(guest.check(*CALL, verb))
    return found


def states(guest: Guest) -> dict[str, str]:
    """What became of each command that starts by itself, and of each task with a time limit that is far."""
    lasting = [task for task in told(guest, "initspawn/tasks") if task["command"] != "soon"]
    tasks = {task["id"]: task["state"] for task in lasting}
    return tasks | {one["command"]: one["state"] for one in told(guest, "initspawn/services")}


def test_only_time_that_passes_counts(served: Guest) -> None:
    wanted = {"clock/again": "paused", "clock/late": "starting", "clock/alive": "running"}
    served.shell(f"until {' '.join(CALL)} initspawn/ping; do sleep 0.5; done")
    served.check(*CALL, "--no-follow", "clock/limited")
    end = time.monotonic() + 60
    while (before := states(served)) != before | wanted:
        assert time.monotonic() < end, before
    for date in ("2036-02-29", "1970-01-02"):
        served.check("date", "--set", date)
        assert served.run(*CALL, "clock/soon").code != 0  # its two seconds pass, now as ever
        *_, last = [task for task in told(served, "initspawn/tasks") if task["command"] == "soon"]
        assert last["reason"] == "timeout"
        assert states(served) == before
