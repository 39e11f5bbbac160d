"""Every cap of initspawn/limits.py is named by a test, or listed here: which one reaches it, or why not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from initspawn import limits

TESTS = Path(__file__).parents[1]
NAMES = [name for name in vars(limits) if name.isupper() and name != "TABLE"]
NAMED = {
    word
    for path in TESTS.rglob("*.py")
    if path != Path(__file__)
    for word in re.findall(r"\w+", path.read_text(encoding="utf-8"))
}
# Those that no test calls by name: the test that holds them, or the reason why there is none.
OTHERWISE = {
    "READ_CHUNK": "a size of reads: what adds up has a bound of its own",
    "LOG_BYTES": "unit/supervisor/test_eventlog.py::test_the_oldest_go_when_they_are_too_large",
    "TERMINAL_SIZE": "unit/config/test_terminal.py::test_what_is_refused",
    "MAX_LINE_BYTES": "unit/encoders/test_encoders.py::test_long_lines",
    "MAX_LINES": "unit/encoders/test_encoders.py::test_the_rest_is_discarded_after_maxline_lines",
}


@pytest.mark.parametrize("name", NAMES)
def test_each_is_tested(name: str) -> None:
    named = bool({name, name.lower()} & NAMED)
    assert named != (name in OTHERWISE), f"{name}: a test, or an entry here, and not both"


def test_what_is_listed_exists() -> None:
    assert set(OTHERWISE) <= set(NAMES)
    for path, _, test in (held.partition("::") for held in OTHERWISE.values()):
        if test:
            assert f"\ndef {test}(" in (TESTS / path).read_text(encoding="utf-8"), (path, test)
