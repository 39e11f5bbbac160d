"""The kernel's command line: its words, and what it says of initspawn."""

from __future__ import annotations

from pathlib import Path

import pytest

from initspawn.linux import cmdline


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("", set()),
        ("quiet root=/dev/sda1 ro\n", {"quiet", "root=/dev/sda1", "root", "ro"}),
        ('a="b c" d', {"a=b c", "a", "d"}),
        ('"a=novpn b" c', {"a=novpn b", "a", "c"}),
        ('a="never closed b', {"a=never closed b", "a"}),
        ("a=b=c", {"a=b=c", "a"}),
    ],
)
def test_words(line: str, found: set[str]) -> None:
    assert cmdline.words(line) == found


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("quiet initspawn.plan=/a initspawn.plan=/b\n", "/b"),
        ('quiet "initspawn.plan=/with space" ro\n', "/with space"),
        ('initspawn.plan="/with space"\n', "/with space"),
        ('other="x initspawn.plan=/a"\n', ""),
        ("initspawn.planet=/a\n", ""),
    ],
)
def test_the_last_option_counts_and_quotes_hold_together(
    line: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cmdline, "read", lambda: line)
    assert cmdline.option("plan") == value


def test_what_was_read_once_needs_no_descriptor_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the hold is must not be forgotten when there is none left; before, it is looked for again."""
    file = tmp_path / "cmdline"
    monkeypatch.setattr(cmdline, "_PATH", str(file))
    monkeypatch.setattr(cmdline, "_read", [])
    assert cmdline.option("hold") == ""
    file.write_text("quiet initspawn.hold=/erasing\n")
    assert cmdline.option("hold") == "/erasing"
    file.unlink()
    assert cmdline.option("hold") == "/erasing"
