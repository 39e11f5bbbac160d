"""What goes wrong before systemd never keeps the machine from booting.

The real init of these machines is a script that says what it finds and switches them off: a boot is short.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qemu.faults import altered
from qemu.image import Image
from qemu.machine import Machine, Shape

INIT = "init=/usr/sbin/initspawn-init"
SAY = "initspawn.init=/usr/local/sbin/say-and-stop"
PYTHON = "/usr/bin/python3.11"
EARLY = "/opt/initspawn/initspawn/boot/early.py"
PLAN = "/etc/initspawn/boot.plan"
SECONDS = 180.0
MOUNTED = ("/proc", "/sys", "/dev", "/dev/shm", "/dev/pts", "/run", "/sys/fs/cgroup")


def console_of(image: Image, append: str = "", *, until: str = "that was all") -> str:
    """What a machine shows that boots from this image, up to these words."""
    with Machine(Shape(image, memory=512, append=f"quiet {INIT} {append}")) as machine:
        machine.wait_console(until, SECONDS)
        return machine.console()


def test_everything_is_there_when_the_real_init_starts(image: Image) -> None:
    shown = console_of(image, f"{SAY} -- one two")
    assert "real init: PID 1, arguments: one two" in shown
    assert re.findall(r"mounted: (\S+)", shown) == sorted(MOUNTED, key=shown.index)
    assert set(re.findall(r"mounted: (\S+)", shown)) == set(MOUNTED)
    assert "answers at /run/initspawn/control" in shown
    assert "log: " not in shown


@pytest.mark.parametrize(
    ("files", "said"),
    [
        pytest.param({PYTHON: None}, "initspawn has ended early", id="no-interpreter"),
        pytest.param({EARLY: b"import nowhere\n"}, "initspawn has ended early", id="a-missing-module"),
        pytest.param({EARLY: b"import os\nos.kill(os.getpid(), 11)\n"}, "has ended early", id="a-crash"),
        pytest.param({PLAN: b"\0rubbish"}, "boot.plan: not a plan", id="a-damaged-plan"),
        pytest.param({PLAN: None}, "no plan, so no commands", id="no-plan"),
    ],
)
def test_a_fault_of_ours_is_told_and_left_behind(
    image: Image, tmp_path: Path, files: dict[str, bytes | None], said: str
) -> None:
    shown = console_of(altered(image, tmp_path, files), SAY)
    before, after = shown.split("real init: PID 1")
    assert said in before  # on the console at once
    assert said in after  # and in the kernel's log
    assert ("answers at" in shown) == (PLAN in files)


def test_a_hang_ends_when_there_is_no_sign_of_life(image: Image, tmp_path: Path) -> None:
    broken = altered(image, tmp_path, {EARLY: b"while True: pass\n"})
    shown = console_of(broken, f"{SAY} initspawn.patience=3")
    assert "real init: PID 1" in shown
    assert "initspawn gave no sign of life for 3 s" in shown


def test_switched_off_by_the_boot_loader(image: Image) -> None:
    shown = console_of(image, f"{SAY} initspawn=off")
    assert "real init: PID 1" in shown
    assert "answers at" not in shown


def test_a_root_that_cannot_be_written(image: Image) -> None:
    with Machine(Shape(image, memory=512, append=f"quiet ro {INIT} {SAY}")) as machine:
        machine.wait_console("that was all", SECONDS)
        assert "answers at /run/initspawn/control" in machine.console()


def test_an_init_that_cannot_be_executed_is_passed_over(image: Image, tmp_path: Path) -> None:
    """The next candidate's turn; with none left, a shell: the kernel never panics."""
    bad = {"/usr/local/sbin/say-and-stop": b"\177ELF of nothing", "/lib/systemd/systemd": b"#!/no/such\n"}
    shown = console_of(altered(image, tmp_path, bad), SAY, until="this is a shell")
    assert "panic" not in shown
