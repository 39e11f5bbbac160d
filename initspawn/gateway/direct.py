"""One client of the service protocol `wsapi`: frames from the first byte, without a handshake."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from initspawn.gateway.conversation import Conversation
from initspawn.gateway.core import BareCore
from initspawn.gateway.link import Way
from initspawn.gateway.wsapi import Wsapi
from initspawn.limits import FRAME_BYTES

if TYPE_CHECKING:
    from uvicorn.server import ServerState

    from initspawn.gateway.server import Gateway

logger = logging.getLogger("initspawn.gateway")


class Direct(Conversation):
    """See the module. `api` is the API that is offered on this connection."""

    def __init__(self, server_state: ServerState, gateway: Gateway, way: Way, api: str) -> None:
        super().__init__(server_state, gateway, way, BareCore(FRAME_BYTES), Wsapi(api))
        self._early = b""  # frames that came before the link was there

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if len(self._gateway.doors) >= self._gateway.quotas.limits.websockets:
            self._transport.abort()
            return
        self._gateway.doors.add(self)
        self._transport.pause_reading()
        self._opening = self._loop.create_task(self._open())

    def data_received(self, data: bytes) -> None:
        if self._link is None and not self._closing:
            self._early += data
        elif self._core.parser_exc is None and not self._core.eof_sent:
            self._frames(data)

    async def _open(self) -> None:
        try:
            link = await self._way.link(self)
        except OSError as error:
            logger.error("no way to the supervisor: %s", error)
            self._transport.abort()
            return
        if self._transport.is_closing():
            link.close()
            return
        self._transport.resume_reading()
        if not self._closing:  # it was not lost as soon as it was there
            self._link = link
            early, self._early = self._early, b""
            self._frames(early)
