"""What a task tells of itself at each level."""

from __future__ import annotations

import pytest

from initspawn.plan import OPTIONAL, REQUIRED, TEXT, Command
from initspawn.supervisor.verbosity import at_start

COMMAND = Command(
    uid="c", verb="x/c", sandbox="s", path="/bin/c",
    arguments=(((TEXT, "--a="), (REQUIRED, "a")), ((OPTIONAL, "b"),)),
)  # fmt: skip
ARGV = ("/bin/c", "--a=A", "")
START = "start(c)=> s/c@7"
LINE = "command(c)=> /bin/c --a=A ''"
ITEMS = ["argument(c)=> 1: --a=%a% became --a=A", "argument(c)=> 2: ?b? became ''"]
FACTS = ["measured(c)=> umask: 18"]


@pytest.mark.parametrize(
    ("level", "lines"),
    [
        (0, []),
        (1, [START]),
        (2, [START]),
        (3, [START, LINE]),
        (4, [START, LINE]),
        (5, [START, LINE, *ITEMS]),
        (8, [START, LINE, *ITEMS]),
        (9, [START, LINE, *ITEMS, *FACTS]),
    ],
)
def test_levels(level: int, lines: list[str]) -> None:
    assert list(at_start(level, COMMAND, "s/c@7", ARGV, {"umask": 18})) == lines


def test_no_line_is_endless() -> None:
    lines = list(at_start(9, COMMAND, "s/c@7", ("/bin/c", "x" * 100000, ""), {"umask": "y" * 100000}))
    assert max(len(line) for line in lines) == 16384


def test_whatever_an_item_holds_it_stays_one_line() -> None:
    argv = ("/bin/c", "--a=x\ny", "two words")
    assert list(at_start(4, COMMAND, "s/c@7", argv, {}))[1] == r"command(c)=> /bin/c '--a=x\ny' 'two words'"
