"""How long a call over one WebSocket takes, and how many fit into a second.

The server is `initspawn serve` as a user starts it; the client speaks `x-afb-ws-json1` from one process with
`websockets`. Beside it two yardsticks of the same run: `posix_spawn` of the program that is called, and the
round trip of a bare `websockets` echo server with the same client. docs/benchmarks.md tells how to read it.
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
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import launch
import measure
from websockets.asyncio.client import ClientConnection, connect, unix_connect

from initspawn.boot import __file__ as BOOT
from initspawn.config.compile import compile_raw
from initspawn.control.client import Client as Local
from initspawn.plan import Plan
from initspawn.planfile import save
from initspawn.verbs import wsapi

ECHO, SPAWN = "echo of a bare websockets server", "posix_spawn"
LINES = 20_000
PLAIN, FULL = "sync true, no namespaces", "sync true, full sandbox"
UNIX, SERVICE = "ping over a unix socket", "ping over a service socket (wsapi)"
PING, EVENTS = "ping", f"an event, of {LINES} lines"
CONTROL, FIRST = "start to the control socket's answer", "start to a WebSocket answer"
BARE = "python -I -S -c pass"
WAYS = (1, 8, 32)
PAIRS = [
    (PING, ECHO),
    (UNIX, PING),
    (SERVICE, PING),
    (PLAIN, SPAWN),
    (FULL, SPAWN),
    (CONTROL, BARE),
]
PATIENCE = 60  # seconds for any one answer


def configuration() -> dict[str, Any]:
    """What the server serves: the sandboxes of the benchmark of starts, their commands synchronous."""
    made: dict[str, Any] = json.loads(json.dumps(launch.configuration()))
    shared, _, plain = made["sandboxes"]
    true = {"exec": {"cmdpath": launch.program()}, "encoder": "sync"}
    lines = {"exec": {"cmdpath": "/usr/bin/seq", "args": [str(LINES)]}, "encoder": "line"}
    shared["commands"] = [{"uid": "full", **true}]
    plain["commands"] = [{"uid": "plain", **true}, {"uid": "lines", **lines}]
    return {"metadata": {"uid": "bench", "api": "bench"}, "sandboxes": [
        {**shared, "prefix": ""}, {**plain, "prefix": ""},
    ]}  # fmt: skip


class Client:
    """One WebSocket, any number of calls in flight."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self._waiting: dict[str, asyncio.Future[Any]] = {}
        self._count = 0
        self.on_event: Callable[[Any], None] = lambda _: None
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for text in self.socket:
            message = json.loads(text)
            if message[0] in (3, 4):
                self._waiting.pop(message[1]).set_result(message)
            else:
                self.on_event(message)

    async def call(self, verb: str) -> Any:
        """The reply to a call of the benchmark's API. Raises RuntimeError for one that is no success."""
        self._count += 1
        number = str(self._count)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        await self.socket.send(f'[2,"{number}","bench/{verb}",{{}}]')
        message = await asyncio.wait_for(answer, PATIENCE)
        if message[0] != 3:
            raise RuntimeError(f"{verb}: {message}")
        return message[2].get("response")

    async def true(self, verb: str) -> None:
        """A call of /bin/true, whose end must be told right."""
        found = await self.call(verb)
        if found["status"] != {"exit": 0}:
            raise RuntimeError(f"{verb}: {found}")

    async def close(self) -> None:
        await self.socket.close()
        await self._reader


@asynccontextmanager
async def client(url: str, path: str | None = None) -> AsyncIterator[Client]:
    """A WebSocket over TCP, or over the unix socket at `path`."""
    options: dict[str, Any] = {"compression": None, "max_size": None, "ping_interval": None}
    options["subprotocols"] = ["x-afb-ws-json1"]
    way = connect(url, proxy=None, **options) if path is None else unix_connect(path, url, **options)
    made = Client(await way)
    try:
        yield made
    finally:
        await made.close()


async def in_flight(action: Callable[[], Awaitable[Any]], ways: int, count: int) -> list[int]:
    """Nanoseconds of each of `count` runs, `ways` of them at any time."""
    taken: list[int] = []
    left = iter(range(count))

    async def worker() -> None:
        for _ in left:
            began = time.perf_counter_ns()
            await action()
            taken.append(time.perf_counter_ns() - began)

    await asyncio.gather(*(worker() for _ in range(ways)))
    return taken


