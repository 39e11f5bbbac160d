"""What the kernel's command line says of initspawn."""

from __future__ import annotations

import pytest

from initspawn.boot import early


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
def test_the_last_one_counts_and_quotes_hold_together(
    line: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(early, "command_line", lambda: line)
    assert early.kernel_option("plan") == value
