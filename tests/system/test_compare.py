"""`initspawn compare` with the guided sandboxes, as root and as ordinary users."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.users import Ordinary

LEARN = Path(__file__).parents[2] / "configs" / "learn.yaml"

pytestmark = pytest.mark.needs("userns")


def compared(user: Ordinary | None, place: Path, *words: str) -> dict[tuple[str, str], Any]:
    """What `compare --json` found, by section and name."""
    file = shutil.copy(LEARN, place)
    os.chmod(file, 0o644)
    options = ["compare", str(file), *words, "--json"]
    if user is None:
        command = [sys.executable, "-m", "initspawn", *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    else:
        done = user.run([*user.initspawn, *options], timeout=90)
    assert (done.returncode, done.stderr) == (0, ""), done
    found = json.loads(done.stdout)
    return {(one["section"], one["name"]): one["values"] for one in found["findings"]}


def of(names: str) -> list[str]:
    return [word for name in names.split() for word in ("--sandbox", name)]


ROW = "open processes names network tree tight"


def check_the_row(found: dict[tuple[str, str], Any]) -> None:
    """Each sandbox takes what its text says, and the one before it had it."""
    own = {name: values for (section, name), values in found.items() if section == "has its own"}
    no, yes = "no, the host's", "yes"
    assert own["users"] == [yes] * 6
    assert own["process numbers"] == [no] + [yes] * 5
    assert own["host name"] == own["IPC"] == [no] * 2 + [yes] * 4
    assert own["network"] == [no] * 3 + [yes] * 3
    assert found["sees", "host name"][2:] == ["learn"] * 4
    assert found["sees", "network devices"][3:5] == [["lo"]] * 2
    assert "and others" in found["sees", "processes"][0]
    assert [len(processes) for processes in found["sees", "processes"][1:]] == [1] * 5
    tree = ["bin", "dev", "etc", "lib", "lib64", "proc", "sbin", "tmp", "usr"]
    assert found["sees", "root directory"][4:] == [tree] * 2
    assert found["is", "seccomp"][4:] == ["off", "2 filters"]
    may = {name: values for (section, name), values in found.items() if section == "may"}
    assert may["read /etc/shadow"] == ["EACCES"] * 4 + ["ENOENT"] * 2
    assert may["find a way to another machine"][3:] == ["ENETUNREACH"] * 2 + ["EPERM"]
    assert may["make a directory"] == ["allowed"] * 5 + ["EPERM"]
    assert may["trace a process"][4:] == ["allowed", "EPERM"]
    assert may["mount (SYS_ADMIN)"] == ["EPERM"] * 5 + ["killed by SIGSYS"]
    assert found["the command", "end"] == ["exit 0"] * 5 + ["exit 1"]
    assert found["the command", "stdout"] == [["made"]] * 5 + [[]]


def test_the_row_as_an_ordinary_user(as_user: Ordinary) -> None:
    check_the_row(compared(as_user, as_user.home, "open/folder", *of(ROW)))


@pytest.mark.root
def test_the_row_as_root(tmp_path: Path) -> None:
    check_the_row(compared(None, tmp_path, "open/folder", *of(ROW)))


def test_limits_say_how_much(as_user: Ordinary) -> None:
    found = compared(as_user, as_user.home, "open/much", *of("tight limits"))
    wide, narrow = found["the command", "stdout"]
    assert wide[0] == "4000000"
    assert wide[1].startswith("314572800 bytes")
    assert narrow == [str(1 << 20), "dd: memory exhausted by input buffer of size 314572800 bytes (300 MiB)"]
    assert "fsize 1048576" in found["is", "limits"][1]


def test_nothing_but_the_user_and_all_powers(as_user: Ordinary) -> None:
    found = compared(as_user, as_user.home, "open/who", *of("none powers network"))
    assert found["is", "no new privileges"] == ["no: setuid programs work", "yes", "yes"]
    assert found["has its own", "users"] == ["no, the host's", "yes", "yes"]
    assert found["is", "capabilities"] == [["none"], ["all"], ["none"]]
    assert found["may", "set the host name (SYS_ADMIN)"] == ["EPERM", "allowed", "EPERM"]
    assert found["may", "mount (SYS_ADMIN)"] == ["EPERM", "allowed", "EPERM"]
    assert found["the command", "stdout"][0][0].startswith(f"uid={as_user.uid}")
    assert found["the command", "stdout"][1][0].startswith("uid=65534(nobody)")


@pytest.mark.root
def test_nothing_but_the_user_as_root(tmp_path: Path) -> None:
    found = compared(None, tmp_path, "open/who", *of("none open"))
    assert found["is", "no new privileges"] == ["yes", "yes"]
    assert found["is", "user"] == ["65534 (nobody)"] * 2


def test_a_command_without_end_and_a_tree_without_python(as_user: Ordinary) -> None:
    program = {"cmdpath": "/bin/sh", "args": ["-c", "while :; do echo line; done"]}
    nobody = {"acls": {"user": "nobody"}}
    config = {
        "metadata": {"uid": "t", "api": "t"},
        "sandboxes": [
            {"uid": "wide", **nobody, "namespace": {"shares": {"users": "disable"}},
             "commands": {"uid": "endless", "exec": program}},
            {"uid": "empty", **nobody, "namespace": {"shares": {"users": "disable"}, "mounts": []}},
        ],
    }  # fmt: skip
    file = as_user.home / "t.json"
    file.write_text(json.dumps(config))
    options = ["compare", str(file), "wide/endless", "--sandbox", "empty", "--timeout", "1", "--json"]
    done = as_user.run([*as_user.initspawn, *options], timeout=60)
    assert done.returncode == 0, done
    found = {(one["section"], one["name"]): one["values"] for one in json.loads(done.stdout)["findings"]}
    ends = found["the command", "end"]
    assert ends[0] == "signal: Killed (its time was over)"
    assert "No such file" in ends[1]
    assert len(found["the command", "stdout"][0]) == 2000
    assert "No such file" in found["may", "(looking around)"][1]


def test_a_plan_made_ahead(as_user: Ordinary) -> None:
    file = shutil.copy(LEARN, as_user.home)
    os.chmod(file, 0o644)
    made = as_user.run([*as_user.initspawn, "compile", str(file), "-o", "learn.plan"])
    assert made.returncode == 0, made
    options = ["compare", "learn.plan", "open/who", *of("tree tight"), "--json"]
    done = as_user.run([*as_user.initspawn, *options], timeout=60)
    assert done.returncode == 0, done
    found = {(one["section"], one["name"]): one["values"] for one in json.loads(done.stdout)["findings"]}
    assert found["may", "trace a process"] == ["allowed", "EPERM"]
    assert found["the command", "end"] == ["exit 0", "exit 0"]


def test_ctrl_c_ends_it_and_leaves_nothing(as_user: Ordinary) -> None:
    file = shutil.copy(LEARN, as_user.home)
    os.chmod(file, 0o644)
    text = Path(file).read_text().replace("[/proc/net/dev]", "[/dev/zero]")  # goes on until its time is over
    Path(file).write_text(text)
    command = [*as_user.initspawn, "compare", str(file), "open/network", *of("open tight")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with as_user.popen(command, start_new_session=True, **pipes) as process:
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "")
