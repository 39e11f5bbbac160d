"""`initspawn doctor`: findings, exit codes, and that it leaves nothing behind."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from initspawn.cli import doctor, installed, probes
from initspawn.cli.main import main
from initspawn.errors import LaunchRefused
from tests.support.leftovers import left_since, snapshot


def test_it_examines_everything_and_leaves_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    before, descriptors = snapshot(), os.listdir("/proc/self/fd")
    code = main(["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert os.listdir("/proc/self/fd") == descriptors
    assert not left_since(before)
    assert code == (0 if found["ok"] else 125)
    names = [finding["name"] for finding in found["findings"]]
    for name in (
        "kernel", "Python", "user namespace", "mount API", "clone3", "ptrace of descendants", "cgroups",
        "cgroup limits", "capabilities", "Landlock", "bwrap", "nftables", doctor.TRIAL,
    ):  # fmt: skip
        assert name in names
    for finding in found["findings"]:
        assert finding["state"] in (doctor.GOOD, doctor.LIMITED, doctor.MISSING)
        assert finding["found"]
        assert bool(finding["meaning"]) == bool(finding["remedy"]) == (finding["state"] != doctor.GOOD)


def test_in_words(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    findings = [
        doctor.Finding("one", doctor.GOOD, "well", "never said", "never said"),
        doctor.Finding(doctor.TRIAL, doctor.MISSING, "no", "that means", "do this"),
    ]
    monkeypatch.setattr(doctor, "examine", lambda: findings)
    assert main(["doctor"]) == 125
    text = capsys.readouterr().out
    assert "never said" not in text
    assert "meaning: that means" in text
    assert "remedy: do this" in text
    assert "cannot be launched" in text


@pytest.mark.needs("prctl")
def test_python_prctl_agrees() -> None:
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        held = next(int(line.split()[1], 16) for line in file if line.startswith("CapEff"))
    assert doctor._other_opinion(held) == ""
    assert doctor._other_opinion(held ^ 1) == "CHOWN"


def test_capabilities_are_listed_shortly() -> None:
    assert doctor._listed(0b111, 0b111) == "all"
    assert doctor._listed(0b110, 0b111) == "all but CHOWN"
    assert doctor._listed(0b1, 0b111) == "CHOWN"
    assert doctor._listed(0, 0b111) == "none"


def nft(place: Path, line: str) -> Path:
    """A program of that name."""
    program = place / "nft"
    program.write_text(f"#!/bin/sh\n{line}\n")
    program.chmod(0o755)
    return program


@pytest.mark.needs("root")
@pytest.mark.parametrize(
    ("line", "state", "found"),
    [
        (None, doctor.LIMITED, "nft not found"),
        ("exit 0", doctor.GOOD, "works"),
        ("echo 'no such family' >&2; exit 1", doctor.LIMITED, "nft ended with 1: no such family"),
    ],
)
def test_nftables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str | None, state: str, found: str
) -> None:
    if line is not None:
        nft(tmp_path, line)
    monkeypatch.setattr(installed, "_SYSTEM_PATH", str(tmp_path))
    finding = installed.nftables()
    assert (finding.state, finding.name) == (state, "nftables")
    assert finding.found.endswith(found)


def test_nftables_of_an_ordinary_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nft(tmp_path, "exit 1")
    monkeypatch.setattr(installed, "_SYSTEM_PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1)
    assert "only root" in installed.nftables().found


@pytest.mark.needs("root")
def test_the_rules_are_really_tried_and_leave_nothing() -> None:
    tables = ["nft", "list", "tables"]
    before = subprocess.run(tables, capture_output=True, check=True, timeout=30).stdout
    path = shutil.which("nft", path=installed._SYSTEM_PATH)
    assert path
    assert probes.reason_not(lambda: probes.guard_a_network(path)) == ""
    assert subprocess.run(tables, capture_output=True, check=True, timeout=30).stdout == before


def fail() -> None:
    raise OSError(errno.EPERM, "whatever")


def refuse() -> None:
    raise LaunchRefused("user", errno.EPERM)


def confuse() -> None:
    raise ZeroDivisionError("oh")


def die() -> None:
    os._exit(3)


@pytest.mark.parametrize(
    ("probe", "reason"),
    [
        (os.getpid, ""),
        (fail, "Operation not permitted"),
        (refuse, "start refused at 'user': Operation not permitted (EPERM)"),
        (confuse, "ZeroDivisionError: oh"),
        (die, "the probe ended without an answer"),
    ],
)
def test_a_probe_in_a_child(probe: Callable[[], object], reason: str) -> None:
    assert probes.reason_not(probe) == reason


def test_a_probe_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "SECONDS", 0.05)
    reader, writer = os.pipe()
    try:
        assert probes.reason_not(lambda: os.read(reader, 1)) == "the probe ended without an answer"
    finally:
        os.close(reader)
        os.close(writer)


def test_a_probe_answers_with_values() -> None:
    assert probes.in_child(lambda: ["a", 1]) == ["a", 1]
    assert probes.in_child(os.getpid) != os.getpid()


def test_which_packages_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert installed.packages().state == doctor.GOOD
    monkeypatch.setattr(installed, "find_spec", lambda name: None if name == "pyudev" else name)
    finding = installed.packages()
    assert (finding.state, finding.found) == (doctor.LIMITED, "not installed: pyudev")
    assert "without pyudev nothing starts that waits for a device" in finding.meaning
    assert finding.remedy == "install initspawn[gateway,udev]"
