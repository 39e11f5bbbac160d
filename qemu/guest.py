"""A booted guest: commands with input, output and exit code, files, power."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from qemu.frames import ERR, EXIT, HELLO, INPUT, NUMBER, OUT, RUN, SIGNAL, Parser, frame
from qemu.machine import GuestError, Machine, Shape

BOOT_SECONDS = 180.0  # ten times what a boot takes alone on two processors
COMMAND_SECONDS = 180.0  # two guests on a busy machine: thirty times what most take alone

Listener = Callable[[int, bytes], None]  # (OUT or ERR, bytes)


class Done(NamedTuple):
    """How a command ended: exit code (negative: by that signal) and what it wrote."""

    code: int
    out: str
    err: str


class Running:
    """A command in the guest. Its output is collected while somebody waits for something of the guest."""

    def __init__(self, guest: Guest, channel: int, name: str, listener: Listener | None) -> None:
        self._guest = guest
        self._channel = channel
        self._listener = listener
        self.name = name
        self.output = {OUT: bytearray(), ERR: bytearray()}
        self.code: int | None = None

    def take(self, kind: int, payload: bytes) -> None:
        """A frame from the agent."""
        if kind == EXIT:
            (self.code,) = NUMBER.unpack(payload)
        else:
            self.output[kind] += payload
            if self._listener:
                self._listener(kind, payload)

    def write(self, data: bytes) -> None:
        """Give it input."""
        for start in range(0, len(data), 65536):
            self._guest.send(frame(INPUT, self._channel, data[start : start + 65536]))

    def end_input(self) -> None:
        """Close its input."""
        self._guest.send(frame(INPUT, self._channel))

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._guest.send(frame(SIGNAL, self._channel, bytes([number])))

    def wait(self, timeout: float = COMMAND_SECONDS) -> Done:
        """Wait for its end. Raises GuestError, after killing it, when it takes too long."""
        try:
            self._guest.until(lambda: self.code is not None, timeout, f"the end of {self.name!r}")
        except GuestError as error:
            if not self._guest.ended():
                self.signal(signal.SIGKILL)
            written = self._text(OUT)[-2000:] + self._text(ERR)[-2000:]
            raise GuestError(f"{error}\nWhat it wrote ends with:\n{written}") from None
        assert self.code is not None
        return Done(self.code, self._text(OUT), self._text(ERR))

    def _text(self, kind: int) -> str:
        return self.output[kind].decode(errors="replace")


class Guest(Machine):
    """A machine whose agent answers. `with Guest(Shape(build())) as guest: guest.run("uname", "-r")`."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self._parser = Parser()
        self._running: dict[int, Running] = {}
        self._channel = 0
        self.hellos = 0  # how often an agent has begun

    def __enter__(self) -> Guest:
        super().__enter__()
        return self

    def wait_agent(self, timeout: float = BOOT_SECONDS) -> Guest:
        """Wait until commands can be run. Raises GuestError."""
        self.until(lambda: self.hellos, timeout, "the agent")
        return self

    def start(
        self,
        *argv: str,
        env: Mapping[str, str] | None = None,
        cwd: str = "/",
        listener: Listener | None = None,
    ) -> Running:
        """Start a command as root; its input stays open. `listener` gets its output as it comes."""
        self.wait_agent()
        self._channel += 1
        running = self._running[self._channel] = Running(self, self._channel, " ".join(argv), listener)
        order = {"argv": argv, "env": dict(env or {}), "cwd": cwd}
        self.send(frame(RUN, self._channel, json.dumps(order).encode()))
        return running

    def run(
        self,
        *argv: str,
        input: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: str = "/",
        timeout: float = COMMAND_SECONDS,
        listener: Listener | None = None,
    ) -> Done:
        """Run a command as root, to its end. Raises GuestError when it takes too long."""
        running = self.start(*argv, env=env, cwd=cwd, listener=listener)
        running.write(input)
        running.end_input()
        return running.wait(timeout)

    def shell(self, line: str, timeout: float = COMMAND_SECONDS) -> str:
        """What a shell line prints. Raises GuestError when it fails."""
        return self.check("sh", "-c", line, timeout=timeout)

    def check(self, *argv: str, timeout: float = COMMAND_SECONDS) -> str:
        """What a command prints. Raises GuestError when it fails."""
        done = self.run(*argv, timeout=timeout)
        if done.code != 0:
            said = done.err.strip() or done.out.strip()
            raise GuestError(f"{' '.join(argv)!r} ended with {done.code}: {said}")
        return done.out

    def read(self, path: str) -> bytes:
        """A file's content. Raises GuestError."""
        running = self.start("cat", "--", path)
        done = running.wait()
        if done.code != 0:
            raise GuestError(done.err.strip())
        return bytes(running.output[OUT])

    def write(self, path: str, data: bytes, mode: str = "644") -> None:
        """Make or replace a file. Raises GuestError."""
        done = self.run("sh", "-c", 'cat >"$1" && chmod "$2" "$1"', "sh", path, mode, input=data)
        if done.code != 0:
            raise GuestError(done.err.strip())

    def power_off(self, timeout: float = 120.0) -> None:
        """Switch it off in an orderly way. Raises GuestError when it does not end."""
        self.power_button()
        self.wait(timeout)

    def send(self, data: bytes) -> None:
        """Write to the agent. Raises GuestError when QEMU is gone."""
        self.agent.settimeout(COMMAND_SECONDS)
        try:
            self.agent.sendall(data)
        except OSError as error:
            raise self.failure(f"the agent cannot be reached: {error}") from None

    def until(self, condition: Callable[[], object], timeout: float, what: str) -> None:
        """Serve the agent's frames until a condition holds. Raises GuestError."""
        end = time.monotonic() + timeout
        while not condition():
            if (left := end - time.monotonic()) <= 0:
                raise self.failure(f"waited {timeout:.0f} s in vain for {what}")
            self.agent.settimeout(min(left, 1.0))
            try:
                data = self.agent.recv(65536)
            except TimeoutError:
                continue
            except ConnectionResetError:
                data = b""
            if not data:
                self.wait(10)
                raise self.failure(f"waited in vain for {what}")
            for kind, channel, payload in self._parser.feed(data):
                self._take(kind, channel, payload)

    def _take(self, kind: int, channel: int, payload: bytes) -> None:
        if kind == HELLO:
            self.hellos += 1
        elif channel in self._running:
            self._running[channel].take(kind, payload)
            if kind == EXIT:
                del self._running[channel]
