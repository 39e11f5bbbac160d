"""The conformance checks of the configuration, by their numbers; what has to run is in tests/system."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from initspawn.config.compile import compile_files
from initspawn.errors import ConfigError
from initspawn.plan import TEXT, Api, Plan
from initspawn.sandbox.equivalent import equivalent
from tests.unit.config.conftest import ORDINARY

Build = Callable[..., Api]
Problems = Callable[..., list[str]]

TRUE = {"cmdpath": "/bin/true"}
COMMAND = {"uid": "c", "exec": TRUE}
METADATA = {"uid": "u", "api": "t"}


def config(*commands: dict[str, Any], **root: Any) -> dict[str, Any]:
    sandbox = {"uid": "sb", "commands": list(commands) or COMMAND}
    return {"metadata": METADATA, "sandboxes": sandbox, **root}


def verbs(api: Api) -> list[str]:
    return [command.verb for command in api.commands]


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Plan]:
    """read(text, file's name): the plan of a file with that text."""

    def read(text: str, name: str = "config.json", **environ: str) -> Plan:
        file = tmp_path / name
        file.write_text(text, encoding="utf-8")
        return compile_files([str(file)], user=ORDINARY, group=ORDINARY, environ=environ)

    return read


# What is accepted


def test_check_001_minimal(build: Build) -> None:
    api = build(raw=config())
    assert (api.api, verbs(api)) == ("t", ["c"])


def test_check_002_no_api(problems: Problems) -> None:
    assert "test: metadata: `api` is missing" in problems(raw=config(metadata={"uid": "u"}))[0]


def test_check_003_unknown_key_of_metadata(problems: Problems) -> None:
    (said,) = problems(raw=config(metadata={**METADATA, "licence": "x"}))
    assert "test: metadata.licence: unknown key in metadata" in said


def test_check_004_version_that_is_a_number(problems: Problems) -> None:
    (said,) = problems(raw=config(metadata={**METADATA, "version": 1}))
    assert said == "test: metadata.version: must be text, not 1 (write it in quotes)"


@pytest.mark.parametrize("required", ["nope", ["t nope"], ["t", "nope"]])
def test_check_005_required_api(tmp_path: Path, required: Any) -> None:
    file = tmp_path / "c.json"
    file.write_text(json.dumps(config(metadata={**METADATA, "require": required})))
    with pytest.raises(ConfigError, match="API 'nope' is required, and no file makes it"):
        compile_files([str(file)], user=ORDINARY, group=ORDINARY, environ={})


def test_check_006_no_metadata(problems: Problems) -> None:
    assert "`metadata` is missing" in problems(raw={"sandboxes": []})[0]


def test_check_007_unknown_root_key(build: Build, problems: Problems) -> None:
    """Refused, unlike the check: a misspelt key is never ignored. `x-` and `$` keys are."""
    (said,) = problems(raw=config(foo=1))
    assert "test: foo: unknown key in configuration" in said
    assert verbs(build(raw=config(**{"x-foo": 1, "$schema": "y"}))) == ["c"]


def test_check_008_no_sandboxes(build: Build) -> None:
    assert build(raw={"metadata": METADATA}).sandboxes == ()


def test_check_009_no_commands(build: Build) -> None:
    assert verbs(build(raw=config(sandboxes={"uid": "sb"}))) == []


def test_check_010_one_command_object(build: Build) -> None:
    assert verbs(build(raw=config(sandboxes={"uid": "sb", "commands": COMMAND}))) == ["c"]


def test_check_011_unknown_key_of_a_command(problems: Problems) -> None:
    (said,) = problems(raw=config({**COMMAND, "sampel": 1}))
    assert "unknown key in command (did you mean `sample`?)" in said


def test_check_012_no_exec(problems: Problems) -> None:
    (said,) = problems(raw=config({"uid": "c"}))
    assert "`exec` is missing" in said


def test_check_013_no_such_program(problems: Problems) -> None:
    (said,) = problems(raw=config({"uid": "c", "exec": {"cmdpath": "/nowhere/prog"}}))
    assert "'/nowhere/prog' does not exist" in said


def test_check_014_relative_program(problems: Problems) -> None:
    (said,) = problems(raw=config({"uid": "c", "exec": {"cmdpath": "true"}}))
    assert "'true' is not absolute" in said


def test_check_015_one_name_twice(problems: Problems) -> None:
    (said,) = problems(raw=config(COMMAND, COMMAND))
    assert "the verb `c` is taken" in said


@pytest.mark.parametrize("uid", ["ping", "info", "exec"])
def test_check_016_reserved_verbs(build: Build, problems: Problems, uid: str) -> None:
    (said,) = problems(raw=config({**COMMAND, "uid": uid}))
    assert f"the verb `{uid}` is initspawn's own" in said
    sandbox = {"uid": "sb", "prefix": "p", "commands": {**COMMAND, "uid": uid}}
    assert verbs(build(raw=config(sandboxes=sandbox))) == [f"p/{uid}"]


def test_check_017_names_that_differ_in_case(build: Build) -> None:
    assert verbs(build(raw=config(COMMAND, {**COMMAND, "uid": "C"}))) == ["c", "C"]


def test_check_018_single_quotes(read: Callable[..., Plan]) -> None:
    assert read("{'metadata': {'uid': 'u', 'api': 't'}}").apis[0].api == "t"


def test_check_019_trailing_commas(read: Callable[..., Plan]) -> None:
    made = read('{"metadata": {"uid": "u", "api": "t", }, "sandboxes": [{"uid": "s",}, ], /* x */ } // y')
    assert made.apis[0].sandboxes[0].uid == "s"


def test_check_020_samples(build: Build) -> None:
    assert build(raw=config({**COMMAND, "samples": [{}]})).commands[0].sample == [{}]


def test_check_021_once(build: Build) -> None:
    made = [build(raw=config({**COMMAND, key: True})).commands[0] for key in ("once", "single")]
    assert made[0] == made[1]
    assert made[0].most == 1


def test_check_022_single_that_is_a_number(problems: Problems) -> None:
    (said,) = problems(raw=config({**COMMAND, "single": 1}))
    assert "must be true or false, not 1" in said


def test_check_023_timeouts(build: Build, problems: Problems) -> None:
    for good, seconds in (("3", 3.0), (2.0, 2.0), (0, 0.0)):
        assert build(raw=config({**COMMAND, "timeout": good})).commands[0].timeout == seconds
    for bad in (2.5, "x", True, None, -1):
        assert len(problems(raw=config({**COMMAND, "timeout": bad}))) == 1


def test_check_024_acl_means_acls(build: Build) -> None:
    (one,), (other,) = (build({key: {"umask": "077"}}).sandboxes for key in ("acl", "acls"))
    assert one == other
    assert one.umask == 0o077


# Expansion


def test_check_083_number_as_argument(build: Build) -> None:
    command = {"uid": "c", "exec": {**TRUE, "args": 80}}
    assert build(raw=config(command)).commands[0].arguments == (((TEXT, "80"),),)


def argument(build: Build, text: str, **environ: str) -> str:
    command = {"uid": "c", "exec": {**TRUE, "args": text}}
    (((kind, made),),) = build(raw=config(command), environ=environ).commands[0].arguments
    assert kind == TEXT
    return made


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("$HOME/x", "/h/x"),
        ("$home", "/h"),
        ("$SANDBOX_UID-$COMMAND_UID-$API_NAME", "sb-c-t"),
        ("$SANDBOX-$COMMAND-$APINAME", "sb-c-t"),
    ],
)
def test_check_084_built_in_names(build: Build, text: str, made: str) -> None:
    assert argument(build, text, HOME="/h") == made


