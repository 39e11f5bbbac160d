"""The client's side of `wsapi`, the service protocol of AFB binders: bytes to messages and back. Pure.

WebSocket frames (RFC 6455, section 5.2) without a handshake, each a message of packed little-endian fields;
the server's side is `gateway.wsapi`. The peer is not trusted: every function takes any bytes, holds one frame
at most, and raises nothing but `ServiceError`, after which the connection cannot go on.
"""

from __future__ import annotations

import json
import sys

from initspawn.errors import InitspawnError
from initspawn.limits import FRAME_BYTES
from initspawn.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HELLO = b"V\x09\x14\x4c\x17\x01\x01"  # the identifier, and that we speak version 1 alone
WELCOME, REPLY, EVENT, FORGET, PUSH, BROADCAST = (ord(letter) for letter in "vkEePB")
BINARY, CLOSE, PING, PONG = 2, 8, 9, 10
EVENTS = 4096  # names that a service may have announced at once
NAME_BYTES = 1024
_UUID_BYTES, _HOP_BYTES = 16, 1


class ServiceError(InitspawnError):
    """The service sent what is none of this protocol, or too much of it."""


class Message(Record):
    """What a service says. `kind`: WELCOME, REPLY, EVENT, FORGET, PUSH or BROADCAST; others are ignored."""

    kind: int
    number: int = 0  # of the call, or of the event
    name: str = ""  # of the event; of a reply its error, empty for success
    info: str = ""
    data: bytes = b""  # JSON


def frame(payload: bytes, opcode: int = BINARY) -> bytes:
    """One whole frame without a mask, as AFB's own clients send it. Raises ValueError if it is too large."""
    size = len(payload)
    if size > FRAME_BYTES:
        raise ValueError(f"a message of {size} bytes, at most {FRAME_BYTES} are allowed")
    head = bytes((0x80 | opcode,))
    if size < 126:
        return head + bytes((size,)) + payload
    if size < 65536:
        return head + b"\x7e" + size.to_bytes(2, "big") + payload
    return head + b"\x7f" + size.to_bytes(8, "big") + payload


def call(number: int, verb: str, arguments: Any) -> bytes:
    """The frame of a call without session and token. Raises ValueError if it is too large."""
    text = json.dumps(arguments, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    body = _text(verb.encode("utf-8", "replace")) + bytes(4) + _text(text) + bytes(4)
    return frame(b"K" + number.to_bytes(2, "little") + body)


def _text(text: bytes) -> bytes:
    return (len(text) + 1).to_bytes(4, "little") + text + b"\0"


class Frames:
    """Cuts a byte stream into frames; never holds more than one of them and one read."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes, most: int = sys.maxsize) -> list[tuple[int, bytes]]:
        """(opcode, payload) of the frames that these bytes complete; if it is the `most` that are wanted,
        there may be others. Raises ServiceError.
        """
        self._buffer += data
        found: list[tuple[int, bytes]] = []
        at = 0
        while len(found) < most:
            head = self._buffer[at : at + 10]
            if len(head) < 2:
                break
            width = {126: 2, 127: 8}.get(head[1], 0)
            if head[0] & 0xF0 != 0x80 or head[1] & 0x80:
                raise ServiceError("a frame that is masked, in pieces, or has reserved bits")
            size = int.from_bytes(head[2 : 2 + width], "big") if width else head[1]
            if len(head) < 2 + width:
                break
            if size > FRAME_BYTES:
                raise ServiceError(f"a frame of {size} bytes, at most {FRAME_BYTES} are allowed")
            end = at + 2 + width + size
            if len(self._buffer) < end:
                break
            found.append((head[0] & 0x0F, bytes(self._buffer[end - size : end])))
            at = end
        del self._buffer[:at]
        return found


def decode(payload: bytes) -> Message | None:
    """A service's message; None for one that means nothing to us. Raises ServiceError if it ends early."""
    kind = payload[0] if payload else 0
    fields = _Fields(payload)
    if kind == WELCOME:
        return Message(kind=kind, number=fields.take(1)[0])
    if kind == REPLY:
        number, error = fields.number(), fields.text()
        info, data = fields.text(), fields.data()
        return Message(kind=kind, number=number, name=_decoded(error), info=_decoded(info), data=data)
    if kind == EVENT:
        return Message(kind=kind, number=fields.number(), name=_decoded(fields.text())[:NAME_BYTES])
    if kind == FORGET:
        return Message(kind=kind, number=fields.number())
    if kind == PUSH:
        return Message(kind=kind, number=fields.number(), data=fields.data())
    if kind == BROADCAST:
        name, data = _decoded(fields.text())[:NAME_BYTES], fields.data()
        fields.take(_UUID_BYTES + _HOP_BYTES)
        return Message(kind=kind, name=name, data=data)
    return None


def value(data: bytes) -> Any:
    """A JSON text as a value; text that is no JSON is a text."""
    text = _decoded(data)
    try:
        return json.loads(text) if text else None
    except (ValueError, RecursionError):
        return text


def _decoded(data: bytes) -> str:
    return data.decode("utf-8", "replace")


class _Fields:
    """Reads the fields of a message. Every method raises ServiceError when they end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 1

    def take(self, size: int) -> bytes:
        found = self._data[self._at : self._at + size]
        if len(found) < size:
            raise ServiceError("a message that ends early")
        self._at += size
        return found

    def number(self) -> int:
        return int.from_bytes(self.take(2), "little")

    def text(self) -> bytes:
        """Without the NUL that ends it; empty for none."""
        size = int.from_bytes(self.take(4), "little")
        return self.take(size)[:-1] if size else b""

    data = text
