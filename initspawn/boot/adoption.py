"""The supervisor's side of an adoption: systemd has started the unit, and its process asks for us.

One packet each way, on a socket of its own because descriptors come along: lines `group PATH`,
`notify ADDRESS`, `watchdog MICROSECONDS`, with a new standard output and standard error; answered with
`pid NUMBER`, or with `error TEXT`. What can fail comes before anything is moved, because from then on the
unit's failure is our end. Boot module.
"""

from __future__ import annotations

import _socket
import os
import struct

from initspawn.boot.notify import notify
from initspawn.control.server import who
from initspawn.linux import cgroup, process
from initspawn.linux.libc import missing
from initspawn.say import say
from initspawn.supervisor.moving import move
from initspawn.supervisor.reactor import READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from initspawn.boot.supervise import Main
    from initspawn.supervisor.core import Supervisor

SOCKET = "adopt"  # in the run directory
PACKET = 4096
SPACE = _socket.CMSG_SPACE(2 * 4)
_REQUEST_SECONDS = 5.0
_TRIES, _PAUSE = 500, 0.01  # until nobody is on the way to an exec


class Unit:
    """What we tell systemd as a unit's main process; it depends on no door."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._address = ""
        self._pause = 0.0

    def serve(self, address: str, watchdog: str) -> None:
        """From now on be a unit's main process: tell systemd that we live, as often as it wants to hear it.
        `watchdog`: microseconds, as in WATCHDOG_USEC; empty: it does not.
        """
        self._address = address
        was, self._pause = self._pause, int(watchdog) / 2e6 if watchdog.isdecimal() else 0.0
        if self._pause and not was:
            self._renew()

    def tell(self, text: str) -> None:
        """Tell systemd something; nothing happens while we belong to no unit."""
        try:
            notify(self._address, text, wait=False)
        except OSError as error:  # it shuts down
            say(f"{self._address}: {error.strerror}")

    def _renew(self) -> None:
        if self._pause and not self._supervisor.closing:
            self.tell("WATCHDOG=1")
            self._supervisor.reactor.after(self._pause, self._renew)


class Adoption:
    """The socket `adopt` of a supervisor, by which a unit has it. Raises OSError."""

    def __init__(self, main: Main, unit: Unit, on_adopted: Callable[[], None]) -> None:
        self._main = main
        self._unit = unit
        self._on_adopted = on_adopted
        path = os.path.join(main.run_dir, SOCKET)
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        self._path = path
        kind = _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
        self._socket = _socket.socket(_socket.AF_UNIX, kind)
        self._socket.bind(path)
        os.chmod(path, 0o600)
        self._socket.listen(4)
        main.reactor.watch(self._socket.fileno(), READ, lambda _: self._accept())

    def close(self) -> None:
        """Remove the socket."""
        self._main.reactor.forget(self._socket.fileno())
        self._socket.close()
        try:
            os.unlink(self._path)
        except OSError:
            pass

    def _accept(self) -> None:
        try:
            fd, _ = self._socket._accept()  # type: ignore[attr-defined]  # `socket` is built on it
        except OSError as error:  # gone again
            if missing(error):
                raise  # the loop makes room, or waits
            return
        peer = _socket.socket(fileno=fd)
        peer.setblocking(False)
        user, pid, pidfd = who(peer)
        try:
            trusted = user in (0, os.geteuid()) and not process.is_ours(pid, pidfd)
        finally:
            if pidfd >= 0:
                os.close(pidfd)
        if not trusted:
            self._answer(peer, [], "error only root may adopt")
            return

        def late() -> None:
            self._main.reactor.forget(fd)
            self._answer(peer, [], "error no request came")

        timer = self._main.reactor.after(_REQUEST_SECONDS, late)

        def heard(_: int) -> None:
            timer.cancel()
            self._main.reactor.forget(fd)
            self._hear(peer, pid)

        self._main.reactor.watch(fd, READ, heard)

    def _hear(self, peer: _socket.socket, pid: int) -> None:
        """What it asks for, and the descriptors that come with it."""
        fds: list[int] = []
        try:
            packet, messages, _, _ = peer.recvmsg(PACKET, SPACE, _socket.MSG_CMSG_CLOEXEC)
            for _, _, data in messages:
                fds += struct.unpack(f"{len(data) // 4}i", data[: len(data) // 4 * 4])
            words = dict(line.split(" ", 1) for line in packet.decode().splitlines())
            group = words["group"]
            if len(fds) != 2 or not os.access(f"{group}/cgroup.procs", os.W_OK):
                raise ValueError(f"{group}: no cgroup that is handed to us")
        except (ValueError, KeyError, OSError) as error:
            self._answer(peer, fds, f"error {error}")
            return
        self._main.supervisor.reserve.close()  # what waits is nobody's, and is made anew afterwards
        self._when_still(_TRIES, peer, pid, words, fds)

    def _when_still(
        self, tries: int, peer: _socket.socket, pid: int, words: dict[str, str], fds: list[int]
    ) -> None:
        """Go on when nothing is on the way to its exec."""
        supervisor = self._main.supervisor
        if supervisor.roster.starting or not supervisor.reserve.empty:
            if tries:
                self._main.reactor.after(_PAUSE, lambda: self._when_still(tries - 1, peer, pid, words, fds))
                return
            self._answer(peer, fds, "error starts do not come to an end")
        else:
            try:
                every = supervisor.roster.every()
                move(supervisor.groups, words["group"], supervisor.plan, every, pid)
                for fd, ours in zip(fds, (1, 2), strict=True):
                    os.dup2(fd, ours, inheritable=True)
            except OSError as error:
                self._answer(peer, fds, f"error {error.filename or ''}: {error.strerror}")
            else:
                self._answer(peer, fds, f"pid {os.getpid()}")
                self._unit.serve(words.get("notify", ""), words.get("watchdog", ""))
                count = len(supervisor.roster.every())
                self._on_adopted()
                self._unit.tell(f"STATUS=taken over before systemd, with {count} running tasks")
        supervisor.reserve.fill(supervisor.plan)

    @staticmethod
    def _answer(peer: _socket.socket, fds: list[int], text: str) -> None:
        say(f"adoption: {text}")
        try:
            peer.send(text.encode())
        except OSError:
            pass
        peer.close()
        for fd in fds:
            os.close(fd)


def own_group() -> str:
    """The directory of the cgroup we are in. Raises OSError."""
    root = cgroup.mount_point()
    if root is None:
        raise FileNotFoundError(2, "no cgroup v2 file system", "/sys/fs/cgroup")
    return root + cgroup.own_path().rstrip("/")
