"""What is mounted outside later comes in, what is mounted inside stays there, no task sees another's /tmp."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from initspawn.linux.capabilities import NUMBERS
from initspawn.linux.libc import syscall
from initspawn.plan import Sandbox
from tests.system import boxes
from tests.system.conftest import root, root_and_a_user
from tests.system.harness import MS_REC, MS_SHARED, Person, bench, own_mounts

pytestmark = pytest.mark.needs("userns")


def _both_ways(sandbox: Sandbox, place: Path) -> tuple[bool, bool, str]:
    own_mounts()
    syscall("mount", b"none", b"/", 0, MS_REC | MS_SHARED)
    with bench(sandbox) as made:
        line = "mount -t tmpfs none /data/inner && echo mounted; exec sleep 60"
        run = made.shell(line).begin().until("mounted")
        syscall("mount", b"none", os.fsencode(place / "outer"), b"tmpfs", 0, b"")
        (place / "outer" / "new").touch()
        came_in = Path(f"/proc/{run.pid}/root/data/outer/new").exists()
        inside = "/data/inner " in Path(f"/proc/{run.pid}/mountinfo").read_text()
        run.stop(9).end()
        return came_in, inside, Path("/proc/self/mountinfo").read_text()


@root
def test_mounts_come_in_and_none_goes_out(who: Person) -> None:
    for name in ("inner", "outer"):
        (who.home / name).mkdir()
    own = ("pid", "mnt")
    rights = 1 << NUMBERS["SYS_ADMIN"]
    sandbox = boxes.sandbox(who, *own, new_root=True, mounts=boxes.tree(who), user=0, group=0).replace(
        capabilities=rights, namespaces=own
    )
    came_in, inside, ours = who.call(_both_ways, sandbox, who.home)
    assert came_in
    assert inside
    assert f"{who.home}/outer " in ours
    assert f"{who.home}/inner " not in ours


@root_and_a_user
def test_no_task_sees_the_tmp_of_another(who: Person) -> None:
    assert who.call(_two_tasks, boxes.full(who)) == ["one", "two"]


def _two_tasks(sandbox: Sandbox) -> list[str]:
    with bench(sandbox) as made:
        line = ": > /tmp/$0; echo ready; while [ ! -e /data/go ]; do sleep 0.02; done; ls /tmp"
        runs = [made.start("/bin/sh", "-c", line, name).begin().until("ready") for name in ("one", "two")]
        home = next(entry.source for entry in sandbox.mounts if entry.target == "/data")
        Path(home, "go").touch()
        return [run.end().out.split("\n")[-1] for run in runs]
