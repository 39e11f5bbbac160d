"""The HTTP side of a connection: uvicorn's h11 protocol with the deadlines and bounds it lacks."""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from initspawn.gateway.admission import API_PATH
from initspawn.gateway.bounds import HEAD_SECONDS, HTTP_CONNECTIONS
from initspawn.gateway.link import Way


class Listener(H11Protocol):
    """One TCP connection until it is upgraded or closed."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Too many connections are dropped unanswered: an answer would need what there is too little of."""
        super().connection_made(transport)
        if len(self.connections) > self.app_state["gateway"].quotas.limits.websockets + HTTP_CONNECTIONS:
            transport.abort()
            return
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        super().connection_lost(exc)
        way: Way = self.app_state["way"]
        way.close()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._watch()
        else:
            self._unwatch()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP; who has had an answer already, such as a 403 for its head, is dropped."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            try:
                super().send_400_response(msg)
                return
            except h11.LocalProtocolError:  # the answer to a HEAD ends behind its own
                pass
        self.transport.close()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Upgrade; bytes the client sent behind its request belong to the new protocol."""
        super().handle_websocket_upgrade(event)
        early, _ = self.conn.trailing_data
        if early:
            protocol = self.transport.get_protocol()
            assert isinstance(protocol, asyncio.Protocol)
            protocol.data_received(early)

    def _should_upgrade(self) -> bool:
        """Only a WebSocket handshake at exactly `/api` is an upgrade; the rest follows the HTTP rules."""
        scope, names = self.scope, dict(self.headers)
        return (
            self._get_upgrade() == b"websocket"
            and scope["raw_path"] == API_PATH.encode()
            and scope["method"] == "GET"
            and scope["http_version"] == "1.1"
            and b"sec-websocket-key" in names
            and b"sec-websocket-version" in names
            and b"transfer-encoding" not in names
            and names.get(b"content-length", b"0") == b"0"
        )

    def _watch(self) -> None:
        """Start the clock for a request head, unless it runs."""
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _unwatch(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
