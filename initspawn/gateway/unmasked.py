"""Client frames without a mask, made acceptable to the stock frame parser. Sans-I/O, pure.

RFC 6455 section 5.1 wants every client frame masked, and `websockets` closes with 1002 otherwise; AFB's C
clients never mask. This filter stands before the parser and gives each unmasked frame the mask bit and a
masking key of four zeroes, which leaves its payload as it is (section 5.3: octet XOR 0). Frames that have a
mask pass unchanged. It looks at nothing but mask bits and lengths: judging a frame is the parser's work.
"""

from __future__ import annotations

MASK = 0x80
NO_KEY = bytes(4)
_LENGTH_BYTES = {126: 2, 127: 8}


class MaskFilter:
    """Turns a client's byte stream into one in which every frame is masked.

    Holds at most one incomplete frame header (9 bytes) between two calls.
    """

    def __init__(self) -> None:
        self._head = b""
        self._skip = 0  # bytes of the current frame (key and payload) still to come

    def feed(self, data: bytes) -> bytes:
        """The bytes for the parser; torn input gives the same output, only later."""
        if self._head:
            data, self._head = self._head + data, b""
        parts: list[bytes] = []
        done, position = 0, self._skip
        while position < len(data):
            header = _header_length(data, position)
            if header == 0 or position + header > len(data):
                self._head = data[position:]
                data = data[:position]
                break
            end = position + header
            if data[position + 1] & MASK:
                position = end + 4 + _payload_length(data, position)
                continue
            parts += (
                data[done : position + 1],
                bytes((data[position + 1] | MASK,)),
                data[position + 2 : end],
                NO_KEY,
            )
            done = end
            position = end + _payload_length(data, position)
        self._skip = max(position - len(data), 0)
        if not done:
            return data
        parts.append(data[done:])
        return b"".join(parts)


def _header_length(data: bytes, start: int) -> int:
    """Bytes of a frame's header without its key (section 5.2); 0 if too little is there to tell."""
    if len(data) - start < 2:
        return 0
    return 2 + _LENGTH_BYTES.get(data[start + 1] & 0x7F, 0)


def _payload_length(data: bytes, start: int) -> int:
    """The payload length of a frame whose header is complete."""
    length = data[start + 1] & 0x7F
    size = _LENGTH_BYTES.get(length, 0)
    return int.from_bytes(data[start + 2 : start + 2 + size], "big") if size else length
