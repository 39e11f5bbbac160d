"""The terminal of whoever calls us: its size, and every key as it is pressed."""

from __future__ import annotations

import os
import termios
import tty

from initspawn.cli.exits import UsageError
from initspawn.limits import TERMINAL_SIZE


class Terminal:
    """Standard input and output. Raises UsageError when they are not a terminal."""

    def __init__(self) -> None:
        if not (os.isatty(0) and os.isatty(1)):
            raise UsageError("standard input and output are no terminal; see --input")
        self._before = termios.tcgetattr(0)
        self._raw = False

    def size(self) -> tuple[int, int]:
        """Rows and columns, in the bounds of a command's terminal; 24 and 80 of one that does not know."""
        columns, rows = os.get_terminal_size(1)
        return min(rows or 24, TERMINAL_SIZE), min(columns or 80, TERMINAL_SIZE)

    def take(self) -> None:
        """From now on keys come one by one, unseen, and signal nobody."""
        tty.setraw(0, termios.TCSADRAIN)
        self._raw = True

    def give_back(self) -> None:
        """As it was before. May be called twice, and when it is gone."""
        if self._raw:
            self._raw = False
            try:
                termios.tcsetattr(0, termios.TCSADRAIN, self._before)
            except termios.error:  # hung up
                pass


def show(data: bytes) -> None:
    """Write all of it to standard output, just as it is. Raises OSError."""
    while data:
        data = data[os.write(1, data) :]
