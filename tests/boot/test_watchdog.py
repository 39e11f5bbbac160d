"""A machine whose only init is ours feeds its own watchdog; nobody else does it there."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from qemu.faults import altered
from qemu.guest import Guest
from qemu.image import Image
from qemu.machine import GuestError, Machine, Shape
from tests.boot.test_faults import compiled
from tests.boot.test_kiosk import APPEND, PLAN, SECONDS, began, kiosk, token

pytestmark = pytest.mark.soak
ROOT = Path(__file__).parents[2]
PLACE = "/opt/initspawn"
HALT, WATCHDOG = "initspawn/boot/halt.py", "initspawn/boot/watchdog.py"
DEVICE = "/dev/watchdog0"
BITES = "softdog: Initiating system reboot"


def watchdog(guest: Guest, known: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(guest.check("initspawn", "call", "--token", known, "initspawn/info"))
    return dict(found["watchdog"])


def fed(guest: Guest, known: str) -> dict[str, Any]:
    """What is told of it, once it has been taken."""
    end = time.monotonic() + SECONDS
    while not (found := watchdog(guest, known))["fed"]:
        assert time.monotonic() < end, found
    return found


def test_a_busy_machine_goes_on_and_one_that_hangs_restarts(image: Image, tmp_path: Path) -> None:
    """The watchdog comes when we run; who hangs is replaced in time; and when nobody can do that it bites."""
    append = f"{APPEND} initspawn.watchdog=15 initspawn.patience=5"
    with Guest(Shape(kiosk(image, tmp_path), cpus=2, memory=512, append=append)) as guest:
        guest.wait_agent()
        known = token(guest)
        first = began(guest, known)
        missing = {"fed": False, "seconds": 0, "problem": f"{DEVICE}: No such file or directory"}
        assert watchdog(guest, known) == {"device": DEVICE, **missing}
        assert guest.console().count(missing["problem"]) == 1
        guest.check("modprobe", "softdog")
        assert fed(guest, known) == {"device": DEVICE, "fed": True, "seconds": 15, "problem": ""}
        busy = "for _ in 1 2 3 4; do timeout 25 sh -c 'while :; do :; done' & done; wait"
        guest.shell(busy, timeout=180)
        assert began(guest, known) == first

        hellos = guest.hellos
        guest.start("kill", "-STOP", first)
        guest.until(lambda: guest.hellos > hellos, SECONDS, "another agent")
        second = began(guest, known)
        assert second != first
        assert fed(guest, known)["seconds"] == 15
        assert "watchdog did not stop!" in guest.console()
        assert "initspawn has ended: it is started again in 1 s" in guest.console()

        stub = "$(pgrep -f '^/bin/sh /usr/sbin/initspawn-ini[t]' | grep -vx 1)"
        guest.start("sh", "-c", f"kill -STOP {stub} {second}")
        assert guest.wait(SECONDS) == 0
        assert BITES in guest.console()


def hanging(image: Image, place: Path) -> Image:
    """A kiosk of which nothing gets past the end of its services. Its watchdog has less patience then."""
    files: dict[str, bytes | None] = {}
    for path, changes in {
        HALT: {"_signal.alarm(_LONGEST)": "pass", "os.sync()": "time.sleep(9999)"},
        WATCHDOG: {"END_SECONDS = 90": "END_SECONDS = 20"},
    }.items():
        text = (ROOT / path).read_text(encoding="utf-8")
        for before, after in changes.items():
            assert text.count(before) == 1
            text = text.replace(before, after)
        files[f"{PLACE}/{path}"] = text.encode()
    (place / "kiosk").mkdir()
    return altered(kiosk(image, place / "kiosk"), place, files)


@pytest.mark.parametrize(
    ("number", "way", "option", "bites"),
    [("INT", "reboot", "", True), ("TERM", "poweroff", "", False), ("TERM", "poweroff", "nowayout=1", True)],
)
def test_an_end_that_hangs_is_cut_off_if_it_is_a_restart(
    image: Image, tmp_path: Path, number: str, way: str, option: str, bites: bool
) -> None:
    """Or if the kernel lets nobody stop the watchdog: then it is left to it, not closed."""
    append = f"{APPEND} initspawn.watchdog=10"
    with Guest(Shape(hanging(image, tmp_path), memory=512, append=append)) as guest:
        guest.wait_agent()
        known = token(guest)
        began(guest, known)
        guest.shell(f"modprobe softdog {option}")
        fed(guest, known)
        guest.start("kill", f"-{number}", "1")
        if bites:
            assert guest.wait(SECONDS) == 0
        else:
            guest.wait_console(f"the end: {way}", SECONDS)
            with pytest.raises(GuestError, match="did not end"):
                guest.wait(40)
        assert f"the end: {way}" in guest.console()
        assert (BITES in guest.console()) == bites
        # What the kernel says of the supervisor's end, which hands it on.
        assert ("watchdog did not stop" in guest.console()) == bool(option)


def test_recovery_has_all_the_time_it_wants(image: Image, tmp_path: Path) -> None:
    """Nobody feeds it any more."""
    program = "/usr/local/sbin/recovers"
    start = "{before: handover, ready: exited, on_failure: recovery}"
    plan = compiled(tmp_path, start, "modprobe softdog; sleep 5; exit 3", keys="caps: {cap: ALL, mode: set}")
    script = b"#!/bin/sh\nsleep 20\necho it has recovered >/dev/console\nsleep 60\n"
    changed = altered(image, tmp_path, {PLAN: plan}, added={program: script})
    append = f"{APPEND.replace('quiet', 'loglevel=6')} initspawn.watchdog=10 initspawn.recovery={program}"
    with Machine(Shape(changed, memory=512, append=append)) as machine:
        machine.wait_console("it has recovered", SECONDS)
        shown = machine.console()
        assert re.search(f"{DEVICE} restarts the machine after 10 s.*the end: recovery", shown, re.S)


def test_a_machine_that_does_nothing_but_swap_restarts(image: Image, tmp_path: Path) -> None:
    """All of ours has room for a part of itself, and a slow disk for the rest."""
    swap = tmp_path / "swap"
    with swap.open("wb") as file:
        file.truncate(256 << 20)
    subprocess.run(["/sbin/mkswap", "-q", str(swap)], check=True)
    append = f"{APPEND} initspawn.watchdog=15 initspawn.patience=90"
    shape = Shape(kiosk(image, tmp_path), memory=512, append=append, drives=(swap,))
    with Guest(shape) as guest:
        guest.wait_agent()
        known = token(guest)
        began(guest, known)
        guest.check("modprobe", "softdog")
        fed(guest, known)
        guest.check("swapon", "/dev/nvme1n1")
        # Bytes per second in all, read, written, then operations.
        assert guest.qmp.monitor("block_set_io_throttle d1 0 0 0 10 0 0").strip() == ""
        guest.start("sh", "-c", "echo 8M >/sys/fs/cgroup/initspawn/memory.high")
        assert guest.wait(2 * SECONDS) == 0
        assert BITES in guest.console()
