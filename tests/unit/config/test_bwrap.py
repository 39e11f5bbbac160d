"""`namespace.opts.bwrap`: which bubblewrap is taken, and what is refused with it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from initspawn.plan import Api

Build = Callable[..., Api]
Problems = Callable[..., list[str]]
HINT = "leave `opts.bwrap` out: then initspawn builds the sandbox itself"


@pytest.fixture
def fake(tmp_path: Path) -> Callable[..., str]:
    """fake(line, mode): the path of a script that says a line."""

    def fake(line: str = "bubblewrap 0.8.0", mode: int = 0o755) -> str:
        path = tmp_path / "bwrap"
        path.write_text(f"#!/bin/sh\necho {line}\n")
        path.chmod(mode)
        return str(path)

    return fake


def sandbox(path: str, key: str = "bwrap", **more: Any) -> dict[str, Any]:
    return {"namespace": {"opts": {key: path}, "shares": {"users": "disable"}}, **more}


@pytest.mark.parametrize("key", ["bwrap", "brwap"])
def test_its_path_is_in_the_plan(build: Build, fake: Callable[..., str], key: str) -> None:
    assert build(sandbox(fake(), key)).sandboxes[0].bwrap == fake()
    assert build({"namespace": {}}).sandboxes[0].bwrap == ""


@pytest.mark.parametrize("version", ["0.8.0", "0.11.0", "1.0"])
def test_new_ones_are_taken(build: Build, fake: Callable[..., str], version: str) -> None:
    assert build(sandbox(fake(f"bubblewrap {version}"))).sandboxes[0].bwrap


@pytest.mark.parametrize(
    ("line", "mode", "said"),
    [
        ("bubblewrap 0.7.0", 0o755, "is bubblewrap 0.7, which is too old (install the package bubblewrap,"),
        ("hello", 0o755, "does not say that it is bubblewrap"),
        ("bubblewrap 0.8.0", 0o644, "is not executable"),
    ],
)
def test_others_are_refused(
    problems: Problems, fake: Callable[..., str], line: str, mode: int, said: str
) -> None:
    (text,) = problems(sandbox(fake(line, mode)))
    assert text.startswith("test: sandboxes.namespace.opts.bwrap: ")
    assert said in text


def test_one_that_others_could_have_written_is_not_run(
    build: Build, problems: Problems, tmp_path: Path, fake: Callable[..., str]
) -> None:
    path = fake("bubblewrap 0.8.0; touch $0.ran", 0o757)
    (said,) = problems(sandbox(path))
    assert "could have been written by others (say `chmod o-w`, `chown root`)" in said
    Path(path).chmod(0o755)
    real = os.stat
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "stat", lambda *a, **k: stranger(real(*a, **k)) if a[0] == path else real(*a, **k))
        (said,) = problems(sandbox(path))
    assert "could have been written by others" in said
    assert not (tmp_path / "bwrap.ran").exists()
    assert build(sandbox(path)).sandboxes[0].bwrap == path
    assert (tmp_path / "bwrap.ran").exists(), "it is asked when it is trusted"


def stranger(found: os.stat_result) -> os.stat_result:
    """The same file as another user's."""
    return os.stat_result([*found[:4], 4000111, *found[5:10]])


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("bwrap", "'bwrap' is not absolute (write its full path, such as /usr/bin/bwrap)"),
        ("/nowhere/bwrap", "there is no program '/nowhere/bwrap' (install the package bubblewrap"),
        ("/usr", "there is no program '/usr'"),
    ],
)
def test_no_program(problems: Problems, path: str, said: str) -> None:
    (text,) = problems(sandbox(path))
    assert said in text


def test_one_that_does_not_end(
    problems: Problems, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("initspawn.config.bwrap._SECONDS", 0.1)
    path = tmp_path / "slow"
    path.write_text("#!/bin/sh\nexec sleep 5\n")
    path.chmod(0o755)
    (text,) = problems(sandbox(str(path)))
    assert "cannot be run: it does not end" in text


NOTIFIED = {"default": "allow", "handler": "c", "rules": {"syscall": "mkdir", "action": "notify"}}


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ({"allow_setuid": True}, "allow_setuid"),
        ({"landlock": {"scope": "signals"}}, "landlock"),
        ({"acls": {"label": {"name": "x", "optional": True}}}, "acls.label"),
        ({"seccomp": NOTIFIED}, "seccomp.handler"),
    ],
)
def test_what_it_cannot_do(
    problems: Problems, fake: Callable[..., str], more: dict[str, Any], key: str
) -> None:
    said = problems(sandbox(fake(), **more))
    assert any(text.startswith(f"test: sandboxes.{key}: ") and HINT in text for text in said)


def test_mounts_it_cannot_make(problems: Problems, fake: Callable[..., str]) -> None:
    made = sandbox(fake(), commands=[])
    mounts = [{"target": "/dev/mqueue", "mode": "mqueue"}]
    made["namespace"] |= {"shares": {"all": "disable"}, "mounts": mounts}
    (text,) = problems(made)
    assert text.startswith("test: sandboxes.namespace.mounts[0].mode: ")


def test_no_terminal(problems: Problems, fake: Callable[..., str]) -> None:
    (text,) = problems(sandbox(fake()), terminal=True)
    assert text.startswith("test: sandboxes.commands.terminal: ")


def test_root_needs_users_of_its_own(problems: Problems, fake: Callable[..., str]) -> None:
    made = {"namespace": {"opts": {"bwrap": fake()}}, "acls": {"user": 1000, "group": 1000}}
    (text,) = problems(made, user=0)
    assert "write `shares: {users: disable}`, or leave `opts.bwrap` out" in text
