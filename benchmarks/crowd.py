"""What others notice of a crowd: `ping` of one client beside a thousand connections, a tenth of which listen.

The crowd is a process of its own, started by this file; 75 of those who listen do not read. How to read the
result is in docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import measure
from websockets.asyncio.client import ClientConnection, connect

CONNECTIONS, READERS, SLOW = 1000, 25, 75
LINES = 20_000  # of a stream
STREAMS = 3
ALONE, IDLE, BUSY = "ping, nobody else", f"ping, {CONNECTIONS} idle connections", "ping, while they listen"
PAIRS = [(IDLE, ALONE), (BUSY, ALONE)]
PATIENCE = 120  # seconds for any one answer
_PAUSE = 0.002  # seconds between two pings


def configuration() -> dict[str, Any]:
    """A command that waits for its word, and writes its lines as fast as it can."""
    acls = {"acls": {"user": "nobody"}} if os.geteuid() == 0 else {}
    line = f"read go; seq {LINES}"
    flood = {"uid": "flood", "encoder": "line", "slow_clients": "drop", "stdin": True}
    flood["exec"] = {"cmdpath": "/bin/sh", "args": ["-c", line]}
    box = {"uid": "box", "prefix": "", "namespace": {}, **acls, "commands": flood}
    return {"metadata": {"uid": "crowd", "api": "crowd"}, "sandboxes": box}


async def opened(url: str, buffer: int = 0) -> ClientConnection:
    """A WebSocket. `buffer`: what the kernel keeps of what is not read."""
    options: dict[str, Any] = {"compression": None, "max_size": None, "ping_interval": None, "proxy": None}
    options["subprotocols"] = ["x-afb-ws-json1"]
    if buffer:
        host, _, port = url.split("/")[2].partition(":")
        options |= {"sock": socket.socket(), "max_queue": 1}
        options["sock"].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        options["sock"].connect((host, int(port)))
    return await connect(url, **options)


async def call(client: ClientConnection, procedure: str, arguments: Any = None) -> Any:
    """The response; events that come before it are passed over. Raises RuntimeError for no success."""
    await client.send(json.dumps([2, "1", procedure, arguments]))
    while True:
        message = json.loads(await asyncio.wait_for(client.recv(), PATIENCE))
        if message[0] in (3, 4):
            if message[0] == 4:
                raise RuntimeError(f"{procedure}: {message}")
            return message[2].get("response")


async def crowd(url: str) -> None:
    """Be the crowd: a stream for each line of standard input, answered when all who read have had its end."""
    idle: list[ClientConnection] = []
    while len(idle) < CONNECTIONS - READERS - SLOW:
        idle += await asyncio.gather(*(opened(url) for _ in range(25)))
    readers = [await opened(url) for _ in range(READERS)]
    slow = [await opened(url, 4096) for _ in range(SLOW)]
    print("here", flush=True)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        pid = (await call(readers[0], "crowd/flood"))["pid"]
        for each in (*readers[1:], *slow):
            await call(each, "crowd/flood", {"action": "subscribe", "args": {"pid": pid}})
        print("listening", flush=True)
        await call(readers[0], "crowd/flood", {"action": "input", "args": {"pid": pid, "data": "go\n"}})
        await asyncio.gather(*(_heard(each) for each in readers))
        for each in slow:  # with new ones: these never read what they were sent
            each.transport.abort()
        slow = [await opened(url, 4096) for _ in range(SLOW)]
        print("heard", flush=True)


async def _heard(client: ClientConnection) -> None:
    while "final-event" not in str(await asyncio.wait_for(client.recv(), PATIENCE)):
        pass


async def pings(client: ClientConnection, taken: list[int], until: asyncio.Future[Any] | int) -> None:
    """One ping after the other, timed, so many or until something has come."""
    while len(taken) < until if isinstance(until, int) else not until.done():
        began = time.perf_counter_ns()
        await call(client, "crowd/ping")
        taken.append(time.perf_counter_ns() - began)
        await asyncio.sleep(_PAUSE)


async def measured(url: str, count: int) -> measure.Samples:
    """The times of one client's pings, alone and beside the crowd."""
    client = await opened(url)
    samples: measure.Samples = {ALONE: [], IDLE: [], BUSY: []}
    await pings(client, [], 50)
    await pings(client, samples[ALONE], count)
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--crowd", url, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin
    assert process.stdout
    await _said(process.stdout, b"here")
    await pings(client, samples[IDLE], count)
    for _ in range(STREAMS):
        process.stdin.write(b"\n")
        await _said(process.stdout, b"listening")
        await pings(client, samples[BUSY], asyncio.ensure_future(_said(process.stdout, b"heard")))
    process.stdin.close()
    process.kill()
    await process.wait()
    await client.close()
    return samples


async def _said(output: asyncio.StreamReader, word: bytes) -> None:
    line = await output.readline()
    if line.strip() != word:
        raise SystemExit(f"crowd: the crowd said {line!r}, not {word!r}")


def main(arguments: list[str]) -> None:
    """Print the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="pings without a stream (default 1000)")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--crowd", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.crowd:
        asyncio.run(crowd(options.crowd))
        return
    with tempfile.TemporaryDirectory(prefix="initspawn-bench-") as name:
        config = Path(name, "crowd.json")
        config.write_text(json.dumps(configuration()), encoding="utf-8")
        limits = [f"--limit={one}" for one in (f"websockets={CONNECTIONS + 50}", "connections=0", "calls=0")]
        argv = [sys.executable, "-m", "initspawn", "serve", "--port=0", f"--run-dir={name}/run", *limits]
        with subprocess.Popen([*argv, str(config)], stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout
            url = server.stdout.readline().split("WebSocket: ")[1].strip().removesuffix(")")
            try:
                samples = asyncio.run(measured(url, options.count))
            finally:
                server.terminate()
    heading = {
        "benchmark": f"ping beside {CONNECTIONS} connections: {READERS} read {LINES} lines, {SLOW} do not",
        **measure.machine(),
    }
    measure.show(measure.results(samples, PAIRS), heading, json=options.json)


if __name__ == "__main__":
    main(sys.argv[1:])
