"""Which devices are there, as a process of its own tells (`watcher`). Loaded when the first is waited for.

That process is not trusted: it is confined, and its records can say nothing but whether the devices are there
that the plan names. Where udevd runs it hears udevd, otherwise the kernel.
"""

from __future__ import annotations

import _socket
import os

from initspawn.plan import device_text
from initspawn.say import say
from initspawn.supervisor.keeper import Keeper
from initspawn.supervisor.paths import Paths
from initspawn.supervisor.reactor import READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from initspawn.plan import Api
    from initspawn.supervisor.core import Supervisor
    from initspawn.supervisor.reactor import Timer

    Device = tuple[tuple[str, str], ...]  # as `Autostart.devices` has it

KERNEL, UDEV = "kernel", "udev"  # commands of the watcher's API
CONTROL = "/run/udev/control"  # is there when udevd is
_REASON = 200  # bytes
_RECORDS = 16  # that are read at once
_SETTLE = 0.02  # seconds until the next are: whoever writes many waits
_HEARD = {KERNEL: "the kernel, so without udev's database", UDEV: "udevd"}


class Devices:
    """What is there of the devices that a plan's commands wait for; `on_change` is called when that is, or
    may be, different.
    """

    def __init__(
        self, supervisor: Supervisor, api: Api, wanted: list[Device], on_change: Callable[[], None]
    ) -> None:
        """`api`: the plan's watcher, which has been told of the devices that are `wanted`. Raises OSError."""
        self._reactor = supervisor.reactor
        self._on_change = on_change
        self._numbers = {device: n for n, device in enumerate(wanted)}
        self._there: tuple[bool, ...] | None = None  # None: not known yet
        self._hears = ""
        self._failure = ""
        self._ignored = 0
        self._timers: dict[str, Timer] = {}
        self._sockets = _pairs([command.uid for command in api.commands])
        self._keepers: dict[str, Keeper] = {}
        for command in api.commands:
            ours, theirs = self._sockets[command.uid]
            theirs.setblocking(True)
            self._keepers[command.uid] = Keeper(supervisor, api, command, (theirs.fileno(),))
            self._hear(ours.fileno(), command.uid)
        self._paths = Paths(self._reactor, self._choose)
        self._choose()

    @property
    def known(self) -> bool:
        """Whether it is known what is there, or that this will not be known."""
        return self._there is not None or bool(self._failure)

    def lacks(self, device: Device) -> str:
        """Why a device is not there, in words; empty if it is."""
        if self._failure:
            return f"devices cannot be followed: {self._failure}"
        if self._there is None:
            return "it is not known yet which devices are there"
        if self._there[self._numbers[device]]:
            return ""
        return f"there is no device with {device_text(device)}, says {_HEARD[self._hears]}"

    def told(self) -> dict[str, Any]:
        """What `info` says of it."""
        found = self._there or ()
        about = {"hears": self._hears, "known": self._there is not None, "there": sum(found)}
        about |= {"of": len(self._numbers), "starts": sum(one.starts for one in self._keepers.values())}
        about |= {"ignored": self._ignored} if self._ignored else {}
        return {**about, "why": self._failure} if self._failure else about

    def leave(self) -> None:
        """Follow none any more, while the supervisor goes on."""
        for keeper in self._keepers.values():
            keeper.stop()
        self.close()

    def close(self) -> None:
        """Follow none any more."""
        self._paths.close()
        for timer in self._timers.values():
            timer.cancel()
        for ours, theirs in self._sockets.values():
            self._reactor.forget(ours.fileno())
            ours.close()
            theirs.close()

    def _hear(self, fd: int, source: str) -> None:
        self._reactor.watch(fd, READ, lambda _: self._read(source))

    def _choose(self) -> None:
        """Whom to hear: asked anew whenever that may be another one."""
        self._paths.follow(CONTROL)
        source = UDEV if os.path.exists(CONTROL) else KERNEL
        if source != self._hears and not self._failure:
            if self._hears:
                self._keepers[self._hears].stop()
            self._hears = source
            _tell(f"heard from {_HEARD[source]}")
            self._keepers[source].start()

    def _read(self, source: str) -> None:
        ours = self._sockets[source][0]
        state = self._there
        for _ in range(_RECORDS):
            try:
                data = ours.recv(max(len(self._numbers), _REASON + 1) + 1, _socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            if source != self._hears:  # its last words
                continue
            try:
                record = parse(data, len(self._numbers))
            except ValueError:
                self._ignored += 1
                continue
            if isinstance(record, str):
                self._give_up(source, record)
            else:
                state = record
        self._reactor.change(ours.fileno(), 0)
        self._timers[source] = self._reactor.after(_SETTLE, lambda: self._reactor.change(ours.fileno(), READ))
        if state != self._there:
            self._there = state
            self._on_change()

    def _give_up(self, source: str, why: str) -> None:
        if not self._failure:
            self._failure = why
            _tell(f"cannot be followed: {why}; who waits for one is not started")
            self._keepers[source].stop()
            self._on_change()


def _pairs(names: list[str]) -> dict[str, tuple[_socket.socket, _socket.socket]]:
    """Two connected sockets for each. Raises OSError, and none stays open then."""
    made = {}
    try:
        for name in names:
            made[name] = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_NONBLOCK)
    except OSError:
        for one in [one for pair in made.values() for one in pair]:
            one.close()
        raise
    return made


def parse(data: bytes, count: int) -> tuple[bool, ...] | str:
    """A record of the watcher's: for each of so many devices whether it is there, or in printable words why
    that cannot be said. Raises ValueError.
    """
    if data.startswith(b"!"):
        text = data[1 : _REASON + 1].decode("ascii", "replace")
        return "".join(letter if " " <= letter <= "~" else "?" for letter in text) or "it does not say why"
    if len(data) != count or data.strip(b"01"):
        raise ValueError("no state of so many devices")
    return tuple(byte == ord("1") for byte in data)


def _tell(text: str) -> None:
    say(f"devices: {text}")
