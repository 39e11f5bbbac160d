"""One client that talks in WebSocket frames: calls to the supervisor, replies and events back.

The `websockets` core parses and builds the frames; a `Dialect` translates messages; a `Link` leads to the
supervisor. How the conversation begins is left to a subclass.

Nothing here buffers without a bound. The client is not read while it does not read us, while too many of its
calls are unanswered, or while the supervisor does not keep up. The supervisor is not read while the client
does not read us.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

from websockets.frames import Frame, Opcode
from websockets.protocol import State

from initspawn.gateway import afb
from initspawn.gateway.afb import BadFrame
from initspawn.gateway.bounds import CLOSE_SECONDS, PENDING_CALLS
from initspawn.gateway.core import Core
from initspawn.gateway.link import Link, Way
from initspawn.gateway.quota import TOO_MANY_CALLS, TOO_MANY_FAILURES
from initspawn.gateway.unmasked import MaskFilter
from initspawn.limits import CONTROL_BYTES

if TYPE_CHECKING:
    from uvicorn.server import ServerState

    from initspawn.gateway.server import Gateway

logger = logging.getLogger("initspawn.gateway")

GOING_AWAY, UNSUPPORTED_DATA, INTERNAL_ERROR = 1001, 1003, 1011


class Dialect(Protocol):
    """One client's messages: what they mean, and how it is answered. Sans-I/O."""

    opcode: Opcode  # of all its messages

    @property
    def showing(self) -> bytes | None:
        """The token, as JSON, that the call taken last shows and no call of this client before it."""

    def take(self, number: int, message: bytes) -> tuple[list[bytes], bytes | None, object]:
        """(messages to the client, the control message of call `number`, what to remember of the call).

        Without a control message there is no call. Raises BadFrame.
        """

    def sent(self) -> None:
        """The control message that was taken last is on its way."""

    def reply(self, asked: Any, answer: afb.Answer) -> list[bytes]:
        """The messages for an answer."""

    def error(self, asked: Any, status: str, info: str = "") -> list[bytes]:
        """The messages for a call that fails here."""

    def news(self, answer: afb.Answer, asked: Sequence[Any]) -> list[bytes]:
        """The messages for what the supervisor says unasked; `asked` is all that is unanswered."""


