"""The words of a kernel command line."""

from __future__ import annotations

import pytest

from initspawn.supervisor.autostart import words


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
    assert words(line) == found
