"""Every numbered conformance check has a test, or a place in the table of those that have none yet.

A check's test is named `test_check_NNN_what`; one check may have several. The table is in
docs/compatibility.md, each row with the reason.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "compatibility.md"
NUMBERS = frozenset(range(1, 141))
HEADING = "## Checks without a test"


def by_number() -> dict[int, list[str]]:
    """The functions whose names begin as a check's test does, by the number; 0: they have no proper one."""
    found: dict[int, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and re.match(
                r"test_check_?\d", node.name
            ):
                name = re.fullmatch(r"test_check_(\d{3})_\w+", node.name)
                found.setdefault(int(name[1]) if name else 0, []).append(f"{path.name}: {node.name}")
    return found


def later() -> dict[int, str]:
    """The rows of the table: number and reason."""
    _, heading, section = PAGE.read_text(encoding="utf-8").partition(HEADING)
    assert heading, f"{PAGE.name} has no {HEADING!r}"
    rows = re.findall(r"^\| (\d+) \|[^|\n]+\| ([^|\n]+) \|$", section.partition("\n## ")[0], re.MULTILINE)
    return {int(number): reason.strip() for number, reason in rows}


def test_every_check_is_tested_or_listed_as_a_later_one() -> None:
    missing = NUMBERS - by_number().keys() - later().keys()
    assert not missing, f"no test is named test_check_NNN_... for {sorted(missing)}, nor {PAGE.name} says why"


def test_what_is_tested_is_not_listed_as_a_later_one() -> None:
    both = later().keys() & by_number().keys()
    assert not both, f"{sorted(both)} have tests: take them out of {PAGE.name}, {HEADING!r}"


def test_there_are_no_other_numbers() -> None:
    strange = {number: names for number, names in by_number().items() if number not in NUMBERS}
    assert not strange, f"these are no numbers of checks: {strange}"
    assert later().keys() <= NUMBERS
    assert all(later().values()), "each has its reason"
