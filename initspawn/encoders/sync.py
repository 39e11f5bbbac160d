"""`sync`: no events; the reply waits for the command's end and carries all lines. Boot module."""

from __future__ import annotations

from initspawn.encoders.base import Encoder
from initspawn.encoders.lines import Transcript

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Sync(Encoder):
    """Collects both streams like `text`, for the reply instead of an event."""

    synchronous = True

    def __init__(self, maxlen: int, maxline: int) -> None:
        self._transcript = Transcript(maxlen, maxline)

    def feed(self, stream: str, data: bytes) -> list[dict[str, Any]]:
        """No events: [] always."""
        self._transcript.feed(stream, data)
        return []

    def finish(self) -> list[dict[str, Any]]:
        """No events: [] always."""
        self._transcript.finish()
        return []

    def result(self) -> dict[str, Any]:
        """What `Transcript.content` tells; complete after `finish`."""
        return self._transcript.content()
