"""What the supervisor takes from the watcher of devices, and whom it lets it hear."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initspawn.plan import Api, Command, Sandbox
from initspawn.supervisor import devices
from initspawn.supervisor.devices import KERNEL, UDEV, Devices, parse
from initspawn.supervisor.eventlog import EventLog
from initspawn.supervisor.reactor import Reactor

DISK, STICK = (("SUBSYSTEM", "block"), ("ID_FS_LABEL", "data")), (("ID_BUS", "usb"),)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"01", (False, True)),
        (b"11", (True, True)),
        (b"!no pyudev", "no pyudev"),
        (b"!", "it does not say why"),
        (b"!\x1b[2J\xff\n" + b"a" * 400, "?[2J??" + "a" * 194),
    ],
)
def test_records(data: bytes, found: Any) -> None:
    assert parse(data, 2) == found


@pytest.mark.parametrize("data", [b"", b"0", b"011", b"02", b" 1", b"0!", b"\x00\x01", b"01\n"])
def test_what_is_no_record(data: bytes) -> None:
    with pytest.raises(ValueError, match="no state of so many devices"):
        parse(data, 2)


@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda data: b"!" + data), st.integers(1, 8))
def test_any_bytes_are_a_state_a_reason_or_refused(data: bytes, count: int) -> None:
    try:
        found = parse(data, count)
    except ValueError:
        return
    if isinstance(found, str):
        assert found.isprintable()
        assert 0 < len(found) <= 200
    else:
        assert len(found) == count
        assert "".join(str(int(one)) for one in found).encode() == data


class Bench:
    """A supervisor that starts watchers in name only; a test writes what they say."""

    def __init__(self) -> None:
        self.reactor = Reactor()
        self.closing = False
        self.running: dict[str, Any] = {}
        self.log: list[str] = []
        self.changes = 0
        boxes = tuple(Sandbox(uid=name, user=1, group=1) for name in (KERNEL, UDEV))
        made = tuple(Command(uid=name, verb=name, sandbox=name, path="/w") for name in (KERNEL, UDEV))
        self.api = Api(uid="w", api="w", sandboxes=boxes, commands=made)
        self.devices = Devices(cast(Any, self), self.api, [DISK, STICK], self._changed)

    def _changed(self) -> None:
        self.changes += 1

    def start(self, api: Api, command: Command, argv: Any, *, on_start: Any, on_end: Any, **_: Any) -> Any:
        task = SimpleNamespace(
            name=command.uid, refusal=None, status={"exit": 1}, began=1.0, ended=2.0,
            log=EventLog(), end=lambda: on_end(task),
        )  # fmt: skip
        self.log.append(f"start {command.uid}")
        self.running[command.uid] = task
        on_start(task)
        return task

    def stop(self, task: Any) -> None:
        self.log.append(f"stop {task.name}")
        self.running.pop(task.name)
        task.end()

    def say(self, data: bytes, source: str = KERNEL) -> None:
        os.write(self.devices._sockets[source][1].fileno(), data)
        self.turn()

    def turn(self) -> None:
        for _ in range(4):
            self.reactor.turn(0.03)


@pytest.fixture
def control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where udevd's socket would be."""
    path = tmp_path / "run" / "udev" / "control"
    path.parent.parent.mkdir()
    monkeypatch.setattr(devices, "CONTROL", str(path))
    return path


@pytest.fixture
def bench(control: Path) -> Iterator[Bench]:
    made = Bench()
    yield made
    made.devices.close()
    made.reactor.close()


def test_it_is_not_known_at_first(bench: Bench) -> None:
    assert not bench.devices.known
    assert bench.devices.lacks(DISK) == "it is not known yet which devices are there"
    assert bench.devices.told() == {"hears": "kernel", "known": False, "there": 0, "of": 2, "starts": 1}


