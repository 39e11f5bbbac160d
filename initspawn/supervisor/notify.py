"""What commands tell of themselves by sd_notify(3): sockets, who a message is from, and what it says.

Loaded where a plan's commands notify. Each sandbox with such commands has a socket of its own. With a root of
its own it is a file there, which nobody else can fill; with the host's files it is an abstract name, in its
network namespace. The kernel says who has sent a message. Descriptors are never taken in.
"""

from __future__ import annotations

import _socket
import os
import struct

from initspawn.limits import NOTIFIES, NOTIFY_BYTES, NOTIFY_PERIOD
from initspawn.plan import NOTIFY_PATH, Mount, notifies
from initspawn.say import say
from initspawn.supervisor.reactor import READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from initspawn.plan import Api, Plan, Sandbox
    from initspawn.supervisor.reactor import Reactor

    # A message with its sandbox (API, uid) and its sender's pid; the answer is why it is ignored, or empty.
    Hear = Callable[[tuple[str, str], int, "Message"], str]

_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid (unix(7))
# Room for the credentials and nothing else: the kernel itself closes what was sent along (cmsg(3)).
_SPACE = _socket.CMSG_SPACE(_CREDENTIALS.size)
_KIND = _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
_LONGEST_STATUS = 200  # characters
_LONGEST_TIME = 10**15  # microseconds


class Message:
    """One message: what of it is understood."""

    __slots__ = ("alive", "extend", "failed", "ready", "status", "stopping")

    def __init__(self) -> None:
        self.ready = False
        self.stopping = False
        self.alive = False  # the watchdog is fed
        self.failed = False  # the command says itself that it hangs
        self.status: str | None = None
        self.extend = 0.0  # seconds


def parse(data: bytes) -> Message | None:
    """What a datagram says; None if it is not as sd_notify(3) describes. What is unknown is passed over."""
    if not data or len(data) > NOTIFY_BYTES or b"\0" in data:
        return None
    try:
        lines = data.decode().split("\n")
    except UnicodeDecodeError:
        return None
    message = Message()
    for line in lines:
        name, equals, value = line.partition("=")
        if line and not (equals and name):
            return None
        if name == "STATUS":
            shown = "".join(character if character.isprintable() else " " for character in value)
            message.status = shown[:_LONGEST_STATUS]
        elif name == "EXTEND_TIMEOUT_USEC":
            if not value.isascii() or not value.isdecimal() or len(value) > 20:
                return None
            message.extend = min(int(value), _LONGEST_TIME) / 1e6
        elif name == "WATCHDOG":
            message.alive = message.alive or value == "1"
            message.failed = message.failed or value == "trigger"
        elif value == "1":
            message.ready = message.ready or name == "READY"
            message.stopping = message.stopping or name == "STOPPING"
    return message


def _addresses(sandbox: Sandbox) -> list[str]:
    """Where a sandbox's socket may be known by."""
    paths = [entry.source for entry in sandbox.mounts if entry.target == NOTIFY_PATH]
    return [*paths, *(value for name, value in sandbox.environment if name == "NOTIFY_SOCKET")]


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:  # there never was one, or binding says it
        pass


def _queue() -> int:
    """How many messages wait in a socket before senders must."""
    try:
        with open("/proc/sys/net/unix/max_dgram_qlen", "rb") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 10  # the kernel's own, unix(7)


