"""The machine's own watchdog. The device is a file here, which has what was written to it, and answers as a
test says; one of the kernel's is in tests/boot/test_watchdog.py.
"""

from __future__ import annotations

import errno
import itertools
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from initspawn.boot import alone, early, halt
from initspawn.boot import watchdog as boot
from initspawn.boot.barrier import POWER_OFF
from initspawn.boot.watchdog import Watchdog
from initspawn.linux import cmdline, watchdog
from initspawn.plan import REBOOT, RECOVERY

# As the C macros make them of their arguments.
GETSUPPORT, SETTIMEOUT, GETTIMEOUT = 0x80285700, 0xC0045706, 0x80045707
SETOPTIONS, DISABLECARD = 0x80045704, 1


class Device:
    """What the kernel knows of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.waits = 60  # seconds
        self.most = 1000
        self.refuses: dict[int, int] = {}  # requests and their errors
        self.asked: list[int] = []

    def come(self) -> None:
        self.path.touch()

    def ioctl(self, fd: int, request: int, data: bytearray) -> int:
        assert os.path.samestat(os.fstat(fd), os.stat(self.path))
        self.asked.append(request)
        if request in self.refuses:
            number = self.refuses[request]
            raise OSError(number, os.strerror(number))
        if request == GETSUPPORT:
            assert len(data) == 40
            return 0
        if request == SETOPTIONS:
            assert struct.unpack("i", data) == (DISABLECARD,)
            return 0
        if request == SETTIMEOUT:
            (self.waits,) = struct.unpack("i", data)
            self.waits = min(self.waits, self.most)
        else:
            assert request == GETTIMEOUT
        data[:] = struct.pack("i", self.waits)
        return 0

    @property
    def eaten(self) -> bytes:
        return self.path.read_bytes()


def open_descriptors() -> set[int]:
    return {int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")}


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    made = Device(tmp_path / "watchdog0")
    monkeypatch.setattr("fcntl.ioctl", made.ioctl)
    before = open_descriptors()
    yield made
    for fd in open_descriptors() - before:  # closed by the end of a process, where there is one
        assert os.path.samestat(os.fstat(fd), os.stat(made.path))
        os.close(fd)


def told(dog: Watchdog, **changed: Any) -> bool:
    usual = {"fed": True, "seconds": 30, "problem": ""}
    return {name: value for name, value in dog.told().items() if name != "device"} == {**usual, **changed}


def test_it_is_taken_and_fed_and_never_stopped_but_by_an_order(
    device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    device.come()
    dog = Watchdog("30", str(device.path))
    assert told(dog, fed=False, seconds=0)
    dog.feed()
    assert device.waits == 30
    assert told(dog)
    assert device.eaten == b""  # setting it feeds it
    dog.feed()
    dog.feed()
    assert device.eaten == b"\0\0"
    dog.stop()
    assert device.eaten == b"\0\0V"
    dog.feed()
    dog.stop()
    assert device.eaten == b"\0\0V"
    assert told(dog, fed=False, seconds=0)
    said = f"initspawn: watchdog: {device.path} restarts the machine after 30 s without a sign of life\n"
    assert capsys.readouterr().err == said


def test_one_that_comes_later_is_taken_then(device: Device, capsys: pytest.CaptureFixture[str]) -> None:
    dog = Watchdog("30", str(device.path))
    dog.feed()
    dog.feed()
    missing = f"{device.path}: No such file or directory"
    assert told(dog, fed=False, seconds=0, problem=missing)
    assert capsys.readouterr().err == f"initspawn: watchdog: {missing}\n", "once"
    device.come()
    device.refuses[GETSUPPORT] = errno.EBUSY
    dog.feed()
    assert "busy" in capsys.readouterr().err, "another reason is told as well"
    device.refuses.clear()
    dog.feed()
    assert told(dog)


def test_one_that_went_away_is_taken_again(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    device.come()
    dog = Watchdog("30", str(device.path))
    dog.feed()

    def gone(fd: int) -> None:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    with monkeypatch.context() as broken:
        broken.setattr(watchdog, "feed", gone)
        dog.feed()
    assert told(dog, fed=False, seconds=0, problem=f"{device.path}: No such device")
    dog.feed()
    assert told(dog)
    assert b"V" not in device.eaten


def test_one_that_chooses_another_time(device: Device) -> None:
    device.come()
    device.most = 16
    dog = Watchdog("30", str(device.path))
    dog.feed()
    assert told(dog, seconds=16)


@pytest.mark.parametrize(("tells", "seconds"), [(True, 60), (False, 0)])
def test_one_that_cannot_be_set_is_fed_nevertheless(device: Device, tells: bool, seconds: int) -> None:
    """It runs since it was opened."""
    device.come()
    device.refuses = {SETTIMEOUT: errno.EINVAL, **({} if tells else {GETTIMEOUT: errno.EOPNOTSUPP})}
    dog = Watchdog("30", str(device.path))
    dog.feed()
    problem = f"{device.path}: cannot be set to 30 s: Invalid argument"
    assert told(dog, seconds=seconds, problem=problem)
    dog.feed()
    assert device.eaten == b"\0"


@pytest.mark.not_emulated("ioctl(2) with an order that the device does not know")
def test_to_what_is_none_nothing_is_written(tmp_path: Path) -> None:
    """A disk, for example, that was named by mistake; a pipe does not keep us waiting."""
    before = len(open_descriptors())
    file, pipe = tmp_path / "file", tmp_path / "pipe"
    file.write_bytes(b"data")
    os.mkfifo(pipe)
    for path, problem in ((file, "Inappropriate ioctl for device"), (pipe, "No such device or address")):
        dog = Watchdog("30", str(path))
        dog.feed()
        dog.stop()
        assert told(dog, fed=False, seconds=0, problem=f"{path}: {problem}")
    assert file.read_bytes() == b"data"
    assert len(open_descriptors()) == before


@pytest.mark.parametrize("asked", ["9", "86401", "-30", "30s", "3.5e1", "x", "٣٠", "9" * 4000])
def test_what_is_no_time_is_told_and_feeds_nobody(
    device: Device, asked: str, capsys: pytest.CaptureFixture[str]
) -> None:
    device.come()
    dog = Watchdog(asked, str(device.path))
    dog.feed()
    problem = f"initspawn.watchdog={asked}: write seconds, from 10 to 86400, such as 30"
    assert told(dog, fed=False, seconds=0, problem=problem)
    assert capsys.readouterr().err == f"initspawn: watchdog: {problem}\n"
    assert not device.asked


def test_where_there_can_be_none_it_is_left_alone(device: Device) -> None:
    device.come()
    dog = Watchdog("30", str(device.path), "not here")
    dog.feed()
    assert told(dog, fed=False, seconds=0, problem="not here")
    assert not device.asked


def ended(device: Device, monkeypatch: pytest.MonkeyPatch, way: str) -> bool:
    """The end of the machine, in which a child that feeds the device does so ten times; whether one did."""
    words = f"initspawn.watchdog=30 initspawn.watchdog_device={device.path}"
    monkeypatch.setattr(cmdline, "read", lambda: words)
    dog = boot.last()
    assert dog is not None
    dog.feed()
    monkeypatch.setattr(boot, "_PAUSE", 0.02)
    clock = itertools.chain([0.0] * 11, itertools.repeat(boot.END_SECONDS + 1.0))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    children: list[int] = []
    fork = os.fork

    def forks() -> int:
        children.append(fork())
        return children[-1]

    monkeypatch.setattr(os, "fork", forks)
    dog.leave(way)
    return bool(children) and os.waitpid(children[0], 0)[1] == 0


@pytest.mark.parametrize(
    ("way", "seconds", "waits", "eaten"),
    [("reboot", 30, 90, b"\0"), ("reboot", 300, 300, b"\0"), ("poweroff", 30, 90, b"\0V")],
)
def test_at_the_end_a_restart_is_guarded_and_a_power_off_stands(
    device: Device, way: str, seconds: int, waits: int, eaten: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.come()
    words = f"initspawn.watchdog={seconds} initspawn.watchdog_device={device.path}"
    monkeypatch.setattr(cmdline, "read", lambda: words)
    before = len(open_descriptors())
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("nobody need feed it"))
    dog = boot.last()
    assert dog is not None
    dog.feed()
    assert (device.waits, device.eaten) == (waits, b"")
    dog.leave(way)
    assert (device.waits, device.eaten) == (waits, eaten)
    assert len(open_descriptors()) == before + (way == "reboot")


@pytest.mark.parametrize(
    ("answer", "eaten"), [(errno.EBUSY, bytes(11)), (errno.EOPNOTSUPP, b"\0V"), (None, b"\0V")]
)
def test_at_the_end_one_that_nobody_can_stop_is_fed_also_for_a_power_off(
    device: Device, monkeypatch: pytest.MonkeyPatch, answer: int | None, eaten: bytes
) -> None:
    """Or it would restart the machine in the middle of its last sync."""
    device.come()
    device.waits = device.most = 16
    if answer is not None:
        device.refuses[SETOPTIONS] = answer
    assert ended(device, monkeypatch, "poweroff") == (answer == errno.EBUSY)
    assert device.eaten == eaten


@pytest.mark.parametrize("why", ["it cannot be set", "it takes less", "it does not tell"])
def test_at_the_end_one_that_waits_no_longer_is_fed_by_a_child(
    device: Device, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """For so long and no longer: a sync may last, and a restart that hangs is to come nevertheless."""
    device.come()
    device.waits = device.most = 16
    if why != "it takes less":
        device.refuses[SETTIMEOUT] = errno.EINVAL
    if why == "it does not tell":
        device.refuses[GETTIMEOUT] = errno.EOPNOTSUPP
    assert ended(device, monkeypatch, "reboot")
    assert device.eaten == bytes(11)  # and one by us


def test_at_the_end_it_is_taken_from_who_was_ended(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    device.come()
    device.refuses[GETSUPPORT] = errno.EBUSY
    words = f"initspawn.watchdog=30 initspawn.watchdog_device={device.path}"
    monkeypatch.setattr(cmdline, "read", lambda: words)
    dog = boot.last()
    assert dog is not None
    dog.feed()
    assert not told(dog)
    device.refuses.clear()
    dog.leave("poweroff")
    assert device.eaten == b"V"


def test_at_the_end_it_is_fed_while_others_end(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fed: Any = SimpleNamespace(feed=lambda: done.append("fed"), leave=lambda way: done.append(way))
    others = [True, True, False, True, False]
    monkeypatch.setattr(halt, "option", lambda _: "30")
    monkeypatch.setattr(boot, "last", lambda: fed)
    monkeypatch.setattr(halt, "_ours", lambda: True)
    monkeypatch.setattr(halt, "is_machine", lambda: True)
    monkeypatch.setattr(halt, "_others", lambda: others.pop(0))
    monkeypatch.setattr(halt, "_protect_disks", lambda: done.append("protected"))
    monkeypatch.setattr(halt, "syscall", lambda *_: done.append("ended"))
    monkeypatch.setattr(halt._signal, "alarm", lambda _: None)
    monkeypatch.setattr(os, "kill", lambda pid, number: done.append(f"{number:d}"))
    monkeypatch.setattr(os, "sync", lambda: done.append("synced"))
    halt.main(["reboot"])
    assert done == ["fed", "15", "fed", "fed", "9", "fed", "reboot", "synced", "protected", "ended"]


def test_at_the_end_nobody_is_fed_who_was_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for line in ("", "initspawn.watchdog=x"):
        monkeypatch.setattr(cmdline, "read", lambda line=line: line)
        assert boot.last() is None
        assert halt._watchdog() is None


def test_every_sign_of_life_feeds_it_and_only_recovery_stops_it(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.come()
    words = f"initspawn.watchdog=30 initspawn.watchdog_device={device.path}"
    monkeypatch.setattr(cmdline, "read", lambda: words)
    monkeypatch.setattr(alone, "is_machine", lambda: True)
    lived: list[bytes] = []
    monkeypatch.setattr(early.Early, "_live", lambda _: lived.append(device.eaten))
    made: Any = object.__new__(alone.Alone)
    made.registry = SimpleNamespace(about={})
    made.supervisor = SimpleNamespace(closing=True)
    made._button = None
    made._watchdog = made._watch(cmdline.option("watchdog"))
    assert made.registry.about["watchdog"]()["fed"]
    for _ in range(2):
        made._live()
    assert lived == [b"", b"\0"]
    made.finish(REBOOT)
    made.finish(POWER_OFF)
    made._live()
    assert device.eaten == b"\0\0\0"
    made.finish(RECOVERY)
    made._live()
    assert device.eaten == b"\0\0\0V"
    assert len(lived) == 4
    assert made._watch("") is None


@pytest.mark.parametrize("fails", ["sign", "device"])
def test_a_device_that_fails_ends_no_signs_of_life_nor_do_they_starve_it(
    fails: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who gives none is killed by PID 1."""
    done: list[str] = []

    def does(what: str) -> None:
        done.append(what)
        if what == fails:
            raise MemoryError

    monkeypatch.setattr(early.Early, "_live", lambda _: does("sign"))
    made: Any = object.__new__(alone.Alone)
    made._watchdog = SimpleNamespace(feed=lambda: does("device"))
    with pytest.raises(MemoryError):
        made._live()
    assert done == ["sign", "device"]
