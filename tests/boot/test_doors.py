"""The network's doors of a device: from the kernel's start of PID 1 to a WebSocket on another machine.

The same machine has commands that wait for devices.
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from qemu.guest import Guest
from qemu.image import Image
from qemu.machine import Shape
from tests.support.certificates import make_pair
from tests.system.server import SUBPROTOCOL, Client

PORT = 1234
SECONDS = 90.0  # until a door opens or shuts
APPEND = "quiet init=/usr/sbin/initspawn-init initspawn.plan=/etc/initspawn/doors.plan"
STATE = "/var/lib/initspawn"
# Step by step: waits until a command is in a state (waiting: as udevd says), or runs a shell line. Then it
# prints the time line.
DEVICES = """
import json, subprocess, sys, time
sys.path.insert(0, "/opt/initspawn")
from initspawn.control.client import Client
with Client("/run/initspawn/control", 60) as client:
    for step in sys.argv[1:]:
        verb, _, state = step.partition(" ")
        if verb == "!":
            subprocess.run(["sh", "-c", state], check=True, stdout=subprocess.DEVNULL)
            continue
        while True:
            told = client.call("initspawn/services").response
            (one,) = (one for one in told if one["command"] == f"devices/{verb}")
            if one["state"] == state and (state != "waiting" or one["why"].endswith("says udevd")):
                break
            print(one, file=sys.stderr)
            time.sleep(0.2)
    print(json.dumps(client.call("initspawn/timeline").response))
"""


@pytest.fixture(scope="module")
def device(image: Image) -> Iterator[tuple[Guest, int, str]]:
    """A machine whose doors come with its network, its port here, and a token."""
    with Guest(Shape(image, memory=768, append=APPEND)) as machine:
        machine.wait_agent()
        port = machine.forward(PORT)
        token = machine.check("initspawn", "token", "add", "host", "--scope", "*", "--state-dir", STATE)
        yield machine, port, token.split()[-1]


@contextmanager
def websocket(
    port: int, token: str, seconds: float = SECONDS, trust: ssl.SSLContext | None = None
) -> Iterator[Client]:
    """A client, as soon as there is somebody to speak to; over TLS where it knows whom it trusts."""
    end = time.monotonic() + seconds
    address = f"{'wss' if trust else 'ws'}://127.0.0.1:{port}/api?token={token}"
    while True:
        try:
            socket = connect(address, subprotocols=[SUBPROTOCOL], compression=None, open_timeout=5, ssl=trust)
            break
        except (OSError, WebSocketException):
            if time.monotonic() > end:
                raise
            time.sleep(0.2)
    with socket:
        yield Client(socket)


def since_boot(machine: Guest, pid: str) -> int:
    """When a process was started, in ticks of the kernel's clock."""
    return int(machine.read(f"/proc/{pid}/stat").decode().rpartition(")")[2].split()[19])


# What a page over a unix socket says: root needs no token there.
PAGE = """
import socket, sys
with socket.socket(socket.AF_UNIX) as client:
    client.connect("/run/doors.socket")
    client.sendall(f"GET {sys.argv[1]} HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n".encode())
    print(b"".join(iter(lambda: client.recv(4096), b"")).decode())
"""


def test_what_happened_since_the_kernel_began_is_replayed(device: tuple[Guest, int, str]) -> None:
    """Five commands that were there before systemd, of which one ended before and one is stopped, as a
    client on another machine hears them behind the adoption and behind the doors' opening.
    """
    machine, port, token = device
    journald = machine.check("systemctl", "show", "systemd-journald", "--property=MainPID", "--value")
    with websocket(port, token) as client:
        tasks = client.call("initspawn/tasks")["response"]
        pids = {task["command"]: task["pid"] for task in tasks}
        for name in ("count", "boxed", "stopped", "silent"):
            assert since_boot(machine, pids[name]) < since_boot(machine, journald.strip())
        for name in ("count", "boxed", "stopped", "silent", "ended"):
            asked = {"action": "subscribe", "args": {"pid": pids[name], "from": 1}}
            assert client.call(f"boot/{name}", asked)["request"]["status"] == "success"

        def lines(name: str) -> list[str]:
            return [event["stdout"] for event in client.events
                    if "stdout" in event and event["pid"] == pids[name]]  # fmt: skip

        while min(len(lines("count")), len(lines("boxed"))) < 60:
            client.receive()
        for name in ("count", "boxed"):
            assert lines(name) == [str(number) for number in range(1, len(lines(name)) + 1)]
        assert client.final(pids["ended"])["status"] == {"exit": 3}
        assert (lines("ended"), lines("stopped"), lines("silent")) == (["over"], ["before"], [])
        machine.check("kill", "-CONT", str(pids["stopped"]))
        assert client.final(pids["stopped"])["status"] == {"exit": 7}
        assert lines("stopped") == ["before", "behind"]


