"""The `encoder` key: names, options, and the conformance checks about them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from initspawn.encoders.lines import STREAM_BYTES
from initspawn.encoders.table import make
from initspawn.plan import Api

Build = Callable[..., Api]
Problems = Callable[..., list[str]]


@pytest.mark.parametrize(
    ("encoder", "name", "options"),
    [
        ("TEXT", "text", {"maxlen": 512, "maxline": 128}),
        ("document", "text", {"maxlen": 512, "maxline": 128}),
        ("sync", "sync", {"maxlen": 512, "maxline": 128}),
        ({"output": "text", "opts": {}}, "text", {"maxlen": 512, "maxline": 128}),
        ({"output": "Line", "opts": {"maxlen": 16, "maxline": "1"}}, "line", {"maxlen": 16}),
        ("json", "json", {"maxlen": 512, "maxdepth": 32}),
        ({"output": "json", "opts": {"maxdepth": 2, "maxline": 3}}, "json", {"maxlen": 512, "maxdepth": 2}),
        ("raw", "raw", {"maxlen": STREAM_BYTES, "base64": False}),
        ({"output": "RAW", "opts": {"maxlen": 1, "base64": True}}, "raw", {"maxlen": 1, "base64": True}),
    ],
)
def test_encoders(build: Build, encoder: Any, name: str, options: dict[str, Any]) -> None:
    assert build().commands[0].encoder == "text"
    (made,) = build({}, encoder=encoder).commands
    assert made.encoder == name
    assert made.encoder_options == options
    assert make(made.encoder, made.encoder_options)


@pytest.mark.parametrize(
    ("encoder", "said"),
    [
        ("txet", "did you mean `text`?"),
        ({"output": "text", "plugin": "x"}, "encoder.plugin: PLUGIN_NOT_FOUND: no plug-in 'x'"),
        ({"output": "text", "opts": {"maxlen": 5}}, "INVALID_OPTIONS: must be from 6 to 65536, not 5"),
        ({"output": "text", "opts": {"maxlen": 70000}}, "INVALID_OPTIONS: must be from 6 to 65536"),
        ({"output": "raw", "opts": {"maxlen": 600000}}, "INVALID_OPTIONS: must be from 1 to"),
        ({"output": "text", "opts": {"maxline": 0}}, "INVALID_OPTIONS"),
        ({"output": "text", "opts": {"maxline": True}}, "INVALID_OPTIONS"),
        ({"output": "text", "opts": {"maxlines": 3}}, "INVALID_OPTIONS: unknown key"),
        ({"output": "text", "opts": {"maxdepth": 3}}, "INVALID_OPTIONS: `text` has no such option"),
        ({"output": "json", "opts": {"maxdepth": 129}}, "INVALID_OPTIONS: must be from 1 to 128"),
        ({"output": "json", "opts": {"base64": False}}, "INVALID_OPTIONS: `json` has no such option"),
        (3, "must be text or an object"),
        (None, "must be text or an object, not null"),
    ],
)  # fmt: skip
def test_encoders_refused(problems: Problems, encoder: Any, said: str) -> None:
    (problem,) = problems({}, encoder=encoder)
    assert said in problem


def test_check_064_unknown_encoder(problems: Problems) -> None:
    (problem,) = problems({}, encoder="foo")
    assert "encoder: ENCODER_NOT_FOUND: no encoder 'foo'" in problem


def test_check_065_names_have_no_case(build: Build) -> None:
    assert build({}, encoder="TEXT").commands[0].encoder == "text"
    (made,) = build({}, encoder={"plugin": "builtins", "output": "Text"}).commands
    assert made.encoder == "text"


def test_check_066_encoder_without_output(problems: Problems) -> None:
    (problem,) = problems({}, encoder={"opts": {}})
    assert "encoder: INVALID_SPECIFIER: `output` is missing" in problem


def test_check_067_maxlen_zero(problems: Problems) -> None:
    (problem,) = problems({}, encoder={"output": "text", "opts": {"maxlen": 0}})
    assert "encoder.opts.maxlen: INVALID_OPTIONS" in problem


def test_check_068_maxlen_alone(build: Build) -> None:
    (made,) = build({}, encoder={"output": "text", "opts": {"maxlen": 100}}).commands
    assert made.encoder_options == {"maxlen": 100, "maxline": 128}


def test_check_061_names_of_log_files(build: Build) -> None:
    opts = {"stdout": "/tmp/$SANDBOX_UID-$COMMAND_UID.out", "maxlen": 1024}
    (made,) = build({}, encoder={"output": "log", "opts": opts}).commands
    assert (made.encoder, made.encoder_options) == ("log", {"stdout": "/tmp/s-c.out", "stderr": ""})


def test_names_of_log_files_are_filled_in_once(build: Build) -> None:
    """When the file is read, not when the command is started."""
    opts = {"stdout": "/tmp/$PID-$UUID", "stderr": "/tmp/$TODAY"}
    paths = build({}, encoder={"output": "log", "opts": opts}).commands[0].encoder_options
    assert re.fullmatch(rf"/tmp/{os.getpid()}-[0-9a-f-]{{36}}", paths["stdout"])
    assert re.fullmatch(r"/tmp/\d\d-\w{3}-\d{4} \d\d:\d\d:\d\d \(\w+\)", paths["stderr"])


def test_log_files_have_a_directory(build: Build, problems: Problems, tmp_path: Path) -> None:
    def log(path: Path) -> dict[str, Any]:
        return {"output": "log", "opts": {"stdout": str(path)}}

    (problem,) = problems({}, encoder=log(tmp_path / "no" / "out"))
    assert "encoder.opts.stdout: INVALID_OPTIONS: there is no directory" in problem
    assert problem.endswith(f"(make it: mkdir -p {tmp_path}/no)")
    (tmp_path / "no").mkdir()
    assert build({}, encoder=log(tmp_path / "no" / "out"))
    (tmp_path / "link").symlink_to("no")
    (problem,) = problems({}, encoder=log(tmp_path / "link" / "out"))
    assert "and none is followed (write it below" in problem
    (tmp_path / "file").touch()
    (problem,) = problems({}, encoder=log(tmp_path / "file" / "out"))
    assert "there is no directory" in problem


@pytest.mark.parametrize("path", ["out", "~/out", "/var/../out", "/var//out", "/var/log/", "/tmp/$NOSUCH"])
def test_log_files_are_full_paths(problems: Problems, path: str) -> None:
    (problem,) = problems({}, encoder={"output": "log", "opts": {"stderr": path}})
    assert "encoder.opts.stderr: INVALID_OPTIONS" in problem
