"""Who changes a table of nftables, as the kernel tells it: nfnetlink. Loaded where a plan has a guard."""

from __future__ import annotations

import errno
import os
import struct

from initspawn.linux import netlink

# include/uapi/linux/netlink.h and include/uapi/linux/netfilter/nfnetlink.h and nf_tables.h
_NETLINK_NETFILTER = 12
_GROUP = 1 << 7 - 1  # NFNLGRP_NFTABLES
_NEWGEN = 10 << 8 | 15  # NFNL_SUBSYS_NFTABLES, NFT_MSG_NEWGEN
_TABLE = 1  # the attribute that names the table, in every message but NEWGEN
_NAME, _PID = 3, 2  # NFTA_GEN_PROC_NAME, NFTA_GEN_PROC_PID
_GENERAL = struct.Struct(">BBH")  # struct nfgenmsg: family, version, the generation's last 16 bits
_MOST = 64  # datagrams in one go
INET = 1  # NFPROTO_INET
LOST = "somebody"  # who changed something of which the messages were lost


class Watch:
    """Follows one table of this network namespace. What a transaction changes is told when it is done, before
    the call that made it returns.
    """

    def __init__(self, family: int, table: str) -> None:
        """Raises OSError where it cannot be followed: without CAP_NET_ADMIN, or without nfnetlink."""
        self._family = family
        self._table = table.encode() + b"\0"
        self._changed = -1  # the generation that is being told now, if it changes the table
        self._socket = netlink.open_socket(_NETLINK_NETFILTER, _GROUP)

    def fileno(self) -> int:
        """The descriptor that can be read when something has changed."""
        return self._socket.fileno()

    def read(self) -> list[str]:
        """Who has changed the table since it was last read, one name for each transaction; `LOST` where
        messages were lost. Raises OSError.
        """
        found = []
        for _ in range(_MOST):
            try:
                for kind, _, _, body in netlink.receive(self._socket):
                    found += self._take(kind, body)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                found.append(LOST)
        return found

    def close(self) -> None:
        """Follow it no more."""
        self._socket.close()

    def _take(self, kind: int, body: bytes) -> list[str]:
        """Each of a transaction's messages, of which the last says whose it was."""
        if len(body) < _GENERAL.size:
            return []
        family, _, generation = _GENERAL.unpack_from(body)
        about = netlink.attributes(body, _GENERAL.size)
        if kind != _NEWGEN:
            if family == self._family and about.get(_TABLE) == self._table:
                self._changed = generation
            return []
        changed, self._changed = self._changed, -1
        if changed != generation:
            return []
        name = os.fsdecode(about.get(_NAME, b"").rstrip(b"\0"))
        return [f"process {int.from_bytes(about.get(_PID, b''), 'big')} ({name!r})"]