class Conversation(asyncio.Protocol):
    """See the module."""

    def __init__(self, server_state: ServerState, gateway: Gateway, way: Way, core: Core, dialect: Dialect):
        self._gateway = gateway
        self._way = way
        self._core = core
        self._dialect = dialect
        self._connections = cast("set[Any]", server_state.connections)
        self._loop = asyncio.get_running_loop()
        self._masks = MaskFilter()
        self._transport: asyncio.Transport
        self._link: Link | None = None
        self._number = 0
        self._pending: dict[int, Any] = {}  # control id to what the dialect remembers
        self._trials: dict[int, bytes] = {}  # of them those that show a new token
        self._backlog: deque[bytes | None] = deque()  # messages of one read; None is of the wrong kind
        self._partial: bytearray | None = None  # a fragmented message so far

        self._reading = True
        self._client_full = False
        self._link_full = False
        self._closing = False
        self._timer: asyncio.TimerHandle | None = None

    # The client's side of the connection.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self)

    def pause_writing(self) -> None:
        self._client_full = True
        self._hold()

    def resume_writing(self) -> None:
        self._client_full = False
        self._hold()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end, orderly or not; calls already received still reach the supervisor."""
        self._connections.discard(self)
        self._gateway.doors.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        self._closing = True
        self._leave()
        for token in self._trials.values():
            self._way.guest.end_trial(token, valid=False)
        self._trials.clear()
        self._way.close()

    def shutdown(self) -> None:
        """Called by uvicorn when the server ends."""
        if self._core.state is State.CONNECTING:
            self._transport.close()
        self._close(GOING_AWAY)

    # From the client to the supervisor.

    def _frames(self, data: bytes) -> None:
        self._core.receive_data(self._masks.feed(data))
        if not self._closing:
            for frame in cast("list[Frame]", self._core.events_received()):
                self._frame(frame)
        if self._core.eof_sent:  # the client's Close frame, or a frame that breaks RFC 6455
            self._leave()
        self._pump()

    def _frame(self, frame: Frame) -> None:
        """One frame; control frames were answered by the core."""
        opcode = frame.opcode
        if opcode is self._dialect.opcode:
            if frame.fin:
                self._backlog.append(bytes(frame.data))
            else:
                self._partial = bytearray(frame.data)
        elif opcode is Opcode.TEXT or opcode is Opcode.BINARY:
            self._backlog.append(None)
        elif opcode is Opcode.CONT and self._partial is not None:
            self._partial += frame.data  # grows in place: empty fragments cost nothing
            if frame.fin:
                self._backlog.append(bytes(self._partial))
                self._partial = None

    def _pump(self) -> None:
        """Hand on as many messages as may be unanswered, write what is for the client, adjust reading."""
        room = PENDING_CALLS - len(self._pending)
        if self._backlog and room > 0 and not self._link_full:
            count = min(room, len(self._backlog))
            try:
                self._handle([self._backlog.popleft() for _ in range(count)])
            except BadFrame as bad:
                self._close(bad.code, bad.reason)
        self._flush()
        self._hold()

    def _leave(self) -> None:
        """The client is going: what it has said still reaches the supervisor, then the link ends."""
        if self._link is None:
            return
        with contextlib.suppress(BadFrame):  # nobody is left to be told
            self._handle(list(self._backlog))
        self._backlog.clear()
        self._link.close()
        self._link = None

    def _handle(self, messages: list[bytes | None]) -> None:
        """Translate messages and send the calls among them in one write. Raises BadFrame after that."""
        bodies: list[bytes] = []
        try:
            for message in messages:
                if message is None:
                    raise BadFrame(UNSUPPORTED_DATA)
                bodies += self._take(message)
        finally:
            if bodies and self._link is not None:
                self._link.send(bodies)

    def _take(self, message: bytes) -> tuple[bytes, ...]:
        """The control message of a call; none for other messages and a call too large, which is refused."""
        self._number += 1
        answers, body, asked = self._dialect.take(self._number, message)
        self._send(answers)
        if body is None:
            return ()
        if len(body) > CONTROL_BYTES:
            self._send(self._dialect.error(asked, "invalid-request", "the call is too large"))
            return ()
        if asked is not None:
            reason = self._refusal()
            if reason:
                self._send(self._dialect.error(asked, "not-available", reason))
                return ()
            self._pending[self._number] = asked
        self._dialect.sent()
        return (body,)

    def _refusal(self) -> str:
        """Why the call that was taken last cannot be made now; empty if it can."""
        guest = self._way.guest
        if not guest.call():
            return TOO_MANY_CALLS
        token = self._dialect.showing
        if token is not None:
            if not guest.begin_trial(token):
                return TOO_MANY_FAILURES
            self._trials[self._number] = token
        return ""

    # From the supervisor to the client.

    def link_received(self, bodies: list[bytes]) -> None:
        try:
            for body in bodies:
                self._answer(afb.decode_answer(body))
        except BadFrame as bad:
            logger.error("the supervisor sent something that is no answer")
            self._close(bad.code, bad.reason)
        self._pump()

    def _answer(self, answer: afb.Answer) -> None:
        if answer.id is not None:
            asked = self._pending.pop(answer.id, None)
            token = self._trials.pop(answer.id, None)
            if token is not None:
                self._way.guest.end_trial(token, valid=not answer.unknown)
            if asked is not None:
                self._send(self._dialect.reply(asked, answer))
        elif answer.fault:
            logger.error("fault of a control connection: %s", answer.fault)
        else:
            self._send(self._dialect.news(answer, list(self._pending.values())))

    def link_full(self, full: bool) -> None:
        self._link_full = full
        self._pump()

    def link_lost(self, reason: str) -> None:
        """The supervisor ended the connection: say so for every unanswered call, then close."""
        logger.error("control connection lost: %s", reason)
        for asked in self._pending.values():
            self._send(self._dialect.error(asked, "disconnected"))
        self._pending.clear()
        self._link = None
        self._close(INTERNAL_ERROR)

    # Both.

    def _send(self, messages: list[bytes]) -> None:
        """Queue messages, each as one unfragmented frame; `_flush` writes them."""
        if self._core.state is State.OPEN:
            send = self._core.send_text if self._dialect.opcode is Opcode.TEXT else self._core.send_binary
            for message in messages:
                send(message)

    def _hold(self) -> None:
        """Read each side only while the other one can take what it says."""
        if self._transport.is_closing():
            return
        if self._link is not None:
            self._link.hold(self._client_full)
        busy = bool(self._backlog) or len(self._pending) >= PENDING_CALLS or self._link_full
        reading = not self._client_full and (self._closing or not busy)
        if reading != self._reading:
            self._reading = reading
            (self._transport.resume_reading if reading else self._transport.pause_reading)()

    def _close(self, code: int, reason: str = "") -> None:
        """Start the closing handshake (RFC 6455, section 7.1.2)."""
        if self._closing:
            return
        self._closing = True
        self._backlog.clear()
        if self._link is not None:
            self._link.close()
            self._link = None
        if self._core.state is State.OPEN:
            self._core.send_close(code, reason)
        self._flush()
        self._hold()

    def _flush(self) -> None:
        """Write what the core has for the client. An end of stream ends the connection.

        After a complete closing handshake at once. Otherwise the client's half is read (and thrown away) for
        a little while: closing a socket that has unread data makes the kernel send a reset, which can
        overtake our Close frame or refusal.
        """
        output = self._core.data_to_send()
        if output and not self._transport.is_closing():
            self._transport.write(b"".join(output))
            if output[-1] == b"":
                self._closing = True
                half = not self._core.close_rcvd and self._transport.can_write_eof()  # not with TLS
                (self._transport.write_eof if half else self._transport.close)()
        if self._closing and self._timer is None:
            self._timer = self._loop.call_later(CLOSE_SECONDS, self._transport.abort)
