"""The doors: HTTP, WebSocket, service and control protocols, tokens."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from typing import Any

import uvicorn
from starlette.requests import Request
from websockets.frames import Opcode

from initspawn.control import tokens, wire
from initspawn.control.audit import Audit
from initspawn.control.certificate import Certificate
from initspawn.gateway import admission, afb, files, pages, rest, wsapi
from initspawn.gateway.admission import HostPolicy, Refused
from initspawn.gateway.core import BareCore
from initspawn.gateway.door import Json
from initspawn.gateway.link import Way
from initspawn.gateway.server import Gateway, configuration
from initspawn.gateway.unmasked import MaskFilter
from initspawn.limits import CONTROL_BYTES, FRAME_BYTES
from initspawn.verbs import access
from tests.fuzz.target import Target


def understood(body: bytes) -> wire.Request:
    """What the gateway hands on, the supervisor understands: else it would end the connection."""
    assert len(body) <= CONTROL_BYTES
    try:
        return wire.decode_call(body)
    except wire.WireError as error:
        if "recursion" not in str(error):  # real gateways notice it: tests/system/test_attacks.py
            raise AssertionError(body) from error
        return wire.Request(number=0)


def _message(data: bytes) -> None:
    call = afb.decode_message(data)
    if call is not None:
        for token in (None, b'"t"'):
            understood(afb.encode_call(1, call, token, b'"s"'))
        for text in (afb.encode_error(call.id, "disconnected"), afb.encode_reply(call.id, afb.Answer(id=1))):
            assert isinstance(json.loads(text)[1], str)


def _answer(data: bytes) -> None:
    """A command's output decides much of what the supervisor says."""
    answer = afb.decode_answer(data)
    if not set(map(bytes, (answer.status, answer.event, answer.task))) & {b"", b"null"}:
        for text in (afb.encode_reply(b"1", answer), afb.encode_event(answer, numbered=True)):
            assert len(text) <= FRAME_BYTES or b'"data":null' in text
            json.loads(text)
    afb.decode_text(answer.response)


def _dialect(data: bytes) -> None:
    """Messages of one WebSocket; lines of the input."""
    dialect = Json()
    dialect.token = dialect.session = b'"t"'
    for number, line in enumerate(data.split(b"\n")):
        _, body, _ = dialect.take(number, line)
        if body is not None:
            understood(body)


def _frames(data: bytes) -> None:
    """Torn or whole, the same frames and the same end come of it."""
    assert _parsed([data]) == _parsed([data[at : at + 1] for at in range(len(data))])


def _parsed(pieces: list[bytes]) -> object:
    core, masks = BareCore(FRAME_BYTES), MaskFilter()
    seen: list[object] = []
    for piece in pieces:
        if core.parser_exc is not None or core.eof_sent:
            break
        core.receive_data(masks.feed(piece))
        for frame in core.events_received():
            seen.append((frame.opcode, bytes(frame.data), frame.fin))  # type: ignore[union-attr]
            assert frame.opcode in Opcode  # type: ignore[union-attr]
    return seen, b"".join(core.data_to_send())


def _wsapi(data: bytes) -> None:
    """Messages, each behind its length in two bytes; after each one an answer, an event, an end."""
    client = wsapi.Wsapi("tb")
    number = 0
    while len(data) >= 2:
        size = int.from_bytes(data[:2], "little")
        message, data = data[2 : 2 + size], data[2 + size :]
        number += 1
        answers, body, asked = client.take(number, message)
        if body is not None:
            understood(body)
        if asked is not None:
            news = afb.decode_answer(b'{"event":"tb/v","data":1}'), afb.Answer(subscribed=asked.procedure)
            for answer in (*news, afb.Answer(unsubscribed="tb/v")):
                answers += client.news(answer, [asked])
            answers += client.reply(asked, afb.decode_answer(b'{"id":1,"status":"x","code":-1}'))
        assert all(0 < len(answer) <= FRAME_BYTES for answer in answers)


