"""`initspawn explain --boot`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from initspawn.cli.main import main


def made(place: Path, guard: dict[str, Any] | None = None, **starts: Any) -> str:
    program = {"cmdpath": "/bin/true"}
    commands = [{"uid": name, "exec": program, "autostart": start} for name, start in starts.items()]
    commands.append({"uid": "called", "exec": program})
    file = place / "c.json"
    file.write_text(
        json.dumps(
            {
                "metadata": {"uid": "u", "api": "t"},
                "sandboxes": {"uid": "s", "acls": {"user": "root"}, "commands": commands},
                **({"guard": guard} if guard else {}),
            }
        )
    )
    return str(file)


STARTS: dict[str, Any] = {
    "late": {"stage": "api"},
    "b": {"requires": "a", "conditions": {"path": "!/x", "link": "wg0", "kernel_command_line": "y"}},
    "a": {"restart": "on-failure", "wants": "first"},
    "c": {"after": "b", "conditions": {"task": {"command": "a", "result": "failure"}}},
    "first": {"stage": "early", "ready": "exited"},
}


def test_the_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--user", "root", made(tmp_path, **STARTS), "--boot"]) == 0
    lines = [line.split(None, 2) for line in capsys.readouterr().out.splitlines()]
    assert [words[:2] for words in lines[1:]] == [
        ["t/first", "early"], ["t/a", "system"], ["t/b", "system"], ["t/c", "system"], ["t/late", "api"],
    ]  # fmt: skip
    assert lines[2][2].split() == ["wants", "t/first", "started", "on-failure"]


def test_the_order_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--user", "root", made(tmp_path, **STARTS), "--boot", "--json"]) == 0
    found = {row["command"]: row for row in json.loads(capsys.readouterr().out)}
    assert found["t/b"]["waits"] == ["requires t/a", "kernel command line y", "path !/x", "link wg0"]
    assert found["t/c"]["waits"] == ["after t/b", "failure of t/a"]
    assert (found["t/first"]["ready"], found["t/first"]["restart"]) == ("exited", "never")
    assert "t/called" not in found


HOLDING: dict[str, Any] = {
    "up": {"before": "handover", "ready": "exited", "start_timeout": 30, "on_timeout": "recovery"},
    "disk": {"before": "handover", "start_timeout": 0, "on_failure": "reboot"},
    "slow": {"ready": "notify", "start_timeout": 7},
    "plain": {},
}


def shown(file: str, capsys: pytest.CaptureFixture[str]) -> list[list[list[str]]]:
    """The words of each line of each paragraph."""
    assert main(["explain", "--user", "root", file, "--boot"]) == 0
    return [[line.split() for line in part.splitlines()] for part in capsys.readouterr().out.split("\n\n")]


def test_what_holds_the_boot_and_what_then(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    order, holding = shown(made(tmp_path, **HOLDING), capsys)
    ready = {words[0]: words[3:-1] for words in order[1:]}
    assert ready["t/slow"] == ["notify", "within", "7", "s"]
    assert (ready["t/up"], ready["t/plain"]) == (["exited"], ["started"])
    assert holding == [
        ["THE", "BOOT", "WAITS", "FOR", "AT", "MOST", "ON", "TIMEOUT", "ON", "FAILURE"],
        ["t/up", "30", "s", "recovery", "boot"],
        ["t/disk", "any", "time", "-", "reboot"],
    ]
    (alone,) = shown(made(tmp_path, **STARTS), capsys)
    assert len(alone) == 6, "nothing is said where nothing holds the boot"


@pytest.mark.parametrize("failure", ["closed", "open"])
def test_what_the_guard_waits_for(
    failure: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("initspawn.config.compile.find_nft", lambda *_: "/bin/true")
    file = made(tmp_path, {"until": "up", "on_failure": failure}, **HOLDING)
    said = f"guard: nobody talks before t/up is ready; {failure} when it fails"
    assert shown(file, capsys)[-1] == [said.split()]
    assert main(["explain", "--user", "root", file, "--boot", "--json"]) == 0
    found = {row["command"]: row for row in json.loads(capsys.readouterr().out)}
    assert {name: row["guard"] for name, row in found.items()} == {
        "t/up": failure, "t/disk": None, "t/slow": None, "t/plain": None,
    }  # fmt: skip
    keys = ("handover", "start_timeout", "on_timeout", "on_failure")
    assert [found["t/up"][key] for key in keys] == [True, 30, "recovery", "boot"]
    assert [found["t/slow"][key] for key in keys] == [False, 7, "boot", "boot"]


@pytest.mark.parametrize("words", [(), ("t/a", "--boot")])
def test_a_verb_or_the_boot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    assert main(["explain", made(tmp_path, **STARTS), *words]) == 100
    assert "write either a VERB or --boot" in capsys.readouterr().err
