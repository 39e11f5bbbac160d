"""The service protocol `wsapi` of AFB binders: its messages, and one client's state. Sans-I/O, pure.

Each message is a binary WebSocket frame without a handshake before it: an opcode, then packed little-endian
fields. A text is its length with the closing NUL (u32), the text, the NUL; a length of 0 is no text at all.
One connection is one API, whose name is never sent. Unknown opcodes and messages that end too early are
ignored, but a call whose number can be read is always answered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from msgspec import DecodeError, Raw
from msgspec.json import Decoder, encode
from websockets.frames import Opcode

from initspawn.gateway.afb import POLICY_VIOLATION, Answer, BadFrame, too_large
from initspawn.limits import FRAME_BYTES

MAGIC = 0x174C1409
VERSION = 1
NAMES = 256  # sessions, and tokens, that a client may declare
NAME_BYTES = 4096  # the longest of them

_json = Decoder(list[Raw])
_text = Decoder(str)


class Malformed(Exception):
    """A message ends before its fields do, or a text is none."""


class Fields:
    """Reads the fields of a message. Every method raises Malformed."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 1  # behind the opcode

    def take(self, size: int) -> bytes:
        """So many bytes."""
        found = self._data[self._at : self._at + size]
        if len(found) < size:
            raise Malformed
        self._at += size
        return found

    def u16(self) -> int:
        return int.from_bytes(self.take(2), "little")

    def nstr(self) -> str | None:
        """A text or none; without a NUL inside it."""
        size = int.from_bytes(self.take(4), "little")
        if size == 0:
            return None
        *text, end = self.take(size)
        if end or 0 in text:
            raise Malformed
        try:
            return bytes(text).decode()
        except UnicodeDecodeError:
            raise Malformed from None

    def str(self) -> str:
        """A text."""
        found = self.nstr()
        if found is None:
            raise Malformed
        return found


def nstr(text: bytes | None) -> bytes:
    """The field for a text, or for none."""
    return bytes(4) if text is None else (len(text) + 1).to_bytes(4, "little") + text + b"\0"


class Asked(NamedTuple):
    """What is remembered of a call."""

    id: bytes  # as it is sent
    procedure: str


