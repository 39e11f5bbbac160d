"""What the watcher of devices makes of devices and events, with a pyudev that a test plays."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initspawn.watcher import Presence, follow, matches

DISK = {"SUBSYSTEM": "block", "DEVNAME": "/dev/sda1", "ID_FS_LABEL": "data", "EMPTY": ""}


@pytest.mark.parametrize(
    ("kind", "is_so"),
    [
        ({"SUBSYSTEM": "block"}, True),
        ({"SUBSYSTEM": "Block"}, False),
        ({"SUBSYSTEM": "bloc"}, False),
        ({"SUBSYSTEM": "block", "ID_FS_LABEL": "other"}, False),
        ({"DEVNAME": "/dev/sd?[0-9]"}, True),
        ({"DEVNAME": "/dev/*b1|*/sda*"}, True),
        ({"DEVNAME": "/dev/sd"}, False),
        ({"ID_BUS": "*"}, False),
        ({"ID_BUS": "!*"}, True),
        ({"ID_BUS": "!usb"}, True),
        ({"EMPTY": "*"}, True),
        ({"ID_FS_LABEL": "!data|other"}, False),
        ({"ID_FS_LABEL": "!other|more"}, True),
        ({}, True),
    ],
)
def test_what_a_device_is_like(kind: dict[str, str], is_so: bool) -> None:
    assert matches(kind, DISK.get) is is_so


@given(st.text(), st.text())
def test_a_pattern_and_its_opposite(value: str, pattern: str) -> None:
    if not pattern.startswith("!"):
        assert matches({"A": pattern}, {"A": value}.get) != matches({"A": f"!{pattern}"}, {"A": value}.get)


def test_a_kind_is_there_as_long_as_any_device_of_it_is() -> None:
    presence = Presence([{"SUBSYSTEM": "block"}, {"ID_FS_LABEL": "data"}])
    assert presence.state == "00"
    presence.put("/sys/a", DISK.get, settled=True)
    presence.put("/sys/b", {"SUBSYSTEM": "block"}.get, settled=True)
    assert presence.state == "11"
    presence.put("/sys/a", {"SUBSYSTEM": "block"}.get, settled=True)  # it has changed
    assert presence.state == "10"
    presence.drop("/sys/a")
    presence.drop("/sys/never")
    assert presence.state == "10"
    presence.drop("/sys/b")
    assert presence.state == "00"


def test_which_subsystems_matter() -> None:
    assert Presence([{"SUBSYSTEM": "usb"}, {"SUBSYSTEM": "block", "A": "*"}]).subsystems == ["block", "usb"]
    for other in ({"A": "b"}, {"SUBSYSTEM": "b*"}, {"SUBSYSTEM": "!b"}, {"SUBSYSTEM": "a|b"}):
        assert Presence([{"SUBSYSTEM": "usb"}, other]).subsystems == []


class Gone(Exception):
    """No device of that path."""


class Device:
    def __init__(self, path: str, properties: Any, action: str = "", *, settled: bool = True) -> None:
        self._path, self.properties, self.action, self.is_initialized = path, properties, action, settled

    @property
    def sys_path(self) -> str:
        """As pyudev has it: it raises UnicodeDecodeError for what is no text."""
        return os.fsencode(self._path).decode()


class Undecodable:
    def get(self, name: str) -> str:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "as a device may say")


class Over(Exception):
    """The test's events are over."""


class Machine:
    """Devices, and events that come while they change: the module, its context and its monitor in one."""

    DeviceNotFoundError = Gone

    def __init__(self) -> None:
        self.devices: dict[str, Any] = {}
        self.script: list[Any] = []
        self.filters: list[str] = []
        self.looks = 0
        self.source = "udev"
        self.fresh: set[str] = set()  # udevd has not dealt with these yet
        self.socket: socket.socket
        self.Monitor = self.Devices = self

    def from_netlink(self, context: Any, source: str) -> Machine:
        assert source == self.source
        return self

    def filter_by(self, name: str) -> None:
        self.filters.append(name)

    def fileno(self) -> int:
        return self.socket.fileno()

    def start(self) -> None:
        assert self.looks == 0, "it listens before it looks"

    def list_devices(self) -> Machine:
        self.looks += 1
        return self

    def match_subsystem(self, name: str) -> None:
        assert name in self.filters

    def __iter__(self) -> Iterator[Device]:
        found = self.devices.items()
        return iter([Device(path, value, settled=path not in self.fresh) for path, value in found])

    def from_sys_path(self, context: Any, path: str) -> Device:
        if path not in self.devices:
            raise Gone
        return Device(path, self.devices[path])

    def poll(self, timeout: float | None = None) -> Device | None:
        """Steps of the script: an event with what is there by then, or what goes wrong."""
        if not self.script:
            raise Over
        step = self.script.pop(0)
        if isinstance(step, Exception):
            raise step
        if step is None:
            return None
        action, path, properties = step
        if action in ("add", "change", "bind"):
            self.devices[path] = properties
        elif action in ("remove", "lost"):
            self.devices.pop(path, None)
        return Device(path, None, "add" if action in ("lost", "late") else action)

    def run(self, *kinds: dict[str, str]) -> list[str]:
        said: list[str] = []
        with pytest.raises(Over):
            follow(self, self, self.source, Presence(list(kinds)), said.append)
        return said


