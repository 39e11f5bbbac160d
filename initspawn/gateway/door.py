"""One WebSocket connection: the upgrade of `/api`, then a conversation in AFB JSON.

uvicorn creates a `Door` for each upgrade and hands it the request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from websockets.datastructures import Headers
from websockets.frames import Opcode
from websockets.http11 import Request, Response

from initspawn.gateway import afb
from initspawn.gateway.admission import (
    Refused,
    believed_cookie,
    check_fetch_site,
    check_version,
    choose_subprotocol,
    find_session,
    find_token,
    query_fields,
)
from initspawn.gateway.calls import too_many
from initspawn.gateway.conversation import Conversation
from initspawn.gateway.core import UpgradeCore
from initspawn.gateway.quota import TOO_MANY_FAILURES
from initspawn.limits import FRAME_BYTES

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

logger = logging.getLogger("initspawn.gateway")


class Json:
    """The dialect `x-afb-ws-json1`. What is remembered of a call is the client's id."""

    opcode = Opcode.TEXT

    def __init__(self) -> None:
        self.token: bytes | None = None  # the credential the supervisor does not know yet, as JSON
        self.session: bytes | None = None  # nor the session's name
        self._shown: bytes | None = None  # the credential it knows
        self.numbered = False  # whether the client wants to know each event's task and number

    def take(self, number: int, message: bytes) -> tuple[list[bytes], bytes | None, bytes | None]:
        call = afb.decode_message(message)
        if call is None:
            return [], None, None
        if call.token is not None:
            self.token = call.token
        return [], afb.encode_call(number, call, self.token, self.session), call.id

    @property
    def showing(self) -> bytes | None:
        return self.token if self.token != self._shown else None

    def sent(self) -> None:
        self._shown = self._shown if self.token is None else self.token
        self.token = self.session = None

    def reply(self, asked: bytes, answer: afb.Answer) -> list[bytes]:
        return [afb.encode_reply(asked, answer)]

    def error(self, asked: bytes, status: str, info: str = "") -> list[bytes]:
        return [afb.encode_error(asked, status, info)]

    def news(self, answer: afb.Answer, asked: Sequence[bytes]) -> list[bytes]:
        """An event; a subscription is nothing that JSON clients are told of."""
        return [afb.encode_event(answer, numbered=self.numbered)] if bytes(answer.event) else []


class Door(Conversation):
    """See the module. The arguments are what uvicorn gives to a WebSocket protocol class."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._json = Json()
        self._upgrade_core = UpgradeCore(max_size=FRAME_BYTES, logger=logger)
        super().__init__(
            server_state, app_state["gateway"], app_state["way"], self._upgrade_core, self._json
        )
        self._opening: asyncio.Task[None] | None = None
        self._early = b""  # frames sent before our 101: one read at most

    def data_received(self, data: bytes) -> None:
        if self._opening is None:
            self._core.receive_data(data)
            self._upgrade()
        elif self._link is None and not self._closing:
            self._early += data
        elif self._core.parser_exc is None and not self._core.eof_sent:
            self._frames(data)

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
        if len(self._gateway.doors) >= self._gateway.quotas.limits.websockets:
            raise Refused(503, ("Retry-After", "5"))
        response = self._upgrade_core.accept(request)
        if response.status_code != 101:
            raise Refused(response.status_code)
        fields = query_fields(request.path.partition("?")[2])
        token = find_token(headers, fields) or believed_cookie(headers, port)
        if token is not None:
            self._json.token = afb.text_json(token)
            seconds = self._way.guest.locked(self._json.token)
            if seconds:
                raise too_many(TOO_MANY_FAILURES, seconds)
        self._json.session = afb.text_json(find_session(headers, fields, port))
        self._json.numbered = fields.get("events") == "numbered"
        return response

    def _refuse(self, refused: Refused) -> None:
        """Answer the upgrade with a status and an empty body, and end."""
        response = self._upgrade_core.reject(refused.status, "")
        response.headers = Headers([("Connection", "close"), ("Content-Length", "0"), *refused.headers])
        self._upgrade_core.send_response(response)
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
        self._upgrade_core.send_response(response)
        self._flush()
        early, self._early = self._early, b""
        if early:
            self._frames(early)
