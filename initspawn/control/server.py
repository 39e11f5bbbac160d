"""The control socket's server: local clients, and the gateway on behalf of remote ones."""

from __future__ import annotations

import _socket
import errno
import os
import stat
import struct

from initspawn.control import wire
from initspawn.control.connection import Connection
from initspawn.limits import CONNECTIONS
from initspawn.linux.libc import missing
from initspawn.supervisor.reactor import READ
from initspawn.supervisor.room import CLIENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from initspawn.supervisor.reactor import Reactor
    from initspawn.verbs.access import Identity, Tokens
    from initspawn.verbs.registry import Registry

_ACCEPT_PAUSE = 0.1  # seconds
_LOCAL = "control"  # the door whose clients may use what descriptors there are
_SO_PEERPIDFD = 77  # include/uapi/asm-generic/socket.h, since Linux 6.5
GONE = -1  # the pid of a peer that is no more: nobody's


def listen(path: str, mode: int = 0o600) -> _socket.socket:
    """A unix socket that listens at `path`, which begins with NUL for an abstract one. Raises OSError."""
    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK)
    before = os.umask(0o777 & ~mode)
    try:
        listener.bind(path)
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(before)
    return listener


def listen_tcp(host: str, port: int) -> _socket.socket:
    """A socket that listens at an address of this machine. Raises OSError."""
    listener = _socket.socket(_socket.AF_INET6 if ":" in host else _socket.AF_INET)
    try:
        listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(CONNECTIONS)
    except OSError:
        listener.close()
        raise
    return listener


def listen_unix(path: str) -> _socket.socket:
    """A unix socket that is open to every user: the credentials of its peers decide. A socket that nobody
    listens on any more gives way to it. Raises OSError.
    """
    try:
        stale = not path.startswith("\0") and stat.S_ISSOCK(os.lstat(path).st_mode)  # else bind says why not
    except FileNotFoundError:
        stale = False
    if stale:
        probe = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except BlockingIOError:  # more want to be let in than are
            pass
        finally:
            probe.close()
    return listen(path, 0o666)