def test_check_085_environment(build: Build, problems: Problems) -> None:
    assert argument(build, "$FOO", FOO="foo") == "foo"
    (said,) = problems(raw=config({"uid": "c", "exec": {**TRUE, "args": "$FOO"}}))
    assert "`$FOO` is neither built in nor in the environment" in said


def test_check_086_braces(build: Build) -> None:
    assert argument(build, "${HOME}", HOME="/h") == "/h"


def test_check_087_fresh_values(build: Build) -> None:
    one, other = argument(build, "$UUID $UUID").split()
    assert one != other
    for text in (one, other):
        assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", text)
    assert re.fullmatch(r"\d\d-\w{3}-\d{4} \d\d:\d\d:\d\d \(\w+\)", argument(build, "$TODAY"))


# Sandboxes


def test_check_108_who_runs(build: Build, problems: Problems) -> None:
    """A user may be left out by an ordinary user, whose own it is then, and a group by everybody."""
    assert build({"acls": {"umask": "027"}}).sandboxes[0].user == ORDINARY
    assert "`admin` is for root only" in problems({"acls": {"runmod": "Admin"}})[0]
    assert "`user` is not for root" in problems({"acls": {"runmod": "user", "user": "daemon"}}, user=0)[0]
    assert "as root a sandbox must name the user" in problems({}, user=0)[0]
    assert "as root a sandbox must name the user" in problems({"acls": {"umask": "027"}}, user=0)[0]
    for runmod in ("default", "admin"):
        made = build({"acls": {"user": "daemon", "runmod": runmod}}, user=0).sandboxes[0]
        assert (made.user, made.group) == (1, 1)
    assert build({"acls": {"runmod": "user"}}).sandboxes[0].user == ORDINARY


@pytest.mark.parametrize("runmod", ["x", "", 1, True])
def test_check_112_unknown_runmod(problems: Problems, runmod: Any) -> None:
    (said,) = problems({"acls": {"runmod": runmod}})
    assert "sandboxes.acls.runmod: " in said
    assert "admin, default, user" in said


def test_check_114_capabilities(build: Build, problems: Problems) -> None:
    masks = {
        build({"namespace": {}, "caps": {"cap": name, "mode": "set"}}).sandboxes[0].capabilities
        for name in ("KILL", "CAP_KILL", "kill", "cap_kill")
    }
    assert masks == {1 << 5}
    assert "unknown capability 'KIL'" in problems({"caps": {"cap": "KIL", "mode": "unset"}})[0]
    assert "`mode` is missing" in problems({"caps": {"cap": "KILL"}})[0]
    assert "unknown word 'clear'" in problems({"caps": {"cap": "KILL", "mode": "clear"}})[0]


