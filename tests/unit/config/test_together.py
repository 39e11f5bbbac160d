"""All that is wrong with a file is told at once: what is misspelt, and what is not there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from initspawn.config.compile import compile_files
from initspawn.errors import ConfigError
from initspawn.plan import Api
from tests.unit.config.conftest import ORDINARY

Build = Callable[..., Api]
Problems = Callable[..., list[str]]


def compiled(*paths: Path) -> list[str]:
    """The problems of files, each as text."""
    with pytest.raises(ConfigError) as caught:
        compile_files([str(path) for path in paths], user=ORDINARY, group=ORDINARY, environ={})
    return [str(problem) for problem in caught.value.problems]


def test_spelling_and_look_ups_are_told_together_with_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(
        """\
metadata: {uid: u, api: t, versoin: "1"}
sandboxes:
  - uid: first
    envs: [{nmae: A}, {name: B, value: $NOWHERE}]
    seccomp: {default: allow, rules: [{syscall: mkdir}, {syscall: nosuchcall, action: kill}]}
    commands:
      - {uid: a, exec: {cmdpath: /bin/true}, tiemout: 3}
      - {uid: b, exec: {cmdpath: /bin/nosuchprogram}}
      - {uid: c}
      - {uid: d, exec: {cmdpath: /bin/true, args: ["$MISSING"]}, encoder: nosuch}
  - uid: second
    acls: {user: nosuchuser}
    commands: {uid: a, exec: {cmdpath: /bin/nothing}}
"""
    )
    found = [problem.removeprefix(f"{file}:").split(" (")[0] for problem in compiled(file)]
    assert found == [
        "1: metadata.versoin: unknown key in metadata",
        "4: sandboxes[0].envs[0]: `name` is missing",
        "4: sandboxes[0].envs[0].nmae: unknown key in environment entry",
        "4: sandboxes[0].envs[1].value: `$NOWHERE` is neither built in nor in the environment; "
        "a plain `$` is written `$$`",
        "5: sandboxes[0].seccomp.rules[0]: `action` is missing",
        "5: sandboxes[0].seccomp.rules[1].syscall: unknown system call 'nosuchcall'",
        "7: sandboxes[0].commands[0].tiemout: unknown key in command",
        "8: sandboxes[0].commands[1].exec.cmdpath: '/bin/nosuchprogram' does not exist",
        "9: sandboxes[0].commands[2]: `exec` is missing",
        "10: sandboxes[0].commands[3].exec.args[0]: `$MISSING` is neither built in nor in the environment; "
        "a plain `$` is written `$$`",
        "10: sandboxes[0].commands[3].encoder: ENCODER_NOT_FOUND: no encoder 'nosuch'",
        "12: sandboxes[1].acls.user: there is no user 'nosuchuser'",
        "13: sandboxes[1].commands.exec.cmdpath: '/bin/nothing' does not exist",
    ]


@pytest.mark.parametrize(
    "sandbox",
    [
        {"acls": {"usr": "daemon"}, "caps": [{"cap": "KILL", "mode": "set"}]},
        {"acls": {"user": True}, "namespace": {"mounts": [{"target": "/d", "mode": "dir"}]}},
        {"namespace": {"mounts": [{"target": "/usr", "mode": "r"}]}},
        {"namespace": {"share": {"users": "disable"}}, "acls": {"user": "daemon"}},
        {"seccomp": {"rules": [{"syscall": "execve", "action": "alow"}]}},
        {"seccomp": {"defualt": "allow"}},
    ],
)
def test_what_only_follows_from_a_mistake_is_not_told(problems: Problems, sandbox: dict[str, Any]) -> None:
    assert len(problems(sandbox)) == 1
    if "seccomp" not in sandbox:  # the same for root, who has to name a user
        assert len(problems({"acls": {"user": "daemon"}, **sandbox}, user=0)) == 1


def test_a_refused_sandbox_makes_no_verb_seem_taken(problems: Problems) -> None:
    command = {"uid": "ping", "exec": {"cmdpath": "/bin/true"}}
    sandboxes = [{"commands": []}, {"uid": "s", "commands": command}]
    raw = {"metadata": {"uid": "u", "api": "t"}, "sandboxes": sandboxes}
    assert problems(raw=raw) == ["test: sandboxes[0]: `uid` is missing (every sandbox needs it)"]


def test_nothing_is_run_or_made_for_a_refused_file(problems: Problems, tmp_path: Path) -> None:
    made = tmp_path / "made"
    mounts = [
        {"target": "/a", "mode": "execfd", "source": f"touch {tmp_path}/ran"},
        {"target": "/b", "mode": "rw", "source": str(made)},
        {"target": "/c", "mode": "ro", "source": str(tmp_path / "nothing" / "here")},
    ]
    sandbox = {"verbos": 1, "namespace": {"opts": {"autocreate": True}, "mounts": mounts}}
    (said,) = problems(sandbox)
    assert "did you mean `verbose`?" in said
    assert list(tmp_path.iterdir()) == []


MINIMAL = "metadata: {uid: u, api: %s}\n"


def test_a_directory_stands_for_its_files_by_name(tmp_path: Path) -> None:
    for name, api in (("20-b.yml", "b"), ("10-a.YAML", "a"), ("30-c.yaml", "c"), (".hidden.yaml", "no")):
        (tmp_path / name).write_text(MINIMAL % api)
    (tmp_path / "15-d.json").write_text('{"metadata": {"uid": "u", "api": "d"}}')
    (tmp_path / "README.md").write_text("nothing")
    (tmp_path / "sub.yaml").mkdir()
    other = tmp_path / "sub.yaml" / "e.conf"
    other.write_text(MINIMAL % "e")
    made = compile_files([str(other), str(tmp_path)], user=ORDINARY, group=ORDINARY, environ={})
    assert [api.api for api in made.apis] == ["e", "a", "d", "b", "c"]


def test_problems_of_a_directory_name_its_files(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(MINIMAL % "t")
    (tmp_path / "c.json").write_text("{")
    said = compiled(tmp_path)
    assert said[0].startswith(f"{tmp_path}/b.yaml:1: metadata.api: API `t` is made by {tmp_path}/a.yaml")
    assert said[1].startswith(f"{tmp_path}/c.json:1: ")


def test_directories_without_files(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.toml").write_text("")
    said = compiled(tmp_path / "a", tmp_path / "b")
    hint = "is a directory without any configuration (files in it must end in .json, .yaml, .yml)"
    assert said == [f"{tmp_path}/a: {hint}", f"{tmp_path}/b: {hint}"]


def test_a_directory_that_everybody_may_write(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(MINIMAL % "a")
    tmp_path.chmod(0o1777)
    hint = "everybody may put files into it (say `chmod o-w`, or name the files)"
    assert compiled(tmp_path) == [f"{tmp_path}: {hint}"]
    tmp_path.chmod(0o755)
    compile_files([str(tmp_path)], user=ORDINARY, group=ORDINARY, environ={})
