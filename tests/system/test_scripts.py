"""Scripts in several languages, each run in its sandbox by an ordinary user and by root."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.users import Ordinary

ROOT = Path(__file__).parents[2]
LANGUAGES = ("bash", "python", "node", "lua", "tcl")

pytestmark = pytest.mark.needs("userns")
each_language = pytest.mark.parametrize(
    "language", [pytest.param(name, marks=pytest.mark.needs(name)) for name in LANGUAGES]
)


def check(done: subprocess.CompletedProcess[str], language: str, *, good: bool) -> None:
    if good:
        lines = [f"{language}: {number}" for number in (1, 2, 3)]
        assert (done.returncode, done.stdout.splitlines(), done.stderr) == (0, lines, "")
    else:
        assert (done.returncode, done.stdout, done.stderr) == (2, "", f"{language}: '3; id' is no number\n")


@each_language
def test_a_script_as_an_ordinary_user(as_user: Ordinary, language: str) -> None:
    shutil.copytree(ROOT / "configs" / "scripts", as_user.home / "configs" / "scripts")
    for count in ("3", "3; id"):
        command = ["run", "configs/scripts/scripts.yaml", language, f"count={count}"]
        done = as_user.run([*as_user.initspawn, *command], env={"PWD": str(as_user.home)})
        check(done, language, good=count == "3")


@pytest.mark.root
@each_language
def test_a_script_as_root(language: str) -> None:
    for count in ("3", "3; id"):
        command = ["run", "configs/scripts/scripts.yaml", language, f"count={count}"]
        done = subprocess.run(
            [sys.executable, "-m", "initspawn", *command],
            capture_output=True, text=True, timeout=30, cwd=ROOT, env=os.environ | {"PWD": str(ROOT)},
        )  # fmt: skip
        check(done, language, good=count == "3")
