"""A gateway's connection to the supervisor."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from initspawn.control.wire import pack
from initspawn.gateway.bounds import LINK_BYTES
from initspawn.gateway.link import Link, open_link

BODIES = [b"%0100d" % number for number in range(1500)]  # more than two reads, less than the socket takes


class Full:
    """Who can take no more as soon as something has come."""

    def __init__(self) -> None:
        self.came: list[list[bytes]] = []
        self.some = asyncio.Event()
        self.link: Link

    def link_received(self, bodies: list[bytes]) -> None:
        self.came.append(bodies)
        self.link.hold(True)
        self.some.set()

    def link_full(self, full: bool) -> None:
        """There are no calls."""

    def link_lost(self, reason: str) -> None:
        raise AssertionError(reason)


def test_who_is_full_gets_no_more_than_one_read(tmp_path: Path) -> None:
    """However much waits: it is for a client that does not read, and would have to be kept."""

    async def fill() -> None:
        owner = Full()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "control"))
            listener.listen()
            link = owner.link = await open_link(str(tmp_path / "control"), owner)
            supervisor, _ = listener.accept()
        with supervisor:
            supervisor.setblocking(False)
            frames = b"".join(map(pack, BODIES))
            assert supervisor.send(frames) == len(frames) > 2 * LINK_BYTES
            reads = 0
            while sum(map(len, owner.came)) < len(BODIES):
                reads += 1
                await asyncio.wait_for(owner.some.wait(), 60)
                for _ in range(20):
                    await asyncio.sleep(0)
                assert len(owner.came) == reads
                owner.some.clear()
                link.hold(False)
            assert max(sum(map(len, bodies)) for bodies in owner.came) <= LINK_BYTES
            assert [body for bodies in owner.came for body in bodies] == BODIES
            link.close()

    asyncio.run(fill())
