"""One connection to the supervisor's control socket, as an asyncio protocol with flow control.

Every WebSocket connection has a link of its own, so the supervisor can hold the events of one slow
client back without delaying another.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from typing import Protocol, cast

from initspawn.control.wire import FrameReader, WireError, pack
from initspawn.gateway.bounds import CLOSE_SECONDS


class Owner(Protocol):
    """Who is told what happens on a link."""

    def link_received(self, bodies: list[bytes]) -> None:
        """Frame bodies from the supervisor, in order."""

    def link_full(self, full: bool) -> None:
        """The supervisor does not keep up with our calls (True), or does again (False)."""

    def link_lost(self, reason: str) -> None:
        """The link has ended; not called after `Link.close`."""


class Link(asyncio.Protocol):
    """A control connection. Use `open_link` to get one."""

    def __init__(self, owner: Owner) -> None:
        self._owner: Owner | None = owner
        self._reader = FrameReader()
        self._transport: asyncio.Transport
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._owner is None:
            return
        try:
            bodies = self._reader.feed(data)
        except WireError as error:
            self._end(str(error))
            self._transport.abort()
            return
        self._owner.link_received(bodies)

    def pause_writing(self) -> None:
        if self._owner is not None:
            self._owner.link_full(True)

    def resume_writing(self) -> None:
        if self._owner is not None:
            self._owner.link_full(False)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._end(str(exc or "closed by the supervisor"))

    def send(self, bodies: Iterable[bytes]) -> None:
        """Hand frame bodies to the supervisor. Raises ValueError for one larger than a frame."""
        self._transport.write(b"".join(map(pack, bodies)))

    def hold(self, hold: bool) -> None:
        """Stop reading (True) or read again (False): the supervisor then holds events back."""
        if hold:
            self._transport.pause_reading()
        elif not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        """Send what is waiting, then end; the owner hears nothing any more.

        Only our half is closed: the supervisor shall not stumble over the calls that are on their way to it
        because it cannot answer them. It closes its half when it has read them.
        """
        self._owner = None
        if not self._transport.is_closing():
            self._transport.write_eof()
            self._transport.resume_reading()
            self._timer = asyncio.get_running_loop().call_later(CLOSE_SECONDS, self._transport.abort)

    def _end(self, reason: str) -> None:
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.link_lost(reason)


async def open_link(path: str, owner: Owner) -> Link:
    """Connect to the control socket at `path`. Raises OSError.

    Connecting to a unix socket never waits: it is done at once or fails (EAGAIN: the queue is full).
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    loop = asyncio.get_running_loop()
    _, link = await loop.create_unix_connection(lambda: Link(owner), sock=connection)
    return link