def test_what_is_there(bench: Bench) -> None:
    bench.say(b"01")
    assert bench.devices.known
    assert bench.devices.lacks(STICK) == ""
    told = "there is no device with SUBSYSTEM=block, ID_FS_LABEL=data, says "
    assert bench.devices.lacks(DISK) == f"{told}the kernel, so without udev's database"
    bench.say(b"01")
    assert bench.changes == 1, "nothing has changed"
    bench.say(b"10")
    assert bench.devices.lacks(DISK) == ""
    assert bench.devices.lacks(STICK)
    assert bench.changes == 2


def test_what_is_no_record_changes_nothing_and_is_counted(bench: Bench) -> None:
    bench.say(b"01")
    for data in (b"1", b"111", b"x" * 5000, b"\x00" * 2):
        bench.say(data)
    assert bench.devices.lacks(STICK) == ""
    assert bench.devices.told()["ignored"] == 4
    assert bench.changes == 1


def test_who_writes_without_end_is_read_a_little_at_a_time(bench: Bench) -> None:
    ours, theirs = bench.devices._sockets[KERNEL]
    theirs.setblocking(False)
    sent = 0
    while sent < 100:
        os.write(theirs.fileno(), b"01" if sent % 2 else b"10")
        sent += 1
    bench.reactor.turn(0.5)
    assert len(ours.recv(10)) == 2, "some are left for the next time"
    assert bench.changes <= 1


def test_udevd_is_heard_when_it_comes_and_the_kernel_when_it_has_gone(
    bench: Bench, control: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.say(b"10")
    control.parent.mkdir()
    control.touch()
    bench.turn()
    assert bench.log == ["start kernel", "stop kernel", "start udev"]
    assert bench.devices.lacks(DISK) == "", "what was there is believed until udevd is heard"
    bench.say(b"00", KERNEL)  # its last words, which nobody takes
    assert bench.devices.lacks(DISK) == ""
    bench.say(b"01", UDEV)
    assert bench.devices.lacks(DISK).endswith("ID_FS_LABEL=data, says udevd")
    control.unlink()
    bench.turn()
    assert bench.log[3:] == ["stop udev", "start kernel"]
    assert "devices: heard from udevd\n" in capsys.readouterr().err


def test_where_udevd_is_already_it_is_heard_from_the_beginning(control: Path) -> None:
    control.parent.mkdir()
    control.touch()
    made = Bench()
    assert made.log == ["start udev"]
    made.devices.close()
    made.reactor.close()


def test_a_watcher_that_ends_is_started_again(bench: Bench) -> None:
    bench.say(b"10")
    bench.running[KERNEL].end()
    for _ in range(20):
        bench.turn()
        if len(bench.log) > 1:
            break
    assert bench.log == ["start kernel", "start kernel"]
    assert bench.devices.lacks(DISK) == ""


def test_one_that_cannot_go_on_is_not(
    bench: Bench, control: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.say(b"!No module named 'pyudev'")
    assert bench.devices.known, "for good"
    for device in (DISK, STICK):
        assert bench.devices.lacks(device) == "devices cannot be followed: No module named 'pyudev'"
    assert bench.devices.told()["why"] == "No module named 'pyudev'"
    assert bench.log == ["start kernel", "stop kernel"]
    assert bench.changes == 1
    control.parent.mkdir()
    control.touch()
    bench.turn()
    assert len(bench.log) == 2, "nor for udevd"
    said = "devices: cannot be followed: No module named 'pyudev'; who waits for one is not started"
    assert capsys.readouterr().err.count(said) == 1


def test_what_cannot_be_begun_leaves_nothing(control: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    real = devices._socket.socketpair

    def one(*arguments: Any) -> Any:
        if made:
            raise OSError(24, "Too many open files")
        pair = real(*arguments)
        made.extend(one.fileno() for one in pair)
        return pair

    monkeypatch.setattr(devices, "_socket", SimpleNamespace(**{**vars(devices._socket), "socketpair": one}))
    with pytest.raises(OSError, match="Too many"):
        Bench()
    for fd in made:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