class Wsapi:
    """The dialect of one connection that offers the API `api`."""

    opcode = Opcode.BINARY

    def __init__(self, api: str) -> None:
        self._api = api
        self._sessions: dict[int, str] = {}
        self._tokens: dict[int, str] = {}
        self._events: dict[str, int] = {}  # those the client knows, and their numbers
        self.showing: bytes | None = None
        self._tried: tuple[int, str] | None = None  # number and text of the last call's token
        self._shown: dict[int, str] = {}  # tokens of earlier calls by their numbers
        self._marked: set[Asked] = set()  # calls that have told of their subscription
        self._takers: dict[int, Callable[[int, Fields], tuple[list[bytes], bytes | None, Asked | None]]] = {
            ord("V"): self._negotiate,
            ord("K"): self._call,
            ord("U"): self._unexpected,
            ord("D"): self._describe,
            ord("S"): lambda _, fields: self._declare(self._sessions, fields),
            ord("T"): lambda _, fields: self._declare(self._tokens, fields),
            ord("s"): lambda _, fields: self._drop(self._sessions, fields),
            ord("t"): lambda _, fields: self._drop(self._tokens, fields),
        }

    # From the client.

    def take(self, number: int, message: bytes) -> tuple[list[bytes], bytes | None, Asked | None]:
        """See Dialect. Raises BadFrame."""
        self._tried = self.showing = None
        taker = self._takers.get(message[0]) if message else None
        if taker is None:
            return [], None, None
        try:
            return taker(number, Fields(message))
        except Malformed:
            if message[0] == ord("K") and len(message) >= 3:
                return self.error(Asked(message[1:3], ""), "invalid-request"), None, None
            return [], None, None

    def _negotiate(self, _: int, fields: Fields) -> tuple[list[bytes], None, None]:
        """The client's versions; it does not wait for the answer."""
        magic = int.from_bytes(fields.take(4), "little")
        if magic != MAGIC or VERSION not in fields.take(fields.take(1)[0]):
            raise BadFrame(POLICY_VIOLATION)
        return [b"v%c" % VERSION], None, None

    def _declare(self, names: dict[int, str], fields: Fields) -> tuple[list[bytes], None, None]:
        number, text = fields.u16(), fields.str()
        if len(names) >= NAMES or len(text) > NAME_BYTES:
            raise BadFrame(POLICY_VIOLATION)
        names[number] = text
        return [], None, None

    def _drop(self, names: dict[int, str], fields: Fields) -> tuple[list[bytes], None, None]:
        names.pop(fields.u16(), None)
        return [], None, None

    def _describe(self, _: int, fields: Fields) -> tuple[list[bytes], None, None]:
        return [b"d" + fields.take(2) + nstr(b"null")], None, None

    def _call(self, number: int, fields: Fields) -> tuple[list[bytes], bytes | None, Asked | None]:
        asked_id = fields.take(2)
        verb, session, token = fields.str(), fields.u16(), fields.u16()
        arguments, behalf = fields.str().encode(), fields.nstr()
        asked = Asked(asked_id, f"{self._api}/{verb}")
        user = _user(behalf)
        if not verb or user == INVALID or (session and session not in self._sessions):
            return self.error(asked, "invalid-request"), None, None
        body = b'{"id":%d,"call":%b,"args":%b,"single":true' % (
            number, encode(asked.procedure), _value(arguments)
        )  # fmt: skip
        if token in self._tokens:
            self._tried = (token, self._tokens[token])
            shown = encode(self._tokens[token])
            self.showing = shown if self._shown.get(token) != self._tokens[token] else None
            body += b',"token":%b' % shown
        if session:
            body += b',"session":%b' % encode(self._sessions[session])
        if user is not None:
            body += b',"behalf":%d' % user
        return [], body + b"}", asked

    def _unexpected(self, number: int, fields: Fields) -> tuple[list[bytes], bytes | None, None]:
        """Nobody listens to an event at the other end: it is sent no more."""
        event = fields.u16()
        name = next((name for name, known in self._events.items() if known == event), None)
        if name is None:
            return [], None, None
        return [], b'{"id":%d,"unsubscribe":%b}' % (number, encode(name)), None

    def sent(self) -> None:
        if self._tried is not None:
            self._shown[self._tried[0]] = self._tried[1]

    # To the client.

    def reply(self, asked: Asked, answer: Answer) -> list[bytes]:
        """The answer to a call; one that would not fit a frame becomes an `internal-error`."""
        self._marked.discard(asked)
        info = bytes(answer.info)
        message = b"k%b%b%b%b" % (
            asked.id,
            nstr(None if answer.code >= 0 else _plain(bytes(answer.status))),
            nstr(None if info in (b"", b"null") else _plain(info)),
            nstr(bytes(answer.response) or b"null"),
        )
        if len(message) > FRAME_BYTES:
            return self.error(asked, "internal-error", "the reply is larger than a frame")
        return [message]

    def error(self, asked: Asked, status: str, info: str = "") -> list[bytes]:
        """The answer to a call that fails here."""
        self._marked.discard(asked)
        return [
            b"k%b%b%b%b" % (asked.id, nstr(status.encode()), nstr(info.encode() or None), nstr(b"null"))
        ]

    def news(self, answer: Answer, asked: Sequence[Asked]) -> list[bytes]:
        """An event, or a subscription that a call has made or ended: it is told before the call's answer."""
        if bytes(answer.event):
            name = _text.decode(answer.event)
            data = bytes(answer.data) or b"null"
            if len(data) > FRAME_BYTES - 16:
                data = too_large(answer)
            return [*self._known(name), b"P%b%b" % (self._number(name), nstr(data))]
        if answer.subscribed:
            name = answer.subscribed
            call = next((call for call in asked if call.procedure == name and call not in self._marked), None)
            if call is None:
                return list(self._known(name))
            self._marked.add(call)
            return [*self._known(name), b"X%b%b" % (call.id, self._number(name))]
        if answer.unsubscribed in self._events:
            name = answer.unsubscribed
            event = self._number(name)
            del self._events[name]
            call = next((call for call in asked if call.procedure == name), None)
            return [*([b"x%b%b" % (call.id, event)] if call else []), b"e" + event]
        return []

    def _known(self, name: str) -> Iterator[bytes]:
        """The event's announcement, the first time."""
        if name not in self._events:
            used = set(self._events.values())
            self._events[name] = next(number for number in range(1, 0x10000) if number not in used)
            yield b"E%b%b" % (self._number(name), nstr(name.encode()))

    def _number(self, name: str) -> bytes:
        return self._events[name].to_bytes(2, "little")


INVALID = -1


def _user(credentials: str | None) -> int | None:
    """The user number of `HEXUID:HEXGID:HEXPID-LABEL`; INVALID if it is something else."""
    if credentials is None:
        return None
    text, colon, _ = credentials.partition(":")
    try:
        user = int(text, 16) if colon and text.isalnum() else INVALID
    except ValueError:
        return INVALID
    return user if user < 2**32 else INVALID


def _value(text: bytes) -> bytes:
    """A call's arguments as JSON: text that is no JSON is a text."""
    try:
        if len(_json.decode(b"[%b]" % text)) == 1:
            return text
    except (DecodeError, RecursionError):
        pass
    return encode(text.decode())


def _plain(text: bytes) -> bytes:
    """A JSON text's characters, without what would end it early."""
    return _text.decode(text).replace("\0", "").encode("utf-8", "replace")