class Notifications:
    """The sockets of a plan's sandboxes. What a first plan needs is to be made before any child."""

    def __init__(self, directory: str) -> None:
        """`directory`: where nobody else may write."""
        self.heard = 0
        self.ignored: dict[str, int] = {}
        self._directory = directory
        self.full: dict[tuple[str, str], float] = {}  # when a sandbox's socket was last found full
        self._queue = min(NOTIFIES, _queue())
        self._windows: dict[int, tuple[float, int]] = {}  # when the period began, how many have come in it
        self._made = 0
        self._sockets: dict[str, tuple[_socket.socket, str]] = {}  # by address, each with its path
        self._places: dict[int, tuple[str, str]] = {}  # API and sandbox, by the descriptor of the socket
        self._watch: Callable[[_socket.socket], None] = lambda sock: None

    def equip(self, plan: Plan) -> Plan:
        """The plan with a socket in each sandbox whose commands notify; one of its name has it already."""
        return plan.replace(apis=tuple(self._equipped(api) for api in plan.apis))

    def keep(self, sandboxes: Iterable[Sandbox], reactor: Reactor) -> None:
        """Close those that none of these sandboxes has."""
        needed = {address for sandbox in sandboxes for address in _addresses(sandbox)}
        for address in self._sockets.keys() - needed:
            self._drop(address, reactor)

    def serve(self, reactor: Reactor, hear: Hear) -> None:
        """Hand over the messages that come."""

        def watch(sock: _socket.socket) -> None:
            reactor.watch(sock.fileno(), READ, lambda _: self._read(reactor, sock, hear))

        self._watch = watch
        for sock, _ in self._sockets.values():
            watch(sock)

    def told(self) -> dict[str, Any]:
        """How many messages were heard, how many were not and why, and whose sockets were ever found full."""
        full = [f"{api}/{sandbox}" for api, sandbox in self.full]
        return {"heard": self.heard, "ignored": dict(self.ignored), "full": full}

    def close(self, reactor: Reactor) -> None:
        """Close the sockets, and remove their names."""
        self._watch = lambda sock: None
        for address in list(self._sockets):
            self._drop(address, reactor)

    def _drop(self, address: str, reactor: Reactor) -> None:
        sock, path = self._sockets.pop(address)
        self._places.pop(sock.fileno())
        self._windows.pop(sock.fileno(), None)
        reactor.forget(sock.fileno())
        sock.close()
        _remove(path)

    def _equipped(self, api: Api) -> Api:
        watchdogs: dict[str, list[float]] = {}
        for command in api.commands:
            if command.autostart is not None and notifies(command.autostart):
                watchdogs.setdefault(command.sandbox, []).append(command.autostart.watchdog)
        boxes = [
            self._try(api.api, box, watchdogs[box.uid]) if box.uid in watchdogs else box
            for box in api.sandboxes
        ]
        return api.replace(sandboxes=tuple(boxes)) if watchdogs else api

    def _try(self, api: str, sandbox: Sandbox, watchdogs: list[float]) -> Sandbox:
        """Its commands must do without where there can be no socket: /run may be full."""
        try:
            return self._with_socket(api, sandbox, watchdogs)
        except OSError as error:
            reason = error.strerror or error
            say(f"{api}: no socket for messages from {sandbox.uid}: {reason}")
            return sandbox

    def _with_socket(self, api: str, sandbox: Sandbox, watchdogs: list[float]) -> Sandbox:
        path, address = self._address(api, sandbox)
        own = {"NOTIFY_SOCKET": NOTIFY_PATH if path else address}
        intervals = [seconds for seconds in watchdogs if seconds]
        if intervals:
            own["WATCHDOG_USEC"] = str(int(min(intervals) * 1e6))
        # Whatever of it was inherited is another supervisor's.
        other = (*own, "WATCHDOG_PID", "WATCHDOG_USEC")
        kept = [(name, value) for name, value in sandbox.environment if name not in other]
        made = sandbox.replace(environment=(*kept, *own.items()))
        if path:
            entry = Mount(operation="bind", target=NOTIFY_PATH, source=path, read_only=True)
            made = made.replace(mounts=(*sandbox.mounts, entry))
        return made

    def _address(self, api: str, sandbox: Sandbox) -> tuple[str, str]:
        """The path and the address of a sandbox's socket, which may be there; its path is empty without a
        file. Raises OSError.
        """
        for address, (sock, path) in self._sockets.items():
            if self._places[sock.fileno()] == (api, sandbox.uid) and bool(path) == sandbox.new_root:
                return path, address
        sock = _socket.socket(_socket.AF_UNIX, _KIND)
        try:
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)
            path = ""
            address = f"@initspawn-notify-{os.urandom(8).hex()}"
            if sandbox.new_root:
                path = address = os.path.join(os.path.realpath(self._directory), f"notify-{self._made}")
                self._made += 1
                _remove(path)
                sock.bind(path)
                os.chmod(path, 0o666)  # whatever our umask: commands are other users; nobody else gets there
            else:
                sock.bind(f"\0{address[1:]}")
        except OSError:
            sock.close()
            raise
        self._sockets[address] = sock, path
        self._places[sock.fileno()] = api, sandbox.uid
        self._watch(sock)
        return path, address

    def _read(self, reactor: Reactor, sock: _socket.socket, hear: Hear) -> None:
        fd = sock.fileno()
        began, count = self._windows.get(fd, (0.0, 0))
        if reactor.clock() - began >= NOTIFY_PERIOD:
            began, count = reactor.clock(), 0
        before = count
        while count < NOTIFIES:
            try:
                data, extra, flags, _ = sock.recvmsg(NOTIFY_BYTES, _SPACE)
            except BlockingIOError:
                break
            count += 1
            why = self._understood(sock, data, extra, flags, hear)
            if why:
                self.ignored[why] = self.ignored.get(why, 0) + 1
            else:
                self.heard += 1
        self._windows[fd] = began, count
        if count >= NOTIFIES or count - before >= self._queue:
            self._note_full(self._places[fd], reactor.clock())
        if count >= NOTIFIES:  # whoever sends so many waits a little: others have work to be done too
            reactor.change(fd, 0)
            left = began + NOTIFY_PERIOD - reactor.clock()
            reactor.after(left, lambda: reactor.change(fd, READ) if sock.fileno() == fd else None)

    def _note_full(self, place: tuple[str, str], now: float) -> None:
        """Others may wait for room in this socket: who was not heard may have been kept from it."""
        if place not in self.full:
            said = f"{'/'.join(place)}: its socket for messages is full, watchdogs wait"
            say(said)
        self.full[place] = now

    def _understood(
        self,
        sock: _socket.socket,
        data: bytes,
        extra: list[tuple[int, int, bytes]],
        flags: int,
        hear: Hear,
    ) -> str:
        """Why a datagram is ignored; empty if it is not."""
        if flags & _socket.MSG_TRUNC:
            return "too long"
        message = parse(data)
        if message is None:
            return "malformed"
        senders = [
            _CREDENTIALS.unpack(value)[0]
            for level, kind, value in extra
            if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_CREDENTIALS)
            and len(value) == _CREDENTIALS.size
        ]
        if not senders or senders[0] <= 0:  # of a pid namespace that we cannot see into
            return "unknown sender"
        return hear(self._places[sock.fileno()], senders[0], message)

