"""QEMU's command line and what keeps a machine closed."""

from __future__ import annotations

from pathlib import Path

import pytest

from qemu import machine
from qemu.image import Image
from qemu.machine import GuestError, Shape, command_line

IMAGE = Image(Path("/images/disk.ext4"), Path("/images/vmlinuz"))


def line(**options: object) -> str:
    return " ".join(command_line(Shape(IMAGE, **options), Path("/place"), 5, 6))  # type: ignore[arg-type]


def test_nothing_is_open_and_nothing_is_kept() -> None:
    text = line(drives=(Path("/images/more"),))
    assert "-netdev user,id=n0,restrict=on " in text
    assert "hostfwd" not in text
    assert text.count("snapshot=on") == text.count("-drive") == 2
    assert "-nodefaults -no-user-config -no-reboot -display none" in text


def test_cgroup_v2_has_all_controllers() -> None:
    text = line(append="quiet init=/bin/sh")
    assert "cgroup_no_v1=all systemd.unified_cgroup_hierarchy=1" in text
    assert text.split("-append ")[1].startswith("console=ttyS0 panic=-1 root=/dev/nvme0n1 ")
    assert " quiet init=/bin/sh -drive " in text


def test_the_console_is_a_file_or_the_terminal() -> None:
    assert "-chardev file,id=console,path=/place/console -serial chardev:console" in line()
    assert "-chardev stdio,id=console,signal=off -serial chardev:console" in line(terminal=True)


def test_kvm_only_when_asked_for_and_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("INITSPAWN_KVM", raising=False)
    assert machine.accelerator()[:2] == ["-accel", "tcg,thread=multi"]
    monkeypatch.setenv("INITSPAWN_KVM", "1")
    processor = tmp_path / "cpuinfo"
    monkeypatch.setattr(machine, "CPUINFO", processor)
    processor.write_text("flags : fpu svme\n")
    with pytest.raises(GuestError, match="neither svm nor vmx"):
        machine.accelerator()
    processor.write_text("flags : fpu vmx sse\n")
    monkeypatch.setattr(machine, "KVM", tmp_path / "none")
    with pytest.raises(GuestError, match="cannot be opened"):
        machine.accelerator()
    (tmp_path / "none").write_text("")
    assert machine.accelerator() == ["-accel", "kvm", "-cpu", "host"]
