"""A machine whose only init is ours: it runs, comes back, and ends as it was told."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from qemu.faults import altered
from qemu.guest import Guest
from qemu.image import Image
from qemu.machine import Shape

PLAN = "/etc/initspawn/boot.plan"
APPEND = "quiet init=/usr/sbin/initspawn-init initspawn.init=none"
SECONDS = 90.0
# Nobody else loads modules. The agent's port has no name without udev.
AGENT = """
modprobe -a virtio_pci virtio_console button evdev
until set -- /dev/vport*p1 && [ -e "$1" ]; do sleep 0.1; done
exec python3 -I -S /opt/initspawn/qemu/agent.py "$1"
"""


def polite(name: str, seconds: int) -> str:
    """A service that says when it ends, after so many seconds."""
    end = f"sleep {seconds}; echo {name} ends >/dev/console; exit 0"
    return f"trap '{end}' TERM; while :; do sleep 0.2; done"


def kiosk(image: Image, place: Path) -> Image:
    """The image with a plan of three services: our way in, and two of which one needs the other."""
    top = {"after": "base", "stage": "api", "stop_timeout": 30}
    services = {"agent": (AGENT, {}), "base": (polite("base", 0), {}), "top": (polite("top", 2), top)}
    commands = [
        {
            "uid": name,
            "autostart": start,
            "exec": {"cmdpath": "/bin/sh", "args": ["-c", line.replace("$", "$$")]},
        }
        for name, (line, start) in services.items()
    ]
    everything = {"cap": "ALL", "mode": "set"}  # among it: loading modules
    sandbox = {"uid": "s", "acls": {"user": "root"}, "caps": everything, "commands": commands}
    config, plan = place / "kiosk.json", place / "kiosk.plan"
    config.write_text(json.dumps({"metadata": {"uid": "kiosk", "api": "kiosk"}, "sandboxes": sandbox}))
    compiler = [sys.executable, "-m", "initspawn", "compile", "--arch", "x86_64", str(config)]
    subprocess.run([*compiler, "-o", str(plan)], check=True)
    return altered(image, place, {PLAN: plan.read_bytes()}, mode="0100600")


def token(guest: Guest) -> str:
    """One for the control socket, whose door trusts no task."""
    add = ("initspawn", "token", "add", "agent", "--scope", "*", "--state-dir", "/run/initspawn")
    return guest.check(*add).split()[-1]


def began(guest: Guest, known: str) -> str:
    """The supervisor, once all services run that its control socket tells of."""
    end = time.monotonic() + SECONDS
    while True:
        done = guest.run("initspawn", "call", "--token", known, "initspawn/services")
        if [service["state"] for service in json.loads(done.out or "[]")] == ["running"] * 3:
            return guest.check("pgrep", "-of", "boot/__main__.py alone").strip()
        assert time.monotonic() < end, done


def ended(guest: Guest, way: str, kernel: str) -> None:
    """Its end came in the right order, and with disks that nobody writes to any more."""
    guest.wait(SECONDS)
    shown = guest.console()
    assert re.search(f"top ends.*base ends.*the end: {way}.*re-mounted.*{kernel}", shown, re.S), shown[-3000:]
    assert "stays writable" not in shown


def test_it_comes_back_and_the_power_button_ends_it(image: Image, tmp_path: Path) -> None:
    with Guest(Shape(kiosk(image, tmp_path), memory=512, append=APPEND)) as guest:
        guest.wait_agent()
        assert guest.read("/proc/1/cmdline").startswith(b"/bin/sh\0/usr/sbin/initspawn-init\0")
        assert guest.read("/proc/sys/kernel/ctrl-alt-del") == b"0\n"
        guest.shell("setsid sleep 86399 &")
        known = token(guest)
        first = began(guest, known)
        guest.start("kill", "-KILL", first)
        hellos = guest.hellos
        guest.until(lambda: guest.hellos > hellos, SECONDS, "another agent")
        assert began(guest, known) != first
        assert guest.run("pgrep", "-f", "sleep 86399").code == 1  # nothing of the old one's is left
        guest.check("dmesg", "-n", "7")
        guest.power_button()
        ended(guest, "poweroff", "reboot: Power down")


def press_keys(guest: Guest) -> None:
    keys = [{"type": "qcode", "data": key} for key in ("ctrl", "alt", "delete")]
    guest.qmp.execute("send-key", keys=keys)


def terminate(guest: Guest) -> None:
    guest.start("kill", "-TERM", "1")


@pytest.mark.soak
@pytest.mark.parametrize(
    ("ask", "way", "kernel"),
    [(press_keys, "reboot", "Restarting system"), (terminate, "poweroff", "Power down")],
)
def test_what_pid_1_is_told_is_an_orderly_end(
    image: Image, tmp_path: Path, ask: Callable[[Guest], None], way: str, kernel: str
) -> None:
    with Guest(Shape(kiosk(image, tmp_path), memory=512, append=APPEND)) as guest:
        guest.wait_agent()
        began(guest, token(guest))
        guest.check("dmesg", "-n", "7")
        ask(guest)
        ended(guest, way, f"reboot: {kernel}")
