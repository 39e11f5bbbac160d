"""How much one address may have and ask for: connections, calls, wrong tokens. Pure but for its clock.

An address is a network peer's (of IPv6 the first 64 bits: one host can choose the others), or a local user.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable
from typing import NamedTuple

from initspawn.gateway.bounds import WEBSOCKETS
from initspawn.limits import (
    ADDRESS_CALLS,
    ADDRESS_CALLS_SECONDS,
    ADDRESS_CONNECTIONS,
    ADDRESS_FAILURES,
    ADDRESSES,
)

MINUTE = 60.0
TOO_MANY_CALLS = "too many calls from this address; try again later"
TOO_MANY_FAILURES = "too many wrong tokens from this address; try again later"


class Limits(NamedTuple):
    """What one address may, and all together; 0 is without a limit, but for `websockets`."""

    connections: int = ADDRESS_CONNECTIONS  # at once
    calls: int = ADDRESS_CALLS  # per second, for ADDRESS_CALLS_SECONDS of them at once
    failures: int = ADDRESS_FAILURES  # wrong tokens per minute
    websockets: int = WEBSOCKETS  # of all addresses at once


class Bucket:
    """Holds at most `size` tokens and gets `rate` of them each second; with a `size` of 0 it never ends."""

    __slots__ = ("_level", "_when", "rate", "size")

    def __init__(self, size: float, rate: float, now: float) -> None:
        self.size = size
        self.rate = rate
        self._level = size
        self._when = now

    def take(self, now: float) -> bool:
        """Take a token out; False if there is none."""
        level = self._level + (now - self._when) * self.rate
        self._when = now
        if level > self.size:
            level = self.size
        if level < 1.0:
            self._level = level
            return self.size == 0
        self._level = level - 1.0
        return True

    def give_back(self) -> None:
        """Put a token that was taken in again."""
        self._level = min(self.size, self._level + 1.0)

    def wait(self, now: float) -> float:
        """Seconds until there is a token; 0 if there is one."""
        if self.size == 0:
            return 0.0
        return max(0.0, (1.0 - self._level) / self.rate - (now - self._when))

    def full(self, now: float) -> bool:
        """Whether nothing was taken that has not come back."""
        return self._level + (now - self._when) * self.rate >= self.size


class Trial:
    """A token that is shown by so many unanswered calls, and whether an answer says that it is ours."""

    __slots__ = ("calls", "valid")

    def __init__(self) -> None:
        self.calls = 0
        self.valid = False


class Guest:
    """One address; its connections share it."""

    __slots__ = ("_calls", "_clock", "_failures", "_trials", "connections")

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._clock = clock
        now = clock()
        self.connections = 0
        self._calls = Bucket(limits.calls * ADDRESS_CALLS_SECONDS, limits.calls, now)
        self._failures = Bucket(limits.failures, limits.failures / MINUTE, now)
        self._trials: dict[bytes, Trial] = {}

    def call(self) -> bool:
        """Whether it may make another call now, which is counted."""
        return self._calls.take(self._clock())

    def call_wait(self) -> float:
        """Seconds until it may."""
        return self._calls.wait(self._clock())

    def begin_trial(self, token: bytes) -> bool:
        """Whether it may show this token now. If so, it counts as a wrong one until `end_trial`, to be called
        once for each: calls sent one behind the other would all be judged before the first answer. Calls that
        show the same token meanwhile are one trial.
        """
        trial = self._trials.get(token)
        if trial is None:
            if not self._failures.take(self._clock()):
                return False
            trial = self._trials[token] = Trial()
        trial.calls += 1
        return True

    def end_trial(self, token: bytes, *, valid: bool) -> None:
        """The token has turned out as one of ours, or as none; without an answer it stays a wrong one."""
        trial = self._trials[token]
        if valid and not trial.valid:
            trial.valid = True
            self._failures.give_back()
        trial.calls -= 1
        if not trial.calls:
            del self._trials[token]

    def locked(self, token: bytes) -> float:
        """Seconds until it may show this token; 0: now."""
        return 0.0 if token in self._trials else self._failures.wait(self._clock())

    def forgettable(self) -> bool:
        """Whether nothing would be lost by starting anew."""
        now = self._clock()
        return not self.connections and self._calls.full(now) and self._failures.full(now)


class Quotas:
    """All addresses that are known. Of those without a connection at most ADDRESSES are remembered."""

    def __init__(self, limits: Limits | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits or Limits()
        self._clock = clock
        self._guests: dict[str, Guest] = {}

    def enter(self, address: str) -> Guest | None:
        """Another connection of an address; None if it has too many. `leave` it in the end."""
        guest = self._guests.get(address)
        if guest is None:
            self._make_room()
            guest = self._guests[address] = Guest(self.limits, self._clock)
        if 0 < self.limits.connections <= guest.connections:
            return None
        guest.connections += 1
        return guest

    def leave(self, guest: Guest) -> None:
        """The end of a connection."""
        guest.connections -= 1

    def _make_room(self) -> None:
        """Forget whoever need not be remembered; then, if they are still too many, who has come first."""
        if len(self._guests) < ADDRESSES:
            return
        for address, guest in list(self._guests.items()):
            if guest.forgettable():
                del self._guests[address]
        idle = [address for address, guest in self._guests.items() if not guest.connections]
        for address in idle[: len(self._guests) - ADDRESSES + 1]:
            del self._guests[address]


def network(host: str) -> str:
    """The address that a peer's host counts for."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    address = getattr(address, "ipv4_mapped", None) or address
    if address.version == 4:
        return str(address)
    return str(ipaddress.ip_network((address, 64), strict=False).network_address)


def parse(text: str) -> tuple[str, int]:
    """`NAME=NUMBER` of an option. Raises ValueError that says what to write."""
    name, equals, number = text.partition("=")
    if name not in Limits._fields or not equals or not (number.isascii() and number.isdecimal()):
        raise ValueError(f"{text!r}: write {', '.join(f'{name}=NUMBER' for name in Limits._fields)}")
    if name == "websockets" and not int(number):
        raise ValueError(f"{text!r}: each one costs memory, so there is a limit: write a number")
    return name, int(number)
