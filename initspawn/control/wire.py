"""The control socket's frames: a length, then JSON. Sans-I/O, bounded, shared by both ends.

Frame: u32 little-endian length of the body, then the body: one JSON object in UTF-8.

Client to server
    {"id": N, "call": "api/verb", "args": ANY, "token": TEXT?}
Server to client
    {"id": N, "status": TEXT, "code": N, "info": TEXT?, "response": ANY?}     the answer to call N
    {"event": "api/verb", "task": "sandbox/command@pid", "seq": N, "data": {...}}
    {"fault": TEXT}                                     the connection is about to be closed

`token` replaces the connection's credential for this and later calls. `id` is a number the client
chooses, from 0 to 2**53. Answers come in any order; a call's answer comes before the events it causes.
"""

from __future__ import annotations

import json

from initspawn.errors import InitspawnError
from initspawn.limits import CONTROL_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HEADER = 4
MAX_ID = 2**53


class WireError(InitspawnError):
    """The peer sent something that is not a frame; the connection cannot go on."""


def encode(message: dict[str, Any]) -> bytes:
    """One frame. Raises ValueError if the message is larger than a frame may be."""
    return pack(json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace"))


def pack(body: bytes) -> bytes:
    """A frame around a body that is JSON already. Raises ValueError if it is too large."""
    if len(body) > CONTROL_BYTES:
        raise ValueError(f"a frame of {len(body)} bytes, at most {CONTROL_BYTES} are allowed")
    return len(body).to_bytes(HEADER, "little") + body


class FrameReader:
    """Cuts a byte stream into frame bodies; never holds more than one frame and one read."""

    def __init__(self, limit: int = CONTROL_BYTES) -> None:
        self._buffer = bytearray()
        self._limit = limit

    def feed(self, data: bytes) -> list[bytes]:
        """The bodies completed by these bytes. Raises WireError for an oversized or empty frame."""
        self._buffer += data
        bodies: list[bytes] = []
        start = 0
        while len(self._buffer) - start >= HEADER:
            length = int.from_bytes(self._buffer[start : start + HEADER], "little")
            if not 0 < length <= self._limit:
                raise WireError(f"a frame of {length} bytes, 1 to {self._limit} are allowed")
            end = start + HEADER + length
            if len(self._buffer) < end:
                break
            bodies.append(bytes(self._buffer[start + HEADER : end]))
            start = end
        del self._buffer[:start]
        return bodies


def decode(body: bytes) -> dict[str, Any]:
    """The JSON object of a body. Raises WireError; nesting is bounded by the decoder's recursion."""
    try:
        message = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise WireError(f"not JSON: {error}") from None
    if not isinstance(message, dict):
        raise WireError("not a JSON object")
    return message


def decode_call(body: bytes) -> tuple[int, str, Any, str | None]:
    """A client's call as (id, procedure, args, token). Raises WireError."""
    message = decode(body)
    number, procedure, token = message.get("id"), message.get("call"), message.get("token")
    if type(number) is not int or not 0 <= number <= MAX_ID:
        raise WireError("`id` must be a whole number from 0 to 2**53")
    if not isinstance(procedure, str):
        raise WireError("`call` must be a text `api/verb`")
    if token is not None and not isinstance(token, str):
        raise WireError("`token` must be a text")
    unknown = message.keys() - {"id", "call", "args", "token"}
    if unknown:
        raise WireError(f"unknown key {sorted(unknown)[0]!r}")
    return number, procedure, message.get("args"), token
