"""The configurations in `configs/`: what runs compiles, and documented samples mean what they say."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from initspawn.config.compile import compile_files
from initspawn.config.load import load
from initspawn.plan import Api

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
SEED = CONFIGS / "seed"
Build = Callable[..., Api]
Problems = Callable[..., list[str]]


def seed(name: str) -> dict[str, Any]:
    data: dict[str, Any] = load(str(SEED / f"{name}.json")).data
    return data


@pytest.mark.parametrize("name", ["autostart.yaml", "demo.yaml", "learn.yaml", "minimal.json"])
@pytest.mark.parametrize("user", [0, 1000])
def test_ours_compile_for_root_and_for_others(name: str, user: int) -> None:
    made = compile_files([str(CONFIGS / name)], user=user, group=user, environ=os.environ)
    assert made.apis[0].commands
    for sandbox in made.apis[0].sandboxes:
        assert sandbox.id_map is not None
        assert sandbox.no_new_privileges


@pytest.mark.parametrize("user", [0, 1000])
def test_the_scripts_compile(user: int) -> None:
    environ = {"PWD": str(CONFIGS.parent)}
    made = compile_files([str(CONFIGS / "scripts/scripts.yaml")], user=user, group=user, environ=environ)
    verbs = [command.verb for command in made.apis[0].commands]
    assert verbs == ["bash", "python", "node", "lua", "tcl"]


def test_every_seed_is_readable() -> None:
    for path in SEED.iterdir():
        assert load(str(path)).data


def test_the_minimal_one(build: Build) -> None:
    raw = seed("minimal")
    raw["sandboxes"]["commands"][0]["exec"]["cmdpath"] = "/bin/true"
    api = build(raw=raw)
    assert (api.api, api.commands[0].verb) == ("mini", "distro")


def test_a_sandbox_of_the_fragments(build: Build) -> None:
    sandbox = seed("sandbox")["sandboxes"]
    for name in ("envs", "seccomp", "commands"):
        sandbox |= seed(name)
    sandbox |= {"namespace": {"shares": {"users": "disable"}}, **seed("acls"), **seed("caps")}
    api = build(raw={**seed("minimal"), "sandboxes": sandbox})
    (made,) = api.sandboxes
    assert dict(made.environment)["PATH"] == "/bin"
    assert (made.umask, made.directory) == (0o027, "/var/tmp")
    assert made.capabilities == 1 << 5
    assert len(made.filters) == 1
    assert made.privilege == "urn:redpesk:permission:system:syscall:shell"
    (command,) = api.commands
    assert (command.verb, command.most, command.encoder) == ("admin/dir", 1, "text")
    assert command.encoder_options == {"maxlen": 1024, "maxline": 128}
    assert command.sample == seed("samples")["samples"][:2]


def test_the_namespace_fragment(build: Build, problems: Problems, tmp_path: Path) -> None:
    fragment = seed("namespace")
    mounts = fragment["namespace"]["mounts"]
    mounts[1]["source"] = f"{tmp_path}/$SANDBOX_UID"
    mounts[0]["source"] = mounts[0]["source"].replace("$SBOXUSER", "0")
    (sandbox,) = build({**fragment, "commands": []}).sandboxes
    assert [(mount.operation, mount.target) for mount in sandbox.mounts] == [
        ("file", "/etc/passwd"),
        ("bind", "/home"),
        ("bind", "/usr"),
        ("symlink", "/sbin"),
        ("tmpfs", "/tmp"),
    ]
    assert b"nobody" in sandbox.mounts[0].data
    assert (tmp_path / "s").is_dir()
    assert "net" not in sandbox.namespaces
    (said,) = problems(fragment, exec={"cmdpath": "/opt/tool"})
    assert "mounted are: /etc/passwd, /home, /usr, /sbin, /tmp" in said


def test_the_cgroups_fragment(build: Build) -> None:
    (sandbox,) = build(seed("cgroups")).sandboxes
    assert dict(sandbox.cgroup or ()) == {
        "cpuset.cpus": "1-4", "cpu.weight": "100", "cpu.max": "100000 100000", "memory.max": "536870912",
        "memory.high": "268435456", "memory.min": "131072",
    }  # fmt: skip


def test_the_log_fragment(build: Build) -> None:
    (made,) = build({}, **seed("encoder-log")).commands
    assert made.encoder == "log"
    assert made.encoder_options == {
        "stdout": "/tmp/afb-initspawn-s-c.out", "stderr": "/tmp/afb-initspawn-s-c.err",
    }  # fmt: skip


def test_the_json_fragment(build: Build) -> None:
    (made,) = build({}, **seed("encoder-json")).commands
    assert (made.encoder, made.encoder_options) == ("json", {"maxlen": 1024, "maxdepth": 32})
