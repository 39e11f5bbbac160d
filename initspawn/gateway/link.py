"""One connection to the supervisor's control socket, as an asyncio protocol with flow control.

Every client connection has a link of its own, so the supervisor can hold the events of one slow
client back without delaying another. The requests of one HTTP connection share it, one after the other, and
so does the WebSocket it may become.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from typing import Protocol, cast

from initspawn.control.wire import FrameReader, pack
from initspawn.gateway.bounds import CLOSE_SECONDS, LINK_BYTES
from initspawn.gateway.quota import Guest, Quotas

# What was read last, of any link: it is cut into frames before another one is read. asyncio's own read takes
# eight times as much, all of which a client that does not read would make us hold.
_space = memoryview(bytearray(LINK_BYTES))


class Owner(Protocol):
    """Who is told what happens on a link."""

    def link_received(self, bodies: list[bytes]) -> None:
        """Frame bodies from the supervisor, in order."""

    def link_full(self, full: bool) -> None:
        """The supervisor does not keep up with our calls (True), or does again (False)."""

    def link_lost(self, reason: str) -> None:
        """The link has ended; not called after `Link.close`."""


class Link(asyncio.BufferedProtocol):
    """A control connection. Use `open_link` to get one."""

    def __init__(self, owner: Owner) -> None:
        self._owner: Owner | None = owner
        self._reader = FrameReader()
        self._transport: asyncio.Transport
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, _: int) -> memoryview:
        return _space

    def buffer_updated(self, count: int) -> None:
        if self._owner is None:
            return
        if bodies := self._reader.feed(bytes(_space[:count])):
            self._owner.link_received(bodies)
        if self._reader.fault is not None:
            self._end(self._reader.fault)
            self._transport.abort()

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

    def hand_over(self, owner: Owner) -> bool:
        """From now on another owner is told; False if the link has ended."""
        if self._owner is None or self._transport.is_closing():
            return False
        self._owner = owner
        return True

    def send(self, bodies: Iterable[bytes]) -> None:
        """Hand frame bodies to the supervisor. Raises ValueError for one larger than a frame."""
        self._transport.write(b"".join(map(pack, bodies)))

    def hold(self, hold: bool) -> None:
        """Stop reading (True) or read again (False): the supervisor then holds events back."""
        if hold:
            self._transport.pause_reading()
        elif not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self, reason: str | None = None) -> None:
        """Send what is waiting, then end; the owner hears no more than the reason, if there is one.

        Only our half is closed: the supervisor shall not stumble over the calls that are on their way to it
        because it cannot answer them. It closes its half when it has read them.
        """
        if reason is None:
            self._owner = None
        else:
            self._end(reason)
        if self._timer is None and not self._transport.is_closing():
            self._transport.write_eof()
            self._transport.resume_reading()
            self._timer = asyncio.get_running_loop().call_later(CLOSE_SECONDS, self._transport.abort)

    def _end(self, reason: str) -> None:
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.link_lost(reason)


class Way:
    """How one client's connection reaches the supervisor: its link, made when it is needed.

    `guest`: what it may ask for, shared with other connections of its address. `path`: the door for clients
    whom only a token identifies. `control`: an open control connection that the supervisor has made for this
    very client, which is used instead.
    """

    def __init__(self, path: str, quotas: Quotas, guest: Guest, control: socket.socket | None = None) -> None:
        self.guest = guest
        self._quotas = quotas
        self._path = path
        self._open = True
        self._control = control
        self._link: Link | None = None

    async def link(self, owner: Owner) -> Link:
        """The link, which from now on belongs to `owner`. Raises OSError if there is none to be had."""
        if self._link is None or not self._link.hand_over(owner):
            self._link = await (self._adopt(owner) if self._control else open_link(self._path, owner))
        return self._link

    async def _adopt(self, owner: Owner) -> Link:
        control, self._control = self._control, None
        assert control is not None
        return await _start(control, owner)

    def close(self) -> None:
        """The client has gone: what it has asked for is still sent. May be called again."""
        if self._open:
            self._open = False
            self._quotas.leave(self.guest)
        if self._link is not None:
            self._link.close("the client has gone")
        if self._control is not None:
            self._control.close()
        self._link = self._control = None


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
    return await _start(connection, owner)


async def _start(connection: socket.socket, owner: Owner) -> Link:
    loop = asyncio.get_running_loop()
    _, link = await loop.create_unix_connection(lambda: Link(owner), sock=connection)
    return link
