"""Bytes into lines, in bounded memory and without looking at single bytes. Boot module.

A line ends at LF; one CR just before the LF goes with it, every other CR and every tab stays, and an
empty line is a line. What follows the last LF becomes the last line when the stream ends.

A line that reaches `maxlen` bytes without an LF is cut: its first `maxlen` - 2 bytes, a backslash, and
on with the rest. A cut never falls inside a UTF-8 sequence but moves to the front of it. Bytes that are
no UTF-8 are shown as escapes (`\\xff`), so that a line is always text.

The result depends on the bytes alone, never on how they were divided into reads.
"""

from __future__ import annotations

from initspawn.limits import FRAME_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OVERFLOW = "..."  # the last line of a stream of which the rest was discarded

# JSON bytes that the lines of one stream may need: both streams and their envelope fit in a frame.
STREAM_BYTES = FRAME_BYTES // 2 - 2048

_CONTROLS = bytes(range(32))
_CONTINUATION = range(0x80, 0xC0)


class LineSplitter:
    """One stream's lines. Holds fewer than `maxlen` bytes between calls."""

    def __init__(self, maxlen: int) -> None:
        self._maxlen = maxlen
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """The lines that these bytes complete, in order."""
        *complete, rest = (self._rest + data).split(b"\n")
        lines: list[str] = []
        for line in complete:
            if len(line) >= self._maxlen:
                line = self._cut(line, lines)
            lines.append(_text(line[:-1] if line.endswith(b"\r") else line))
        self._rest = self._cut(rest, lines) if len(rest) >= self._maxlen else rest
        return lines

    def finish(self) -> list[str]:
        """The unterminated last line, if there is one."""
        rest, self._rest = self._rest, b""
        return [_text(rest)] if rest else []

    def _cut(self, line: bytes, lines: list[str]) -> bytes:
        """Append the full pieces of a long line to `lines`; returns what is left of it."""
        start = 0
        while len(line) - start >= self._maxlen:
            end = character_start(line, start + self._maxlen - 2)
            lines.append(_text(line[start:end]) + "\\")
            start = end
        return line[start:]


class Transcript:
    """The first lines of both streams, collected to be told in one piece.

    After `maxline` lines of a stream, or earlier if they would not fit in a frame, its last element is
    "...", its overflow is marked, and the rest is discarded.
    """

    def __init__(self, maxlen: int, maxline: int) -> None:
        self._streams = {name: _Collector(maxlen, maxline) for name in ("stdout", "stderr")}

    def feed(self, stream: str, data: bytes) -> None:
        """Take bytes of `stdout` or `stderr`."""
        self._streams[stream].feed(data)

    def finish(self) -> None:
        """Take the unterminated last lines."""
        for collector in self._streams.values():
            collector.finish()

    def content(self) -> dict[str, Any]:
        """{"stdout": [...], "stderr": [...], "stdout-overflow": true, "stderr-overflow": true}

        Each key only if there is something to say.
        """
        content: dict[str, Any] = {name: found.lines for name, found in self._streams.items() if found.lines}
        for name, found in self._streams.items():
            if found.overflow:
                content[f"{name}-overflow"] = True
        return content


class _Collector:
    """The first lines of one stream."""

    def __init__(self, maxlen: int, maxline: int) -> None:
        self.lines: list[str] = []
        self.overflow = False
        self._splitter = LineSplitter(maxlen)
        self._maxline = maxline
        self._room = STREAM_BYTES

    def feed(self, data: bytes) -> None:
        if not self.overflow:
            self._add(self._splitter.feed(data))

    def finish(self) -> None:
        self._add(self._splitter.finish())

    def _add(self, lines: list[str]) -> None:
        for line in lines:
            if self.overflow:
                return
            self._room -= json_size(line)
            if len(self.lines) >= self._maxline or self._room < 0:
                self.lines.append(OVERFLOW)
                self.overflow = True
            else:
                self.lines.append(line)


def _text(line: bytes) -> str:
    return line.decode("utf-8", "backslashreplace")


def character_start(line: bytes, end: int) -> int:
    """`end`, or the start of the UTF-8 sequence that a cut at `end` would divide."""
    for back in range(1, min(end, 3) + 1):
        if line[end - back + 1] not in _CONTINUATION:
            break
        lead = line[end - back]
        if lead >= 0xC0:
            length = 4 if lead >= 0xF0 else 3 if lead >= 0xE0 else 2
            return end - back if back < length else end
    return end


def json_size(line: str) -> int:
    """Bytes of the line as a JSON text with its comma: an escaped control character takes six."""
    raw = line.encode()
    controls = len(raw) - len(raw.translate(None, _CONTROLS))
    return len(raw) + 5 * controls + raw.count(b'"') + raw.count(b"\\") + 3
