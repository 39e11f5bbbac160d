"""Whether a program is there, on the host and inside a file tree of its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from initspawn.config.inside import View
from initspawn.plan import Api, Mount

Build = Callable[..., Api]
Problems = Callable[..., list[str]]


def bind(target: str, source: Path | str) -> Mount:
    return Mount(operation="bind", target=target, source=str(source), read_only=True)


def link(target: str, source: str) -> Mount:
    return Mount(operation="symlink", target=target, source=source)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """usr/bin/{tool, alias -> tool, abs -> /usr/bin/tool, out -> /etc/out, loop}, etc/out"""
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    for name in ("usr/bin/tool", "etc/out"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o755)
    for name, text in (("alias", "tool"), ("abs", "/usr/bin/tool"), ("out", "/etc/out"), ("loop", "loop")):
        (tmp_path / "usr/bin" / name).symlink_to(text)
    return tmp_path


def test_paths_are_followed_as_inside(host: Path) -> None:
    tool = str(host / "usr/bin/tool")
    view = View(True, [bind("/usr", host / "usr"), link("/bin", "usr/bin"), link("/b", "/bin/../bin")])
    for path in ("/usr/bin/tool", "/bin/tool", "/b/tool", "/usr/bin/alias", "/bin/abs", "/usr/../bin/./tool"):
        assert view.host_path(path) == tool, path
    for path in ("/usr/bin/out", "/usr/bin/loop", "/usr/bin/none", "/sbin/tool", "/", "/etc/out"):
        assert view.host_path(path) is None, path
    both = View(True, [bind("/usr", host / "usr"), bind("/etc", host / "etc")])
    assert both.host_path("/usr/bin/out") == str(host / "etc/out")


def test_later_mounts_cover_earlier_ones(host: Path) -> None:
    usr = bind("/usr", host / "usr")
    for operation in ("tmpfs", "proc", "dev", "file"):
        view = View(True, [usr, Mount(operation=operation, target="/usr/bin")])
        assert view.host_path("/usr/bin/tool") is None, operation
    view = View(True, [usr, Mount(operation="dir", target="/usr/bin")])
    assert view.host_path("/usr/bin/tool") == str(host / "usr/bin/tool")
    view = View(True, [Mount(operation="tmpfs", target="/usr"), usr])
    assert view.host_path("/usr/bin/tool") == str(host / "usr/bin/tool")


def test_directories_inside(host: Path) -> None:
    view = View(
        True,
        [
            bind("/usr", host / "usr"),
            link("/bin", "usr/bin"),
            Mount(operation="tmpfs", target="/tmp"),
            Mount(operation="dev", target="/dev"),
            Mount(operation="file", target="/etc/passwd"),
        ],
    )
    for path in ("/", "/usr", "/usr/bin", "/bin", "/tmp", "/dev", "/dev/shm", "/etc"):
        assert view.is_directory(path), path
    for path in ("/usr/bin/tool", "/tmp/x", "/etc/passwd", "/var", "/usr/none"):
        assert not view.is_directory(path), path


def test_host_programs(build: Build, problems: Problems, tmp_path: Path) -> None:
    def said(path: str) -> str:
        (problem,) = problems({}, exec={"cmdpath": path})
        return problem

    assert build({}, exec={"cmdpath": "/bin/true"})
    assert "not absolute" in said("true")
    assert "'/nosuch/program' does not exist" in said("/nosuch/program")
    assert "is no file" in said("/usr")
    plain = tmp_path / "plain"
    plain.write_text("#!/bin/sh\n")
    assert "is not executable" in said(str(plain))
    plain.chmod(0o755)
    assert build({}, exec={"cmdpath": str(plain)})
    plain.write_text("#! /nosuch/sh -e\n")
    assert "'/nosuch/sh', which" in said(str(plain))
    plain.write_bytes(b"#!/bin/sh\r\necho\r\n")
    assert "ends with CR LF" in said(str(plain))
    for first in (b"#!/usr/bin/env sh", b"#! /usr/bin/env -S sh -e ", b"#!/bin/sh -e", b"#!sh"):
        plain.write_bytes(first + b"\r\necho\r\n")
        assert "ends with CR LF" in said(str(plain))
    plain.write_bytes(b"#!/usr/bin/env sh\necho\r\n")
    assert build({}, exec={"cmdpath": str(plain)})
    plain.write_text("#!\t/bin/sh\t-e\n")
    assert build({}, exec={"cmdpath": str(plain)})
    assert "'/bin/ls -l' does not exist (what follows the program goes into `args`)" in said("/bin/ls -l")
    plain.write_text(f"#!{plain}\n")
    assert "too many for the kernel" in said(str(plain))


@pytest.mark.parametrize(
    "content", [b"", b"\x7fELF", b"\x7fELF\x02\x01" + b"\xff" * 80, b"#!", b"#!\n"], ids=range(5)
)
def test_strange_programs_are_left_to_the_kernel(build: Build, tmp_path: Path, content: bytes) -> None:
    program = tmp_path / "program"
    program.write_bytes(content)
    program.chmod(0o755)
    assert build({}, exec={"cmdpath": str(program)})


def test_the_loader_must_be_there_too(build: Build, problems: Problems) -> None:
    usr = [{"target": "/usr", "mode": "ro"}]
    links = [
        {"target": f"/{name}", "source": f"usr/{name}", "mode": "symlink"}
        for name in ("bin", "lib", "lib64")
        if os.path.islink(f"/{name}")
    ]
    program: dict[str, Any] = {"cmdpath": "/usr/bin/env"}
    assert build({"namespace": {"mounts": usr + links}}, exec=program)
    if links:
        (said,) = problems({"namespace": {"mounts": usr}}, exec=program)
        assert "which '/usr/bin/env' needs to run, is not there inside the sandbox" in said


def test_what_no_mount_provides_is_refused_by_name(problems: Problems) -> None:
    usr = {"target": "/usr", "mode": "ro"}
    (said,) = problems({"namespace": {"mounts": usr}}, exec={"cmdpath": "/opt/x"})
    assert "'/opt/x' is not there inside the sandbox (mounted are: /usr)" in said
    (said,) = problems({"namespace": {"mounts": []}}, exec={"cmdpath": "/bin/true"})
    assert "mounted are: none" in said


def test_working_directory_inside(build: Build, problems: Problems) -> None:
    namespace = {"mounts": [{"target": "/w", "mode": "tmpfs"}]}
    sandbox = {"namespace": namespace, "commands": []}
    assert build({**sandbox, "acls": {"chdir": "/w"}}).sandboxes[0].directory == "/w"
    (said,) = problems({**sandbox, "acls": {"chdir": "/usr"}})
    assert "is no directory inside the sandbox" in said
