"""What a task tells of itself, by its level of verbosity. Boot module; pure.

    1  that it runs                      5  each argument, as configured and as it became
    2  what callers do with it           9  what was measured before its first instruction
    3  its command line and its end

The lines join the task's standard error, so whoever hears that hears them. They tell what was done; the
level changes nothing of it.
"""

from __future__ import annotations

from initspawn.plan import OPTIONAL, REQUIRED, TEXT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from initspawn.plan import Command

RUNS, CONTROL, COMMAND_LINE, ARGUMENTS, MEASURED = 1, 2, 3, 5, 9
_LONGEST = 16384  # characters of a line: an argument alone may be eight times as long
_MARKS = {TEXT: "", REQUIRED: "%", OPTIONAL: "?"}


def at_start(
    level: int, command: Command, name: str, argv: tuple[str, ...], measured: Mapping[str, Any]
) -> Iterator[str]:
    """The lines of a task that begins to run; `name` is its id."""
    if level >= RUNS:
        yield line("start", command, name)
    if level >= COMMAND_LINE:
        yield line("command", command, " ".join(_word(item) for item in argv))
    if level >= ARGUMENTS:
        for number, (template, item) in enumerate(zip(command.arguments, argv[1:], strict=False), 1):
            written = "".join(f"{_MARKS[kind]}{text}{_MARKS[kind]}" for kind, text in template)
            yield line("argument", command, f"{number}: {_word(written)} became {_word(item)}")
    if level >= MEASURED:
        for fact, value in measured.items():
            yield line("measured", command, f"{fact}: {value}")


def line(what: str, command: Command, text: str) -> str:
    """One line, such as `command(ls)=> /bin/ls /etc`; cut where it would be endless."""
    return f"{what}({command.uid})=> {text}"[:_LONGEST]


def _word(item: str) -> str:
    """An item as one word of one line."""
    return item if item.isprintable() and item and " " not in item else ascii(item)
