"""A line on standard error costs nothing, whatever has become of it."""

from __future__ import annotations

import sys

import pytest

from initspawn.say import say


def test_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    say("what happened")
    say("what happened", "<4>")
    assert capsys.readouterr().err == "initspawn: what happened\n<4>initspawn: what happened\n"


def test_one_that_cannot_be_written_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        file = open(full.fileno(), "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
        monkeypatch.setattr(sys, "stderr", file)
        for _ in range(2000):
            say("what happened")
        with pytest.raises(OSError, match="No space"):
            file.close()
        say("what happened")
