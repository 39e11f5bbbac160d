"""Loop devices, with the kernel's answers made up."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from initspawn.linux import loop


class Kernel:
    """Answers the calls of `loop.attach`; the devices numbered in `taken` are another's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, taken: set[int]) -> None:
        self.next, self.taken, self.config = 0, taken, b""
        self.open: dict[int, str] = {}
        real_open, real_close = os.open, os.close

        def opened(path: Any, *rest: Any, **more: Any) -> int:
            if not str(path).startswith("/dev/loop"):
                return real_open(path, *rest, **more)
            fd = real_open("/dev/null", os.O_RDWR)
            self.open[fd] = str(path)
            return fd

        def closed(fd: int) -> None:
            self.open.pop(fd, None)
            real_close(fd)

        monkeypatch.setattr(os, "open", opened)
        monkeypatch.setattr(os, "close", closed)
        monkeypatch.setattr(fcntl, "ioctl", self.ioctl)

    def ioctl(self, fd: int, request: int, argument: bytes = b"") -> int:
        """ioctl(2) of the control device, or of one that it gave."""
        if request == loop.LOOP_CTL_GET_FREE:
            self.next += 1
            return self.next - 1
        if int(self.open[fd].removeprefix("/dev/loop")) in self.taken:
            raise OSError(errno.EBUSY, "busy")
        self.config = argument
        return 0


def test_one_that_another_has_taken_meanwhile_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(monkeypatch, {0, 1})
    fd, path = loop.attach(7, "/srv/box.squashfs")
    assert path == "/dev/loop2"
    assert kernel.open == {fd: path}  # nothing else stays open
    assert len(kernel.config) == 304
    assert int.from_bytes(kernel.config[:4], "little") == 7
    assert int.from_bytes(kernel.config[60:64], "little") == loop.LO_FLAGS_READ_ONLY | loop.LO_FLAGS_AUTOCLEAR
    assert kernel.config[64:].startswith(b"/srv/box.squashfs\0")
    os.close(fd)


def test_it_gives_up_when_others_take_every_one(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(monkeypatch, set(range(1000)))
    with pytest.raises(OSError, match="loop-control") as caught:
        loop.attach(7, "image")
    assert caught.value.errno == errno.EBUSY
    assert not kernel.open


def refusing(number: int) -> Callable[..., int]:
    """An ioctl(2) that always fails."""

    def ioctl(*_: Any) -> int:
        raise OSError(number, os.strerror(number))

    return ioctl


def test_a_failure_that_is_no_race_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "CONTROL", "/dev/null")
    monkeypatch.setattr(fcntl, "ioctl", refusing(errno.EPERM))
    with pytest.raises(PermissionError):
        loop.attach(7, "image")


@pytest.mark.parametrize("opens", [True, False])
def test_a_control_device_that_is_missing_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, opens: bool
) -> None:
    control = tmp_path / "loop-control"
    made: list[tuple[str, int, int]] = []

    def mknod(path: str, mode: int, device: int) -> None:
        made.append((path, mode, device))
        if opens:
            control.write_text("")
        else:
            control.symlink_to(tmp_path / "none")  # opening it fails, as where the kernel has no such device

    monkeypatch.setattr(loop, "CONTROL", str(control))
    monkeypatch.setattr(os, "mknod", mknod)
    monkeypatch.setattr(fcntl, "ioctl", refusing(errno.EPERM))
    with pytest.raises(PermissionError if opens else FileNotFoundError):
        loop.attach(7, "image")
    assert made == [(str(control), stat.S_IFCHR | 0o600, os.makedev(10, 237))]
    assert os.path.lexists(control) == opens
