"""The watcher of devices: a program of its own, which says whether devices are there that commands wait for.

    python3 -s -P -B watcher.py kernel|udev WANTED...

`kernel`: events are heard as the kernel sends them, before udevd; devices have what the kernel says of them.
`udev`: as udevd sends them on; devices have what its database says too. Each WANTED is a JSON object of
properties and patterns. Descriptor 3 is a SOCK_SEQPACKET socket to the supervisor. A record on it is the
whole state, a digit for each WANTED (`1`: there is such a device), or `!` and why it cannot go on. It is
written at the beginning and after each change.

It runs in a sandbox that shows it this file of initspawn only, so it imports nothing of it. Not part of the
supervisor; the one place that imports pyudev.
"""

from __future__ import annotations

import ctypes.util
import errno
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

Get = Callable[[str], str | None]  # a device's property by name

UDEV = "udev"
_SUPERVISOR = 3
_REASON = 200  # characters
_SPECIAL = frozenset("!*?[|")
_UDEVS = ("ID_", "DEVLINKS", "TAGS")  # so begin properties that udevd gives


def main(arguments: list[str]) -> int:
    """Follow until somebody ends it; what cannot be followed is an exception. Where pyudev is missing it
    waits for its end, for another start would be the same, and returns 1.
    """
    source, *texts = arguments
    presence = Presence([json.loads(text) for text in texts])
    # pyudev would run ldconfig for this, which a sandbox need not have.
    ctypes.util.find_library = _library
    try:
        import pyudev

        context = pyudev.Context()
    except (ImportError, OSError) as error:
        _say(f"!{error}"[:_REASON])
        signal.pause()
        return 1
    follow(pyudev, context, source, presence, _say)
    return 0


def _library(name: str) -> str:
    return f"lib{name}.so.1"


def _say(text: str) -> None:
    os.write(_SUPERVISOR, text.encode("ascii", "replace"))


class Presence:
    """Which devices are there of each kind that is wanted. A kind is properties and patterns."""

    def __init__(self, wanted: list[Mapping[str, str]]) -> None:
        self._wanted = wanted
        self._there: list[set[str]] = [set() for _ in wanted]

    @property
    def state(self) -> str:
        """The record for the supervisor."""
        return "".join("1" if paths else "0" for paths in self._there)

    @property
    def subsystems(self) -> list[str]:
        """All that devices can be of; empty: any."""
        named = {kind.get("SUBSYSTEM", "*") for kind in self._wanted}
        return [] if any(_SPECIAL.intersection(name) for name in named) else sorted(named)

    def put(self, path: str, get: Get, *, settled: bool) -> None:
        """This device is there, and is as `get` says now. `settled`: udevd has dealt with it."""
        for kind, paths in zip(self._wanted, self._there, strict=True):
            if (settled or not _denies(kind)) and matches(kind, get):
                paths.add(path)
            else:
                paths.discard(path)

    def drop(self, path: str) -> None:
        """It is gone."""
        for paths in self._there:
            paths.discard(path)

    def clear(self) -> None:
        """None is known any more."""
        for paths in self._there:
            paths.clear()


def matches(kind: Mapping[str, str], get: Get) -> bool:
    """Whether a device has all these properties. A pattern is as in udev's rules: `*`, `?` and `[...]`, with
    `|` between several; `!` first: the property is missing, or is like none of them.
    """
    return all(_is_like(get(name), pattern) for name, pattern in kind.items())


def _denies(kind: Mapping[str, str]) -> bool:
    """Whether udevd has to say what it is not: a device of which udevd has said nothing yet is no proof."""
    return any(name.startswith(_UDEVS) and pattern.startswith("!") for name, pattern in kind.items())


def _is_like(value: str | None, pattern: str) -> bool:
    patterns = pattern.removeprefix("!").split("|")
    found = value is not None and any(fnmatchcase(value, one) for one in patterns)
    return found != pattern.startswith("!")


def follow(pyudev: Any, context: Any, source: str, presence: Presence, say: Callable[[str], None]) -> None:
    """Say what there is, now and after each change. Raises what pyudev does."""
    monitor = pyudev.Monitor.from_netlink(context, source)
    for name in presence.subsystems:
        monitor.filter_by(name)
    monitor.start()  # before the first look: nothing is missed
    anew, told = True, ""
    while True:
        if anew:
            _look(context, source, presence)
        if presence.state != told:
            told = presence.state
            say(told)
        try:
            device = monitor.poll()
            anew = device is not None and _heard(pyudev, context, source, presence, device)
        except OSError as error:
            if not _overflown(monitor, error):
                raise
            _drain(monitor)  # what is left may be older than what was lost
            anew = True


def _drain(monitor: Any) -> None:
    while True:
        try:
            if monitor.poll(0) is None:
                return
        except OSError as error:
            if not _overflown(monitor, error):
                raise


def _overflown(monitor: Any, error: OSError) -> bool:
    """Whether events were lost. Where pyudev has noticed it in poll(2) its error has no number, and the
    socket's own stays until it is asked for.
    """
    if error.errno == errno.ENOBUFS:
        return True
    with socket.socket(fileno=os.dup(monitor.fileno())) as own:
        return own.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ENOBUFS


def _look(context: Any, source: str, presence: Presence) -> None:
    """At every device there is."""
    presence.clear()
    every = context.list_devices()
    for name in presence.subsystems:
        every.match_subsystem(name)
    for device in every:
        if path := _path(device):
            presence.put(path, _properties(device), settled=source == UDEV and device.is_initialized)


def _heard(pyudev: Any, context: Any, source: str, presence: Presence, event: Any) -> bool:
    """Of this event. Returns whether everything has to be looked at anew."""
    if event.action == "move":  # its old path is known to nobody
        return True
    path = _path(event)
    if event.action == "remove" or not path:
        presence.drop(path)
        return False
    try:  # as it is now, which is more than the event tells
        device = pyudev.Devices.from_sys_path(context, path)
    except pyudev.DeviceNotFoundError:
        presence.drop(path)
    else:
        presence.put(path, _properties(device), settled=source == UDEV)
    return False


def _path(device: Any) -> str:
    """Of a device; empty where it is no text, of which pyudev can say nothing: links may have such names."""
    try:
        return str(device.sys_path)
    except UnicodeDecodeError:
        return ""


def _properties(device: Any) -> Get:
    def get(name: str) -> str | None:
        try:
            found: str | None = device.properties.get(name)
        except UnicodeDecodeError:  # a device says what it likes
            return None
        return found

    return get


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
