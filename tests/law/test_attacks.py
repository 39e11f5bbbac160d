"""The table of attacks and faults in docs/security.md names tests that exist, or says what is missing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECTION = re.search(
    r"^## Attacks and faults\n(.*?)^## ", (ROOT / "docs/security.md").read_text(encoding="utf-8"), re.M | re.S
)
assert SECTION is not None
ROWS = [line.strip("| ").split(" | ") for line in SECTION[1].splitlines() if line.startswith("| ")][1:]
NAMED = [(path, name) for row in ROWS for path, name in re.findall(r"`([\w/.]+)::(\w+)`", row[1])]


@pytest.mark.parametrize(("path", "name"), NAMED, ids=lambda part: str(part))
def test_each_test_exists(path: str, name: str) -> None:
    source = (ROOT / "tests" / path).read_text(encoding="utf-8")
    assert re.search(rf"^(?:async )?def {name}\(", source, re.M), f"{path} has no {name}"


def test_each_row_names_a_test_or_says_what_is_missing() -> None:
    assert len(ROWS) > 38
    assert len({row[0] for row in ROWS}) == len(ROWS)
    for row in ROWS:
        assert len(row) == 2, row
        told = re.sub(r"`[\w/.]+::\w+`(?:, )?", "", row[1])
        assert told == "" or re.match(r"not yet: \S", told), row
        assert row[1], row
