"""`text`: one event with all lines when the command ends. Boot module."""

from __future__ import annotations

from initspawn.encoders.base import Encoder
from initspawn.encoders.lines import Transcript

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Text(Encoder):
    """Collects both streams; the one event comes at the end, even if there was no output."""

    def __init__(self, maxlen: int, maxline: int) -> None:
        self._transcript = Transcript(maxlen, maxline)

    def feed(self, stream: str, data: bytes) -> list[dict[str, Any]]:
        """Nothing yet: [] always."""
        self._transcript.feed(stream, data)
        return []

    def finish(self) -> list[dict[str, Any]]:
        """The one event: what `Transcript.content` tells."""
        self._transcript.finish()
        return [self._transcript.content()]
