"""`log`: both streams go to files as they are; events tell the end only. Boot module."""

from __future__ import annotations

from initspawn.encoders.base import STDERR, STDOUT, Encoder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def _discard(_stream: str, _data: bytes) -> str:
    return ""


class Log(Encoder):
    """`paths`: stream to file, empty: the supervisor's own. `write(stream, data)` is set by whoever opened
    them; it returns why it could not write, or nothing.
    """

    def __init__(self, stdout: str = "", stderr: str = "") -> None:
        self.paths = {STDOUT: stdout, STDERR: stderr}
        self.write: Callable[[str, bytes], str] = _discard
        self._told: set[str] = set()

    def feed(self, stream: str, data: bytes) -> list[dict[str, Any]]:
        """No events, but {"log-error": TEXT} the first time that some of a stream could not be written."""
        reason = self.write(stream, data)
        if not reason or stream in self._told:
            return []
        self._told.add(stream)
        return [{"log-error": f"{stream}: {reason}"}]

    def finish(self) -> list[dict[str, Any]]:
        """No events: [] always."""
        return []
