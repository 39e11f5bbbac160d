"""The gateway as a whole: one listening socket, one event loop, many connections."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Coroutine, Iterator, Mapping
from typing import Any

import uvicorn

from initspawn.gateway import bounds
from initspawn.gateway.acceptor import Acceptor
from initspawn.gateway.admission import Headers, HostPolicy
from initspawn.gateway.conversation import Conversation
from initspawn.gateway.direct import Direct
from initspawn.gateway.door import Door
from initspawn.gateway.link import Link, Way, open_link
from initspawn.gateway.listener import Listener
from initspawn.gateway.pages import NONE, application
from initspawn.gateway.quota import Limits, Quotas
from initspawn.gateway.tls import Tls

logger = logging.getLogger("initspawn.gateway")

ANSWER_BYTES = 500  # what the supervisor reads of an answer


class Gateway:
    """What the connections of one gateway share."""

    def __init__(self, control_path: str, hosts: HostPolicy, limits: Limits | None = None) -> None:
        self.control_path = control_path
        self.quotas = Quotas(limits)
        self.hosts = hosts
        self.doors: set[Conversation] = set()

    def check_host(self, headers: Headers, transport: asyncio.Transport) -> int:
        """Believe the Host and Origin of an upgrade request; our port. Raises admission.Refused(403)."""
        name = transport.get_extra_info("sockname")
        local, port = name[:2] if isinstance(name, tuple) else ("", 0)
        scheme = "http" if transport.get_extra_info("ssl_object") is None else "https"
        self.hosts.check(headers, scheme=scheme, local=local)
        return int(port)


class Hello:
    """The owner of the idle link that tells the supervisor how long the gateway is there."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def link_received(self, bodies: list[bytes]) -> None:
        """Nothing is asked on this link, so nothing is expected."""

    def link_full(self, full: bool) -> None:
        """Nothing is sent either."""

    def link_lost(self, reason: str) -> None:
        self._server.end()