OVERFLOW = OSError(errno.ENOBUFS, "No buffer space available")


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_what_is_there_at_first_and_what_comes_and_goes(machine: Machine) -> None:
    machine.devices = {"/a": {"SUBSYSTEM": "net"}}
    machine.script = [
        ("add", "/b", {"SUBSYSTEM": "net", "INTERFACE": "x"}),
        ("change", "/a", {"SUBSYSTEM": "net", "INTERFACE": "x"}),
        None,
        ("remove", "/b", None),
        ("bind", "/a", {"SUBSYSTEM": "net", "INTERFACE": "y"}),
        ("remove", "/a", None),
    ]
    said = machine.run({"SUBSYSTEM": "net"}, {"SUBSYSTEM": "net", "INTERFACE": "x"})
    assert said == ["10", "11", "10", "00"]
    assert machine.filters == ["net"]
    assert machine.looks == 1


def test_an_event_of_a_device_that_is_gone_already(machine: Machine) -> None:
    machine.devices = {"/a": {"A": "b"}}
    machine.script = [("lost", "/a", None)]
    assert machine.run({"A": "b"}) == ["1", "0"]


def test_a_device_that_moves_has_everything_looked_at(machine: Machine) -> None:
    machine.devices = {"/a": {"A": "b"}}

    def moved() -> None:
        machine.devices = {"/z": {"A": "c"}}

    machine.script = [("move", "/z", None), ("add", "/y", {"A": "b"})]
    real, machine.poll = machine.poll, lambda timeout=None: (moved(), real())[1]  # type: ignore[method-assign]
    assert machine.run({"A": "b"}) == ["1", "0", "1"]
    assert machine.looks == 2


def test_what_was_lost_is_looked_up_and_what_is_older_is_not_believed(machine: Machine) -> None:
    machine.devices = {"/a": {"A": "b"}}
    # It went and came again; that it came was lost, that it went is still to be read.
    machine.script = [OVERFLOW, ("unread", "/a", None), OVERFLOW, None, ("late", "/a", None)]
    assert machine.run({"A": "b"}) == ["1"]
    assert machine.looks == 2


def test_other_failures_end_it(machine: Machine) -> None:
    machine.script = [OSError(errno.EBADF, "Bad file descriptor")]
    with socket.socket() as machine.socket, pytest.raises(OSError, match="Bad file"):
        follow(machine, machine, "udev", Presence([{"A": "b"}]), lambda _: None)


class Overflown(socket.socket):
    """A netlink socket with more messages than it holds, of which poll(2) tells by POLLERR."""

    def __init__(self) -> None:
        super().__init__(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        self.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        self.bind((0, 0))
        links = struct.pack("=IHHII", 17, 18, 0x301, 1, 0) + b"\0"  # RTM_GETLINK, all; answered at once
        with contextlib.suppress(OSError):
            for _ in range(64):
                self.send(links)


def test_a_loss_that_poll_has_noticed(machine: Machine) -> None:
    machine.script = [OSError("Error while polling fd: 4"), None]
    with Overflown() as machine.socket:
        assert machine.run({"A": "b"}) == ["0"]
    assert machine.looks == 2


def test_a_property_that_is_no_text_is_as_one_that_is_missing(machine: Machine) -> None:
    machine.devices = {"/a": Undecodable()}
    assert machine.run({"A": "*"}, {"A": "!x"}) == ["01"]


def test_a_device_whose_name_is_no_text_hides_no_other(machine: Machine) -> None:
    """Links can be called so."""
    machine.devices = {"/\udcff": {"A": "b"}, "/a": {"A": "c"}}
    machine.script = [
        ("change", "/\udcff", {"A": "b"}), ("remove", "/\udcff", None), ("add", "/z", {"A": "b"}),
    ]  # fmt: skip
    assert machine.run({"A": "b"}, {"A": "c"}) == ["01", "11"]


@pytest.mark.parametrize("name", ["ID_BUS", "DEVLINKS", "TAGS"])
def test_what_only_udevd_can_deny_is_not_so_before_it_has(machine: Machine, name: str) -> None:
    kinds = {"A": "b", name: "!usb"}, {"A": "b", "DRIVER": "!*"}
    machine.devices = {"/a": {"A": "b"}, "/other": {"A": "b", name: "usb"}}
    machine.fresh = {"/a"}
    machine.script = [("add", "/a", {"A": "b", name: "pci"}), ("change", "/a", {"A": "b", name: "usb"})]
    assert machine.run(*kinds) == ["01", "11", "01"]
    machine.source, machine.script, machine.looks = "kernel", [("add", "/b", {"A": "b"})], 0
    machine.fresh = set()
    assert machine.run(*kinds) == ["01"], "the kernel never does"
