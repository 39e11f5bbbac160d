"""The file of tokens: what is written is read, and whatever else it holds, none of its tokens counts."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initspawn.control.tokens import TokenFileError, parse, read, write
from initspawn.verbs.access import Token, digest

ONE = Token(name="one", digest=digest("1"), scopes=frozenset(("see", "urn:p#stop")), expires=12.5)
TWO = Token(name="two", digest=digest("2"), scopes=frozenset(("*",)))


def test_round_trip(tmp_path: Path) -> None:
    path = str(tmp_path / "tokens")
    assert read(path) == []
    write(path, [ONE, TWO])
    assert read(path) == [ONE, TWO]
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["tokens"]
    assert "12.5" in Path(path).read_text()


ENTRY = {"name": "n", "sha256": "0" * 64, "scopes": ["see"], "expires": None}


@pytest.mark.parametrize(
    "content",
    [
        "", "{", "[]", "{}", '{"tokens":1}', '{"tokens":[1]}', '{"tokens":[],"more":1}', "[" * 100_000,
        *(json.dumps({"tokens": [{**ENTRY, **wrong}]}) for wrong in (
            {"name": ""}, {"name": 1}, {"sha256": "x" * 64}, {"sha256": "0" * 63}, {"sha256": "é" * 64},
            {"scopes": "see"}, {"scopes": [1]}, {"scopes": [""]}, {"expires": "never"}, {"expires": True},
            {"expires": 10**400}, {"expires": float("inf")}, {"expires": float("nan")},
            {"more": 1},
        )),
        json.dumps({"tokens": [{"name": "n"}]}),
        " " * (1 << 20) + '{"tokens":[]}',
    ],
)  # fmt: skip
def test_damaged_files(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokens"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(TokenFileError, match="tokens"):
        read(str(path))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_file_that_is_open_to_others(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "tokens"
    write(str(path), [TWO])
    path.chmod(mode)
    with pytest.raises(TokenFileError, match="chmod 600"):
        read(str(path))


def test_what_is_no_file(tmp_path: Path) -> None:
    write(str(tmp_path / "real"), [TWO])
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name in ("link", "pipe", "."):
        with pytest.raises(TokenFileError):
            read(str(tmp_path / name))


@given(st.binary(max_size=80) | st.from_regex(rb'\{"tokens":\[\{.{0,60}\}\]\}', fullmatch=True))
def test_anything(content: bytes) -> None:
    with contextlib.suppress(TokenFileError):
        parse("tokens", content)