def test_check_117_default_kills_the_process(build: Build) -> None:
    rules = [{"syscall": name, "action": "SCMP_ACT_ALLOW"} for name in ("execve", "exit_group")]
    seccomp = {"default": "SCMP_ACT_KILL_PROCESS", "rules": rules}
    assert len(build({"seccomp": seccomp}).sandboxes[0].filters) == 1


def test_check_119_rulespath_that_is_missing(problems: Problems) -> None:
    (said,) = problems({"seccomp": {"rulespath": "/nowhere.bpf"}})
    assert "sandboxes.seccomp.rulespath: '/nowhere.bpf' cannot be read: No such file or directory" in said


def test_check_122_every_mount_mode_in_order(build: Build) -> None:
    mounts = [
        {"target": "/usr", "mode": "ro"},
        {"target": "/bin", "source": "usr/bin", "mode": "symlink"},
        {"target": "/w", "source": "/var/tmp", "mode": "Write"},
        {"target": "/d", "mode": "anonymous"},
        {"target": "/t", "mode": "tmpfs"},
        {"target": "/proc", "mode": "procfs"},
        {"target": "/dev", "mode": "devfs"},
        {"target": "/dev/mqueue", "mode": "mqueue"},
        {"target": "/f", "source": "echo x", "mode": "execfd"},
        {"target": "/f", "mode": "lock"},
    ]
    sandbox = {"namespace": {"shares": {"all": "disable", "net": "enable"}, "mounts": mounts}, "commands": []}
    argv = list(equivalent(build(sandbox).sandboxes[0], ("/usr/bin/true",)).argv)
    argv = argv[argv.index("bwrap") :]
    shares = {word for word in argv if word.startswith("--unshare")}
    assert shares == {f"--unshare-{name}" for name in ("user", "pid", "ipc", "uts", "cgroup")}
    vector = argv[argv.index("--ro-bind") : argv.index("--chdir")]
    assert vector == [
        *("--ro-bind", "/usr", "/usr"),
        *("--symlink", "usr/bin", "/bin"),
        *("--bind", "/var/tmp", "/w"),
        *("--dir", "/d"),
        *("--perms", "1777", "--tmpfs", "/t"),
        *("--proc", "/proc"),
        *("--dev", "/dev", "--chmod", "1777", "/dev/shm"),
        *("--mqueue", "/dev/mqueue"),
        *("--perms", "0444", "--ro-bind-data", "3", "/f"),
        *("--lock-file", "/f"),
        *("--remount-ro", "/"),
    ]
    assert {"--die-with-parent", "--new-session"} < set(argv)


def test_check_123_unknown_word_of_shares(problems: Problems) -> None:
    (said,) = problems({"namespace": {"shares": {"users": "bogus"}}})
    assert "sandboxes.namespace.shares.users: unknown word 'bogus'" in said


def test_check_124_no_execfd(build: Build) -> None:
    made = build({"namespace": {"mounts": {"target": "/usr", "mode": "ro"}}, "commands": []}).sandboxes[0]
    assert [mount.operation for mount in made.mounts] == ["bind"]


def test_check_125_missing_source(build: Build, problems: Problems, tmp_path: Path) -> None:
    source = tmp_path / "a" / "b"
    mounts = {"target": "/d", "source": str(source), "mode": "rw"}
    (said,) = problems({"namespace": {"mounts": mounts}, "commands": []})
    assert "does not exist (make it, or say `opts: {autocreate: true}`)" in said
    build({"namespace": {"opts": {"autocreate": True}, "mounts": mounts}, "commands": []})
    assert [path.stat().st_mode & 0o7777 for path in (source, source.parent)] == [0o755, 0o755]


@pytest.mark.parametrize(("mode", "option"), [("dir", "--dir"), ("dev", "--dev"), ("DIR", "--dir")])
def test_check_126_documented_modes(build: Build, mode: str, option: str) -> None:
    sandbox = {"namespace": {"mounts": {"target": "/d", "mode": mode}}, "commands": []}
    argv = equivalent(build(sandbox).sandboxes[0], ("/true",)).argv
    assert argv[argv.index(option) + 1] == "/d"


@pytest.mark.parametrize("namespace", [{}, {"shares": {}}, {"mounts": []}, {"opts": {}}])
def test_check_127_parts_left_out(build: Build, namespace: dict[str, Any]) -> None:
    made = build({"namespace": namespace, "commands": []}).sandboxes[0]
    assert made.namespaces == ("user", "pid", "mnt")
    assert made.new_root == ("mounts" in namespace)


def test_check_128_host_name(build: Build) -> None:
    made = build({"namespace": {"opts": {"hostname": "h"}}}).sandboxes[0]
    argv = equivalent(made, ("/true",)).argv
    assert argv[argv.index("--hostname") + 1] == "h"
    assert "--unshare-uts" in argv