class Server(uvicorn.Server):
    """uvicorn's server that sleeps until something happens, and ends with the supervisor."""

    def __init__(
        self, config: uvicorn.Config, gateway: Gateway, listener: socket.socket,
        handover: socket.socket | None = None, tls: Tls | None = None,
    ) -> None:  # fmt: skip
        super().__init__(config)
        self._gateway = gateway
        self._handover = handover
        self._tls = tls
        context = tls.context if tls is not None else None
        self._acceptor = Acceptor(listener, gateway.control_path, gateway.quotas, self._protocol, context)
        self._ended = asyncio.Event()
        self._hello: Link | None = None
        self._beginning: set[asyncio.Future[None]] = set()
        self.failure: OSError | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve, with TLS as soon as there is a certificate; uvicorn itself listens to nothing."""
        await super().startup([])
        if self._tls is None:
            await self._listen()
        if self._handover is not None:
            self._handover.setblocking(False)
            asyncio.get_running_loop().add_reader(self._handover.fileno(), self._take_over)

    async def _listen(self) -> None:
        """Serve, then say so to the supervisor; without one, end in good order with `failure` set."""
        self._acceptor.start()
        try:
            self._hello = await open_link(self._gateway.control_path, Hello(self))
        except OSError as error:
            self.failure = error
            self.end()

    def _protocol(self, way: Way) -> Listener:
        return Listener(self.config, self.server_state, {**self.lifespan.state, "way": way})

    def _take_over(self) -> None:
        """A local client, accepted by the supervisor, and the control connection that was made for it; or a
        certificate and its key.
        """
        assert self._handover is not None
        try:
            protocol, descriptors, _, _ = socket.recv_fds(self._handover, 256, 2)
        except BlockingIOError:
            return
        if not protocol:  # the supervisor has ended
            asyncio.get_running_loop().remove_reader(self._handover.fileno())
            return
        if len(descriptors) != 2:  # we have too many descriptors open
            logger.error("a local client is lost: no descriptors left")
        elif protocol.startswith(b"tls "):
            self._certify(protocol.decode(), descriptors)
        else:
            self._keep(self._begin(protocol.decode(), *(socket.socket(fileno=fd) for fd in descriptors)))
            return
        for fd in descriptors:
            os.close(fd)

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it while we go on."""
        task = asyncio.ensure_future(work)
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)

    def _certify(self, message: str, descriptors: list[int]) -> None:
        """Use a certificate from now on, and say whether that was possible."""
        assert self._tls is not None
        assert self._handover is not None
        first = not self._tls.loaded
        problem = self._tls.take(*descriptors)
        answer = f"{message} {problem}".rstrip()
        with contextlib.suppress(OSError):  # the supervisor does not read, or has ended
            self._handover.send(answer.encode("ascii", "replace")[:ANSWER_BYTES])
        if first and self._tls.loaded:
            self._keep(self._listen())

    async def _begin(self, protocol: str, client: socket.socket, control: socket.socket) -> None:
        """Talk to a local client; `protocol` is its user number, then what it speaks."""
        for one in (client, control):
            one.setblocking(False)
        user, _, spoken = protocol.partition(" ")
        quotas = self._gateway.quotas
        guest = quotas.enter(f"user {user}")
        if guest is None:
            client.close()
            control.close()
            return
        way = Way(self._gateway.control_path, quotas, guest, control)
        _, _, api = spoken.partition("wsapi ")
        loop = asyncio.get_running_loop()
        if api:
            await loop.connect_accepted_socket(
                lambda: Direct(self.server_state, self._gateway, way, api), client
            )
        else:
            await loop.connect_accepted_socket(lambda: self._protocol(way), client)

    async def main_loop(self) -> None:
        """Wait for the end. (uvicorn's own loop wakes ten times a second to look for it.)"""
        await self._ended.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._acceptor.stop()
        await super().shutdown(sockets)
        if self._hello is not None:
            self._hello.close()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """A signal is an ordinary end here, not something to die of afterwards."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.end)
        yield

    def end(self) -> None:
        """Begin to end: close every WebSocket with 1001 and leave."""
        self.should_exit = True
        self._ended.set()


async def serve(
    listener: socket.socket, control_path: str, hosts: HostPolicy, *,
    handover: socket.socket | None = None, page: str | None = None, aliases: Mapping[str, str] = NONE,
    tls: bool = False, limits: Limits | None = None,
) -> None:  # fmt: skip
    """Serve until SIGTERM, SIGINT or the end of the supervisor. Raises OSError.

    `listener` is a bound TCP socket; connections inherit its keep-alive probes, which find clients that
    have vanished without a word. `handover` is where the supervisor hands us local clients, `page` the
    directory of the user's own page, `aliases` further directories by the prefix of their addresses. With
    `tls` the handover socket also brings the certificate, before which nobody is served over TCP. `limits`:
    what one address may.
    """
    for option, value in (
        (socket.TCP_KEEPIDLE, bounds.PROBE_IDLE_SECONDS),
        (socket.TCP_KEEPINTVL, bounds.PROBE_SECONDS),
        (socket.TCP_KEEPCNT, bounds.PROBES),
    ):
        listener.setsockopt(socket.IPPROTO_TCP, option, value)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    gateway = Gateway(control_path, hosts, limits)
    settings = configuration(gateway, page, aliases)
    server = Server(settings, gateway, listener, handover, Tls() if tls else None)
    await server.serve()
    listener.close()
    if server.failure is not None:
        raise server.failure


def configuration(
    gateway: Gateway, page: str | None = None, aliases: Mapping[str, str] = NONE
) -> uvicorn.Config:
    """uvicorn's settings: no log of requests, no trust in forwarding headers, finite waits."""
    state: dict[str, Any] = {"gateway": gateway}
    return uvicorn.Config(
        application(gateway.hosts, state, page, aliases),
        loop="asyncio",
        http=Listener,
        ws=Door,
        lifespan="on",
        interface="asgi3",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        backlog=bounds.BACKLOG,
        timeout_keep_alive=bounds.KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=bounds.STOP_SECONDS,
        h11_max_incomplete_event_size=bounds.HEAD_BYTES,
    )
