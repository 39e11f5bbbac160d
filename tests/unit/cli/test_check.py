"""`check`: what it prints of a configuration that is right."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from initspawn.cli.main import main


def test_an_api_with_its_verbs_and_its_own_calls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = {"uid": "c", "info": "says\nso", "exec": {"cmdpath": "/bin/true"}}
    acls = {"acls": {"user": "root"}} if os.geteuid() == 0 else {}
    made = {
        "metadata": {"uid": "u", "api": "t", "version": "1", "info": "what for"},
        "sandboxes": {"uid": "s", "commands": command, **acls},
        "onload": {"uid": "up", "action": "api://t#c"},
        "onstart": {"uid": "late", "action": "api://t#ping"},
        "events": {"uid": "t/*", "action": "api://t#c"},
        "extra": {"uid": "again", "action": "api://t#c"},
    }
    path = tmp_path / "t.json"
    path.write_text(json.dumps(made))
    assert main(["check", str(path)]) == 0
    about, header, row, *calls = capsys.readouterr().out.splitlines()
    assert about == "t 1 - what for"
    assert header.split() == ["VERB", "SANDBOX", "USER", "CONFINED", "BY", "ABOUT"]
    assert row.split()[:2] == ["c", "s"]
    assert row.endswith(" says")
    assert calls == [
        "  onload up: t/c",
        "  onload late: t/ping",
        "  events t/*: t/c",
        "  extra again: t/c",
    ]
