"""What waits for the network, in a network of the test's own."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from initspawn.control.client import Client
from initspawn.linux.libc import syscall
from initspawn.linux.process import CLONE_NEWNET
from initspawn.supervisor.network import Network
from initspawn.supervisor.reactor import Reactor
from tests.system.server import PATIENCE, children, lets_in, read, serving, wait_for, write
from tests.system.test_autostart import ENDLESS, service, until
from tests.system.test_serve import config, shell

pytestmark = pytest.mark.needs("root")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, stdin=subprocess.DEVNULL, timeout=30)


def cable(name: str) -> None:
    """A link that has a carrier as soon as it is up: its other end is."""
    ip("link", "add", name, "type", "veth", "peer", "name", f"{name}-other")
    ip("link", "set", f"{name}-other", "up")


@pytest.fixture
def alone() -> Iterator[None]:
    """This process, and all that it starts, in a new network with a loopback and nothing else."""
    ours = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    syscall("unshare", CLONE_NEWNET)
    try:
        ip("link", "set", "lo", "up")
        yield
    finally:
        assert ctypes.CDLL(None, use_errno=True).setns(ours, CLONE_NEWNET) == 0
        os.close(ours)


class Followed:
    """The state of the network, followed on a loop."""

    def __init__(self) -> None:
        self.reactor = Reactor()
        self.network = Network(self.reactor, lambda: None)

    def until(self, what: str, name: str, there: bool) -> None:
        def look() -> bool:
            self.reactor.turn(0.05)
            return self.network.known and self.network.has(what, name) == there

        wait_for(look, f"{what} {name} to be {'there' if there else 'gone'}: {self.network.states}")


@pytest.fixture
def followed(alone: None) -> Iterator[Followed]:
    made = Followed()
    yield made
    made.network.close()
    made.reactor.close()


def test_links_addresses_and_routes(followed: Followed) -> None:
    followed.until("link", "*", False)
    cable("d0")
    followed.until("link", "d0", False)
    ip("link", "set", "d0", "up")
    followed.until("link", "d0", True)
    assert not followed.network.has("address", "*"), "a link-local address reaches nobody"
    ip("address", "add", "192.0.2.1/24", "dev", "d0")
    followed.until("address", "d0", True)
    assert not followed.network.has("route", "*")
    ip("route", "add", "default", "via", "192.0.2.2")
    followed.until("route", "d0", True)
    ip("link", "set", "d0", "down")  # the kernel tells nothing of the route
    followed.until("route", "*", False)
    followed.until("link", "*", False)
    ip("link", "set", "d0", "up")
    followed.until("address", "d0", True)
    assert not followed.network.has("route", "*"), "it is gone for good"


def test_a_carrier_and_a_name_that_changes(followed: Followed) -> None:
    ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
    ip("link", "set", "v0", "up")
    followed.until("link", "v0", False)
    ip("link", "set", "v1", "up")
    followed.until("link", "v0", True)
    ip("link", "set", "v1", "down")
    followed.until("link", "v0", False)
    ip("link", "set", "v0", "down")
    ip("link", "set", "v0", "name", "wan")
    ip("link", "set", "wan", "up")
    ip("link", "set", "v1", "up")
    followed.until("link", "wan", True)
    followed.until("link", "v0", False)


def test_a_tentative_address_is_none_yet(followed: Followed) -> None:
    ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
    ip("link", "set", "v1", "up")
    ip("link", "set", "v0", "up")
    followed.until("link", "v0", True)
    ip("address", "add", "2001:db8::1/64", "dev", "v0")
    followed.until("address", "v0", True)  # after its duplicates have been looked for
    shown = subprocess.run(
        ["ip", "address", "show", "dev", "v0"], check=True, capture_output=True, text=True, timeout=30
    )
    assert "2001:db8::1/64 scope global \n" in shown.stdout, "neither tentative nor failed"


def test_more_messages_than_the_socket_holds(followed: Followed) -> None:
    followed.until("link", "*", False)
    lines = [
        f"link add n{number} type veth peer name p{number}\nlink set n{number} up\n" for number in range(150)
    ]
    lines += [f"link set p{number} up\n" for number in range(150)]
    subprocess.run(["ip", "-batch", "-"], input="".join(lines), text=True, check=True, timeout=60)
    followed.until("link", "n149", True)
    wait_for(
        lambda: followed.reactor.turn(0.05) or len(followed.network.states["link"]) == 300, "all of them"
    )


def test_commands_wait_for_the_network(alone: None, tmp_path: Path) -> None:
    def waiting(**conditions: str) -> dict[str, object]:
        return {"conditions": conditions}

    made = config(
        shell("staged", ENDLESS, autostart={"stage": "network"}),
        shell("linked", ENDLESS, autostart=waiting(link="d0")),
        shell("routed", ENDLESS, autostart=waiting(route="*")),
        shell("without", ENDLESS, autostart=waiting(link="!d1")),
    )
    with serving(tmp_path, write(tmp_path, "test.json", made)) as server, server.local() as client:
        until(client, "without", "running")
        for verb, why in (
            ("staged", "stage network is not reached"), ("linked", "link d0 is not there"),
            ("routed", "route * is not there"),
        ):  # fmt: skip
            wait_for(lambda verb=verb, why=why: service(client, verb)["why"] == why, why)
        cable("d0")
        ip("link", "set", "d0", "up")
        until(client, "linked", "running")
        assert service(client, "staged")["state"] == "waiting"
        ip("address", "add", "192.0.2.1/24", "dev", "d0")
        until(client, "staged", "running")
        assert service(client, "routed")["state"] == "waiting"
        ip("route", "add", "default", "via", "192.0.2.2")
        until(client, "routed", "running")
        ip("link", "set", "d0", "down")
        cable("d1")
        ip("link", "set", "d1", "up")
        assert {service(client, verb)["state"] for verb in ("staged", "linked", "routed")} == {"running"}


@contextmanager
def waiting(tmp_path: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], Client]]:
    """A server that may not announce itself yet, and a client of its control socket."""
    run_dir = tmp_path / "run"
    file = write(tmp_path, "test.json", config(shell("c", ENDLESS, autostart={"stage": "api"})))
    command = [
        sys.executable,
        "-m",
        "initspawn",
        "serve",
        "--port",
        "0",
        "--run-dir",
        str(run_dir),
        *options,
        file,
    ]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, text=True, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe) as process:
        try:
            wait_for(lambda: lets_in(run_dir / "control"), "the control socket")
            with Client(str(run_dir / "control"), timeout=PATIENCE) as client:
                yield process, client
        finally:
            process.send_signal(signal.SIGTERM)
            _, told = process.communicate(timeout=PATIENCE)
            assert told == ""


def is_silent(process: subprocess.Popen[str]) -> bool:
    assert process.stdout is not None
    return not select.select([process.stdout], [], [], 0.5)[0]


def hung_up(path: str) -> bool:
    """Whether who connects here and asks is sent away without an answer."""
    with socket.socket(socket.AF_UNIX) as one:
        one.settimeout(PATIENCE)
        one.connect(path)
        try:
            one.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return not one.recv(100)
        except (BrokenPipeError, ConnectionResetError):
            return True


def gateways(process: subprocess.Popen[str]) -> int:
    found = [pid for reaper in children(process.pid) for pid in children(reaper)]
    return sum(b"initspawn.gateway" in read(f"/proc/{pid}/cmdline") for pid in found)


@pytest.mark.parametrize("word", ["up", "while-up"])
def test_the_gateway_waits_for_the_network(alone: None, tmp_path: Path, word: str) -> None:
    door = str(tmp_path / "door")
    with waiting(tmp_path, "--gateway", word, "--unix", door) as (process, client):
        assert is_silent(process)
        assert hung_up(door)
        assert service(client, "c")["why"] == "stage api is not reached"
        assert client.call("test/ping").response == "pong=1", "the same verbs, before any network"
        cable("d0")
        ip("link", "set", "d0", "up")
        assert is_silent(process)
        ip("address", "add", "192.0.2.1/24", "dev", "d0")
        assert process.stdout is not None
        assert process.stdout.readline().startswith("initspawn: ready at http://")
        until(client, "c", "running")
        assert gateways(process) == 1
        assert not hung_up(door)
        ip("link", "set", "d0", "down")
        if word == "up":
            assert is_silent(process)
            assert gateways(process) == 1
            return
        wait_for(lambda: gateways(process) == 0, "the gateway to go")
        assert hung_up(door)
        assert service(client, "c")["state"] == "running", "no task notices"
        ip("link", "set", "d0", "up")
        wait_for(lambda: gateways(process) == 1, "the gateway to come back")


@pytest.mark.parametrize("kind", ["link", "route"])
def test_what_makes_the_network_up_is_a_setting(alone: None, tmp_path: Path, kind: str) -> None:
    with waiting(tmp_path, "--gateway", "up", "--network-up", kind) as (process, _):
        cable("d0")
        ip("link", "set", "d0", "up")
        if kind == "route":
            ip("address", "add", "192.0.2.1/24", "dev", "d0")
            assert is_silent(process)
            ip("route", "add", "default", "via", "192.0.2.2")
        assert process.stdout is not None
        assert process.stdout.readline().startswith("initspawn: ready at http://")


def test_who_would_be_skipped_is_not_before_the_network_is_known(alone: None, tmp_path: Path) -> None:
    made = config(
        shell("with", ENDLESS, autostart={"conditions": {"link": "d0", "otherwise": "skip"}}),
        shell("without", ENDLESS, autostart={"conditions": {"link": "d1", "otherwise": "skip"}}),
    )
    cable("d0")
    ip("link", "set", "d0", "up")
    with serving(tmp_path, write(tmp_path, "test.json", made)) as server, server.local() as client:
        until(client, "with", "running")
        assert until(client, "without", "skipped")["why"] == "link d1 is not there"


def test_a_network_that_never_counts_as_up(alone: None, tmp_path: Path) -> None:
    with waiting(tmp_path, "--gateway", "up", "--network-up", "never") as (process, client):
        cable("d0")
        ip("link", "set", "d0", "up")
        ip("address", "add", "192.0.2.1/24", "dev", "d0")
        ip("route", "add", "default", "via", "192.0.2.2")
        assert is_silent(process)
        assert gateways(process) == 0
        assert service(client, "c")["why"] == "stage api is not reached"
