"""The watch over a table, with messages that a kernel may send."""

from __future__ import annotations

import errno
import struct
from typing import Any

import pytest

from initspawn.linux import netlink, nftables

DELTABLE, NEWRULE, NEWGEN = (10 << 8 | number for number in (2, 6, 15))
NFT = "process 77 ('n\\nt')"


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def message(kind: int, generation: int, *attributes: bytes, family: int = nftables.INET) -> bytes:
    body = struct.pack(">BBH", family, 0, generation) + b"".join(attributes)
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def table(name: bytes = b"ours\0") -> bytes:
    return attribute(1, name)


def done(generation: int) -> bytes:
    """The end of a transaction."""
    who = attribute(2, struct.pack(">I", 77)) + attribute(3, b"n\nt\0")
    return message(NEWGEN, generation, attribute(1, struct.pack(">I", generation)), who, family=0)


class Socket:
    """Gives datagrams, and errors, in their order."""

    def __init__(self, *parts: bytes | OSError) -> None:
        self.parts = list(parts)

    def recvfrom(self, _: int) -> tuple[bytes, tuple[int, int]]:
        if not self.parts:
            raise BlockingIOError
        part = self.parts.pop(0)
        if isinstance(part, OSError):
            raise part
        return part, (0, 0x40)


@pytest.mark.parametrize(
    ("parts", "who"),
    [
        ([message(DELTABLE, 5, table()), done(5)], [NFT]),
        ([message(NEWRULE, 5, table()) + message(NEWRULE, 5, table()) + done(5)], [NFT]),
        ([message(DELTABLE, 5, table()) + done(5), message(NEWRULE, 6, table()), done(6)], [NFT, NFT]),
        ([message(DELTABLE, 5, table())], []),  # more is to come
        ([message(DELTABLE, 5, table()), message(DELTABLE, 5, table(b"b\0")), done(5)], [NFT]),
        ([message(DELTABLE, 5, table(b"others\0")), done(5)], []),
        ([message(DELTABLE, 5, table(), family=2), done(5)], []),
        ([OSError(errno.ENOBUFS, "lost")], ["somebody"]),
        ([b"short", message(DELTABLE, 5)[:18], message(DELTABLE, 5, b"\1"), done(5)], []),
    ],
)
def test_who_has_changed_it(monkeypatch: pytest.MonkeyPatch, parts: list[Any], who: list[str]) -> None:
    monkeypatch.setattr(netlink, "open_socket", lambda *_: Socket(*parts))
    assert nftables.Watch(nftables.INET, "ours").read() == who


def test_other_errors_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netlink, "open_socket", lambda *_: Socket(OSError(errno.EIO, "broken")))
    with pytest.raises(OSError, match="broken"):
        nftables.Watch(nftables.INET, "ours").read()
