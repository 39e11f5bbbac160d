"""The doors for the network of a device that has booted: opened when its system is there. Boot module.

`Plan.doors` says where they are. What they need may come later (an address, the state directory), so
everything is tried again until it is there, and nothing of it is a reason not to boot.
"""

from __future__ import annotations

import _socket
import os
import stat
import sys

from initspawn.boot.supervise import GATEWAY
from initspawn.limits import CONNECTIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from initspawn.boot.supervise import Main
    from initspawn.plan import Plan

_RETRY_SECONDS = 5.0


def with_place(plan: Plan, run_dir: str) -> Plan:
    """The plan, with the directory made that its gateway sees; where that cannot be, without doors."""
    if plan.doors is None:
        return plan
    place = os.path.join(run_dir, GATEWAY)
    try:
        os.makedirs(run_dir, 0o700, exist_ok=True)
        os.makedirs(place, exist_ok=True)
        os.chmod(place, 0o711)  # whatever our umask: the gateway is another user
    except OSError as error:
        _tell(f"no doors for the network: {place}: {error.strerror}")
        return plan.replace(doors=None, apis=tuple(api for api in plan.apis if not api.hidden))
    return plan


class Remote:
    """Opens what `main` has for the network, once."""

    def __init__(self, main: Main, doors: dict[str, Any]) -> None:
        self._main = main
        self._doors = doors
        self._said = ""
        self._open = self._stored = False

    def open(self) -> None:
        """Now, or as soon as it can be."""
        if not self._stored:
            self._stored = self._store()
        if not self._open:
            self._open = self._listen()
        if not (self._open and self._stored):
            self._main.reactor.after(_RETRY_SECONDS, self.open)

    def _listen(self) -> bool:
        host, port = self._doors["host"], self._doors["port"]
        family = _socket.AF_INET6 if ":" in host else _socket.AF_INET
        listener = _socket.socket(family, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        try:
            listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(CONNECTIONS)
        except OSError as error:
            listener.close()
            self._say(f"no door for the network yet: {host} port {port}: {error.strerror}")
            return False
        start = self._main.start
        start |= {"listen": listener.fileno(), "announce": f"initspawn: ready at {host} port {port}"}
        try:
            self._main.open_network()
        except OSError as error:  # a full /run
            del start["listen"]
            listener.close()
            self._say(f"no door for the network yet: {error.filename or GATEWAY}: {error.strerror}")
            return False
        listener.detach()
        return True

    def _store(self) -> bool:
        """From now on the tokens of the state directory count, and the audit log is kept there; where that
        cannot be written, in the run directory.
        """
        from initspawn.control.state import State

        directory, old = self._doors["state"], self._main.state
        assert old is not None
        try:
            found = os.lstat(directory)
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
                self._say(f"no tokens: {directory} is not a directory of ours that only we can write")
                return False
            try:
                new = State(directory, self._main.reactor, self._main.tokens)
                old.close(remove=False)
            except OSError:  # read-only
                new = State(directory, self._main.reactor, self._main.tokens, audit=old.audit)
                old.close(remove=False, audit=False)
        except OSError as error:
            self._say(f"no tokens yet: {directory}: {error.strerror}")
            return False
        self._main.state = new
        self._main.registry.audit = new.audit.record
        return True

    def _say(self, line: str) -> None:
        if line != self._said:
            self._said = line
            _tell(line)


def _tell(line: str) -> None:
    print(f"<4>initspawn: {line}", file=sys.stderr, flush=True)