def _rest(data: bytes) -> None:
    """Method, path, query and type, each on its line, then the body."""
    method, path, query, kind, body = (data.split(b"\n", 4) + [b""] * 5)[:5]
    procedure = rest.procedure(path.decode("utf-8", "replace"))
    text = query.decode("latin-1")
    arguments, fields = rest.arguments(method.decode("latin-1"), text, kind.decode("latin-1"), body)
    token, session = admission.find_token((), fields), admission.find_session((), fields, 1)
    request = understood(afb.encode_single(1, procedure, arguments, token, session))
    assert request.number == 0 or (request.single and request.procedure == procedure)


def _heads(data: bytes) -> None:
    """Lines `NAME: VALUE` of a request's head, each judged by all who read some."""
    lines = [line.partition(": ") for line in data.decode("latin-1").split("\n")]
    headers = [(name, value) for name, _, value in lines]
    fields = admission.query_fields(lines[0][2])
    token = admission.find_token(headers, fields)
    assert token is None or json.loads(afb.text_json(token)) == token
    admission.believed_cookie(headers, 1)
    for judge in (
        lambda: HostPolicy().check(headers, scheme="http", local="127.0.0.1"),
        lambda: HostPolicy(["example.org"]).check(headers, scheme="https", local="::1"),
        lambda: admission.choose_subprotocol(headers) or "",
        lambda: admission.find_session(headers, fields, 1),
        lambda: admission.check_version(headers) or "",
        lambda: admission.check_fetch_site(headers) or "",
    ):
        believed = ""
        try:
            believed = judge()
        except Refused as refused:
            status = refused.status
        else:
            status = 400
        assert 400 <= status < 500
        assert not set(believed) & set(' ;,"\r\n\0')  # it will stand in a header of the answer


def _page(data: bytes) -> None:
    """Whatever is asked for, it lies in the directory."""
    directory = files.Directory(str(pages.WWW))
    try:
        path = data.decode("utf-8", "replace")
        scope = {"type": "http", "path": f"/{path}", "query_string": b"", "headers": [], "method": "GET"}
        response = asyncio.run(directory.answer(Request(scope)))
        if response.status_code == 200:
            fd: int = response._fd  # type: ignore[attr-defined]
            assert os.readlink(f"/proc/self/fd/{fd}").startswith(f"{pages.WWW}/")
            os.close(fd)
        assert response.status_code in (200, 301, 403, 404)
    finally:
        os.close(directory._root)


