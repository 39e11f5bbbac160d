"""The audit log: one line a call, bounded, and never anybody's trouble."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from initspawn.control.audit import Audit


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_record(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    audit = Audit(str(path), clock=Clock())
    audit.record("network", "token:me", "a/b", "stop", "allowed")
    audit.record("control", "user:0", "x" * 1000 + "\n", None, "unknown-api")
    audit.close()
    assert lines(path) == [
        {"time": 1000.0, "door": "network", "who": "token:me", "call": "a/b", "action": "stop",
         "decision": "allowed"},
        {"time": 1000.0, "door": "control", "who": "user:0", "call": "x" * 200, "decision": "unknown-api"},
    ]  # fmt: skip
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_equal_records_are_counted(tmp_path: Path) -> None:
    path, clock = tmp_path / "audit", Clock()
    audit = Audit(str(path), clock=clock)
    for _ in range(1000):
        audit.record("network", "nobody", "a/b", None, "insufficient-scope")
    assert len(lines(path)) == 1
    clock.now += 1
    audit.record("network", "nobody", "a/b", None, "insufficient-scope")
    audit.record("network", "nobody", "a/b", None, "insufficient-scope")
    audit.close()
    assert [line.get("times", 1) for line in lines(path)] == [1, 999, 1, 1]


def test_a_clock_that_is_set_back_hides_nothing(tmp_path: Path) -> None:
    path, clock = tmp_path / "audit", Clock()
    audit = Audit(str(path), clock=clock)
    for now in (5000.0, 1000.0, 1000.5):
        clock.now = now
        audit.record("network", "nobody", "a/b", None, "insufficient-scope")
    assert [line["time"] for line in lines(path)] == [5000.0, 1000.0]
    audit.close()


def test_it_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    audit = Audit(str(path), limit=1000)
    for number in range(100):
        audit.record("network", "nobody", f"a/{number}", None, "allowed")
    audit.close()
    assert sorted(os.listdir(tmp_path)) == ["audit", "audit.1"]
    assert all(entry.stat().st_size < 1200 for entry in tmp_path.iterdir())
    assert lines(path)[-1]["call"] == "a/99"


def test_it_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "audit").symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="audit"):
        Audit(str(tmp_path / "audit"))
    assert not (tmp_path / "other").exists()


def test_a_full_disk_stops_nobody(capfd: pytest.CaptureFixture[str]) -> None:
    audit = Audit("/dev/full", limit=1 << 62)
    audit.record("network", "nobody", "a/b", None, "allowed")
    audit.close()
    assert capfd.readouterr().err == "initspawn: the audit log /dev/full: No space left on device\n"