def test_it_comes_and_goes_with_the_network(device: tuple[Guest, int, str]) -> None:
    machine, port, token = device
    with websocket(port, token) as client:
        before = client.call("initspawn/info")["response"]
        link = machine.shell("ls /sys/class/net | grep -v ^lo").split()[0]
        gateways = "pgrep -f initspawn[.]gateway"  # not the shell that looks for it
        assert machine.run("sh", "-c", gateways).code == 0
        machine.check("ip", "link", "set", link, "down")
        machine.shell(f"for i in $(seq 100); do {gateways} || exit 0; sleep 0.2; done; exit 1")
    machine.check("ip", "link", "set", link, "up")
    with websocket(port, token) as client:
        assert client.call("initspawn/info")["response"]["version"] == before["version"]


def test_nobody_enters_without_a_token(device: tuple[Guest, int, str]) -> None:
    _, port, _ = device
    with websocket(port, "x") as client:
        assert client.call("boot/count", {"action": "start"})["request"]["status"] == "insufficient-scope"


def test_the_gateway_is_confined_and_in_the_unit(device: tuple[Guest, int, str]) -> None:
    machine, port, token = device
    with websocket(port, token):
        pid = machine.check("pgrep", "-f", "initspawn[.]gateway").split()[-1]
        status = machine.read(f"/proc/{pid}/status").decode()
        assert "Uid:\t64999\t64999\t64999\t64999" in status
        assert "CapEff:\t0000000000000000" in status
        assert b"/system.slice/initspawn.service/" in machine.read(f"/proc/{pid}/cgroup")
        audit = machine.read(f"{STATE}/audit.jsonl").decode()
        assert '"token:host"' in audit


def devices(machine: Guest, *steps: str) -> Any:
    """What `DEVICES` prints when these steps are done."""
    return json.loads(machine.check("python3", "-c", DEVICES, *steps, timeout=SECONDS))


def test_devices_before_and_after_udevd(device: tuple[Guest, int, str]) -> None:
    """What the kernel alone tells was enough before systemd; then a file system's label comes by udevd."""
    machine, _, _ = device
    found = devices(
        machine, "loopback done", "labelled waiting", "module waiting",
        "! truncate -s 1M /run/disk; mkswap -L later /run/disk; losetup -f /run/disk", "labelled running",
        "! modprobe dummy numdummies=1", "module running", "! modprobe -r dummy",
    )  # fmt: skip
    decided = next(mark["time"] for mark in found["marks"] if mark["what"] == "handover decided")
    ended = next(one["ended"] for one in found["services"] if one["command"] == "devices/loopback")
    assert ended <= decided, "the boot has waited for it"
    pid = machine.check("pgrep", "-f", "watcher[.]py udev").split()[-1]
    status = machine.read(f"/proc/{pid}/status").decode()
    assert "Uid:\t64997\t64997\t64997\t64997" in status
    assert "CapEff:\t0000000000000000" in status
    assert b"/system.slice/initspawn.service/" in machine.read(f"/proc/{pid}/cgroup")


def test_a_supervisor_that_the_unit_began_has_them_too(device: tuple[Guest, int, str]) -> None:
    machine, port, token = device
    machine.check("systemctl", "restart", "initspawn", timeout=120)
    with websocket(port, token) as client:
        assert client.call("initspawn/ping")["request"]["status"] == "success"
    devices(machine, "loopback done", "labelled running")


def test_its_unix_socket_and_its_files(device: tuple[Guest, int, str]) -> None:
    machine, port, token = device
    with websocket(port, token):  # they open together
        pass
    unit = machine.check("/usr/bin/python3", "-c", PAGE, "/units/initspawn.service")
    assert unit.startswith("HTTP/1.1 200")
    assert "[Service]" in unit
    answer = machine.check("/usr/bin/python3", "-c", PAGE, "/api/boot/ping")
    assert "pong=" in answer, answer


@pytest.mark.soak
def test_with_a_certificate(device: tuple[Guest, int, str], tmp_path: Path) -> None:
    machine, port, token = device
    pair = make_pair(tmp_path)
    for name, source in (("crt", pair.certificate), ("key", pair.key)):
        machine.write(f"/etc/initspawn/door.{name}", Path(source).read_bytes())
    machine.check("chmod", "600", "/etc/initspawn/door.key")
    tls = ("--tls-certificate", "/etc/initspawn/door.crt", "--tls-key", "/etc/initspawn/door.key")
    doors = ("--gateway", "while-up", "--host", "0.0.0.0", *tls, "-o", "/etc/initspawn/doors.plan")
    machine.check("initspawn", "compile", "/opt/initspawn/qemu/boot.yaml", *doors, timeout=120)
    machine.check("systemctl", "restart", "initspawn", timeout=120)
    with websocket(port, token, trust=ssl.create_default_context(cafile=pair.certificate)) as client:
        about = client.call("initspawn/info")["response"]
        assert about["tls"]["certificate"] == "/etc/initspawn/door.crt"
