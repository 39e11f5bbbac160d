"""`check`: what it prints of a configuration that is right."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from initspawn.cli import check
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


@pytest.mark.parametrize("made_ahead", [False, True])
def test_limits_that_this_machine_has_not(
    made_ahead: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is told at its place in the file, with the ways out; a plan has no lines."""
    acls = "acls: {user: root}, " if os.geteuid() == 0 else ""
    commands = "commands: {uid: c, exec: {cmdpath: /bin/true}}"
    box = f"{acls}prefix: %s, {commands}, cgroups: {{mem: {{max: 64M}}"
    path, other, plan = tmp_path / "t.yaml", tmp_path / "a.yaml", tmp_path / "plan"
    other.write_text(f"metadata: {{uid: u, api: u}}\nsandboxes: {{uid: b, {acls}{commands}}}\n")
    path.write_text(
        "metadata: {uid: t, api: t}\nsandboxes:\n"
        f"  - {{uid: a, {box % 'a'}, optional: true}}}}\n"
        f"  - {{uid: b, {box % 'b'}}}}}\n"
        f"  - {{uid: c, {box % 'c'}}}}}\n"
    )
    tmp_path.chmod(0o700)
    files = [str(other), str(path)]
    if made_ahead:
        assert main(["compile", *files, "-o", str(plan)]) == 0
        files = [str(plan)]
    monkeypatch.setattr(check, "nowhere", lambda names: "no memory" if set(names) else "")
    assert main(["check", *files]) == 111
    lines = capsys.readouterr().err.splitlines()
    places = [str(plan)] * 2 if made_ahead else [f"{path}:{n}: sandboxes[{n - 3}].cgroups" for n in (4, 5)]
    hint = "for another machine: `initspawn compile --root`; to run without them: `optional: true`"
    assert lines == [
        *(
            f"{place}: the limits of sandbox `{uid}` of `t` cannot be had here: no memory ({hint})"
            for place, uid in zip(places, "bc", strict=True)
        ),
        "initspawn: 2 problems",
    ]
