"""Links, addresses and routes as the kernel tells them: rtnetlink(7). Loaded where somebody asks for them."""

from __future__ import annotations

import _socket
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# include/uapi/linux/netlink.h and rtnetlink.h
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLM_F_REQUEST = 1
NLM_F_DUMP_INTR = 0x10
NLM_F_DUMP = 0x300
RTM_NEWLINK, RTM_GETLINK = 16, 18
RTM_NEWADDR, RTM_GETADDR = 20, 22
RTM_NEWROUTE, RTM_GETROUTE = 24, 26
_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400  # RTMGRP_LINK, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE
_BUFFER = 128 << 10
_LARGEST = 1 << 16  # bytes of one answer of a dump: the kernel fills 32 KiB

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence number, port
_LINK = struct.Struct("=BxHiII")  # family, kind, index, flags, change
_ADDRESS = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, dst_len, src_len, tos, table, protocol, scope, type, flags
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_IFLA_IFNAME, _IFA_FLAGS, _RTA_OIF, _RTA_MULTIPATH, _RTA_TABLE = 3, 8, 4, 9, 15
_IFF_UP, _IFF_RUNNING, _IFF_LOOPBACK = 0x1, 0x40, 0x8
_USELESS = 0x40 | 0x08  # IFA_F_TENTATIVE, IFA_F_DADFAILED
_RT_TABLE_MAIN, _RTN_UNICAST, _RT_SCOPE_UNIVERSE = 254, 1, 0
_NEXT_HOP = struct.Struct("=HBBi")  # length, flags, hops, index


def open_socket(protocol: int = 0, groups: int = _GROUPS) -> _socket.socket:
    """A socket on which every change is told of these groups (a mask) of a protocol, by default of links,
    addresses and routes; dumps are asked for there too. Raises OSError.
    """
    kind = _socket.SOCK_RAW | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
    sock = _socket.socket(_socket.AF_NETLINK, kind, protocol)
    try:
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVBUF, _BUFFER)
        sock.bind((0, groups))
    except BaseException:
        sock.close()
        raise
    return sock


def ask(sock: _socket.socket, what: int, number: int) -> None:
    """Ask for a dump of all links, addresses or routes; the answers carry the number. Raises OSError."""
    body = bytes(_LINK.size if what == RTM_GETLINK else _ADDRESS.size if what == RTM_GETADDR else _ROUTE.size)
    flags = NLM_F_REQUEST | NLM_F_DUMP
    sock.send(_HEADER.pack(_HEADER.size + len(body), what, flags, number, 0) + body)


def receive(sock: _socket.socket) -> list[tuple[int, int, int, bytes]]:
    """The next messages: type, flags, sequence number (0: a change) and body. None that is not the kernel's.

    Raises OSError: BlockingIOError when there are none, ENOBUFS when some were lost.
    """
    data, sender = sock.recvfrom(_LARGEST)
    return list(messages(data)) if sender[0] == 0 else []


def messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Those in a datagram, as far as they are whole."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, flags, number, _ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size or at + length > len(data):
            return
        yield kind, flags, number, data[at + _HEADER.size : at + length]
        at += length + 3 & ~3


def attributes(body: bytes, at: int) -> dict[int, bytes]:
    """The attributes that begin there, as far as they are whole."""
    found = {}
    while at + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, at)
        if length < _ATTRIBUTE.size or at + length > len(body):
            break
        found[kind & 0x3FFF] = body[at + _ATTRIBUTE.size : at + length]
        at += length + 3 & ~3
    return found


def link(body: bytes) -> tuple[int, str, bool] | None:
    """Index, name, and whether it is up and has a carrier; None for the loopback and for what is no link."""
    if len(body) < _LINK.size:
        return None
    family, _, index, flags, _ = _LINK.unpack_from(body)
    name = os.fsdecode(attributes(body, _LINK.size).get(_IFLA_IFNAME, b"").rstrip(b"\0"))
    if family or flags & _IFF_LOOPBACK or not name:
        return None
    up = flags & (_IFF_UP | _IFF_RUNNING) == _IFF_UP | _IFF_RUNNING
    return index, name, up


def address(body: bytes) -> int | None:
    """The index of the link that an address is on, if it can be used to speak to others."""
    if len(body) < _ADDRESS.size:
        return None
    _, _, flags, scope, index = _ADDRESS.unpack_from(body)
    wide = attributes(body, _ADDRESS.size).get(_IFA_FLAGS, b"")
    flags = _number(wide) if len(wide) == 4 else flags
    return int(index) if scope == _RT_SCOPE_UNIVERSE and not flags & _USELESS else None


def default_route(body: bytes) -> list[int]:
    """The indexes of the links that a default route of the main table leads over; none if it is no such."""
    if len(body) < _ROUTE.size:
        return []
    _, prefix, _, _, table, _, _, kind, _ = _ROUTE.unpack_from(body)
    found = attributes(body, _ROUTE.size)
    wide = found.get(_RTA_TABLE, b"")
    table = _number(wide) if len(wide) == 4 else table
    if prefix or kind != _RTN_UNICAST or table != _RT_TABLE_MAIN:
        return []
    single = found.get(_RTA_OIF, b"")
    return [_number(single)] if len(single) == 4 else _hops(found.get(_RTA_MULTIPATH, b""))


def _hops(data: bytes) -> list[int]:
    indexes, at = [], 0
    while at + _NEXT_HOP.size <= len(data):
        length, _, _, index = _NEXT_HOP.unpack_from(data, at)
        if length < _NEXT_HOP.size:
            break
        indexes.append(index)
        at += length + 3 & ~3
    return indexes


def _number(data: bytes) -> int:
    return int(struct.unpack("=I", data)[0])
