"""The control socket's frames: a length, then JSON. Sans-I/O, bounded, shared by both ends.

Frame: u32 little-endian length of the body, then the body: one JSON object in UTF-8.

Client to server
    {"id": N, "call": "api/verb", "args": ANY, ...}   and, each if wanted:
        "token": TEXT       the credential
        "session": TEXT     the name of the client's session
        "single": true      token and session are for this call alone; else for all later ones too
        "behalf": N         the user number that the client acts for: it has no more rights than that one
        "events": false     the call subscribes to nothing
    {"id": N, "login": TEXT}    trades a token for another of the same rights that is over sooner
    {"id": N, "logout": TEXT}   ends such another token
    {"id": N, "unsubscribe": "api/verb"}                no more events of this name; nothing is answered
Server to client
    {"id": N, "status": TEXT, "code": N, "info": TEXT?, "response": ANY?}     the answer to call N; with
        "unknown": true     if the token that it showed is none of ours, and makes its caller nobody
    {"event": "api/verb", "task": "sandbox/command@pid", "seq": N, "data": {...}}
    {"subscribed": "api/verb"}, {"unsubscribed": "api/verb"}    what a call did, before its answer; the latter
                                                                for the last task of that name
    {"fault": TEXT}                                     the connection is about to be closed

`id` is a number the client chooses, from 0 to 2**53. Answers come in any order; a call's answer comes before
the events it causes.
"""

from __future__ import annotations

import json

from initspawn.errors import InitspawnError
from initspawn.limits import CONTROL_BYTES
from initspawn.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeGuard

HEADER = 4
MAX_ID = 2**53
_DIGITS = 640  # that every Python reads


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
    """Cuts a byte stream into frame bodies; never holds more than one frame and one read.

    `fault`: None, or what is wrong with the frame behind those that were told: it is oversized or empty, so
    nobody knows where the next one begins. Whoever feeds has to look.
    """

    def __init__(self, limit: int = CONTROL_BYTES) -> None:
        self.fault: str | None = None
        self._buffer = bytearray()
        self._limit = limit

    def feed(self, data: bytes) -> list[bytes]:
        """The bodies completed by these bytes, up to a fault; after one there are no more."""
        if self.fault is not None:
            return []
        self._buffer += data
        bodies: list[bytes] = []
        start = 0
        while len(self._buffer) - start >= HEADER:
            length = int.from_bytes(self._buffer[start : start + HEADER], "little")
            if not 0 < length <= self._limit:
                self.fault = f"a frame of {length} bytes, 1 to {self._limit} are allowed"
                self._buffer.clear()
                return bodies
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
        text = body.decode("utf-8")
        try:
            message = json.loads(text)
        except json.JSONDecodeError:
            raise
        except ValueError:  # a whole number of more digits than Python reads
            message = json.loads(text, parse_int=_number)
    except (ValueError, RecursionError) as error:
        raise WireError(f"not JSON: {error}") from None
    if not isinstance(message, dict):
        raise WireError("not a JSON object")
    return message


def _number(digits: str) -> float:
    """A whole number that is JSON; of too many digits for an `int` (sys.set_int_max_str_digits), infinity."""
    return int(digits) if len(digits) < _DIGITS else float(digits)


class Request(Record):
    """A client's call; with one of `ORDERS` in `order` it is that, about `about`. None: nothing was said."""

    number: int
    procedure: str = ""
    args: Any = None
    token: str | None = None
    session: str | None = None
    behalf: int | None = None
    single: bool = False
    events: bool = True
    order: str | None = None
    about: str = ""


LOGIN, LOGOUT, UNSUBSCRIBE = ORDERS = ("login", "logout", "unsubscribe")
_KEYS = {"id", "call", "args", "token", "session", "behalf", "single", "events"}


def decode_call(body: bytes) -> Request:
    """A client's message. Raises WireError."""
    message = decode(body)
    number, procedure, behalf = message.get("id"), message.get("call"), message.get("behalf")
    if not _whole(number):
        raise WireError("`id` must be a whole number from 0 to 2**53")
    for order in ORDERS:
        if message.keys() == {"id", order}:
            return Request(number=number, order=order, about=_text(message, order) or "")
    if not isinstance(procedure, str):
        raise WireError("`call` must be a text `api/verb`")
    if behalf is not None and not _whole(behalf):
        raise WireError("`behalf` must be a user number")
    unknown = message.keys() - _KEYS
    if unknown:
        raise WireError(f"unknown key {sorted(unknown)[0]!r}")
    return Request(
        number=number, procedure=procedure, args=message.get("args"), behalf=behalf,
        token=_text(message, "token"), session=_text(message, "session"),
        single=_truth(message, "single", False), events=_truth(message, "events", True),
    )  # fmt: skip


def first_number(body: bytes) -> int | None:
    """The `id` of a message that there is no memory to decode, if it stands first, as our clients have it."""
    digits = body[:32].replace(b" ", b"").removeprefix(b'{"id":').partition(b",")[0]
    return int(digits) if digits.isdigit() and _whole(int(digits)) else None


def _whole(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 <= value <= MAX_ID


def _truth(message: dict[str, Any], key: str, default: bool) -> bool:
    value = message.get(key, default)
    if value is not True and value is not False:
        raise WireError(f"`{key}` must be true or false")
    return bool(value)


def _text(message: dict[str, Any], key: str) -> str | None:
    value = message.get(key)
    if value is not None and not isinstance(value, str):
        raise WireError(f"`{key}` must be a text")
    return value
