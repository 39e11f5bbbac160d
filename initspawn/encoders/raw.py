"""`raw`: no events; the reply waits for the end and carries both streams as written. Boot module."""

from __future__ import annotations

from initspawn.encoders.base import STDERR, STDOUT, Encoder
from initspawn.encoders.lines import STREAM_BYTES, character_start, json_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Raw(Encoder):
    """Keeps the first `maxlen` bytes of each stream, or fewer if as text they would not fit in a frame.

    As text, bytes that are no UTF-8 are escapes (`\\xff`) and no character is cut. `base64`: the very
    bytes, in base64 (RFC 4648).
    """

    synchronous = True

    def __init__(self, maxlen: int, base64: bool = False) -> None:
        self._base64 = base64
        self._maxlen = min(maxlen, STREAM_BYTES // 4 * 3) if base64 else maxlen
        self._kept = {STDOUT: bytearray(), STDERR: bytearray()}
        self._more = dict.fromkeys(self._kept, b"")  # the byte behind them: is there one, and is it a cut?

    def feed(self, stream: str, data: bytes) -> list[dict[str, Any]]:
        """No events: [] always."""
        kept = self._kept[stream]
        room = self._maxlen - len(kept)
        kept += data[:room]
        self._more[stream] = self._more[stream] or data[room : room + 1]
        return []

    def finish(self) -> list[dict[str, Any]]:
        """No events: [] always."""
        return []

    def result(self) -> dict[str, Any]:
        """{"stdout": TEXT, "stderr": TEXT}, and "stdout-overflow": true where something is missing."""
        told: dict[str, Any] = {}
        cut = []
        for stream, kept in self._kept.items():
            told[stream], complete = self._told(bytes(kept), self._more[stream])
            if not complete:
                cut.append(stream)
        return told | {f"{stream}-overflow": True for stream in cut}

    def _told(self, kept: bytes, more: bytes) -> tuple[str, bool]:
        if self._base64:
            from binascii import b2a_base64

            return b2a_base64(kept, newline=False).decode(), not more
        if more:
            kept = kept[: character_start(kept + more, len(kept))]
        text = kept.decode("utf-8", "backslashreplace")
        if json_size(text) <= STREAM_BYTES:
            return text, not more
        low, high = 0, len(text)  # the longest beginning that fits
        while low < high - 1:
            middle = (low + high) // 2
            low, high = (middle, high) if json_size(text[:middle]) <= STREAM_BYTES else (low, middle)
        return text[:low], False
