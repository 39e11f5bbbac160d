"""Many clients at once: nobody is forgotten, nothing is lost that is not marked, and memory stays bounded."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from initspawn.limits import OUT_BYTES
from tests.system.server import PATIENCE, SUBPROTOCOL, Server, read, serving, write

pytestmark = pytest.mark.needs("userns")

CROWD = 1000
READERS, SLOW = 25, 75  # subscribers of one stream: who reads, and who does not until all is over
LATE = 5  # of those, who reads then; the others go
EVENTS = 20_000
PACED = 3000  # events of a stream that takes some seconds
PAUSE = 2000  # of them, until it is told to go on: what is kept of a task that has ended is less
KIB_EACH = 40  # of memory in the gateway for a connection
SUPERVISOR_KIB_EACH = 10


def config() -> dict[str, Any]:
    acls = {"acls": {"user": "nobody"}} if os.geteuid() == 0 else {}
    paced = f"i=0; while [ $i -lt {PACED} ]; do seq $((i+1)) $((i+10)); i=$((i+10)); sleep 0.01; "
    paced += f"[ $i -ne {PAUSE} ] || read go; done"
    commands = [
        {"uid": "flood", "encoder": "line", "slow_clients": "drop", "stdin": True,
         "exec": {"cmdpath": "/bin/sh", "args": ["-c", f"read go; seq {EVENTS}"]}},
        {"uid": "paced", "encoder": "line", "stdin": True,
         "exec": {"cmdpath": "/bin/sh", "args": ["-c", f"read go; {paced}".replace("$", "$$")]}},
    ]  # fmt: skip
    box = {"uid": "box", "namespace": {}, **acls, "commands": commands}
    return {"metadata": {"uid": "t", "api": "t"}, "sandboxes": box}


@asynccontextmanager
async def _crowd(tmp_path: Path) -> AsyncIterator[Server]:
    options = "--limit", f"websockets={CROWD + 50}", "--limit", "connections=0"
    with serving(tmp_path, *options, write(tmp_path, "t.json", config())) as server:
        yield server
        status, said = server.stop()
        assert status == 0
        assert set(said.splitlines()) <= {"initspawn: gateway: ended (signal Killed), it is started again"}


async def _open(server: Server, buffer: int = 0) -> ClientConnection:
    """A WebSocket with numbered events; while the gateway is not there it is tried again. `buffer`: what the
    kernel keeps of what is not read.
    """
    url = f"{server.url}&events=numbered"
    options: dict[str, Any] = {"max_queue": 1} if buffer else {}
    for _ in range(500):
        try:
            if buffer:
                host, _, port = url.split("/")[2].partition(":")
                options["sock"] = socket.socket()
                options["sock"].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
                options["sock"].connect((host, int(port)))
            return await connect(
                url, subprotocols=[SUBPROTOCOL], compression=None, proxy=None, max_size=None,  # type: ignore[list-item]
                ping_interval=None, open_timeout=PATIENCE, close_timeout=1, **options,
            )  # fmt: skip
        except (OSError, InvalidHandshake, EOFError, TimeoutError):
            await asyncio.sleep(0.05)
    raise AssertionError("no gateway")


class Member:
    """One of the crowd, and which numbers it has seen or been told that they are missing."""

    def __init__(self, connection: ClientConnection) -> None:
        self.socket = connection
        self.last = 0
        self.missed = 0
        self.ended = False

    async def call(self, procedure: str, arguments: Any = None) -> Any:
        """The response; events that come before it are noted."""
        await self.socket.send(json.dumps([2, "1", procedure, arguments]))
        while True:
            kind, _, message = await self._next()
            if kind in (3, 4):
                assert kind == 3, message
                return message.get("response")

    async def hear(self, enough: Callable[[Member], bool] = lambda member: member.ended) -> None:
        """Note events until the task has ended, or it is enough."""
        while not enough(self):
            await self._next()

    async def _next(self) -> Any:
        message = json.loads(await asyncio.wait_for(self.socket.recv(), PATIENCE))
        if message[0] == 5:
            self._note(message[2])
        return message

    def _note(self, event: dict[str, Any]) -> None:
        """Without a gap, and never twice: a marker stands for those that are gone."""
        data, number = event["data"], event["seq"]
        if data["type"] == "dropped-event":
            assert number == self.last + data["count"]
            self.missed += data["count"]
        else:
            assert number == self.last + 1
            assert data["type"] == "final-event" or data["stdout"] == str(number)
        self.last = number
        self.ended = data["type"] == "final-event"


def _resident(pid: int) -> int:
    """KiB of memory."""
    found = re.search(rb"VmRSS:\s*(\d+)", read(f"/proc/{pid}/status"))
    assert found
    return int(found[1])


async def _subscribed(server: Server, verb: str, count: int) -> tuple[Member, int, list[Member]]:
    """Who has started a task that waits for its word, its pid, and so many who listen to it."""
    first = Member(await _open(server))
    pid = (await first.call(f"t/{verb}"))["pid"]
    others = [Member(await _open(server)) for _ in range(count)]
    for other in others:
        await other.call(f"t/{verb}", {"action": "subscribe", "args": {"pid": pid, "from": 1}})
    return first, pid, others


def test_a_thousand_connections_and_a_hundred_who_listen(tmp_path: Path) -> None:
    """Most of them do not read until all is over; they miss what the log does not keep, and are told so."""

    async def crowd() -> None:
        async with _crowd(tmp_path) as server:
            gateway = server.gateway()
            before = {pid: _resident(pid) for pid in (gateway, server.process.pid)}
            idle: list[ClientConnection] = []
            for _ in range((CROWD - READERS - SLOW) // 25):
                idle += await asyncio.gather(*(_open(server) for _ in range(25)))
            members = [Member(each) for each in idle]
            for number in range(0, len(members), 50):
                some = members[number : number + 50]
                answers = await asyncio.gather(*(each.call("t/ping") for each in some))
                assert all(answer.startswith("pong=") for answer in answers)
            grown = {pid: _resident(pid) - size for pid, size in before.items()}
            assert grown[gateway] < KIB_EACH * len(members)
            assert grown[server.process.pid] < SUPERVISOR_KIB_EACH * len(members)

            starter, pid, readers = await _subscribed(server, "flood", READERS - 1)
            slow = [Member(await _open(server, buffer=4096)) for _ in range(SLOW)]
            for one in slow:
                await one.call("t/flood", {"action": "subscribe", "args": {"pid": pid}})
            before = {pid: _resident(pid) for pid in before}
            await starter.call("t/flood", {"action": "input", "args": {"pid": pid, "data": "go\n"}})
            hearing = asyncio.gather(*(one.hear() for one in (starter, *readers)))
            pings = 0
            while not hearing.done():
                assert (await members[pings % len(members)].call("t/ping")).startswith("pong=")
                pings += 1
                await asyncio.sleep(0.01)
            await hearing
            grown = {pid: _resident(pid) - size for pid, size in before.items()}
            assert pings > 10
            late = slow[:LATE]
            await asyncio.gather(*(one.hear() for one in late))
            assert {one.last for one in (starter, *readers, *late)} == {EVENTS + 1}
            assert min(one.missed for one in late) > 0
            assert grown[gateway] < 16 << 10
            assert grown[server.process.pid] < ((READERS + SLOW) * OUT_BYTES >> 10) + (16 << 10)
            for one in (starter, *readers, *slow, *members):
                one.socket.transport.abort()

    asyncio.run(crowd())


def test_a_crowd_misses_nothing_when_the_gateway_is_killed(tmp_path: Path) -> None:
    """Fifty who listen lose their connections in mid-stream; each comes back and goes on where it was."""

    async def crowd() -> None:
        async with _crowd(tmp_path) as server:
            starter, pid, members = await _subscribed(server, "paced", 50)
            arguments = {"action": "input", "args": {"pid": pid, "data": "go\n", "detach": True}}
            await starter.call("t/paced", arguments)
            starter.socket.transport.abort()

            async def follow(member: Member) -> int:
                losses = 0
                while not member.ended:
                    try:
                        if losses:  # the next gateway may be killed before it has answered, too
                            member.socket = await _open(server)
                            args = {"pid": pid, "from": member.last + 1}
                            await member.call("t/paced", {"action": "subscribe", "args": args})
                        await member.hear()
                    except ConnectionClosed:
                        losses += 1
                member.socket.transport.abort()
                return losses

            following = asyncio.gather(*(follow(member) for member in members))
            for part in (PACED // 4, PACED // 2):
                while members[0].last < part:
                    await asyncio.sleep(0.01)
                os.kill(server.gateway(), signal.SIGKILL)
            while min(member.last for member in members) < PAUSE:
                await asyncio.sleep(0.01)
            starter = Member(await _open(server))
            await starter.call("t/paced", {"action": "input", "args": {"pid": pid, "data": "go\n"}})
            starter.socket.transport.abort()
            assert min(await following) >= 1
            assert {(member.last, member.missed) for member in members} == {(PACED + 1, 0)}

    asyncio.run(crowd())
