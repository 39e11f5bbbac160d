"""The gateway, with all it needs of us: its door, the sockets whose clients it is handed, its certificate."""

from __future__ import annotations

import _socket
import os

from initspawn.control.server import Door, ServiceDoor, listen, remove_stale
from initspawn.supervisor.keeper import Keeper
from initspawn.supervisor.reactor import READ
from initspawn.verbs.access import EVERYTHING, NOBODY, Identity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from initspawn.boot.supervise import Main
    from initspawn.control.certificate import Certificate
    from initspawn.plan import Api

DOOR = "gateway/door"  # its socket, alone in a directory that its sandbox sees
_MESSAGE_BYTES = 512  # of a message of its own


class Front:
    """What `start` asks for (see boot/supervise) of the gateway that `api` is; `on_connect` is called when it
    has connected. The unix sockets are closed with it, the network's is not.

    Raises OSError, CertificateError; then nothing of it is left.
    """

    def __init__(self, main: Main, api: Api, start: dict[str, Any], on_connect: Callable[[], None]) -> None:
        self._main = main
        self._keeper: Keeper | None = None
        self._certificate: Certificate | None = None
        self._doors: list[Door] = []
        self._services = [(_socket.socket(fileno=fd), protocol) for fd, protocol in start.get("unix", ())]
        self._pair: tuple[_socket.socket, ...] = ()
        try:
            self._open(api, start, on_connect)
        except BaseException:
            self.close()
            raise

    def run(self, *, wanted: bool) -> None:
        """Have the gateway run from now on, or not."""
        if self._keeper is not None and wanted:
            self._keeper.start()
        elif self._keeper is not None:
            self._keeper.stop()

    def close(self) -> None:
        """Close its doors; the gateway is ended with the other tasks."""
        for door in self._doors:
            door.close()
        self._doors.clear()
        for listener, _ in self._services:  # those without a door yet
            listener.close()
        self._services.clear()
        for ours in self._pair:
            self._main.reactor.forget(ours.fileno())
            ours.close()
        self._pair = ()

    def _open(self, api: Api, start: dict[str, Any], on_connect: Callable[[], None]) -> None:
        main = self._main
        self._pair = ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        everybody = Identity(kind="token", scopes=frozenset((EVERYTHING,)), name="everybody")
        stranger = everybody if start.get("open") else NOBODY
        shared: dict[str, Any] = {
            "reactor": main.reactor, "registry": main.registry, "tokens": main.tokens,
        }  # fmt: skip
        path = os.path.join(main.run_dir, DOOR)
        remove_stale(path)
        door = Door(
            listen(path), name="network", identify=lambda *_: stranger, on_connect=on_connect, **shared
        )
        self._doors.append(door)
        command = api.commands[0]
        sandbox = api.sandbox(command.sandbox)
        if sandbox.groups is not None:
            os.chown(path, sandbox.user, sandbox.group)  # only the gateway's user may connect
        while self._services:
            listener, protocol = self._services[0]
            os.set_inheritable(listener.fileno(), False)
            door = ServiceDoor(
                listener, ours, protocol.encode(), name=f"unix {protocol}",
                serving=lambda: self._keeper is not None and self._keeper.serving,
                identify=lambda user, pid, fd: main.peer(user, pid, fd, stranger), **shared,
            )  # fmt: skip
            self._doors.append(door)
            del self._services[0]
        main.reactor.watch(ours.fileno(), READ, lambda _: self._hear(ours))
        if "tls" in start:
            from initspawn.control.certificate import Certificate

            self._certificate = Certificate(start["tls"], ours, main.reactor)
            main.registry.about["tls"] = self._certificate.about
        if not main.supervisor.roster.barred:  # a door to the network is a use of it
            descriptors = (start["listen"], theirs.fileno())
            self._keeper = Keeper(main.supervisor, api, command, descriptors, self._introduce)

    def _hear(self, ours: _socket.socket) -> None:
        """What the gateway says of its certificate; it is not trusted."""
        try:
            message = ours.recv(_MESSAGE_BYTES, _socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        word, _, rest = message.partition(b" ")
        if word == b"tls" and self._certificate is not None:
            self._certificate.answered(rest)

    def _introduce(self) -> None:
        """A gateway is about to start."""
        if self._certificate is not None:
            self._certificate.introduce()
