"""The control socket's frames: a length, then JSON. Sans-I/O, bounded, shared by both ends.

Frame: u32 little-endian length of the body, then the body: one JSON object in UTF-8.

Client to server
    {"id": N, "call": "api/verb", "args": ANY, "token": TEXT?, "session": TEXT?, "events": false?}
Server to client
    {"id": N, "status": TEXT, "code": N, "info": TEXT?, "response": ANY?}     the answer to call N
    {"event": "api/verb", "task": "sandbox/command@pid", "seq": N, "data": {...}}
    {"fault": TEXT}                                     the connection is about to be closed

`token` replaces the connection's credential for this and later calls, `session` the name of its session.
With `events` false they count for this call alone, and it subscribes to nothing: so one connection can carry
calls of one client after the other. `id` is a number the client
chooses, from 0 to 2**53. Answers come in any order; a call's answer comes before the events it causes.
"""

from __future__ import annotations

import json

from initspawn.errors import InitspawnError
from initspawn.limits import CONTROL_BYTES
from initspawn.record import Record

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


class Request(Record):
    """A client's call; None: no credential, no session is named."""

    number: int
    procedure: str
    args: Any = None
    token: str | None = None
    session: str | None = None
    events: bool = True


_KEYS = {"id", "call", "args", "token", "session", "events"}


def decode_call(body: bytes) -> Request:
    """A client's call. Raises WireError."""
    message = decode(body)
    number, procedure, events = message.get("id"), message.get("call"), message.get("events", True)
    if type(number) is not int or not 0 <= number <= MAX_ID:
        raise WireError("`id` must be a whole number from 0 to 2**53")
    if not isinstance(procedure, str):
        raise WireError("`call` must be a text `api/verb`")
    token, session = _text(message, "token"), _text(message, "session")
    if events is not True and events is not False:
        raise WireError("`events` must be true or false")
    unknown = message.keys() - _KEYS
    if unknown:
        raise WireError(f"unknown key {sorted(unknown)[0]!r}")
    return Request(
        number=number, procedure=procedure, args=message.get("args"), token=token, session=session,
        events=events,
    )  # fmt: skip


def _text(message: dict[str, Any], key: str) -> str | None:
    value = message.get(key)
    if value is not None and not isinstance(value, str):
        raise WireError(f"`{key}` must be a text")
    return value
