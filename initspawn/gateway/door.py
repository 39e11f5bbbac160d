"""One WebSocket connection: frames in, calls to the supervisor, replies and events out.

uvicorn creates a `Door` for each upgrade of `/api` and hands it the request; the `websockets` core parses and
builds the frames; `afb` translates; a `Link` of its own leads to the supervisor.

Nothing here buffers without a bound. The client is not read while it does not read us, while too many of its
calls are unanswered, or while the supervisor does not keep up. The supervisor is not read while the client
does not read us.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from typing import TYPE_CHECKING, Any, cast

from websockets.datastructures import Headers
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State

from initspawn.gateway import afb
from initspawn.gateway.admission import (
    Refused,
    check_fetch_site,
    check_version,
    choose_subprotocol,
    find_session,
    find_token,
    query_fields,
)
from initspawn.gateway.bounds import CLOSE_SECONDS, PENDING_CALLS, WEBSOCKETS
from initspawn.gateway.core import FrameCore
from initspawn.gateway.link import Link, Way
from initspawn.gateway.unmasked import MaskFilter
from initspawn.limits import CONTROL_BYTES, FRAME_BYTES

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

    from initspawn.gateway.server import Gateway

logger = logging.getLogger("initspawn.gateway")

GOING_AWAY, UNSUPPORTED_DATA, INTERNAL_ERROR = 1001, 1003, 1011


class Door(asyncio.Protocol):
    """See the module. The arguments are what uvicorn gives to a WebSocket protocol class."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._gateway: Gateway = app_state["gateway"]
        self._way: Way = app_state["way"]
        self._connections = cast("set[Any]", server_state.connections)
        self._loop = _loop or asyncio.get_running_loop()
        self._core = FrameCore(max_size=FRAME_BYTES, logger=logger)
        self._masks = MaskFilter()
        self._transport: asyncio.Transport
        self._link: Link | None = None
        self._opening: asyncio.Task[None] | None = None
        self._early = b""  # frames sent before our 101: one read at most

        self._token: bytes | None = None  # the credential the supervisor does not know yet
        self._session: bytes | None = None  # nor the session's name
        self._number = 0
        self._pending: dict[int, bytes] = {}  # control id to the client's id
        self._backlog: deque[bytes | None] = deque()  # messages of one read; None is a binary one
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

    def data_received(self, data: bytes) -> None:
        if self._opening is None:
            self._core.receive_data(data)
            self._upgrade()
        elif self._link is None and not self._closing:
            self._early += data
        elif self._core.parser_exc is None and not self._core.eof_sent:
            self._frames(data)

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

    def shutdown(self) -> None:
        """Called by uvicorn when the server ends."""
        if self._core.state is State.CONNECTING:
            self._transport.close()
        self._close(GOING_AWAY)

    # Opening.

    def _upgrade(self) -> None:
        """Judge the upgrade request and, if it is fine, begin to open the way to the supervisor."""
        request = next(iter(self._core.events_received()), None)
        if not isinstance(request, Request):  # the core has prepared an answer, or none
            self._closing = True
            self._flush()
            return
        try:
            response = self._admit(request)
        except Refused as refused:
            self._refuse(refused)
            return
        self._transport.pause_reading()
        self._gateway.doors.add(self)
        self._opening = self._loop.create_task(self._open(response))

    def _admit(self, request: Request) -> Response:
        """The 101 to send. Raises Refused."""
        headers = list(request.headers.raw_items())
        port = self._gateway.check_host(headers, self._transport)
        check_fetch_site(headers)
        check_version(headers)
        choose_subprotocol(headers)
        if len(self._gateway.doors) >= WEBSOCKETS:
            raise Refused(503, ("Retry-After", "5"))
        response = self._core.accept(request)
        if response.status_code != 101:
            raise Refused(response.status_code)
        fields = query_fields(request.path.partition("?")[2])
        token = find_token(headers, fields)
        self._token = afb.text_json(token) if token is not None else None
        self._session = afb.text_json(find_session(headers, fields, port))
        return response

    def _refuse(self, refused: Refused) -> None:
        """Answer the upgrade with a status and an empty body, and end."""
        response = self._core.reject(refused.status, "")
        response.headers = Headers([("Connection", "close"), ("Content-Length", "0"), *refused.headers])
        self._core.send_response(response)
        self._closing = True
        self._flush()

    async def _open(self, response: Response) -> None:
        try:
            link = await self._way.link(self)
        except OSError as error:
            logger.error("no way to the supervisor: %s", error)
            self._closing = True
        else:
            if self._transport.is_closing():
                link.close()
                return
        self._transport.resume_reading()
        if self._closing:  # there is no link, or it was lost as soon as it was there
            self._refuse(Refused(503, ("Retry-After", "5")))
            return
        self._link = link
        self._core.send_response(response)
        self._flush()
        early, self._early = self._early, b""
        if early:
            self._frames(early)

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
        if opcode is Opcode.TEXT:
            if frame.fin:
                self._backlog.append(bytes(frame.data))
            else:
                self._partial = bytearray(frame.data)
        elif opcode is Opcode.BINARY:
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
            except afb.BadFrame as bad:
                self._close(bad.code, bad.reason)
        self._flush()
        self._hold()

    def _leave(self) -> None:
        """The client is going: what it has said still reaches the supervisor, then the link ends."""
        if self._link is None:
            return
        with contextlib.suppress(afb.BadFrame):  # nobody is left to be told
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
                    raise afb.BadFrame(UNSUPPORTED_DATA)
                call = afb.decode_message(message)
                if call is not None:
                    bodies += self._call(call)
        finally:
            if bodies and self._link is not None:
                self._link.send(bodies)

    def _call(self, call: afb.Call) -> tuple[bytes, ...]:
        """The control message of a call; none if it is too large, which is answered here."""
        token = self._token if call.token is None else call.token
        self._number += 1
        body = afb.encode_call(self._number, call, token, self._session)
        if len(body) > CONTROL_BYTES:
            self._send(afb.encode_error(call.id, "invalid-request", "the call is too large"))
            return ()
        self._token = self._session = None
        self._pending[self._number] = call.id
        return (body,)

    # From the supervisor to the client.

    def link_received(self, bodies: list[bytes]) -> None:
        try:
            for body in bodies:
                self._answer(afb.decode_answer(body))
        except afb.BadFrame as bad:
            logger.error("the supervisor sent something that is no answer")
            self._close(bad.code, bad.reason)
        self._pump()

    def _answer(self, answer: afb.Answer) -> None:
        if answer.id is not None:
            call_id = self._pending.pop(answer.id, None)
            if call_id is not None:
                self._send(afb.encode_reply(call_id, answer))
        elif answer.fault:
            logger.error("fault of a control connection: %s", answer.fault)
        elif bytes(answer.event):
            self._send(afb.encode_event(answer))

    def link_full(self, full: bool) -> None:
        self._link_full = full
        self._pump()

    def link_lost(self, reason: str) -> None:
        """The supervisor ended the connection: say so for every unanswered call, then close."""
        logger.error("control connection lost: %s", reason)
        for call_id in self._pending.values():
            self._send(afb.encode_error(call_id, "disconnected"))
        self._pending.clear()
        self._link = None
        self._close(INTERNAL_ERROR)

    # Both.

    def _send(self, text: bytes) -> None:
        """Queue one unfragmented text frame; `_flush` writes it."""
        if self._core.state is State.OPEN:
            self._core.send_text(text)

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
                (self._transport.close if self._core.close_rcvd else self._transport.write_eof)()
        if self._closing and self._timer is None:
            self._timer = self._loop.call_later(CLOSE_SECONDS, self._transport.abort)
