"""A real `initspawn serve` and its clients, for tests."""

from __future__ import annotations

import json
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from initspawn.control.client import Client as LocalClient
from tests.support.pace import SLOWER
from tests.support.users import Ordinary

SUBPROTOCOL = "x-afb-ws-json1"
PATIENCE = 30.0 * SLOWER  # seconds a test waits for what must come


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    """The first true value of a condition; fails the test when it does not come."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"waited in vain for {what}")


def lets_in(path: Path) -> bool:
    """Whether somebody listens: the file is there a moment before."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


class Server:
    """One supervisor in the foreground, as a person starts it."""

    def __init__(self, process: subprocess.Popen[str], run_dir: Path) -> None:
        self.process = process
        self.pid = process.pid  # the supervisor's; another's where something stands before it
        self.run_dir = run_dir
        line = self._first_line()
        found = re.search(r"ready at (https?://\S+) \(WebSocket: (wss?://\S+)\)", line)
        assert found, f"{line!r}: {process.communicate(timeout=PATIENCE)[1] if not line else ''}"
        self.page, self.url = found.groups()
        self.token = self.url.partition("?token=")[2]
        self.open_url = self.url.partition("?")[0]

    def _first_line(self) -> str:
        assert self.process.stdout
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            assert selector.select(PATIENCE), "the server said nothing"
        return self.process.stdout.readline()

    @contextmanager
    def client(self, url: str | None = None) -> Iterator[Client]:
        """A WebSocket client with the server's token."""
        with connect(
            url or self.url, subprotocols=[SUBPROTOCOL], compression=None, max_size=None, proxy=None
        ) as socket:  # type: ignore[list-item]
            yield Client(socket)

    def local(self) -> LocalClient:
        """A client of the control socket, trusted by its user."""
        return LocalClient(str(self.run_dir / "control"), timeout=PATIENCE)

    def children(self) -> list[int]:
        """The supervisor's children, the spawner and the reapers."""
        return children(self.pid)

    def gateway(self) -> int:
        """The gateway's pid, once there is one."""
        return int(wait_for(self._gateway, "the gateway"))

    def _gateway(self) -> int | None:
        for reaper in self.children():
            for pid in children(reaper):
                if b"initspawn.gateway" in read(f"/proc/{pid}/cmdline"):
                    return pid
        return None

    def send_signal(self, number: int) -> None:
        """Send the supervisor a signal, unless it has ended."""
        if self.process.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def stop(self, number: int = signal.SIGINT) -> tuple[int, str]:
        """End it as Ctrl-C does; its exit status and what it said on stderr."""
        self.send_signal(number)
        _, error = self.process.communicate(timeout=PATIENCE)
        # Another worker's test may have killed a supervisor just before this one started.
        lines = [line for line in error.splitlines() if "killed supervisor" not in line]
        return self.process.returncode, "\n".join(lines)


class Client:
    """A WebSocket client that sorts replies and events."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.events: list[dict[str, Any]] = []
        self.replies: dict[str, dict[str, Any]] = {}  # that nobody has asked for yet
        self._number = 0

    def send(self, procedure: str, arguments: Any = None) -> str:
        """Send a call; its id."""
        self._number += 1
        self.socket.send(json.dumps([2, str(self._number), procedure, arguments]))
        return str(self._number)

    def receive(self) -> list[Any]:
        """The next message; events and replies are kept."""
        message = json.loads(self.socket.recv(timeout=PATIENCE))
        if message[0] == 5:
            self.events.append({"name": message[1], **message[2]["data"]})
        elif message[0] in (3, 4):
            self.replies[message[1]] = message[2]
        return list(message)

    def reply(self, number: str) -> dict[str, Any]:
        """The reply to a call."""
        while number not in self.replies:
            self.receive()
        return self.replies.pop(number)

    def call(self, procedure: str, arguments: Any = None) -> dict[str, Any]:
        """A call and its reply."""
        return self.reply(self.send(procedure, arguments))

    def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first event that is wanted, of those that came and those to come."""
        seen = 0
        while True:
            for event in self.events[seen:]:
                if wanted(event):
                    return event
            seen = len(self.events)
            self.receive()

    def final(self, pid: int) -> dict[str, Any]:
        """A task's final event."""
        return self.until(lambda event: event["type"] == "final-event" and event["pid"] == pid)


def children(pid: int) -> list[int]:
    """A process's children; none if it is gone."""
    return [int(word) for word in read(f"/proc/{pid}/task/{pid}/children").split()]


def read(path: str) -> bytes:
    """A file of /proc, empty if its process is gone."""
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


@contextmanager
def serving(
    place: Path, *arguments: str, user: Ordinary | None = None, before: tuple[str, ...] = ()
) -> Iterator[Server]:
    """`initspawn serve --port 0 ARGUMENTS` with its run directory in `place`, ended afterwards. `before`: a
    command that becomes, or starts, what follows it.
    """
    run_dir = place / "run"
    options = ["serve", "--port", "0", "--run-dir", str(run_dir), *arguments]
    pipe = subprocess.PIPE
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": pipe, "stderr": pipe}
    if user is None:
        process = subprocess.Popen([*before, sys.executable, "-m", "initspawn", *options], text=True, **pipes)
    else:
        process = user.popen([*user.initspawn, *options], **pipes)
    server = None
    try:
        server = Server(process, run_dir)
        yield server
    finally:
        if server is not None:
            server.send_signal(signal.SIGINT)
        elif process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)


def write(place: Path, name: str, config: Any) -> str:
    """A configuration file that everybody may read; its path."""
    path = place / name
    path.write_text(json.dumps(config), encoding="utf-8")
    os.chmod(path, 0o644)
    return str(path)
