"""Why tasks end: each reason is told in docs/api.md, is given somewhere, and named by a test."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = re.sub(r"\s+", " ", (ROOT / "docs/api.md").read_text(encoding="utf-8"))
SAID = re.search(r"`reason` says why: (.*?) Output that an encoder", TEXT)
assert SAID is not None
# Words in quotes, but for those in parentheses, which explain them.
REASONS = re.findall(r"`([a-z-]+)`", re.sub(r"\[[^]]*\]\([^)]*\)|\([^()]*\)", "", SAID[1]))


def _python(place: str) -> str:
    return "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / place).rglob("*.py")))


SUPERVISOR = _python("initspawn/supervisor")
TESTS = _python("tests/system") + _python("tests/boot") + _python("tests/gateway")


def test_there_are_ten() -> None:
    assert len(set(REASONS)) == len(REASONS) == 10


@pytest.mark.parametrize("reason", REASONS)
def test_each_is_given_and_seen(reason: str) -> None:
    assert f'"{reason}"' in SUPERVISOR
    assert f'"{reason}"' in TESTS


@pytest.mark.parametrize("given", re.findall(r'reason(?:=| = |: str = )"([a-z-]+)"', SUPERVISOR))
def test_each_that_is_given_is_told(given: str) -> None:
    assert given in REASONS
