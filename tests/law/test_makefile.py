"""What `make` is told reaches the program."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ([], "serve configs/demo.yaml --port 1234"),
        (["CONFIG=a.yaml b.json", "PORT=0"], "serve a.yaml b.json --port 0"),
        (["RUN_DIR=/tmp/mine"], "serve configs/demo.yaml --port 1234 --run-dir /tmp/mine"),
    ],
)
def test_make_run(words: list[str], command: str) -> None:
    # Without what a `make` that runs this test has been told itself.
    own = {"CONFIG", "MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "PORT", "RUN_DIR"}
    environ = {name: value for name, value in os.environ.items() if name not in own}
    line = ["make", "-n", "run", *words]
    done = subprocess.run(line, cwd=ROOT, env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].strip() == f"exec .venv/bin/initspawn {command}"
