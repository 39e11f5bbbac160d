"""`token add`, as the documents write it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from initspawn.cli.main import main
from initspawn.control.tokens import NAME, read

DOCS = Path(__file__).parents[3] / "docs"
WRITTEN = [line for name in ("boot.md", "cli.md") for line in re.findall(
    r"initspawn (token add [^`\n]*)", (DOCS / name).read_text()
)]  # fmt: skip


@pytest.mark.parametrize("line", WRITTEN)
def test_what_is_documented_makes_a_token(
    line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(line.replace("/var/lib/initspawn", str(tmp_path)))
    tmp_path.chmod(0o700)
    assert main([*words, "--state-dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip()
    (token,) = read(str(tmp_path / NAME))
    assert token.scopes


def test_without_a_scope_the_error_shows_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tmp_path.chmod(0o700)
    assert main(["token", "add", "somebody", "--state-dir", str(tmp_path)]) == 100
    assert "write --scope '*' for all but `exec`, or less, such as --scope see" in capsys.readouterr().err
