"""The audit log: one line a call, bounded, and never anybody's trouble."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from initspawn.control.audit import Audit, Found, verify


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def lines(path: Path) -> list[dict[str, Any]]:
    """The records, without what chains them."""
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: value for name, value in one.items() if name not in ("n", "chain")} for one in found]


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


def written(tmp_path: Path, count: int = 5) -> Path:
    path = tmp_path / "audit"
    audit = Audit(str(path), clock=Clock())
    for number in range(count):
        audit.record("network", f"token:{number}", "a/b", "start", "allowed")
    audit.close()
    return path


def test_what_is_as_it_was_written(tmp_path: Path) -> None:
    path = written(tmp_path)
    found = verify(str(path))
    assert (found.records, found.last, found.wrong) == (5, 5, "")
    assert verify(str(path), (5, found.chain)).wrong == ""


def test_an_empty_log(tmp_path: Path) -> None:
    assert verify(str(written(tmp_path, 0))) == Found()


def test_the_chain_goes_on_across_supervisors_and_files(tmp_path: Path) -> None:
    path = written(tmp_path, 2)
    audit = Audit(str(path), limit=500, clock=Clock())
    for number in range(10):
        audit.record("control", f"user:{number}", "a/b", None, "forbidden")
    audit.close()
    found = verify(str(path))
    assert found.wrong == ""
    assert found.last == 12
    assert found.records < 12, "the oldest file is lost"
    Audit(str(path), clock=Clock()).close()
    assert verify(str(path)) == found


def changed(lines: list[str], how: str) -> list[str]:
    """The five lines with something done to the third."""
    line = lines[2]
    return {
        "altered": [*lines[:2], line.replace("token:2", "token:9"), *lines[3:]],
        "taken out": [*lines[:2], *lines[3:]],
        "moved": [*lines[:2], lines[3], line, lines[4]],
        "doubled": [*lines[:3], line, *lines[3:]],
        "torn": [*lines[:2], line[:40], *lines[3:]],
        "inserted": [*lines[:2], '{"n": 3, "time": 1.0, "chain": "00"}', *lines[2:]],
        "no number": [*lines[:2], "[1, 2]", *lines[3:]],
        "deep": [*lines[:2], "[" * 100_000, *lines[3:]],
    }[how]


@pytest.mark.parametrize(
    ("how", "line", "said"),
    [
        ("altered", 3, "record 3 is not as it was written"),
        ("taken out", 3, "record 3 is missing, this is 4"),
        ("moved", 3, "record 3 is missing, this is 4"), ("doubled", 4, "record 4 is missing, this is 3"),
        ("torn", 3, "it is no record"), ("inserted", 3, "record 3 is not as it was written"),
        ("no number", 3, "it is no record"), ("deep", 3, "it is no record"),
    ],
)  # fmt: skip
def test_the_first_record_that_is_not_is_named(tmp_path: Path, how: str, line: int, said: str) -> None:
    path = written(tmp_path)
    path.write_text("\n".join(changed(path.read_text().splitlines(), how)) + "\n")
    found = verify(str(path))
    assert found.wrong == f"{path}:{line}: {said}"
    assert found.records == line - 1


def test_a_cut_or_a_new_chain_is_found_by_who_kept_the_last(tmp_path: Path) -> None:
    path = written(tmp_path)
    last = verify(str(path))
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:3]) + "\n")
    assert verify(str(path)).wrong == "", "nobody can tell"
    assert verify(str(path), (last.last, last.chain)).wrong == f"{path}: record 5 is not there any more"
    path.unlink()
    anew = Audit(str(path), clock=Clock())
    for _ in range(6):
        anew._write({"time": 1.0})
    anew.close()
    assert verify(str(path)).wrong == ""
    assert verify(str(path), (last.last, last.chain)).wrong.endswith(
        ":5: it is not the one that was expected"
    )


def test_a_torn_end_is_told_and_the_log_goes_on(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_bytes(path.read_bytes()[:-20])
    audit = Audit(str(path), clock=Clock())
    audit.record("control", "user:0", "a/b", None, "allowed")
    audit.close()
    assert lines_that_are(path) == [1, 2, 3, 4, 5]
    assert verify(str(path)).wrong == f"{path}:5: it is no record"


def lines_that_are(path: Path) -> list[int]:
    found = []
    for line in path.read_text().splitlines():
        try:
            found.append(json.loads(line)["n"])
        except ValueError:
            pass
    return found


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ENFILE])
def test_where_no_new_file_can_be_made_it_goes_on_in_the_old_one(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its descriptor is never one that somebody else has meanwhile."""
    path = tmp_path / "audit"
    audit = Audit(str(path), limit=500, clock=Clock())
    before = set(os.listdir("/proc/self/fd"))
    real = os.open

    def failing(name: str, *rest: int) -> int:
        if name == str(path):
            raise OSError(number, os.strerror(number))
        return real(name, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", failing)
        for user in range(5):
            audit.record("control", f"user:{user}", "a/b", None, "forbidden")
            other = real(tmp_path / "theirs", os.O_RDWR | os.O_CREAT)
            audit.record("control", f"user:{user}", "a/c", None, "forbidden")
            assert os.fstat(other).st_size == 0
            os.close(other)
    assert capfd.readouterr().err.endswith(f"initspawn: the audit log {path}: {os.strerror(number)}\n")
    assert verify(str(path)).records == 10
    for user in range(3):
        audit.record("control", f"user:{user}", "a/b", None, "forbidden")
    assert verify(str(path)).last == 13
    assert len(lines(path)) < 10
    assert set(os.listdir("/proc/self/fd")) == before
    audit.close()


def test_one_that_was_removed_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    audit = Audit(str(path), limit=500, clock=Clock())
    path.unlink()
    for user in range(20):
        audit.record("control", f"user:{user}", "a/b", None, "forbidden")
    audit.close()
    assert lines(path)[-1]["who"] == "user:19"
