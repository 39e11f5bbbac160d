"""`check`, `explain`, and what they take their words from."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import tempfile
import types
from pathlib import Path
from typing import Any

import pytest

from initspawn.cli.main import main
from initspawn.linux import capabilities
from initspawn.plan import NAMESPACES, Command, IdMap, Landlock, Mount, Sandbox, Scheduling
from initspawn.sandbox import calls, describe, equivalent, ladder
from initspawn.sandbox import mounts as mount_operations
from initspawn.sandbox.measure import Baseline
from initspawn.sandbox.steps import COMMAND_STEPS, FILTER_STEPS, REAPER_STEPS
from initspawn.sandbox.streams import Streams

COMMAND = Command(uid="c", verb="c", sandbox="s", path="/bin/true", timeout=3.0)
PLAIN = Sandbox(uid="s", user=1000, group=1000)
FULL = Sandbox(
    uid="s", user=0, group=0, groups=(), namespaces=NAMESPACES, hostname="h", new_root=True,
    id_map=IdMap(inside_uid=0, outside_uid=0, inside_gid=0, outside_gid=0, first=False),
    mounts=(
        Mount(operation="bind", target="/usr", source="/usr", read_only=True),
        Mount(operation="bind", target="/data", source="/srv", read_only=False),
        Mount(operation="dir", target="/empty"),
        Mount(operation="file", target="/etc/x y", data=b"text"),
        Mount(operation="lock", target="/etc/x y"),
        Mount(operation="mqueue", target="/dev/mqueue"),
        Mount(operation="proc", target="/proc"),
        Mount(operation="dev", target="/dev"),
        Mount(operation="tmpfs", target="/tmp"),
        Mount(operation="symlink", target="/bin", source="usr/bin"),
    ),
    filters=(bytes(16), bytes(8)), capabilities=0b101, limits=((4, 0, 0), (7, 10, -1)),
)  # fmt: skip
FIRST = PLAIN.replace(
    namespaces=("user", "pid", "mnt"), groups=None,
    id_map=IdMap(inside_uid=5, outside_uid=1000, inside_gid=6, outside_gid=1000, first=True),
)  # fmt: skip
ALL = [PLAIN, FULL, FIRST]


@pytest.fixture(scope="module")
def baseline() -> Baseline:
    return Baseline()


def test_check_lists_the_verbs(configuration: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", configuration, "--user", str(os.geteuid())]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "trial 1 - for tests"
    assert lines[1].split() == ["VERB", "SANDBOX", "USER", "CONFINED", "BY", "ABOUT"]
    assert [line.split()[:2] for line in lines[2:]] == [["plain/list", "plain"], ["box/true", "box"]]
    assert "own root" in lines[3]
    assert "seccomp" in lines[3]


def test_check_tells_all_problems_of_all_files(
    configuration: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = tmp_path / "wrong.json"
    wrong.write_text('{"metadata": {"uid": "u"},\n "nonsense": 1}', encoding="utf-8")
    assert main(["check", configuration, str(wrong), "/nonexistent"]) == 100
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"{wrong}:2: nonsense:" in captured.err
    assert "/nonexistent: cannot be read" in captured.err
    assert captured.err.splitlines()[-1].endswith("problems")


@pytest.mark.parametrize("options", [[], ["--calls"]], ids=str)
def test_explain_in_words(configuration: str, options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", configuration, "plain/list", "dir=a b", *options]) == 0
    text = capsys.readouterr().out
    assert "/bin/ls -l -- 'a b' x" in text
    assert "time limit 7 s" in text
    assert "scope `start`" in text
    assert "its pid namespace" in text
    assert "no seccomp filter" in text
    assert ("setsid()" in text) == bool(options)


def test_explain_without_arguments_shows_the_template(
    configuration: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", configuration, "trial/plain/list"]) == 0
    assert "/bin/ls -l -- %dir% 'x?more?'" in capsys.readouterr().out


def test_explain_as_json(configuration: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", configuration, "box/true", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["argv"] == ["/bin/true"]
    assert (found["most"], found["queue"]) == (1, 0)
    assert found["encoder"]["name"] == "line"
    assert found["identity"]["umask"] == "027"
    assert any("`admin`" in text for text in found["callers"])
    assert [step["step"] for step in found["steps"]][-2:] == [ladder.EXEC, describe.MEASUREMENT]
    assert all(isinstance(step["calls"], list) for step in found["steps"])
    assert base64.b64decode(found["bwrap"]["files"]["motd"]) == b"hello\n"
    assert {end["certain"] for end in found["ends"]} == {True, False}  # no pid namespace


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nothing"], 127, "there are trial/plain/list, trial/box/true"),
        (["plain/lst"], 127, "did you mean"),
        (["plain/list", 'dir:="\\u0000"'], 100, "NUL"),
        (["plain/list", "other=x"], 100, "argument `dir` is missing"),
    ],
)
def test_explain_refuses(
    configuration: str, words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", configuration, *words]) == code
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("sandbox", ALL)
def test_every_step_has_a_sentence_and_its_calls(sandbox: Sandbox, baseline: Baseline) -> None:
    taken = describe.steps(sandbox, baseline)
    assert all(text for _, text in taken)
    made = calls.calls(sandbox, baseline)
    ours = (describe.CGROUP, describe.MEASUREMENT, describe.LOCK)
    assert list(made) == [name for name, _ in taken if name not in ours]


def test_no_step_of_the_ladder_is_without_words() -> None:
    names = {step.name for step in (*REAPER_STEPS, *COMMAND_STEPS, *FILTER_STEPS)}
    assert names <= describe._SENTENCES.keys()
    assert {*mount_operations._OPERATIONS, "image"} == describe._MOUNTS.keys()  # that one is a root only


def test_calls_are_named_with_their_arguments(baseline: Baseline) -> None:
    made = calls.calls(FULL, baseline)
    assert "setresuid(0, 0, 0)" in made["user"]
    assert made["host name"] == ['sethostname("h", 1)']
    assert 'chdir("/")' in made["directory"]
    assert "prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)  # no new privileges" in made["no new privileges"]
    assert any(text.startswith('openat(AT_FDCWD, "/proc"') for text in made["proc"])
    flags = made[ladder.NAMESPACES][0]
    assert "CLONE_NEWPID" in flags
    assert "CLONE_NEWUSER" not in flags  # made last
    assert not [text for texts in made.values() for text in texts if "address" in text and "prctl" not in text
                and "read(" not in text]  # fmt: skip


def test_what_is_compared_is_what_is_measured(baseline: Baseline) -> None:
    streams = Streams()
    theirs = streams.open(PLAIN.user)
    try:
        start: Any = types.SimpleNamespace(
            sandbox=PLAIN, argv=("/bin/true",), streams=streams, extra=(), command_pid=1, cgroup=None,
            leader=(1, -1), environment=(),
        )  # fmt: skip
        assert list(baseline.expected(start)) == list(describe.MEASURED)
    finally:
        streams.close()
        for fd in theirs:
            os.close(fd)


def test_a_terminal_is_explained(baseline: Baseline) -> None:
    said = dict(describe.steps(FULL, baseline, terminal=True))
    assert list(said).index("terminal") == list(said).index("session") + 1
    assert "terminal made for it" in said[ladder.DESCRIPTORS]
    made = calls.calls(FULL, baseline, terminal=True)
    assert made["terminal"] == ["ioctl(0, 0x540e, 0)  # standard input"]
    assert "its terminal as 0, 1 and 2" in made[ladder.DESCRIPTORS][0]
    plain = dict(describe.steps(FULL, baseline))
    assert "terminal" not in plain
    assert plain["session"] != said["session"]


def test_gaps_are_told() -> None:
    gaps = " ".join(describe.gaps(COMMAND.replace(timeout=0.0), PLAIN.replace(no_new_privileges=False)))
    for word in ("network", "processes", "every host file", "setuid", "seccomp", "no time limit", "memory"):
        assert word in gaps
    less = " ".join(describe.gaps(COMMAND, FULL))
    for word in ("network", "every host file", "seccomp", "no time limit"):
        assert word not in less
    assert "/srv" in less
    assert "as root" in less
    held = PLAIN.replace(capabilities=1 << capabilities.NUMBERS["NET_ADMIN"])
    assert "NET_ADMIN over the host" in " ".join(describe.gaps(COMMAND, held))
    member = PLAIN.replace(groups=(4, 27))
    assert "may do what members of the groups 4 27 may" in " ".join(describe.gaps(COMMAND, member))


def test_ends_are_as_certain_as_they_are() -> None:
    assert [certain for certain, _ in describe.endings(COMMAND, FULL)] == [True] * 4
    assert False in [certain for certain, _ in describe.endings(COMMAND, PLAIN)]


def test_bubblewrap_gets_everything_it_can(baseline: Baseline) -> None:
    found = equivalent.equivalent(FULL, ("/bin/true", "x"))
    text = " ".join(found.argv)
    for part in (
        "prlimit --core=0:0 --nofile=10:unlimited -- setpriv --reuid=0 --regid=0 --clear-groups -- bwrap",
        "--unshare-user --unshare-pid --unshare-ipc --unshare-uts --unshare-net --unshare-cgroup",
        "--uid 0 --gid 0 --hostname h", "--ro-bind /usr /usr --bind /srv /data --dir /empty",
        "--dir /etc --perms 0444 --ro-bind-data 3 /etc/x y", "--lock-file /etc/x y",
        "--mqueue /dev/mqueue --proc /proc",
        "--ro-bind /proc/sys /proc/sys", "--dev /dev --chmod 1777 /dev/shm", "--cap-drop ALL",
        "--add-seccomp-fd 4 --add-seccomp-fd 5", "--cap-add CAP_CHOWN --cap-add CAP_DAC_READ_SEARCH",
        "--new-session --die-with-parent -- /bin/true x",
    ):  # fmt: skip
        assert part in text
    assert [name for _, name, _ in found.files] == ["x y", "filter-1.bpf", "filter-2.bpf"]
    assert any("belong to the host" in text for text in found.differences)


def test_bubblewrap_without_namespaces_changes_the_user_inside() -> None:
    found = equivalent.equivalent(PLAIN, ("/bin/true",))
    text = " ".join(found.argv)
    assert text.startswith("bwrap --dev-bind / /")
    assert "-- setpriv --reuid=1000 --regid=1000 --clear-groups --inh-caps=-all" in text
    assert any("mount namespace" in text for text in found.differences)
    assert equivalent.equivalent(FIRST, ("x",)).argv[0] == "bwrap"


@pytest.mark.needs("bwrap")
def test_the_bubblewrap_line_runs(configuration: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", configuration, "box/true", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["bwrap"]
    with tempfile.TemporaryDirectory() as place:
        for name, data in found["files"].items():
            Path(place, name).write_bytes(base64.b64decode(data))
        result = subprocess.run(
            ["/bin/sh", "-c", found["command"]],
            cwd=place, capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")


def test_bwrap_behind_the_tools_that_put_it_in_its_place() -> None:
    box = PLAIN.replace(scheduling=Scheduling(nice=-3, policy=3, io=3 << 13, oom_score_adj=-5))
    text = " ".join(equivalent.equivalent(box, ("x",)).argv)
    assert "nice --adjustment=-3 chrt --batch 0 ionice --class 3 choom --adjust=-5 -- " in text
    box = PLAIN.replace(scheduling=Scheduling(io=2 << 13 | 6))
    assert "ionice --class 2 --classdata 6 " in " ".join(equivalent.equivalent(box, ("x",)).argv)


def test_every_call_is_shown_with_what_its_arguments_are() -> None:
    box = FULL.replace(
        scheduling=Scheduling(nice=3, policy=5, io=2 << 13 | 6, oom_score_adj=-5),
        landlock=Landlock(fs=1 << 2 | 1 << 7, net=3, scopes=3, paths=(("/usr", 1 << 2),), ports=((80, 1),)),
    )
    made = calls.calls(box, Baseline())
    assert made["scheduling"][0] == "setpriority(0, 0, 3)"
    assert made["Landlock"][-2].startswith("landlock_restrict_self(")
    assert "/proc/self/oom_score_adj" in " ".join(made["oom score"])
    said = dict(describe.steps(box, Baseline()))
    assert said["scheduling"] == "nice value 3, policy idle, io best-effort, level 6"
    assert said["Landlock"] == (
        "read create only in /usr (read); listens on TCP ports 80; connects to TCP ports none; "
        "it does not reach others by abstract-sockets; it does not reach others by signals"
    )


EXTRA = """
extra:
  - {uid: home, action: "api://trial#plain/list", args: {args: {dir: /home}}, privileges: "urn:look"}
  - {uid: more, action: "api://trial#plain/list", args: {args: {more: "!"}}}
  - {uid: halt, action: "api://trial#plain/list", args: {action: stop}}
  - {uid: about, action: "api://trial#info"}