async def echo(count: int) -> list[int]:
    """Round trips to a server of `websockets` in a process of its own."""
    code = (
        "import asyncio\nfrom websockets.asyncio.server import serve\n"
        "async def echo(socket):\n async for text in socket:\n  await socket.send(text)\n"
        "async def main():\n async with serve(echo, '127.0.0.1', 0, compression=None) as server:\n"
        "  print(server.sockets[0].getsockname()[1], flush=True)\n  await server.wait_closed()\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    port = int(await process.stdout.readline())
    try:
        url = f"ws://127.0.0.1:{port}"
        async with connect(url, compression=None, proxy=None, ping_interval=None) as socket:

            async def once() -> None:
                await socket.send('[2,"1","bench/ping",{}]')
                await socket.recv()

            await in_flight(once, 1, count // 10)
            return await in_flight(once, 1, count)
    finally:
        process.kill()
        await process.wait()


def spawned(count: int) -> list[int]:
    """Starts to ends of the program that is called, and nothing else."""
    taken = []
    for _ in range(count):
        began = time.perf_counter_ns()
        os.waitpid(os.posix_spawn(launch.program(), ["true"], {}), 0)
        taken.append(time.perf_counter_ns() - began)
    return taken


class Server:
    """`initspawn serve` on a port of its choice, ended at the end."""

    def __init__(self, place: str) -> None:
        file = os.path.join(place, "bench.json")
        with open(file, "w", encoding="utf-8") as written:
            json.dump(configuration(), written)
        self.run_dir = os.path.join(place, "run")
        self.web, self.service = os.path.join(place, "web"), os.path.join(place, "bench")
        argv = [sys.executable, "-m", "initspawn", "serve", "--port", "0", "--run-dir", self.run_dir]
        argv += ["--unix", self.web, "--ws-server", f"unix:{self.service}", file]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if "WebSocket: " not in line:
            raise RuntimeError(f"the server did not start: {line!r}")
        self.url = line.partition("WebSocket: ")[2].partition(")")[0]

    def memory(self) -> dict[str, float]:
        """Resident megabytes of the supervisor and the gateway."""
        pids = {"supervisor": self.process.pid}
        for name in filter(str.isdecimal, os.listdir("/proc")):
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    if b"initspawn.gateway" in file.read() and _descends(int(name), self.process.pid):
                        pids["gateway"] = int(name)
            except OSError:
                pass
        return {name: _resident(pid) for name, pid in pids.items()}

    def close(self) -> None:
        """End it and wait for it."""
        self.process.terminate()
        self.process.communicate(timeout=PATIENCE)


def _descends(pid: int, ancestor: int) -> bool:
    while pid > 1 and pid != ancestor:
        with open(f"/proc/{pid}/stat", "rb") as file:
            pid = int(file.read().rpartition(b")")[2].split()[1])
    return pid == ancestor


def _resident(pid: int) -> float:
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        kilobytes = next(line.split()[1] for line in file if line.startswith("VmRSS:"))
    return round(int(kilobytes) / 1024, 1)


async def calls(url: str, count: int) -> measure.Samples:
    """Everything that goes through one WebSocket."""
    samples: measure.Samples = {}
    async with client(url) as made:
        actions = {
            PING: (lambda: made.call("ping"), 10),
            PLAIN: (lambda: made.true("plain"), 1),
            FULL: (lambda: made.true("full"), 1),
        }
        for name, (action, times) in actions.items():
            await in_flight(action, 1, count // 5 + 1)
            for ways in WAYS if name == PING else WAYS[:2]:
                began = time.perf_counter_ns()
                taken = await in_flight(action, ways, count * times)
                whole = time.perf_counter_ns() - began
                if ways == 1:
                    samples[name] = taken
                else:
                    samples[f"{name}, {ways} in flight"] = taken
                    samples[f"{name}, {ways} in flight, per call"] = [whole // len(taken)]
        samples[EVENTS] = [await lines(made) for _ in range(3)]
    return samples


async def over_unix(path: str, count: int) -> list[int]:
    """Round trips of `ping` over a WebSocket on a unix socket."""
    async with client("ws://localhost/api", path) as made:
        await in_flight(lambda: made.call("ping"), 1, count // 10 + 1)
        return await in_flight(lambda: made.call("ping"), 1, count)


def over_service(path: str, count: int) -> list[int]:
    """Round trips of `ping` in the service protocol. Raises RuntimeError for an answer that is none."""
    taken, frames = [], wsapi.Frames()
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(PATIENCE)
        peer.connect(path)
        for number in range(count):
            began = time.perf_counter_ns()
            peer.sendall(wsapi.call(number % 0xFFFF + 1, "ping", None))
            found: list[tuple[int, bytes]] = []
            while not found:
                found = frames.feed(peer.recv(65536))
            taken.append(time.perf_counter_ns() - began)
            message = wsapi.decode(found[0][1])
            if message is None or message.kind != wsapi.REPLY or message.name:
                raise RuntimeError(f"ping: {message}")
    return taken


async def lines(made: Client) -> int:
    """Nanoseconds per event of a command that writes many lines. Raises RuntimeError if one is missing."""
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    seen: list[str] = []

    def on_event(message: Any) -> None:
        data = message[2]["data"]
        if "stdout" in data:
            seen.append(data["stdout"])
        if "status" in data:
            ended.set_result(None)

    made.on_event = on_event
    began = time.perf_counter_ns()
    await made.call("lines")
    await asyncio.wait_for(ended, PATIENCE)
    taken = time.perf_counter_ns() - began
    if seen != [str(number) for number in range(1, LINES + 1)]:
        raise RuntimeError(f"{len(seen)} of {LINES} lines came, or not in order")
    return taken // LINES


def starts(place: str, count: int) -> measure.Samples:
    """From nothing to the first answer: of the supervisor alone, with a plan, as at boot; of `serve`."""
    samples: measure.Samples = {CONTROL: [], FIRST: [], BARE: []}
    user, group = os.geteuid(), os.getegid()
    api = compile_raw(configuration(), file="bench", user=user, group=group, environ={})
    plan, run_dir = os.path.join(place, "plan"), os.path.join(place, "early")
    save(Plan(user=user, group=group, apis=(api,)), plan)
    python = os.path.realpath(sys.executable)
    stage = os.path.join(os.path.dirname(BOOT), "__main__.py")
    for _ in range(count):
        began = time.perf_counter_ns()
        subprocess.run([python, "-I", "-S", "-c", "pass"], check=True)
        samples[BARE].append(time.perf_counter_ns() - began)
        os.makedirs(run_dir, mode=0o700, exist_ok=True)
        began = time.perf_counter_ns()
        process = subprocess.Popen([python, "-I", "-S", stage, "--run-dir", run_dir, "--plan", plan])
        try:
            _answered(os.path.join(run_dir, "control"))
            samples[CONTROL].append(time.perf_counter_ns() - began)
        finally:
            process.terminate()
            process.wait(timeout=PATIENCE)
        began = time.perf_counter_ns()
        server = Server(place)
        try:
            asyncio.run(_pinged(server.url))
            samples[FIRST].append(time.perf_counter_ns() - began)
        finally:
            server.close()
    return samples


def _answered(path: str) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            with Local(path, timeout=PATIENCE) as local:
                local.call("bench/ping")
                return
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() > end:
                raise
            time.sleep(0.0005)


async def _pinged(url: str) -> None:
    async with client(url) as made:
        await made.call("ping")


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=300, help="synchronous calls of each kind (300)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    if options.count < 1:
        parser.error("--count: at least 1")
    with tempfile.TemporaryDirectory(prefix="initspawn-benchmark-") as place:
        samples = {SPAWN: spawned(options.count), ECHO: asyncio.run(echo(options.count * 10))}
        server = Server(place)
        memory = server.memory()
        try:
            samples |= asyncio.run(calls(server.url, options.count))
            samples[UNIX] = asyncio.run(over_unix(server.web, options.count * 10))
            samples[SERVICE] = over_service(server.service, options.count * 10)
        finally:
            server.close()
        samples |= starts(place, max(1, options.count // 30))
    found = measure.results(samples, PAIRS)
    heading = {
        "benchmark": "calls over one WebSocket, client and server on one machine",
        **measure.machine(),
        "memory": ", ".join(f"{name} {size} MB resident when idle" for name, size in memory.items()),
    }
    measure.show(found, heading, json=options.json)


if __name__ == "__main__":
    main()
