"""configs/vpn-autostart.yaml as it is, in a machine with a peer that counts what comes: qemu/vpn.yaml."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from qemu.guest import Guest
from qemu.image import Image
from qemu.machine import Shape

PLAN = "/etc/initspawn/vpn.plan"
APPEND = f"quiet init=/usr/sbin/initspawn-init initspawn.plan={PLAN}"
PLACE = "/opt/initspawn"
SECONDS = 60.0
NEIGHBOUR = "192.0.2.254"  # reached without the tunnel when the guard is open
SEND = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    try:
        sender.sendto(b"hello", (sys.argv[1], 9))
        print("sent")
    except PermissionError:
        print("refused")
"""


@pytest.fixture(scope="module")
def device(image: Image) -> Iterator[Guest]:
    """A machine whose tunnel was up before its real init was there."""
    with Guest(Shape(image, memory=768, append=APPEND)) as machine:
        machine.wait_agent()
        machine.run("systemctl", "is-system-running", "--wait")
        yield machine


def counters(text: str | bytes) -> dict[str, int]:
    """Packets by the name of the peer's rule that counts them."""
    rules = [entry["rule"] for entry in json.loads(text)["nftables"] if "rule" in entry]
    return {
        rule["comment"]: part["counter"]["packets"]
        for rule in rules
        for part in rule["expr"]
        if "counter" in part
    }


def counted(guest: Guest) -> dict[str, int]:
    return counters(guest.check("ip", "netns", "exec", "peer", "nft", "-j", "list", "ruleset"))


def refused(guest: Guest) -> int:
    """How often the talker was not allowed to send."""
    lines = guest.read("/run/talker").decode().splitlines()
    return int(dict(line.split() for line in lines).get("EPERM", 0))


def guard(guest: Guest) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(guest.check("initspawn", "call", "initspawn/info"))["guard"]
    return found


def up(guest: Guest) -> dict[str, Any]:
    """What has become of the command that the guard waits for."""
    services = json.loads(guest.check("initspawn", "call", "initspawn/services"))
    (found,) = (service for service in services if service["command"] == "vpn/up")
    return dict(found)


def wait(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.2)


def to_neighbour(guest: Guest) -> tuple[str, int]:
    """What becomes of a datagram in the open, and how many of those have left."""
    said = guest.check("python3", "-c", SEND, NEIGHBOUR).strip()
    return said, counted(guest)["plain"]


def cut(guest: Guest, way: str) -> None:
    """The peer goes, or comes back."""
    guest.check("ip", "-n", "peer", "link", "set", "wg0", way)


def fail(guest: Guest) -> None:
    """The command is killed as often as it is started."""
    while (state := up(guest))["state"] != "failed":
        if state["state"] == "starting":
            guest.run("kill", "-KILL", state["task"].partition("@")[2])
        time.sleep(0.2)


def test_nothing_but_its_own_packets_leaves_before_the_tunnel_is_up(device: Guest) -> None:
    before = counters(device.read("/run/before"))
    assert before["handshakes"] >= 1
    assert before["asked"] >= 1, "ARP passes"
    assert (before["plain"], before["tunnelled"], before["carried"]) == (0, 0, 0)
    assert refused(device) >= 5


def test_the_guard_is_there_before_the_first_other_process(device: Guest) -> None:
    lines = device.check("dmesg").splitlines()

    def line(text: str) -> int:
        return next(number for number, line in enumerate(lines) if text in line)

    assert line("initspawn: guard: closed") < line("talker: begins") < line("systemd[1]: ")


def test_then_everything_goes_through_the_tunnel(device: Guest) -> None:
    assert up(device)["state"] == "done"
    wait(lambda: guard(device) == {"state": "open", "until": "vpn/up", "repairs": 0}, "the guard to open")
    told = json.loads(device.check("initspawn", "explain", "--boot", "--json"))
    times = {mark["what"]: mark["time"] for mark in told["marks"]}
    (way,) = (one for one in told["services"] if one["command"] == "vpn/up")
    assert times["guard closed"] <= way["started"] <= way["ready"] <= times["guard open"]
    assert "active" in device.check("systemctl", "is-active", "systemd-networkd")
    first = counted(device)
    wait(lambda: counted(device)["carried"] >= first["carried"] + 10, "what the talker says")
    after = counted(device)
    assert after["tunnelled"] >= after["carried"] > 0
    assert after["plain"] == 0
    assert int(device.check("wg", "show", "wg0", "transfer").split()[2]) > 0
    assert "latest handshake" in device.check("initspawn", "call", "vpn/show")


def test_a_command_that_fails_leaves_it_closed_whoever_flushes(device: Guest) -> None:
    """With Debian's own nftables.service, which begins with `flush ruleset`."""
    cut(device, "down")
    device.check("systemctl", "restart", "initspawn")
    assert guard(device)["state"] == "closed"
    before = counted(device)
    fail(device)
    device.check("systemctl", "restart", "nftables")
    wait(lambda: guard(device)["repairs"] >= 1 and guard(device)["state"] == "closed", "the repair")
    assert to_neighbour(device) == ("refused", before["plain"])
    count = refused(device)
    wait(lambda: refused(device) > count + 5, "the talker to be refused")
    assert counted(device)["plain"] == 0
    assert counted(device)["carried"] == before["carried"]
    said = device.check("journalctl", "-u", "initspawn", "-o", "cat", "--no-pager")
    assert "its rules were changed by process" in said


@pytest.mark.soak
def test_open_on_failure_opens(device: Guest) -> None:
    """After the script, which is run a second time here, has brought the tunnel up again."""
    sample = device.read(f"{PLACE}/configs/vpn-autostart.yaml").replace(b"failure: closed", b"failure: open")
    device.write("/run/open.yaml", sample)
    files = ("/run/open.yaml", f"{PLACE}/qemu/vpn.yaml")
    device.check("env", f"PWD={PLACE}", "initspawn", "compile", *files, "-o", PLAN)
    cut(device, "up")
    device.check("systemctl", "restart", "initspawn")
    wait(lambda: guard(device)["state"] == "open", "the tunnel")
    assert up(device)["state"] == "done"
    assert counted(device)["plain"] == 0
    cut(device, "down")
    device.check("systemctl", "restart", "initspawn")
    assert guard(device)["state"] == "closed"
    assert to_neighbour(device) == ("refused", 0)
    fail(device)
    wait(lambda: guard(device)["state"] == "open", "the guard to open")
    said, left = to_neighbour(device)
    assert said == "sent"
    assert left >= 1
