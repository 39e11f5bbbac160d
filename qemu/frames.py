"""The frames between host and agent: kind, channel, length, payload. Both sides use this file.

A channel is one command. Host to guest: RUN (JSON: argv, env, cwd), INPUT (bytes; none: end of input),
SIGNAL (one byte). Guest to host: HELLO (once, when the agent starts), OUT, ERR (bytes) and EXIT (a
signed number, negative for a signal), after which the channel is closed.
"""

import struct

RUN, INPUT, SIGNAL, HELLO, OUT, ERR, EXIT = range(1, 8)
HEADER = struct.Struct("<BII")
NUMBER = struct.Struct("<i")


def frame(kind: int, channel: int, payload: bytes = b"") -> bytes:
    """One frame as bytes."""
    return HEADER.pack(kind, channel, len(payload)) + payload


class Parser:
    """Bytes in, frames out."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, int, bytes]]:
        """The frames that are complete with these bytes, as (kind, channel, payload)."""
        self._buffer += data
        frames = []
        while len(self._buffer) >= HEADER.size:
            kind, channel, length = HEADER.unpack_from(self._buffer)
            end = HEADER.size + length
            if len(self._buffer) < end:
                break
            frames.append((kind, channel, bytes(self._buffer[HEADER.size : end])))
            del self._buffer[:end]
        return frames