"""


@pytest.fixture
def with_extra(configuration: str) -> str:
    with open(configuration, "a", encoding="utf-8") as file:
        file.write(EXTRA)
    return configuration


def test_explain_of_an_extra_verb(with_extra: str, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*words: str) -> str:
        assert main(["explain", with_extra, *words]) == 0
        return capsys.readouterr().out

    text = said("home")
    assert text.startswith("trial/home: list a directory\n")
    assert 'another name of trial/plain/list, called with {"args": {"dir": "/home"}}' in text
    assert "  /bin/ls -l -- /home x\n" in text
    assert "a token with the scope `start` or `*`; `urn:look` as well" in text
    assert "  /bin/ls -l -- /home xy\n" in said("trial/home", "dir=/etc", "more=y")  # its own ones win
    assert "%dir% 'x?more?'" in said("more")  # nobody has said which directory
    assert "  /bin/ls -l -- /etc 'x!'\n" in said("more", "dir=/etc")


def test_extra_verbs_that_start_nothing(with_extra: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words, reason in (
        (["halt"], "`trial/halt` starts nothing: its action for trial/plain/list is stop"),
        (["about"], "`trial/about` calls trial/info, which starts no command"),
        (["more", "other=1"], "argument `dir` is missing"),
        (["nothing"], "no verb `nothing`"),
    ):
        assert main(["explain", with_extra, *words]) != 0
        assert reason in capsys.readouterr().err
