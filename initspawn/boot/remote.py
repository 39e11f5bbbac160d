"""The doors for the network of a device that has booted: opened when its system is there. Boot module.

`Plan.doors` says where they are. What they need may come later (an address, the state directory), so
everything is tried again until it is there, and nothing of it is a reason not to boot.
"""

from __future__ import annotations

import os
import stat

from initspawn.boot.log import WARNING, tell
from initspawn.boot.supervise import GATEWAY
from initspawn.errors import InitspawnError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from initspawn.boot.supervise import Main
    from initspawn.plan import Plan

_RETRY_SECONDS = 5.0
_LOOK_SECONDS = 30.0  # between looks whether another file system lies where the state directory is


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
        tell(f"no doors for the network: {place}: {error.strerror}", WARNING)
        return plan.replace(doors=None, apis=tuple(api for api in plan.apis if not api.hidden))
    return plan


class Remote:
    """Opens what `main` has for the network, once."""

    def __init__(self, main: Main, doors: dict[str, Any]) -> None:
        self._main = main
        self._doors = doors
        self._said = ""
        self._open = False
        self._place: tuple[int, int] | None = None  # of the state directory: device, inode
        self._borrowed = False  # whether its audit log is still the run directory's

    def open(self) -> None:
        """Now, or as soon as it can be."""
        stored = self._store()  # again and again: /var may be mounted, or be made writable, after us
        if not self._open:
            self._open = self._listen()
        done = self._open and stored
        self._main.reactor.after(_LOOK_SECONDS if done else _RETRY_SECONDS, self.open)

    def _listen(self) -> bool:
        from initspawn.control.server import listen_tcp, listen_unix

        host, port = self._doors["host"], self._doors["port"]
        start, listeners, place = self._main.start, [], f"{host} port {port}"
        try:
            listeners.append(listen_tcp(host, port))  # a kernel without IPv6; no such address yet
            for path, _ in self._doors["unix"]:
                place = path.replace("\0", "@")
                listeners.append(listen_unix(path))
        except OSError as error:
            for listener in listeners:
                listener.close()
            self._say(f"no door for the network yet: {place}: {error.strerror}")
            return False
        services = zip(listeners[1:], self._doors["unix"], strict=True)
        start |= {
            "listen": listeners[0].fileno(),
            "unix": [(listener.detach(), protocol) for listener, (_, protocol) in services],
            "announce": f"initspawn: ready at {host} port {port}",
        }
        try:
            self._main.open_network()
        except (OSError, InitspawnError) as error:  # a full /run; a certificate that is not there yet
            del start["listen"], start["unix"]
            listeners[0].close()
            why = f"{error.filename or GATEWAY}: {error.strerror}" if isinstance(error, OSError) else error
            self._say(f"no door for the network yet: {why}")
            return False
        listeners[0].detach()
        return True

    def _store(self) -> bool:
        """From now on the tokens of the state directory count, and the audit log is kept there; where that
        cannot be written, in the run directory.
        """
        from initspawn.control.state import State

        directory, old = self._doors["state"], self._main.state
        if old is None:  # the doors are shut, and opened again soon
            return False
        try:
            found = os.lstat(directory)
            place = (found.st_dev, found.st_ino)
            if place == self._place and not self._borrowed:
                return True
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
        self._place, self._borrowed = place, new.audit is old.audit
        self._main.state = new
        self._main.registry.audit = new.audit.record
        return not self._borrowed

    def _say(self, line: str) -> None:
        if line != self._said:
            self._said = line
            tell(line, WARNING)
