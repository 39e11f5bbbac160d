"""The test suite's own helpers: they must see what they are there to see."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from tests.support import leftovers
from tests.support.probes import cgroup_mount
from tests.support.users import Ordinary

ORPHAN = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep({seconds})"


@pytest.mark.not_emulated("prctl(2) PR_SET_CHILD_SUBREAPER")
def test_an_orphan_that_lives_on_is_seen_and_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "SETTLE_SECONDS", 0.2)
    before = leftovers.snapshot()
    subprocess.run([sys.executable, "-c", ORPHAN.format(seconds=60)], check=True)
    (left,) = leftovers.left_since(before)
    assert left.startswith("process ")
    assert "time.sleep(60)" in left
    monkeypatch.setattr(leftovers, "SETTLE_SECONDS", 3.0)
    assert leftovers.left_since(before) == []


def test_what_ends_by_itself_is_waited_for() -> None:
    before = leftovers.snapshot()
    subprocess.run([sys.executable, "-c", ORPHAN.format(seconds=0.3)], check=True)
    start = time.monotonic()
    assert leftovers.left_since(before) == []
    assert time.monotonic() - start < leftovers.SETTLE_SECONDS


@pytest.mark.needs("cgroup")
@pytest.mark.parametrize(
    ("whose", "seen"),
    [("ours", True), ("nobody's", True), ("another worker's", False), ("another run's", False)],
)
def test_a_cgroup_is_seen_by_the_worker_that_made_it(
    monkeypatch: pytest.MonkeyPatch, whose: str, seen: bool
) -> None:
    monkeypatch.setattr(leftovers, "SETTLE_SECONDS", 0.0)
    mount = cgroup_mount()
    assert mount is not None
    before = leftovers.snapshot()
    worker = "gw99" if whose == "another worker's" else leftovers.WORKER
    owner = {"another run's": os.getppid(), "nobody's": 2**22 + os.getpid()}.get(whose, os.getpid())
    made = mount / f"initspawn-leftover-{worker}-{owner}"
    made.mkdir()
    try:
        assert (f"cgroup {made}" in leftovers.left_since(before)) == seen
    finally:
        made.rmdir()


def test_an_ordinary_user_can_use_the_package(as_user: Ordinary) -> None:
    script = "import initspawn.plan, msgspec, os; open('file', 'w'); print(os.getresuid(), os.getgroups())"
    result = as_user.run([as_user.python, "-c", script])
    assert result.stderr == ""
    groups = [] if os.geteuid() == 0 else os.getgroups()
    assert result.stdout == f"{(as_user.uid,) * 3} {groups}\n"
    assert (as_user.home / "file").stat().st_uid == as_user.uid


def test_an_ordinary_user_can_call_a_function(as_user: Ordinary) -> None:
    assert as_user.call(lambda more: os.getresuid() + os.getresgid() + more, (1,)) == (
        *(as_user.uid,) * 3,
        *(as_user.gid,) * 3,
        1,
    )
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        as_user.call(lambda: 1 // 0)
