"""AFB JSON (`x-afb-ws-json1`) to control messages and back: bytes in, bytes out. Sans-I/O, pure.

Values that only pass through (arguments, responses, event data, ids) stay the bytes they are: msgspec
checks their syntax without decoding them. Every function takes untrusted bytes and raises nothing but
`BadFrame`, which says how the WebSocket must be closed (RFC 6455, section 7.4).

A client's message is a JSON array: `[2, ID, "API/VERB", ARGS]` or `[2, ID, "API/VERB", ARGS, TOKEN]`
is a call; 3 and 4 are replies, which nothing here ever waits for; 5 is an event, which is ignored.
"""

from __future__ import annotations

from typing import NamedTuple

from msgspec import DecodeError, Raw, Struct
from msgspec.json import Decoder, encode

from initspawn.errors import STATUS_CODES, InitspawnError
from initspawn.limits import FRAME_BYTES

INVALID_DATA, POLICY_VIOLATION, INTERNAL_ERROR = 1007, 1008, 1011
_REPLY_SIZES = {b"3": (3, 4), b"4": (3, 4), b"5": (3,)}
_ABSENT = (b"", b"null")


class BadFrame(InitspawnError):
    """The connection must be closed with this code and reason."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"{code} {reason}".rstrip())
        self.code = code
        self.reason = reason


class Call(NamedTuple):
    """One call of a client. All but `id` are JSON; `id` is what goes between the reply's quotes."""

    id: bytes
    procedure: bytes
    args: bytes
    token: bytes | None


class Answer(Struct):
    """One message of the supervisor: an answer (`id` is set; `unknown` if its call showed a token that is
    none of ours), an event, the beginning or end of a subscription (to the events of that name), or a fault.
    """

    id: int | None = None
    status: Raw = Raw(b"")
    code: int = 0
    info: Raw = Raw(b"")
    response: Raw = Raw(b"")
    event: Raw = Raw(b"")
    data: Raw = Raw(b"")
    task: Raw = Raw(b"")
    seq: int = 0
    subscribed: str = ""
    unsubscribed: str = ""
    fault: str = ""
    unknown: bool = False


_array = Decoder(list[Raw])
_string = Decoder(str)
_answer = Decoder(Answer)


def decode_message(data: bytes) -> Call | None:
    """A text message of a client: a call, or None for what is to be ignored. Raises BadFrame."""
    if not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError:
            raise BadFrame(INVALID_DATA) from None
    try:
        items = [bytes(item) for item in _array.decode(data)]
    except (DecodeError, RecursionError):
        raise _invalid() from None
    kind = items[0] if items else b""
    if kind == b"2" and len(items) in (4, 5):
        return _decode_call(items)
    if len(items) not in _REPLY_SIZES.get(kind, ()):
        raise _invalid()
    if kind == b"5":
        return None
    raise BadFrame(POLICY_VIOLATION, "unbound-call-id")


def _decode_call(items: list[bytes]) -> Call:
    """The elements of a call, checked. Raises BadFrame.

    The procedure is cut at its first `/`; an empty API is left to the supervisor to refuse.
    """
    number, procedure = _as_string(items[1]), _as_string(items[2])
    _, slash, verb = _string.decode(procedure).partition("/")
    if not slash:
        raise BadFrame(POLICY_VIOLATION)
    if not verb or verb[0] == "/":
        raise _invalid()
    token = _token(items[4]) if len(items) == 5 else None
    return Call(number[1:-1], procedure, items[3], token)


def _as_string(item: bytes) -> bytes:
    """A JSON scalar as a JSON string with the same raw characters. Raises BadFrame for the others."""
    if item[0] == 0x22:  # a string already: escapes stay as the client wrote them
        return item
    if item[0] in b"[{":
        raise _invalid()
    return b'"%b"' % item


def _token(item: bytes) -> bytes:
    """A credential as a JSON string; one that is no string counts as its raw text."""
    return item if item[0] == 0x22 else encode(item.decode())


def _invalid() -> BadFrame:
    return BadFrame(POLICY_VIOLATION, "invalid-frame")


