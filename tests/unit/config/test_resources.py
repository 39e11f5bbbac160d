"""`limits` and `scheduling`."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from typing import Any

import pytest

from initspawn.config.bounds_schema import LIMIT_NAMES
from initspawn.plan import Scheduling
from tests.unit.config.conftest import ORDINARY

Build = Callable[..., Any]
NO_CORE = (resource.RLIMIT_CORE, 0, 0)
ROOT = {"acls": {"user": "root"}}


def test_the_names_are_those_of_getrlimit_in_the_order_of_their_numbers() -> None:
    known = {name for name in dir(resource) if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE"}
    for name in known:
        assert LIMIT_NAMES[getattr(resource, name)] == name.removeprefix("RLIMIT_").lower()
    assert len(LIMIT_NAMES) == 16


def test_core_files_are_off_unless_said(build: Build) -> None:
    assert build({}).sandboxes[0].limits == (NO_CORE,)
    limits = build(ROOT | {"limits": {"core": "unlimited"}}, user=0).sandboxes[0].limits
    assert limits == ((resource.RLIMIT_CORE, -1, -1),)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (64, (64, 64)), ("64", (64, 64)), (0, (0, 0)), ("2K", (2048, 2048)), ("1g", (1 << 30, 1 << 30)),
        ("unlimited", (-1, -1)), ({"soft": 1, "hard": "3K"}, (1, 3072)),
        ({"soft": "5", "hard": "unlimited"}, (5, -1)),
    ],
)  # fmt: skip
def test_a_limit(build: Build, value: Any, wanted: tuple[int, int]) -> None:
    for name, which in (("as", resource.RLIMIT_AS), ("rttime", resource.RLIMIT_RTTIME)):
        limits = build(ROOT | {"limits": {name: value}}, user=0).sandboxes[0].limits
        assert limits == (NO_CORE, (which, *wanted)) or limits == ((which, *wanted), NO_CORE)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("many", "'many' is no limit (such as `512M` or `unlimited`; K is 1024)"),
        ("100MB", "'100MB' is no limit (write `100M`: K, M, G, T, P and E alone, powers of 1024)"),
        ("1 GiB", "is no limit (write `1G`"),
        ("", "is no limit"), ("-1", "is no limit"), ("9999999999999T", "is no limit"), (-1, "0 or more"),
        (1 << 63, "is no limit"), (True, "must be"), ([1], "must be"), ({"soft": 1}, "`hard` is missing"),
        ({"soft": 4, "hard": 3}, "limits.nofile.soft: is more than `hard`"),
        ({"soft": "unlimited", "hard": 3}, "is more than `hard`"),
    ],
)  # fmt: skip
def test_what_is_no_limit(problems: Build, value: Any, message: str) -> None:
    (said,) = problems(ROOT | {"limits": {"nofile": value}}, user=0)
    assert message in said
    assert "limits.nofile" in said


def test_an_unknown_limit(problems: Build) -> None:
    (said,) = problems({"limits": {"nofiles": 1}})
    assert "did you mean `nofile`?" in said




def test_what_an_ordinary_user_cannot_raise(problems: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: ORDINARY)
    monkeypatch.setattr(resource, "getrlimit", lambda which: (10, 20))
    monkeypatch.setattr(os, "getpriority", lambda *_: 5)
    for value in (21, "unlimited", {"soft": 3, "hard": 21}):
        (said,) = problems({"limits": {"nofile": value}})
        assert "an ordinary user cannot raise its limit of 20 (run initspawn as root)" in said
    (said,) = problems({"scheduling": {"nice": 4}})
    assert "an ordinary user cannot go below 5 (run initspawn as root)" in said
    (said,) = problems({"scheduling": {"io": "realtime"}})
    assert "an ordinary user cannot be first at the disks" in said


def test_what_an_ordinary_user_can(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: ORDINARY)
    monkeypatch.setattr(resource, "getrlimit", lambda which: (25, 25))
    monkeypatch.setattr(os, "getpriority", lambda *_: 5)
    made = build({"limits": {"nofile": 25}, "scheduling": {"nice": -5}}).sandboxes[0]
    assert made.limits == (NO_CORE, (resource.RLIMIT_NOFILE, 25, 25))
    assert made.scheduling == Scheduling(nice=-5)


def test_a_plan_for_another_day_is_not_held_against_ours(
    monkeypatch: pytest.MonkeyPatch, build: Build
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1, 1))
    assert build({"limits": {"nofile": 25}}, user=ORDINARY + 1).sandboxes[0].limits[-1][1:] == (25, 25)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ({}, {}),
        ({"nice": 19, "cpu": "batch"}, {"nice": 19, "policy": 3}),
        ({"cpu": "IDLE", "oom_score_adj": -7}, {"policy": 5, "oom_score_adj": -7}),
        ({"cpu": "other", "io": "idle"}, {"policy": 0, "io": 3 << 13}),
        ({"io": "best-effort"}, {"io": 2 << 13 | 4}),
        ({"io": "realtime", "io_priority": 0}, {"io": 1 << 13}),
    ],
)
def test_scheduling(build: Build, value: Any, wanted: dict[str, int]) -> None:
    assert build(ROOT | {"scheduling": value}, user=0).sandboxes[0].scheduling == Scheduling(**wanted)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"nice": 20}, "must be from -20 to 19, not 20"), ({"cpu": "fifo"}, "known: batch, idle, other"),
        ({"io": "best-effort", "io_priority": 8}, "must be from 0 to 7"),
        ({"oom_score_adj": -1001}, "must be from -1000 to 1000"),
        ({"io_priority": 3}, "needs `io: best-effort` or `io: realtime`"),
        ({"io": "idle", "io_priority": 3}, "needs `io: best-effort`"),
    ],
)  # fmt: skip
def test_what_is_no_scheduling(problems: Build, value: Any, message: str) -> None:
    (said,) = problems(ROOT | {"scheduling": value}, user=0)
    assert message in said
