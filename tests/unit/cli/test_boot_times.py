"""`initspawn explain --boot` of a running supervisor: the time line, and what was waited for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from initspawn.cli.boot_times import critical_paths
from initspawn.cli.main import main


def service(name: str, due: float | None = None, ready: float | None = None, **more: Any) -> dict[str, Any]:
    """A record as `initspawn/timeline` gives it."""
    known = {"due": due, "started": None if due is None else due + 0.01, "ready": ready}
    told = {"command": f"t/{name}", "state": "running", "handover": False}
    return {**told, **{key: value for key, value in known.items() if value is not None}, **more}


MARKS = [{"what": "handover decided", "time": 3.0}, {"what": "init started", "time": 0.5},
         {"what": "stage network", "time": 4.0}]  # fmt: skip
TOLD: dict[str, Any] = {
    "marks": MARKS,
    "services": [
        service("never", waited="/dev/x is not there", state="waiting"),
        service("last", 5.5, 5.52, waited="t/net"),
        service("net", 4.1, 5.5, waited="stage network"),
        service("disk", 1.0, 2.5, ended=2.5, state="done", handover=True, waited="/dev/sda is not there"),
        service("quick", 1.0, 1.1, handover=True),
        service("late", 1.0, 7.0, handover=True),
    ],
}


def steps(path: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(step["what"], step["at"], step["took"]) for step in path]


def test_each_step_is_what_was_waited_for_last() -> None:
    told = {**TOLD, "services": TOLD["services"][:-1]}
    (to_handover, first), (to_ready, second) = critical_paths(told)
    assert (to_handover, to_ready) == ("handover decided", "last command ready")
    assert steps(first) == [("t/disk", 2.5, 1.5), ("/dev/sda is not there", 1.0, None)]
    assert steps(second) == [("t/last", 5.52, 0.02), ("t/net", 5.5, 1.4), ("stage network", 4.0, None)]


def test_the_handover_did_not_wait_for_what_was_ready_later() -> None:
    (_, first), (_, second) = critical_paths(TOLD)
    assert steps(first)[0][0] == "t/disk"
    assert steps(second) == [("t/late", 7.0, 6.0)]


def test_without_a_boot_or_commands_there_is_no_path() -> None:
    assert critical_paths({"marks": [], "services": []}) == []
    assert critical_paths({"marks": MARKS, "services": [service("a")]}) == []
    assert [to for to, _ in critical_paths({**TOLD, "marks": []})] == ["last command ready"]


def test_records_that_wait_for_one_another_end() -> None:
    """A supervisor never tells this."""
    told = {"marks": [], "services": [service("a", 1, 2, waited="t/b"), service("b", 1, 1.5, waited="t/a")]}
    ((_, path),) = critical_paths(told)
    assert len(path) <= 3


def answer(call: dict[str, Any]) -> list[dict[str, Any]]:
    assert call["call"] == "initspawn/timeline"
    return [{"status": "success", "code": 0, "response": TOLD}]


def test_the_table(supervisor: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--boot", "--socket", supervisor(answer).path]) == 0
    table, first, second = capsys.readouterr().out.split("\n\n")
    lines = [line.split() for line in table.splitlines()]
    assert lines[1] == ["0.500", "init", "started"]
    assert lines[2][:6] == ["1.000", "t/disk", "(done)", "+0.010", "+1.500", "+1.500"]
    assert lines[2][6:] == ["/dev/sda", "is", "not", "there"]
    assert lines[-1] == ["-", "t/never", "(waiting)", "-", "-", "-", "/dev/x", "is", "not", "there"]
    assert first.startswith("critical path to: handover decided\n")
    assert second.splitlines()[-1].split() == ["7.000", "t/late", "+6.000"]


def test_as_json(supervisor: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--boot", "--json", "--socket", supervisor(answer).path]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["services"] == TOLD["services"]
    assert [entry["to"] for entry in told["critical"]] == ["handover decided", "last command ready"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["explain"], "write either a VERB or --boot"),
        (["explain", "x.yaml", "--boot", "--socket", "/x"], "without a supervisor"),
        (["explain", "--boot", "--socket", "/no/such"], "no supervisor answers at /no/such"),
    ],
)
def test_what_cannot_be_meant(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) in (100, 111)
    assert said in capsys.readouterr().err
