"""What the JSON and the YAML reader have in common: their limits and their error."""

from __future__ import annotations

from typing import Any

MAX_BYTES = 16 << 20
MAX_DEPTH = 64
MAX_NODES = 200_000  # values, counted again for each use of an alias

EMPTY_HINT = "at least `metadata` is needed"

# Integers that every JSON reader takes.
INTEGERS = range(-(1 << 63), 1 << 64)

# Plain data, the (line, column) of each path, and what was wrong but did not end the reading.
Result = tuple[Any, dict[tuple[str | int, ...], tuple[int, int]], list["SyntaxFault"]]


class SyntaxFault(Exception):
    """The text is not well-formed at a place; lines and columns count from 1, 0 is no place."""

    def __init__(self, message: str, *, line: int = 0, column: int = 0, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column
        self.hint = hint
