"""`compare`: which sandboxes, what is beside what, and the program that looks around."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from initspawn.cli import compare, lookaround
from initspawn.cli.exits import UsageError
from initspawn.cli.findings import ABSENT, Finding, findings, of_run
from initspawn.cli.main import main
from initspawn.cli.sequence import Ran
from initspawn.plan import Api, Command, Mount, Sandbox

COMMAND = Command(uid="c", verb="c", sandbox="a", path="/bin/true")
A = Sandbox(
    uid="a", user=1000, group=1000, namespaces=("net",), filters=(bytes(8),), environment=(("X", "1"),)
)  # fmt: skip
B = Sandbox(uid="b", user=0, group=0, new_root=True, mounts=(Mount(operation="tmpfs", target="/tmp"),))
API = Api(uid="t", api="t", sandboxes=(A, B), commands=(COMMAND,))
MEASURED: dict[str, Any] = {
    "user": (0, 0, 0, 0), "group": (5, 5, 5, 5), "groups": (4, 7), "identity": {}, "umask": 0o27,
    "capabilities": (0, 1, 1, 3, 1), "no-new-privileges": 0, "seccomp": (2, 1), "directory": "/",
    "limits": {4: (0, -1), 7: (10, 10)}, "environment": ("A=b",),
    "scheduling": {"nice": 3, "policy": 0},
    "namespaces": {"net": "private", "user": "shared"},
}  # fmt: skip


def ran(*lines: str, status: dict[str, Any] | None = None, **fields: Any) -> Ran:
    made = Ran()
    made.output["stdout"] = list(lines)
    made.status = {"exit": 0} if status is None else status
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def test_sandboxes_are_chosen_by_name() -> None:
    assert compare.choose(API, COMMAND, ["b", "a"]) == [B, A]
    assert compare.choose(API, COMMAND, ["b"]) == [A, B], "one name: beside the verb's own"
    with pytest.raises(UsageError, match="did you mean `a`"):
        compare.choose(API, COMMAND, ["a", "aa"])
    with pytest.raises(UsageError, match="say which"):
        compare.choose(API, COMMAND, [])


def test_none_keeps_the_user_and_nothing_else() -> None:
    _, none = compare.choose(API, COMMAND, ["a", "none"])
    assert (none.user, none.group, none.environment) == (1000, 1000, (("X", "1"),))
    assert (none.namespaces, none.filters, none.mounts, none.capabilities) == ((), (), (), 0)
    assert none.no_new_privileges == (os.geteuid() == 0)
    with pytest.raises(UsageError, match="as root"):
        compare.choose(API, COMMAND.replace(sandbox="b"), ["none", "a"])


def test_a_sandbox_of_the_file_may_be_called_none() -> None:
    named = API.replace(sandboxes=(A, B.replace(uid="none")))
    assert compare.choose(named, COMMAND, ["a", "none"])[1].new_root


def test_python_is_looked_for_inside() -> None:
    usr = Mount(operation="bind", target="/usr/bin", source=os.path.dirname(os.path.realpath(sys.executable)))
    box = B.replace(mounts=(usr,))
    assert compare.lookaround(box).path.startswith("/usr/bin/")
    assert compare.lookaround(B).path == "/usr/bin/python3", "whose start is then refused"


def test_findings_stand_side_by_side() -> None:
    found = findings([{("is", "x"): "1", ("may", "y"): "no"}, {("is", "x"): "1", ("is", "z"): ["a"]}])
    assert found == [
        Finding("is", "x", ["1", "1"]),
        Finding("is", "z", [ABSENT, ["a"]]),
        Finding("may", "y", ["no", ABSENT]),
    ]
    assert [one.same for one in found] == [True, False, False]


def test_what_a_run_tells() -> None:
    users = '["sees", "users", [1, 1, 1, 2, 2, 2, 3]]'
    looked = ran('["tries", "mount", "EPERM"]', users, "noise", "[1]", "3")
    found = of_run(A, ran("out", measurement=MEASURED, own_cgroup=True), looked)
    assert found["is", "user"] == "0 (root)"
    assert found["is", "user, as it sees itself"] == "user 1, group 2, also 3"
    assert found["is", "capabilities"] == ["CHOWN"]
    assert found["is", "can ever hold"] == ["CHOWN", "DAC_OVERRIDE"]
    assert found["is", "seccomp"] == "1 filter"
    assert found["is", "limits"] == ["core 0 to unlimited", "nofile 10"]
    assert found["is", "scheduling"] == ["nice 3", "policy 0"]
    assert (found["has its own", "network"], found["has its own", "users"]) == ("yes", "no, the host's")
    assert found["has its own", "cgroup"] == "yes"
    assert found["may", "mount"] == "EPERM"
    assert (found["the command", "stdout"], found["the command", "end"]) == (["out"], "exit 0")
    assert ("may", "(looking around)") not in found


def test_what_could_not_run_is_told() -> None:
    refused = ran(status={}, refusal="start refused at 'exec'")
    found = of_run(B, refused, ran(status={"signal": "Killed", "info": "timeout"}))
    assert found["the command", "end"] == "start refused at 'exec'"
    assert found["may", "(looking around)"] == "signal: Killed (its time was over)"
    assert of_run(B, refused, refused)["may", "(looking around)"] == "start refused at 'exec'"


def test_output_of_a_command_is_bounded_and_no_terminal_command(capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["\x1b[2J" + "x" * 300] + ["y"] * 100
    compare._show("t/c", ["a", "b"], [Finding("the command", "stdout", [lines, []])], everything=False)
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\\x1b[2J" in shown
    assert "lines more" in shown
    assert max(map(len, shown.splitlines())) <= 120


def test_lists_show_what_is_not_common(capsys: pytest.CaptureFixture[str]) -> None:
    found = [Finding("sees", "root directory", [["bin", "etc"], ["bin"]]), Finding("is", "alike", ["1", "1"])]
    compare._show("t/c", ["a", "b"], found, everything=False)
    shown = capsys.readouterr().out
    assert "bin" not in shown
    assert "nothing more" in shown
    assert "one finding is alike" in shown
    compare._show("t/c", ["a", "b"], found, everything=True)
    assert "bin etc" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--sandbox", "nowhere"], "no sandbox"),
        ([], "say which"),
        (["--sandbox", "box", "--timeout", "0"], "--timeout"),
    ],
)
def test_wrong_usage(
    configuration: str, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", configuration, "box/true", *options]) == 100
    assert said in capsys.readouterr().err


def test_looking_around_leaves_nothing_and_finds_everything(tmp_path: Path) -> None:
    """As whoever runs the tests; what it may depends on that, that each is answered does not."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", Path(lookaround.__file__).read_text()],
        capture_output=True, text=True, timeout=60, cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    told = [json.loads(line) for line in done.stdout.splitlines()]
    wanted = [*(("sees", name) for name in lookaround.SEES), *(("tries", name) for name in lookaround.TRIES)]
    assert [(kind, name) for kind, name, _ in told] == wanted
    answers = {name: value for kind, name, value in told if kind == "tries"}
    assert set(answers.values()) <= {lookaround.ALLOWED, *errno.errorcode.values()}
    assert (answers["make a directory"], answers["open a unix socket"]) == ("allowed", "allowed")
    assert os.listdir(tmp_path) == []


def test_an_attempt_that_kills_or_fails_ends_itself_alone(capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork beside xdist's threads
        lookaround.in_child("tries", "die", lambda _: os.kill(os.getpid(), 9))
        lookaround.in_child("tries", "fail", lambda _: 1 / 0)
    out, err = capfd.readouterr()
    values = [json.loads(line)[2] for line in out.splitlines()]
    assert values == ["killed by SIGKILL", "(could not be found out)"]
    assert "ZeroDivisionError" in err
