"""`stream`: one event for each piece of output, as it comes. Boot module.

For what is not told in lines: prompts, progress, everything a terminal shows.
"""

from __future__ import annotations

from _codecs import utf_8_decode

from initspawn.encoders.base import STDERR, STDOUT, Encoder
from initspawn.event import BASE64, PIECE, TEXT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Stream(Encoder):
    """Events {"stdout": PIECE, "piece": "text"}, or "stderr"; no character is divided between two, and bytes
    that are no UTF-8 are escapes (`\\xff`). `base64`: the very bytes, and "piece" is "base64".
    """

    def __init__(self, base64: bool = False) -> None:
        self._base64 = base64
        self._rest = {STDOUT: b"", STDERR: b""}  # the beginning of a character

    def feed(self, stream: str, data: bytes) -> list[dict[str, Any]]:
        """One event, or none if these bytes complete no character."""
        return self._told(stream, data, final=False)

    def finish(self) -> list[dict[str, Any]]:
        """Characters that were never completed."""
        return [event for stream in self._rest for event in self._told(stream, b"", final=True)]

    def _told(self, stream: str, data: bytes, *, final: bool) -> list[dict[str, Any]]:
        if self._base64:
            from binascii import b2a_base64

            return [{stream: b2a_base64(data, newline=False).decode(), PIECE: BASE64}] if data else []
        data = self._rest[stream] + data
        text, read = utf_8_decode(data, "backslashreplace", final)
        self._rest[stream] = data[read:]
        return [{stream: text, PIECE: TEXT}] if text else []
