"""`line`: one event per line, as soon as the line is complete. Boot module."""

from __future__ import annotations

from initspawn.encoders.base import STDERR, STDOUT, Encoder
from initspawn.encoders.lines import LineSplitter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Line(Encoder):
    """Events {"stdout": LINE} and {"stderr": LINE}."""

    chunk = 2048  # at worst so many events at once

    def __init__(self, maxlen: int) -> None:
        self._splitters = {name: LineSplitter(maxlen) for name in (STDOUT, STDERR)}

    def feed(self, stream: str, data: bytes) -> list[dict[str, Any]]:
        """One event for each line that these bytes complete."""
        return [{stream: line} for line in self._splitters[stream].feed(data)]

    def finish(self) -> list[dict[str, Any]]:
        """The unterminated last lines, those of stdout first."""
        return [{name: line} for name, splitter in self._splitters.items() for line in splitter.finish()]
