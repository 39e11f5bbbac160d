"""`cgroups`: what the limits of a file become, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from initspawn.linux import cgroup
from initspawn.plan import Api

Build = Callable[..., Api]
Problems = Callable[..., list[str]]


def limits(build: Build, cgroups: Any) -> dict[str, str]:
    """The interface files with their values."""
    (sandbox,) = build({"cgroups": cgroups}).sandboxes
    assert sandbox.cgroup is not None
    return dict(sandbox.cgroup)


def test_nothing_asked_nothing_planned(build: Build) -> None:
    (sandbox,) = build({}).sandboxes
    assert sandbox.cgroup is None
    assert limits(build, {}) == {}  # a group for each task, without limits


@pytest.mark.parametrize(
    ("written", "name", "value"),
    [
        ({"mem": {"max": "512M"}}, "memory.max", str(512 << 20)),
        ({"mem": {"max": 4096}}, "memory.max", "4096"),
        ({"mem": {"max": "max"}}, "memory.max", "max"),
        ({"mem": {"high": "256m"}}, "memory.high", str(256 << 20)),
        ({"mem": {"hight": "1G"}}, "memory.high", str(1 << 30)),
        ({"mem": {"min": "128K"}}, "memory.min", str(128 << 10)),
        ({"mem": {"swap": 0}}, "memory.swap.max", "0"),
        ({"cpu": {"weight": "100"}}, "cpu.weight", "100"),
        ({"cpu": {"weight": 10000}}, "cpu.weight", "10000"),
        ({"cpu": {"max": "100000"}}, "cpu.max", "100000 100000"),
        ({"cpu": {"max": 5000}}, "cpu.max", "5000 100000"),
        ({"cpu": {"max": "20000 50000"}}, "cpu.max", "20000 50000"),
        ({"cpu": {"max": "max"}}, "cpu.max", "max 100000"),
        ({"cpu": {"max": "50%"}}, "cpu.max", "50000 100000"),
        ({"cset": "1-4"}, "cpuset.cpus", "1-4"),
        ({"cset": 2}, "cpuset.cpus", "2"),
        ({"cset": "4,0-1,1-2"}, "cpuset.cpus", "0-2,4"),
        ({"cset": {"mems": "0, 1"}}, "cpuset.mems", "0-1"),
        ({"pids": 64}, "pids.max", "64"),
        ({"pids": {"max": "64"}}, "pids.max", "64"),
        ({"io": "8:0 wbps=1M"}, "io.max", "8:0 rbps=max wbps=1048576 riops=max wiops=max"),
        (
            {"io": ["259:1 riops=10", "8:0 rbps=max wiops=5"]},
            "io.max",
            "8:0 rbps=max wbps=max riops=max wiops=5\n259:1 rbps=max wbps=max riops=10 wiops=max",
        ),
    ],
)
def test_limits(build: Build, written: dict[str, Any], name: str, value: str) -> None:
    assert limits(build, written) == {name: value}


@pytest.mark.parametrize(
    ("written", "key", "said"),
    [
        ({"mem": {"max": "much"}}, "mem.max", "no amount of bytes (such as `512M`"),
        ({"mem": {"max": "-1"}}, "mem.max", "no amount"),
        ({"mem": {"max": "64MB"}}, "mem.max", "no amount of bytes (write `64M`: K, M, G, T, P and E alone"),
        ({"mem": {"max": "1 GiB"}}, "mem.max", "no amount of bytes (write `1G`"),
        ({"io": "8:0 wbps=10mb"}, "io", "no amount of bytes (write `10M`"),
        ({"mem": {"max": "16E"}}, "mem.max", "too much"),
        ({"mem": {"max": True}}, "mem.max", "must be"),
        ({"mem": {"hihg": "1M"}}, "mem.hihg", "did you mean `high`"),
        ({"mem": {"high": "1M", "hight": "1M"}}, "mem.hight", "the same key"),
        ({"cpu": {"weight": 0}}, "cpu.weight", "from 1 to 10000"),
        ({"cpu": {"max": "1"}}, "cpu.max", "too little"),
        ({"cpu": {"max": "5000 10"}}, "cpu.max", "a period of 10"),
        ({"cpu": {"max": "half"}}, "cpu.max", "no processor time"),
        ({"cset": "4-1"}, "cset", "no range"),
        ({"cset": "a"}, "cset", "no list of numbers"),
        ({"cset": ""}, "cset", "no list of numbers"),
        ({"cset": "0-99999"}, "cset", "no list"),
        ({"cset": {"cpus": "9000"}}, "cset.cpus", "no range"),
        ({"pids": 0}, "pids", "from 1 to"),
        ({"pids": {"max": "x"}}, "pids.max", "from 1 to"),
        ({"io": "sda wbps=1"}, "io", "no limit of a device"),
        ({"io": "8:0"}, "io", "no limit of a device"),
        ({"io": ""}, "io", "no limit of a device"),
        ({"io": "8:0 wpbs=1"}, "io", "did you mean `wbps`"),
        ({"io": "8:0 wbps=0"}, "io", "stop it for ever"),
        ({"io": "8:0 wbps=max"}, "io", "limits nothing"),
        ({"io": ["8:0 wbps=1", "8:0 rbps=1"]}, "io[1]", "named twice"),
        ({"scope": "all"}, "scope", "known: sandbox, task"),
        ({"mount": "sys"}, "mount", "not absolute"),
        ({"mount": "/no/such"}, "mount", "mounted"),
    ],
)
def test_what_is_refused(problems: Problems, written: dict[str, Any], key: str, said: str) -> None:
    (problem,) = problems({"cgroups": written})
    assert f"cgroups.{key}:" in problem
    assert said in problem


def test_the_mount_point_may_be_said(
    build: Build, problems: Problems, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroup, "mount_point", lambda: "/somewhere/cgroup")
    assert limits(build, {"mount": "/somewhere/cgroup/", "pids": 1}) == {"pids.max": "1"}
    (problem,) = problems({"cgroups": {"mount": "/elsewhere"}})
    assert "the hierarchy is mounted on /somewhere/cgroup" in problem
    monkeypatch.setattr(cgroup, "mount_point", lambda: None)
    (problem,) = problems({"cgroups": {"mount": "/somewhere/cgroup"}})
    assert "no cgroup v2 hierarchy is mounted" in problem


def test_scope_and_optional(build: Build) -> None:
    (sandbox,) = build({"cgroups": {"scope": "Sandbox", "optional": True}}).sandboxes
    assert (sandbox.cgroup, sandbox.cgroup_shared, sandbox.cgroup_optional) == ((), True, True)
