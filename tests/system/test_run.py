"""`initspawn run` whose output nobody takes: it ends, and so does the command; and of a plan."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from initspawn.cli.main import main
from tests.support.bare import bare

ENDLESS = {"cmdpath": "/bin/sh", "args": ["-c", "while echo more; do sleep 0.1; done"]}
COMMANDS = [
    {"uid": "endless", "encoder": "line", "exec": ENDLESS},
    {"uid": "reply", "encoder": "sync", "exec": {"cmdpath": "/bin/echo", "args": ["all"]}},
]
each = pytest.mark.parametrize("words", [["endless"], ["--json", "endless"], ["reply"]], ids=" ".join)


@pytest.fixture
def configuration(tmp_path: Path) -> str:
    sandbox = {"uid": "s", "acls": {"user": "nobody"}, "namespace": {"shares": {"users": "disable"}}}
    raw = {"metadata": {"uid": "t", "api": "t"}, "sandboxes": {**sandbox, "commands": COMMANDS}}
    path = tmp_path / "t.json"
    path.write_text(json.dumps(raw))
    return str(path)


def run(configuration: str, words: list[str], stdout: int) -> tuple[int, str]:
    *options, verb = words
    command = [sys.executable, "-m", "initspawn", "run", *options, configuration, verb]
    usual = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        command, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=30, check=False, env=usual
    )
    return done.returncode, done.stderr


@each
def test_a_pipe_that_nobody_reads(configuration: str, words: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        assert run(configuration, words, writing) == (141, "")
    finally:
        os.close(writing)


@pytest.mark.parametrize("closed", ["0", "1", "2", "012"])
def test_streams_that_are_closed(configuration: str, closed: str) -> None:
    """They are /dev/null then: what is opened later does not get their numbers."""
    command = [sys.executable, "-m", "initspawn", "run", configuration, "reply"]
    line = 'exec "$@" ' + " ".join(f"{number}>&-" for number in closed)
    done = subprocess.run(["sh", "-c", line, "sh", *command], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    assert bool(done.stdout) is ("1" not in closed)


@each
def test_a_full_disk(configuration: str, words: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        assert run(configuration, words, full.fileno()) == (111, "initspawn: No space left on device\n")


def test_a_plan_needs_no_compiler(configuration: str, tmp_path: Path) -> None:
    plan = str(tmp_path / "plan")
    assert main(["compile", configuration, "-o", plan]) == 0
    done = bare("initspawn", "run", plan, "reply")
    assert (done.returncode, done.stdout, done.stderr) == (0, "all\n", "")
