"""The listening TCP socket: connections are counted from the moment they are there, a handshake included."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable

from initspawn.gateway.bounds import BACKLOG, CLOSE_SECONDS, HEAD_SECONDS, HTTP_CONNECTIONS
from initspawn.gateway.link import Way
from initspawn.gateway.listener import Listener
from initspawn.gateway.quota import Quotas, network

logger = logging.getLogger("initspawn.gateway")

_PAUSE = 0.1  # seconds without accepting when no descriptors are left


class Acceptor:
    """`make` gives the protocol of one connection, which closes its `Way` when the connection is lost."""

    def __init__(
        self,
        listener: socket.socket,
        control_path: str,
        quotas: Quotas,
        make: Callable[[Way], Listener],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._listener = listener
        self._control_path = control_path
        self._quotas = quotas
        self._make = make
        self._tls = tls
        self._shaking: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._open = True

    def start(self) -> None:
        """Accept connections from now on."""
        if self._open:
            self._loop.add_reader(self._listener.fileno(), self._accept)

    def stop(self) -> None:
        """Accept no more; those in a handshake are dropped."""
        self._open = False
        self._loop.remove_reader(self._listener.fileno())
        for task in list(self._shaking):
            task.cancel()

    def _accept(self) -> None:
        for _ in range(BACKLOG):
            try:
                connection, peer = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                logger.error("no connection can be accepted: %s", error)
                self._loop.remove_reader(self._listener.fileno())
                self._loop.call_later(_PAUSE, self.start)
                return
            connection.setblocking(False)
            # Connections with a protocol are counted by it. An answer would need what there is too little of.
            full = len(self._shaking) >= self._quotas.limits.websockets + HTTP_CONNECTIONS
            guest = None if full else self._quotas.enter(network(peer[0]))
            if guest is None:
                connection.close()
                continue
            way = Way(self._control_path, self._quotas, guest)
            task = self._loop.create_task(self._begin(connection, way))
            self._shaking.add(task)
            task.add_done_callback(self._shaking.discard)

    async def _begin(self, connection: socket.socket, way: Way) -> None:
        try:
            if self._tls is None:
                await self._loop.connect_accepted_socket(lambda: self._make(way), connection)
                return
            await self._loop.connect_accepted_socket(
                lambda: self._make(way), connection, ssl=self._tls,
                ssl_handshake_timeout=HEAD_SECONDS, ssl_shutdown_timeout=CLOSE_SECONDS,
            )  # fmt: skip
        except (OSError, asyncio.CancelledError):
            # No TLS, none that we speak, too slow, or gone again: nobody is left to be told.
            way.close()
            connection.close()
