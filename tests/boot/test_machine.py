"""A machine's lifetime: it ends when it should, and never outlives who started it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qemu.guest import Guest
from qemu.image import Image
from qemu.machine import GUESTS, KERNEL, GuestError, Machine, Shape

ROOT = Path(__file__).parents[2]
RUNNER = """
import sys, time
from pathlib import Path
from qemu.image import Image
from qemu.machine import Machine, Shape
with Machine(Shape(Image(Path(sys.argv[1]), Path(sys.argv[2])), memory=256)) as machine:
    print(machine.pid, machine.place, flush=True)
    time.sleep(600)
"""


@pytest.mark.racy
def test_it_dies_with_its_runner(image: Image, tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", RUNNER, *map(str, image)],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True,
    ) as runner:  # fmt: skip
        assert runner.stdout
        pid = int(runner.stdout.readline().split()[0])
        assert b"qemu-system" in Path(f"/proc/{pid}/cmdline").read_bytes() or _becomes_qemu(pid)
        runner.kill()
    end = time.monotonic() + 10
    while _alive(pid):
        assert time.monotonic() < end, "QEMU outlived its runner"
        time.sleep(0.05)


def _becomes_qemu(pid: int) -> bool:
    """Whether the process, still on its way there, executes QEMU within some seconds."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"qemu-system"):
            return True
        time.sleep(0.02)
    return False


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_a_panic_ends_it_and_is_shown(image: Image) -> None:
    with (
        Guest(Shape(image, memory=256, kernel_options=KERNEL, append="init=/no/such/init")) as machine,
        pytest.raises(GuestError, match=r"QEMU ended with 0(.|\n)*Kernel panic"),
    ):
        machine.wait_agent()


def test_a_disk_that_is_missing_is_told(image: Image, tmp_path: Path) -> None:
    with (
        Guest(Shape(Image(tmp_path / "none", image.kernel))) as machine,
        pytest.raises(GuestError, match=r"QEMU ended with 1(.|\n)*No such file"),
    ):
        machine.wait_agent()


def test_at_most_so_many_run(image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a cache of its own, whose slots nobody else takes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    shape = Shape(image, memory=256)
    machines = [Machine(shape).__enter__() for _ in range(GUESTS)]
    code = "from qemu.machine import _slot; _slot(); print('free', flush=True)"
    try:
        with subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as waiting:  # fmt: skip
            with pytest.raises(subprocess.TimeoutExpired):
                waiting.wait(1.5)
            machines.pop().__exit__()
            out, said = waiting.communicate(timeout=30)
            assert out == "free\n"
            assert said.count("waiting for one to end") == 1
    finally:
        for machine in machines:
            machine.__exit__()
            assert machine.ended()
            assert not machine.place.exists()