def encode_call(number: int, call: Call, token: bytes | None, session: bytes | None = None) -> bytes:
    """The control message for a call; `token` (JSON) replaces the connection's credential, `session` its
    session's name.
    """
    more = b"" if token is None else b',"token":%b' % token
    if session is not None:
        more += b',"session":%b' % session
    return b'{"id":%d,"call":%b,"args":%b%b}' % (number, call.procedure, call.args, more)


def encode_single(number: int, procedure: str, args: bytes, token: str | None, session: str) -> bytes:
    """The control message for a call that hears no events and whose credential is for it alone."""
    shown = b"" if token is None else b',"token":%b' % encode(token)
    return b'{"id":%d,"call":%b,"args":%b%b,"session":%b,"single":true,"events":false}' % (
        number, encode(procedure), args, shown, encode(session),
    )  # fmt: skip


def encode_order(number: int, order: str, token: str) -> bytes:
    """The control message that is about a token: `login` or `logout`."""
    return b'{"id":%d,%b:%b}' % (number, encode(order), encode(token))


def decode_text(value: Raw) -> str:
    """A response that is a text; empty if it is something else."""
    try:
        return _string.decode(value)
    except DecodeError:
        return ""


def text_json(text: str) -> bytes:
    """A credential or session found in the upgrade request, as JSON."""
    return encode(text)


def decode_answer(body: bytes) -> Answer:
    """A message of the supervisor. Raises BadFrame (1011) for what it would never send."""
    try:
        return _answer.decode(body)
    except (DecodeError, UnicodeDecodeError, RecursionError):
        raise BadFrame(INTERNAL_ERROR) from None


def encode_reply(call_id: bytes, answer: Answer) -> bytes:
    """The reply to a call. One that would not fit a frame becomes an `internal-error`."""
    text = b'[%d,"%b",%b]' % (3 if answer.code >= 0 else 4, call_id, answer_object(answer))
    if len(text) > FRAME_BYTES:
        return encode_error(call_id, "internal-error", "the reply is larger than a frame")
    return text


def answer_object(answer: Answer) -> bytes:
    """The reply object of an answer of the supervisor."""
    info, response = bytes(answer.info), bytes(answer.response)
    request = b'"status":%b' % (bytes(answer.status) or b'"success"')
    if info not in _ABSENT:
        request += b',"info":%b' % info
    value = b"" if response in _ABSENT else b',"response":%b' % response
    return b'{"jtype":"afb-reply","request":{%b,"code":%d}%b}' % (request, answer.code, value)


def encode_error(call_id: bytes, status: str, info: str = "") -> bytes:
    """A reply made here: `status` is one of the protocol's error texts."""
    return b'[4,"%b",%b]' % (call_id, reply_object(status, info))


def reply_object(status: str, info: str = "") -> bytes:
    """The reply object of an error made here."""
    extra = b',"info":%b' % encode(info) if info else b""
    return b'{"jtype":"afb-reply","request":{"status":%b%b,"code":%d}}' % (
        encode(status),
        extra,
        STATUS_CODES[status],
    )


def encode_event(answer: Answer, *, numbered: bool = False) -> bytes:
    """The event frame of an event; data that would not fit a frame is replaced by a marker.

    `numbered`: behind what AFB knows stand the task's id and the event's number.
    """
    name, data = bytes(answer.event), bytes(answer.data) or b"null"
    told = numbered and bytes(answer.task)  # which only events of tasks have
    more = b',"task":%b,"seq":%d' % (bytes(answer.task), answer.seq) if told else b""
    text = b'[5,%b,{"jtype":"afb-event","event":%b,"data":%b%b}]' % (name, name, data, more)
    if len(text) > FRAME_BYTES:
        text = b'[5,%b,{"jtype":"afb-event","event":%b,"data":%b%b}]' % (name, name, too_large(answer), more)
    return text


def too_large(answer: Answer) -> bytes:
    """The marker in place of an event's data that fits no frame: nothing is missing unsaid."""
    pid = bytes(answer.task).rstrip(b'"').rpartition(b"@")[2]  # the task's id is `sandbox/command@pid`
    own = b'"pid":%b,' % pid if pid.isdigit() else b""
    return b'{"type":"dropped-event",%b"count":1}' % own
