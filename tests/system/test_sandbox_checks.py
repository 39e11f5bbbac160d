"""The conformance checks of sandboxes that have to run, by their numbers."""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyseccomp
import pytest

from tests.support.users import Ordinary
from tests.system.server import serving, write

Runner = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Runner:
    """run(sandbox's keys, program, arguments...): what `initspawn run` makes of it, as root or as `user`."""

    def run(
        sandbox: dict[str, Any],
        *argv: str,
        user: Ordinary | None = None,
        env: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        command = {"uid": "c", "exec": {"cmdpath": argv[0], "args": list(argv[1:])}}
        config = {
            "metadata": {"uid": "u", "api": "t"},
            "sandboxes": {"uid": "sb", "commands": command, **sandbox},
        }
        file = write(user.home if user else tmp_path, "config.json", config)
        if user:
            return user.run([*user.initspawn, "run", file, "c"], env=env)
        words = [sys.executable, "-m", "initspawn", "run", file, "c"]
        environ = {**os.environ, **(env or {})}
        return subprocess.run(words, capture_output=True, text=True, timeout=60, env=environ, check=False)

    return run


def status(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """What a `cat /proc/self/status` printed."""
    assert done.returncode == 0, done
    return dict(line.split(":\t", 1) for line in done.stdout.splitlines() if ":\t" in line)


STATUS = ("/bin/cat", "/proc/self/status")
DAEMON = {"user": "daemon", "group": "dialout"}


def test_check_109_umask_and_directory_of_an_ordinary_user(run: Runner, as_user: Ordinary) -> None:
    acls = {"umask": "027", "chdir": "/var/tmp"}
    found = status(run({"acls": acls}, *STATUS, user=as_user))
    assert (found["Umask"], found["Uid"].split()) == ("0027", [str(as_user.uid)] * 4)
    assert run({"acls": acls}, "/bin/pwd", user=as_user).stdout == "/var/tmp\n"


@pytest.mark.root
def test_check_110_root_becomes_the_user_without_groups(run: Runner) -> None:
    found = status(run({"acls": DAEMON}, *STATUS))
    assert (found["Uid"].split(), found["Gid"].split()) == (["1"] * 4, ["20"] * 4)
    assert found["Groups"].split() == []


@pytest.mark.root
@pytest.mark.parametrize("users", ["disable", "enable"])
def test_groups_that_are_asked_for(run: Runner, users: str) -> None:
    """They count for the machine's files, in a user namespace too, where they have no numbers."""
    kept = Path("/var/tmp") / f"initspawn-groups-{os.getpid()}"
    kept.write_text("for audio\n")
    try:
        os.chown(kept, 0, grp.getgrnam("audio").gr_gid)
        kept.chmod(0o640)
        keys = {"namespace": {"shares": {"users": users}}}
        assert run({"acls": DAEMON, **keys}, "/bin/cat", str(kept)).returncode == 1
        acls = {**DAEMON, "groups": ["audio", "video"]}
        assert run({"acls": acls, **keys}, "/bin/cat", str(kept)).stdout == "for audio\n"
    finally:
        kept.unlink()
    if users == "enable":
        numbers = {grp.getgrnam(name).gr_gid for name in ("audio", "video")}
        assert set(map(int, status(run({"acls": acls}, *STATUS))["Groups"].split())) == numbers


@pytest.mark.root
def test_check_111_a_directory_that_may_not_be_entered(run: Runner, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    done = run({"acls": {**DAEMON, "chdir": str(closed)}}, "/bin/echo", "ran")
    assert done.returncode != 0
    assert "start refused at 'directory': Permission denied (EACCES)" in done.stderr
    assert "ran" not in done.stdout


def test_check_113_environment_entries(run: Runner, as_user: Ordinary) -> None:
    entries = [{"name": "FOO", "value": "$SANDBOX_UID"}, {"name": "HOME", "mode": "unset"}]
    found = run({"envs": entries}, "/usr/bin/env", user=as_user).stdout.splitlines()
    assert "FOO=sb" in found
    assert {line.split("=")[0] for line in found} == {"PATH", "LANG", "USER", "FOO"}


def test_the_servers_environment_on_request(run: Runner, as_user: Ordinary) -> None:
    given = {"SECRET": "s", "OTHER": "o", "INITSPAWN_TOKEN": "t"}
    keys = {"envs_from": "server", "envs": {"name": "OTHER", "mode": "unset"}, "acls": {"path": "/p:$PATH"}}
    found = run(keys, "/usr/bin/env", user=as_user, env=given).stdout.splitlines()
    assert "SECRET=s" in found
    assert f"PATH=/p:{as_user.environment['PATH']}" in found
    assert not [line for line in found if line.startswith(("OTHER=", "INITSPAWN_"))]
    assert "SECRET=s" not in run({}, "/usr/bin/env", user=as_user, env=given).stdout.splitlines()


@pytest.mark.root
def test_check_115_capabilities_of_a_user(run: Runner) -> None:
    found = status(run({"acls": DAEMON, "caps": {"cap": "KILL", "mode": "set"}}, *STATUS))
    sets = {found[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    assert sets == {f"{1 << 5:016x}"}


@pytest.mark.parametrize("action", ["SCMP_ACT_KILL", "kill_process"])
def test_check_116_a_forbidden_call_kills(run: Runner, as_user: Ordinary, action: str) -> None:
    rules = [{"syscall": name, "action": action} for name in ("mkdir", "mkdirat")]
    seccomp = {"default": "SCMP_ACT_ALLOW", "rules": rules}
    assert status(run({"seccomp": seccomp}, *STATUS, user=as_user))["Seccomp"] == "2"
    made = as_user.home / "made"
    done = run({"seccomp": seccomp}, "/bin/mkdir", str(made), user=as_user)
    assert done.returncode == 128 + 31  # SIGSYS
    assert not made.exists()


def test_conditions_on_arguments_hold(run: Runner, as_user: Ordinary) -> None:
    rules = {
        "syscall": "setpriority",
        "action": "errno(EACCES)",
        "args": {"index": 2, "op": ">=", "value": 15},
    }
    seccomp = {"default": "allow", "rules": rules}
    nice = ("/usr/bin/nice", "-n")
    assert run({"seccomp": seccomp}, *nice, "3", "/usr/bin/nice", user=as_user).stdout == "3\n"
    refused = run({"seccomp": seccomp}, *nice, "16", "/usr/bin/nice", user=as_user)
    assert refused.stdout == "0\n"
    assert "cannot set niceness: Permission denied" in refused.stderr


@pytest.mark.parametrize("locked", [True, False])
def test_check_118_no_new_privileges(run: Runner, as_user: Ordinary, locked: bool) -> None:
    seccomp = {"default": "SCMP_ACT_ALLOW", "locked": locked}
    assert status(run({"seccomp": seccomp}, *STATUS, user=as_user))["NoNewPrivs"] == "1"


@pytest.mark.parametrize("locked", [True, False])
def test_a_ready_filter_is_loaded(run: Runner, as_user: Ordinary, locked: bool) -> None:
    program = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    for name in ("mkdir", "mkdirat"):
        program.add_rule(pyseccomp.ERRNO(122), name)  # EDQUOT, which nothing else gives here
    file = as_user.home / "filter.bpf"
    with file.open("wb") as out:
        program.export_bpf(out)
    os.chmod(file, 0o644)
    seccomp = {"rulespath": str(file), "locked": locked}
    done = run({"seccomp": seccomp}, "/bin/mkdir", str(as_user.home / "made"), user=as_user)
    assert done.returncode == 1
    assert "Disk quota exceeded" in done.stderr
    found = status(run({"seccomp": seccomp}, *STATUS, user=as_user))
    assert found["Seccomp_filters"] == "2"  # the other one denies looking into others, or foreign calls


def test_a_directory_of_configurations_is_served(as_user: Ordinary) -> None:
    place = as_user.home / "conf.d"
    place.mkdir(mode=0o755)
    exec_ = {"cmdpath": "/bin/echo", "args": "$API_NAME"}
    for api in ("one", "two"):
        commands = {"uid": "c", "encoder": "sync", "exec": exec_}
        config = {"metadata": {"uid": "u", "api": api}, "sandboxes": {"uid": "sb", "commands": commands}}
        write(place, f"{api}.json", config)
    with serving(as_user.home, str(place), user=as_user) as server, server.client() as client:
        told = [client.call(f"{api}/c")["response"]["stdout"] for api in ("one", "two")]
    assert told == [["one"], ["two"]]


# A file tree in which a shell runs, as merged or separate /usr has it.
TREE = [{"target": path, "mode": "ro"} for path in ("/usr", "/bin", "/lib", "/lib64") if os.path.exists(path)]


def shell(uid: str, line: str, **keys: Any) -> dict[str, Any]:
    """A command that runs a line; a `$` of it is the shell's."""
    return {"uid": uid, "exec": {"cmdpath": "/bin/sh", "args": ["-c", line.replace("$", "$$")]}, **keys}


def sandbox(*commands: dict[str, Any], mounts: tuple[dict[str, str], ...] = ()) -> dict[str, Any]:
    """A configuration with one sandbox that has all namespaces and a file tree of its own."""
    namespace = {"shares": {"all": "disable"}, "mounts": [*TREE, *mounts]}
    keys = {"uid": "sb", "acls": {"user": "daemon"}, "namespace": namespace, "commands": list(commands)}
    return {"metadata": {"uid": "u", "api": "t"}, "sandboxes": keys}


def test_check_129_a_tree_of_processes_is_stopped(as_user: Ordinary) -> None:
    """Nothing is left, as after every test here. A kill is told as one; one in a shell as the shell says."""
    commands = (
        shell("tree", "sleep 1000 & (sleep 1000 & sleep 1000) & echo up; exec sleep 1000", encoder="line"),
        shell("shell", "sleep 1000 & kill -9 $!; wait $!", encoder="sync"),
        shell("itself", "kill -9 $$; sleep 1000", encoder="sync"),
    )
    file = write(as_user.home, "config.json", sandbox(*commands))
    with serving(as_user.home, file, user=as_user) as server, server.client() as client:
        pid = client.call("t/tree")["response"]["pid"]
        client.until(lambda event: event.get("stdout") == "up")
        assert client.call("t/tree", {"action": "stop", "args": {"signal": "sigkill"}})
        assert client.final(pid)["status"]["signal"] == "Killed"
        told = client.call("t/shell")["response"]
        assert told["status"] == {"exit": 137}, told
        assert client.call("t/itself")["response"]["status"]["signal"] == "Killed"


def test_check_130_each_start_has_the_whole_file(as_user: Ordinary) -> None:
    users = {"target": "/etc/passwd", "source": "getent passwd $SBOXUSER", "mode": "execfd"}
    show = shell("show", "sleep 0.3; cat /etc/passwd", encoder="sync")
    file = write(as_user.home, "config.json", sandbox(show, mounts=(users,)))
    line = ":".join(map(str, pwd.getpwnam("daemon")))
    with serving(as_user.home, file, user=as_user) as server, server.client() as client:
        wanted = {client.send("t/show"), client.send("t/show")}
        while wanted:  # they may be answered in any order
            kind, number, answer = client.receive()
            if kind != 5:
                assert answer["response"]["stdout"] == [line]
                wanted.remove(number)
