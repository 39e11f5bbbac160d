"""`initspawn explain --boot`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from initspawn.cli.main import main


def made(place: Path, **starts: Any) -> str:
    program = {"cmdpath": "/bin/true"}
    commands = [{"uid": name, "exec": program, "autostart": start} for name, start in starts.items()]
    commands.append({"uid": "called", "exec": program})
    file = place / "c.json"
    file.write_text(
        json.dumps(
            {
                "metadata": {"uid": "u", "api": "t"},
                "sandboxes": {"uid": "s", "acls": {"user": "root"}, "commands": commands},
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


@pytest.mark.parametrize("words", [(), ("t/a", "--boot")])
def test_a_verb_or_the_boot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    assert main(["explain", made(tmp_path, **STARTS), *words]) == 100
    assert "write either a VERB or --boot" in capsys.readouterr().err
