"""The network's doors of a device: tried until they are there, and never a reason to fail."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from initspawn.boot.remote import Remote, with_place
from initspawn.control.certificate import CertificateError
from initspawn.control.state import AUDIT, State
from initspawn.plan import Api, Plan
from initspawn.supervisor.reactor import Reactor
from initspawn.verbs.access import Tokens

PLAN = Plan(
    user=0, group=0, doors={}, apis=(Api(uid="x", api="x"), Api(uid="gateway", api="gateway", hidden=True))
)


def test_the_gateway_finds_its_directory(tmp_path: Path) -> None:
    was = os.umask(0o077)
    try:
        assert with_place(PLAN, str(tmp_path / "run")) is PLAN
    finally:
        os.umask(was)
    assert (tmp_path / "run/gateway").stat().st_mode & 0o777 == 0o711
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700


def test_where_it_cannot_be_made_the_commands_run_without_doors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").write_text("in the way")
    plan = with_place(PLAN, str(tmp_path / "run"))
    assert plan.doors is None
    assert [api.api for api in plan.apis] == ["x"]
    assert "no doors for the network" in capsys.readouterr().err


class Device:
    """A supervisor as far as its doors for the network see it."""

    def __init__(self, place: Path) -> None:
        self.waiting: list[Callable[[], None]] = []
        self.reactor = Reactor()
        self.reactor.after = lambda _, call: self.waiting.append(call)  # type: ignore[method-assign,assignment]
        self.tokens = Tokens()
        self.registry = SimpleNamespace(audit=None)
        self.start: dict[str, Any] = {}
        self.opened = 0
        self.trouble: OSError | CertificateError | None = None
        run = place / "run"
        run.mkdir()
        self.state: State | None = State(str(run), self.reactor, self.tokens)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.directory = place / "state"
        doors = {"host": "127.0.0.1", "port": self.port, "state": str(self.directory)}
        self.socket = place / "s"
        doors |= {"unix": ((str(self.socket), "http"),)}
        self.remote = Remote(self, doors)  # type: ignore[arg-type]

    def open_network(self) -> None:
        if self.trouble is not None:
            for fd, _ in self.start["unix"]:
                os.close(fd)
            raise self.trouble
        self.opened += 1

    def again(self) -> None:
        (call,) = self.waiting
        self.waiting.clear()
        call()


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    made = Device(tmp_path)
    yield made
    if made.state is not None:
        made.state.close(remove=False)
    if "listen" in made.start:
        os.close(made.start["listen"])
        for fd, _ in made.start["unix"]:
            os.close(fd)
    made.reactor.close()


def test_unix_sockets_open_with_the_network_s(
    device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    device.directory.mkdir(0o700)
    with socket.create_server(str(device.socket), family=socket.AF_UNIX):
        device.remote.open()
        assert f"yet: {device.socket}: Address already in use" in capsys.readouterr().err
        assert device.opened == 0
    device.again()  # nobody listens on it any more
    assert device.opened == 1
    assert [protocol for _, protocol in device.start["unix"]] == ["http"]
    assert device.socket.stat().st_mode & 0o777 == 0o666
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(device.socket))


def test_they_open_without_tokens_and_take_them_when_they_are_there(
    device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    device.remote.open()
    assert device.opened == 1
    device.again()
    assert capsys.readouterr().err.count("no tokens yet") == 1  # said once
    device.directory.mkdir(0o700)
    first = device.state
    device.again()
    assert device.state is not first
    assert (device.directory / AUDIT).exists()
    assert device.opened == 1


def test_a_directory_that_others_can_write_has_no_tokens(
    device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    device.directory.mkdir()
    device.directory.chmod(0o770)
    first = device.state
    device.remote.open()
    assert device.state is first
    assert "only we can write" in capsys.readouterr().err


def test_where_only_reading_is_possible_the_audit_log_stays_where_it_was(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.directory.mkdir(0o700)
    (device.directory / AUDIT).mkdir()  # no file can be opened there, as on a file system that is read-only
    first = device.state
    assert first is not None
    device.remote.open()
    assert device.state is not first
    assert device.state is not None
    assert device.state.audit is first.audit
    (device.directory / AUDIT).rmdir()
    device.again()
    assert device.state.audit is not first.audit  # as soon as it can be written


def test_a_file_system_that_is_mounted_over_it_counts_from_then_on(device: Device) -> None:
    device.directory.mkdir(0o700)
    device.remote.open()
    first = device.state
    device.again()
    assert device.state is first
    device.directory.rename(device.directory.with_name("below"))
    device.directory.mkdir(0o700)
    device.again()
    assert device.state is not first


def test_a_socket_that_the_kernel_has_not_got(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    device.directory.mkdir(0o700)

    def refused(*_: object) -> None:
        raise OSError(97, "Address family not supported by protocol")

    monkeypatch.setattr("_socket.socket", refused)
    device.remote.open()
    monkeypatch.undo()
    device.again()
    assert device.opened == 1


def test_an_address_that_is_taken_is_tried_again(
    device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    device.directory.mkdir(0o700)
    with socket.create_server(("127.0.0.1", device.port)):
        device.remote.open()
        assert "no door for the network yet" in capsys.readouterr().err
    device.again()
    assert device.opened == 1


def test_without_its_certificate_it_stays_shut(
    device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    device.directory.mkdir(0o700)
    device.trouble = CertificateError("/var/c.pem: No such file or directory")
    device.remote.open()
    assert "no door for the network yet: /var/c.pem: No such file" in capsys.readouterr().err
    assert "listen" not in device.start
    with socket.socket() as client, pytest.raises(ConnectionRefusedError):
        client.connect(("127.0.0.1", device.port))
    device.trouble = None
    device.again()
    assert device.opened == 1


def test_a_socket_that_cannot_be_made_is_no_reason_to_fail(device: Device) -> None:
    device.directory.mkdir(0o700)
    device.trouble = OSError(28, "No space left on device", "door")
    device.remote.open()
    assert "listen" not in device.start
    device.trouble = None
    device.again()
    assert device.opened == 1