def remove_stale(path: str) -> None:
    """A socket that an earlier supervisor left; whoever may write here is us. Raises OSError."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def who(peer: _socket.socket) -> tuple[int, int, int]:
    """Who has connected, as the kernel knows it: user, pid (GONE: it has ended), and a pidfd that the caller
    closes; -1 where the kernel gives none. Raises OSError, also where there is no room for it.
    """
    pid, user, _ = struct.unpack("3i", peer.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12))
    try:
        return user, pid, peer.getsockopt(_socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError as error:
        if missing(error):
            raise
        return user, pid if error.errno == errno.ENOPROTOOPT else GONE, -1


class Door:
    """A listening socket. `identify` says who a peer is from its user number, its pid and its pidfd, which is
    -1 on a kernel that has none for it.
    """

    def __init__(
        self,
        listener: _socket.socket,
        *,
        name: str,
        reactor: Reactor,
        registry: Registry,
        tokens: Tokens,
        identify: Callable[[int, int, int], Identity],
        on_connect: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name  # in the audit log
        self.reactor = reactor
        self.registry = registry
        self.tokens = tokens
        self.connections: set[Connection] = set()
        self._identify = identify
        self._on_connect = on_connect
        self._socket = listener
        reactor.watch(listener.fileno(), READ, lambda _: self._accept())
        tokens.on_change.append(self._recheck)

    def _recheck(self) -> None:
        for connection in list(self.connections):
            connection.recheck()

    def _pause(self, then: Callable[[], None] = lambda: None) -> None:
        """Let nobody in for a moment."""

        def go_on() -> None:
            if self._socket.fileno() >= 0:
                self.reactor.change(self._socket.fileno(), READ)
                then()

        self.reactor.after(_ACCEPT_PAUSE, go_on)  # first, or there may be no memory to hear again
        self.reactor.change(self._socket.fileno(), 0)

    def close(self) -> None:
        """Close the socket and all connections, and remove its path."""
        path = self._socket.getsockname()
        self.tokens.on_change.remove(self._recheck)
        self.reactor.forget(self._socket.fileno())
        self._socket.close()
        for connection in list(self.connections):
            connection.close()
        if isinstance(path, str):
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass

    def _accept(self) -> None:
        try:
            fd, _ = self._socket._accept()  # type: ignore[attr-defined]  # `socket` is built on it
        except OSError as error:  # gone again, or no descriptors left: in a moment, not at once and for ever
            if (number := missing(error)) and self.reactor.room.spend(number):
                return  # it still waits, and there is room now
            self._pause()
            return
        try:
            peer = _socket.socket(fileno=fd)
        except BaseException:
            os.close(fd)
            raise
        os.set_inheritable(fd, False)
        peer.setblocking(False)
        if len(self.connections) >= self.registry.limits["connections"]:
            self._refuse(peer, f"{len(self.connections)} connections are open already")
            return
        if self.name != _LOCAL and fd >= self.reactor.room.ceiling(CLIENT):
            self.reactor.room.lack(errno.EMFILE)
            self._refuse(peer, "there are no descriptors left for another connection")
            return
        self._meet(peer)

    def _meet(self, peer: _socket.socket) -> None:
        """Admit this peer, as soon as there is room to see who it is; nobody else comes in before it."""
        try:
            self._welcome(peer)
        except (OSError, MemoryError) as error:
            if not (number := missing(error)):
                raise
            if self.reactor.room.spend(number):
                self._meet(peer)
            else:
                self._pause(lambda: self._meet(peer))
            return
        try:
            self._on_connect()
        except MemoryError:
            self.reactor.after(0, self._on_connect)

    def _welcome(self, peer: _socket.socket) -> None:
        """See who it is, and admit them. Raises OSError."""
        user, pid, pidfd = who(peer)
        try:
            identity = self._identify(user, pid, pidfd)
        finally:
            if pidfd >= 0:
                os.close(pidfd)
        self._admit(peer, identity, user)

    def _refuse(self, peer: _socket.socket, why: str) -> None:
        """There is no room for it."""
        try:
            peer.send(wire.encode({"fault": why}))
        except OSError:  # it has gone again
            pass
        peer.close()

    def _admit(self, peer: _socket.socket, identity: Identity, user: int) -> None:
        """Talk to this peer, which is who we say and has this user number. Raises OSError."""
        self._talk(peer, identity)

    def _talk(self, sock: _socket.socket, identity: Identity) -> Connection:
        """What is said through this socket is this one's. Raises OSError; then nothing has changed."""
        connection = Connection(self, sock, identity)
        self.connections.add(connection)
        try:
            self.reactor.watch(sock.fileno(), READ, connection.on_ready)
        except BaseException:
            self.connections.discard(connection)
            raise
        return connection


class ServiceDoor(Door):
    """A unix socket whose clients speak another protocol, which the gateway parses.

    It is handed the client and a control connection made for it, whose identity is that of the client's
    credentials. So a gateway that was taken over can act for a local user only while that one is connected.

    `gateway`: where to hand them to, a SOCK_SEQPACKET socket. `protocol`: what they speak; the message that
    goes with them is their user number and this. `serving`: whether a gateway is there; without, who comes
    is hung up on.
    """

    def __init__(
        self, listener: _socket.socket, gateway: _socket.socket, protocol: bytes,
        serving: Callable[[], bool], **others: Any,
    ) -> None:  # fmt: skip
        super().__init__(listener, **others)
        self._serving = serving
        self._gateway = gateway
        self._protocol = protocol

    def _refuse(self, peer: _socket.socket, why: str) -> None:
        peer.close()

    def _admit(self, peer: _socket.socket, identity: Identity, user: int) -> None:
        if not self._serving():  # they would wait, each with its descriptors, until nobody can connect
            peer.close()
            return
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK)
        try:
            # The client is sent last: who asks again for want of memory sends it for the first time.
            connection = self._talk(ours, identity)
        except BaseException:
            ours.close()
            theirs.close()
            raise
        try:
            self._send(connection, peer, theirs, b"%d %b" % (user, self._protocol))
        finally:
            theirs.close()
        peer.close()

    def _send(
        self, connection: Connection, peer: _socket.socket, theirs: _socket.socket, message: bytes
    ) -> None:
        """To the gateway; if that fails, the connection made for it is closed."""
        try:
            descriptors = struct.pack("2i", peer.fileno(), theirs.fileno())
            rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, descriptors)
            self._gateway.sendmsg([message], [rights], _socket.MSG_DONTWAIT)
        except MemoryError:
            connection.close()
            raise
        except OSError:  # the gateway does not keep up, or is not there
            connection.close()