class _Wire(asyncio.Transport):
    """A client's connection of which nothing but what is written to it is real."""

    def __init__(self) -> None:
        super().__init__()
        self.said = b""
        self.ended = False
        self.protocol: Any = None

    def write(self, data: Any) -> None:
        assert not self.ended
        self.said += data

    def close(self) -> None:
        if not self.ended:
            self.ended = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    abort = write_eof = close

    def can_write_eof(self) -> bool:
        return True

    def is_closing(self) -> bool:
        return self.ended

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"sockname": ("127.0.0.1", 1), "peername": ("127.0.0.1", 2)}.get(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.protocol  # type: ignore[no-any-return]


def _connection(data: bytes) -> None:
    """A whole connection: HTTP, perhaps an upgrade, frames behind it; NUL NUL is where one read ends."""
    asyncio.run(_connected(data.split(b"\0\0")))


async def _connected(reads: list[bytes]) -> None:
    faults: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    ours, theirs = socket.socketpair()
    gateway = Gateway("/nonexistent", HostPolicy())
    config = configuration(gateway)
    config.load()
    server, transport = uvicorn.Server(config), _Wire()
    guest = gateway.quotas.enter("127.0.0.1")
    assert guest is not None
    state = {"gateway": gateway, "way": Way("/nonexistent", gateway.quotas, guest, theirs)}
    theirs.setblocking(False)
    ours.setblocking(False)
    listener = config.http_protocol_class(config, server.server_state, state)  # type: ignore[call-arg, operator]
    transport.protocol = listener
    listener.connection_made(transport)
    for read in reads:
        if read and not transport.ended:
            transport.protocol.data_received(read)
        for _ in range(6):
            await asyncio.sleep(0)
    transport.close()
    for _ in range(6):
        await asyncio.sleep(0)
    with ours:
        frames = wire.FrameReader()
        try:
            for body in frames.feed(ours.recv(1 << 20)):
                understood(body)
        except BlockingIOError:
            pass
    assert not faults, faults
    assert transport.said == b"" or transport.said.startswith(b"HTTP/1.1 ")
    assert not transport.said.startswith(b"HTTP/1.1 500")


def _control(data: bytes) -> None:
    """Torn or whole, the same frames; and each is a call, or none."""
    whole = wire.FrameReader()
    torn = wire.FrameReader()
    bodies = whole.feed(data)
    assert bodies == [body for at in range(len(data)) for body in torn.feed(data[at : at + 1])]
    assert whole.fault == torn.fault
    for body in bodies:
        request = wire.decode_call(body)
        assert 0 <= request.number <= wire.MAX_ID


def _call(data: bytes) -> None:
    request = wire.decode_call(data)
    wire.encode({"id": request.number, "response": request.args, "token": request.token})


def _token_file(data: bytes) -> None:
    """Whatever stands there, the tokens can be used, or none counts."""
    found = tokens.parse("tokens", data)
    known = access.Tokens()
    known.store(found)
    seconds = known.next_expiry()
    assert seconds is None or 0 <= min(max(seconds, 0.0), 1.0) <= 1
    assert known.identity("t").kind == "nobody" or found


def _credential(data: bytes) -> None:
    """A token that somebody shows."""
    text = data.decode("utf-8", "surrogateescape")
    known = access.Tokens([access.Token(name="n", digest="0" * 64, scopes=frozenset("*"))])
    assert known.identity(text).kind == "nobody"
    assert known.log_in(text) is None
    known.log_out(text)


def _certificate(data: bytes) -> None:
    """What the gateway says of a certificate: one line of standard error at most."""
    told: list[str] = []
    made = Certificate.__new__(Certificate)
    made._number, made._used, made._offered, made.problem = 1, (b"", b""), (b"c", b"k"), ""
    made._complain = told.append  # type: ignore[method-assign]
    made.answered(data)
    assert len(told) <= 1
    assert all(text.isprintable() for text in told)


class _Record(Audit):
    """An audit log in memory."""

    def _open(self) -> int:
        return os.memfd_create("audit")

    def content(self) -> bytes:
        return os.pread(self._fd, 1 << 20, 0)


def _audit(data: bytes) -> None:
    """Whatever names a client chooses, a record is one line."""
    text = data.decode("utf-8", "surrogateescape")
    log = _Record("audit", clock=lambda: 1.0)
    log.record("network", "token:me", text, text[::-1], "allowed")
    found = log.content()
    log.close()
    (line,) = found.splitlines()
    assert json.loads(line)["call"] == text[:200]


TARGETS = (
    Target("afb-message", ("gateway.afb",), _message, (afb.BadFrame,)),
    Target("afb-answer", ("gateway.afb",), _answer, (afb.BadFrame,)),
    Target("afb-dialect", ("gateway.door",), _dialect, (afb.BadFrame,)),
    Target("frames", ("gateway.unmasked", "gateway.core"), _frames),
    Target("wsapi", ("gateway.wsapi",), _wsapi, (afb.BadFrame,)),
    Target("rest", ("gateway.rest",), _rest, (Refused,)),
    Target("heads", ("gateway.admission",), _heads),
    Target("page", ("gateway.files",), _page),
    Target(
        "connection",
        ("gateway.listener", "gateway.door", "gateway.conversation", "gateway.pages", "gateway.calls",
         "gateway.login", "gateway.link"),
        _connection,
    ),
    Target("control-stream", ("control.wire",), _control, (wire.WireError,)),
    Target("control-call", ("control.wire",), _call, (wire.WireError,)),
    Target("token-file", ("control.tokens",), _token_file, (tokens.TokenFileError,)),
    Target("credential", ("verbs.access",), _credential),
    Target("certificate", ("control.certificate",), _certificate),
    Target("audit", ("control.audit",), _audit),
)  # fmt: skip
