"""The samples of the documentation this project follows, served and called over WebSocket."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from initspawn.config.load import load
from tests.support.users import Ordinary
from tests.system.server import Server, read, serving, write

SEED = Path(__file__).parents[2] / "configs" / "seed"
MINIMAL = str(SEED / "minimal.json")

pytestmark = pytest.mark.needs("userns")


def seed(name: str) -> Any:
    """One sample's data, as it was written."""
    return load(str(SEED / f"{name}.json")).data


def demo(*fragments: str, **keys: Any) -> dict[str, Any]:
    """The documented sandbox with these fragments in it, and whatever else a test needs."""
    sandbox = dict(seed("sandbox")["sandboxes"])
    for fragment in fragments:
        sandbox |= seed(fragment)
    return {"metadata": {"uid": "demo", "api": "demo"}, "sandboxes": sandbox | keys}


def status_of(server: Server, verb: str = "demo/admin/status") -> dict[str, str]:
    """What /proc/self/status says in a sandbox."""
    with server.client() as client:
        lines = client.call(verb)["response"]["stdout"]
    return {name: value for name, _, value in (line.partition(":\t") for line in lines)}


STATUS = {
    "uid": "status",
    "encoder": "sync",
    "exec": {"cmdpath": "/bin/cat", "args": "/proc/self/status"},
}


def test_minimal(as_user: Ordinary) -> None:
    with serving(as_user.home, MINIMAL, user=as_user) as server, server.client() as client:
        info = client.call("mini/info")["response"]
        assert info["metadata"] == {"uid": "spawn-svc", "version": "1.0"}
        pid = client.call("mini/distro", {"action": "start"})["response"]["pid"]
        assert client.final(pid)["status"] == {"exit": 0}
        assert any("Distributor ID:" in line for line in client.events[0]["stdout"])


def test_commands_envs_and_sandbox(as_user: Ordinary) -> None:
    file = write(as_user.home, "demo.json", demo("commands", "envs"))
    with serving(as_user.home, file, user=as_user) as server, server.client() as client:
        pid = client.call("demo/admin/dir", {"args": {"dirname": "/etc"}})["response"]["pid"]
        assert client.final(pid)["status"] == {"exit": 0}
        assert any(line.endswith(" passwd") for line in client.events[0]["stdout"])
        missing = client.call("demo/admin/dir", {"args": {}})["request"]
        assert (missing["status"], missing["code"]) == ("invalid-request", -12)
        verb = client.call("demo/info")["response"]["groups"][0]["verbs"][0]
        assert verb["sample"] == seed("commands")["commands"][0]["samples"]
        assert verb["usage"]["args"] == {"dirname": "...dirpath..."}


def test_envs_are_applied(as_user: Ordinary) -> None:
    env = {"uid": "env", "encoder": "sync", "exec": {"cmdpath": "/usr/bin/env"}}
    file = write(as_user.home, "demo.json", demo("envs", commands=env))
    with serving(as_user.home, file, user=as_user) as server, server.client() as client:
        told = dict(line.split("=", 1) for line in client.call("demo/admin/env")["response"]["stdout"])
        assert told.keys() == {"PATH", "LANG", "HOME", "USER", "LD_LIBRAY_PATH"}
        assert (told["PATH"], told["LD_LIBRAY_PATH"]) == ("/bin", "/usr/lib64")


def test_seccomp_is_applied(as_user: Ordinary) -> None:
    file = write(as_user.home, "demo.json", demo("seccomp", commands=STATUS))
    with serving(as_user.home, file, user=as_user) as server:
        status = status_of(server)
        assert (status["Seccomp"], status["NoNewPrivs"]) == ("2", "1")


def test_caps_are_applied(as_user: Ordinary) -> None:
    file = write(as_user.home, "demo.json", demo("caps", namespace={}, commands=STATUS))
    with serving(as_user.home, file, user=as_user) as server:
        status = status_of(server)
        sets = {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
        assert sets == {f"{1 << 5:016x}"}


def test_namespace_is_applied(as_user: Ordinary) -> None:
    namespace = seed("namespace")["namespace"]
    more = [{"target": path, "mode": "ro"} for path in ("/bin", "/lib", "/lib64")]
    namespace["mounts"] += [mount for mount in more if Path(mount["target"]).exists()]
    # Our own place instead of /var/tmp, and a user that this machine's files name.
    namespace["mounts"][0]["source"] = "getent passwd root 65534"
    namespace["mounts"][1]["source"] = str(as_user.home / "made")
    find = {"cmdpath": "/usr/bin/find", "args": ["/", "-maxdepth", "1"]}
    tree = {"uid": "tree", "encoder": "sync", "exec": find}
    users = {"uid": "users", "encoder": "sync", "exec": {"cmdpath": "/usr/bin/tail", "args": "/etc/passwd"}}
    file = write(as_user.home, "demo.json", demo(namespace=namespace, commands=[tree, users]))
    with serving(as_user.home, file, user=as_user) as server, server.client() as client:
        seen = set(client.call("demo/admin/tree")["response"]["stdout"])
        assert {"/", "/etc", "/home", "/usr", "/sbin", "/tmp"} <= seen
        assert not {"/root", "/var", "/proc"} & seen
        assert len(client.call("demo/admin/users")["response"]["stdout"]) == 2
    assert (as_user.home / "made").is_dir()


def refusal(file: str, user: Ordinary | None = None) -> str:
    """What `check` says of a file it refuses."""
    if user is None:
        command = [sys.executable, "-m", "initspawn", "check", file]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    else:
        done = user.run([*user.initspawn, "check", file])
    assert done.returncode == 100, done
    return done.stderr


def test_what_an_ordinary_user_cannot_have_is_refused(as_user: Ordinary) -> None:
    assert "an ordinary user cannot become" in refusal(
        write(as_user.home, "acls.json", demo("acls", "commands")), as_user
    )
    told = refusal(write(as_user.home, "caps.json", demo("caps", "commands")), as_user)
    assert "add a `namespace` section" in told
    file = write(as_user.home, "cgroups.json", demo("cgroups", "commands"))
    done = as_user.run([*as_user.initspawn, "run", file, "admin/dir", "dirname=/etc"])
    assert done.returncode == 111  # it is well written, but nobody has handed this user a group
    assert "cgroup" in done.stderr


@pytest.mark.root
def test_as_root_a_sandbox_without_user_is_refused(tmp_path: Path) -> None:
    assert "as root a sandbox must name the user" in refusal(MINIMAL)
    for name in ("envs", "caps", "seccomp", "namespace"):
        file = write(tmp_path, f"{name}.json", demo(name, commands=STATUS))
        assert "as root a sandbox must name the user" in refusal(file), name


@pytest.mark.root
def test_acls_are_applied_as_root(tmp_path: Path) -> None:
    sleep = {"uid": "sleep", "exec": {"cmdpath": "/bin/sleep", "args": "100"}}
    file = write(tmp_path, "demo.json", demo("acls", commands=[STATUS, sleep]))
    with serving(tmp_path, file) as server, server.client() as client:
        status = status_of(server)
        assert (status["Uid"], status["Groups"].strip(), status["Umask"]) == ("1\t1\t1\t1", "", "0027")
        pid = client.call("demo/admin/sleep")["response"]["pid"]
        assert os.readlink(f"/proc/{pid}/cwd") == "/var/tmp"
        assert b"SECRET" not in read(f"/proc/{pid}/environ")
