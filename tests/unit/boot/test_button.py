"""The power button. Devices are files here, with the keys a test gives them; real ones are in a guest."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from initspawn.boot.button import Button
from initspawn.linux import evdev
from initspawn.supervisor.reactor import Reactor

KEY_A = 30


def event(kind: int, code: int, value: int) -> bytes:
    """struct input_event of include/uapi/linux/input.h."""
    return struct.pack("=qqHHi" if struct.calcsize("l") == 8 else "=iiHHi", 1, 2, kind, code, value)


PRESS = event(evdev.EV_KEY, evdev.KEY_POWER, 1)


class Machine:
    """A loop with a button, and a directory for its devices."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.reactor = Reactor()
        self.pressed = 0
        self.button = Button(self.reactor, self._press, str(place / "input"))

    def _press(self) -> None:
        self.pressed += 1

    def device(self, name: str) -> int:
        """A new device; the descriptor by which its events come. Where it is used, it has all keys."""
        (self.place / "input").mkdir(exist_ok=True)
        path = self.place / "input" / name
        os.mkfifo(path)
        self.turn()
        return os.open(path, os.O_RDWR | os.O_NONBLOCK)

    def turn(self, seconds: float = 0.2) -> int:
        """Run for so long; how often the button has been pressed."""
        end = self.reactor.clock() + seconds
        while self.reactor.clock() < end:
            self.reactor.turn(0.02)
        return self.pressed


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(evdev, "has_key", lambda fd, key: key == evdev.KEY_POWER)
    made = Machine(tmp_path)
    yield made
    made.button.close()
    made.reactor.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_press_is_told_and_nothing_else(machine: Machine) -> None:
    fd = machine.device("event0")
    with open(fd, "wb", buffering=0) as device:
        device.write(event(evdev.EV_KEY, KEY_A, 1) + event(0, 0, 0))
        device.write(event(evdev.EV_KEY, evdev.KEY_POWER, 0) + event(evdev.EV_KEY, evdev.KEY_POWER, 2))
        device.write(event(0, evdev.KEY_POWER, 1))
        assert machine.turn() == 0
        device.write(PRESS)
        assert machine.turn() == 1


def test_many_events_take_several_turns_and_half_ones_do_no_harm(machine: Machine) -> None:
    fd = machine.device("event0")
    with open(fd, "wb", buffering=0) as device:
        device.write(event(evdev.EV_KEY, KEY_A, 1) * 1000 + PRESS)
        machine.reactor.turn()
        assert machine.pressed == 0
        assert machine.turn() == 1
        device.write(PRESS[:5])
        assert machine.turn() == 1


def test_devices_come_go_and_come_again_under_their_name(machine: Machine) -> None:
    """Before there is a directory for them, too."""
    assert machine.turn(0.05) == 0
    first = machine.device("event3")
    os.write(first, PRESS)
    assert machine.turn() == 1
    os.unlink(machine.place / "input/event3")
    second = machine.device("event3")
    os.close(first)
    with open(second, "wb", buffering=0) as device:
        device.write(PRESS)
        assert machine.turn() == 2


def test_other_files_are_no_devices(tmp_path: Path) -> None:
    """They are asked for their keys, which no file has; links are not followed; other names are not ours."""
    place = tmp_path / "input"
    place.mkdir()
    (place / "event0").write_bytes(PRESS)
    os.mkfifo(place / "event1")
    (place / "event2").symlink_to("event1")
    os.mkfifo(place / "mouse0")
    before = len(os.listdir("/proc/self/fd"))
    made = Machine(tmp_path)
    assert made.turn(0.1) == 0
    assert len(os.listdir("/proc/self/fd")) == before + 2  # the loop's, and the directory's watch
    made.button.close()
    made.reactor.close()


def test_a_key_is_a_bit_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """EVIOCGBIT(EV_KEY, 96), as the C macro makes it of its arguments."""
    asked = []

    def ioctl(fd: int, request: int, bits: bytearray) -> int:
        asked.append((request, len(bits)))
        bits[116 // 8] = 1 << 116 % 8
        return len(bits)

    monkeypatch.setattr("fcntl.ioctl", ioctl)
    assert evdev.has_key(9, evdev.KEY_POWER)
    assert not evdev.has_key(9, evdev.KEY_POWER + 1)
    assert not evdev.has_key(9, evdev.KEY_POWER + 8)
    assert asked == [(0x80604521, 96)] * 3
