"""`initspawn attach`: our terminal and that of a task of a running supervisor, connected."""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
from binascii import a2b_base64, b2a_base64
from contextlib import suppress

from initspawn.cli.connect import add_place, connect, path_of, token_of
from initspawn.cli.exits import OK, UsageError
from initspawn.cli.output import complain, ended, plain
from initspawn.cli.terminal import Terminal, show
from initspawn.control.client import Client, ErrorReply, TaskEvent
from initspawn.errors import RequestError
from initspawn.event import BASE64, FINAL, PIECE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HELP = "connect this terminal with that of a task of a running supervisor"
EXAMPLES = """\
examples:
  initspawn attach demo/box/shell --start
  initspawn attach demo/box/shell
  initspawn attach demo/box/shell 4711 --take

Ctrl-] leaves, and the task goes on; every other key is the command's.
"""
_DETACH = b"\x1d"  # Ctrl-]
_TYPED_AHEAD = 65536  # bytes of keys that wait for a command that does not read


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `attach`."""
    parser.epilog = EXAMPLES
    parser.add_argument("procedure", metavar="API/VERB", help="what runs")
    parser.add_argument("pid", metavar="PID", nargs="?", type=int, help="which task, if there are several")
    parser.add_argument("--start", action="store_true", help="start one, without arguments")
    parser.add_argument("--take", action="store_true", help="also where another client writes to it")
    add_place(parser)


def main(arguments: argparse.Namespace) -> int:
    """Connect them until the command ends or Ctrl-]. Returns the command's exit code, 0 in the other case.

    Raises RequestError, UsageError, InitspawnError, OSError.
    """
    if "/" not in arguments.procedure:
        raise UsageError(f"{arguments.procedure!r} is no full name of a verb: write API/VERB")
    if arguments.start and arguments.pid is not None:
        raise UsageError("a task that is started has no PID yet")
    terminal = Terminal()
    with connect(path_of(arguments)) as client:
        session = Session(client, arguments.procedure, terminal)
        session.find(arguments)
        return session.run()


class Session:
    """One task's output on our terminal, and our keys in its."""

    def __init__(self, client: Client, procedure: str, terminal: Terminal) -> None:
        self._client = client
        self._procedure = procedure
        self._terminal = terminal
        self._pid = 0
        self._keys = b""  # typed, and not sent yet
        self._sent = 0  # the call with the keys that are on their way; 0: none
        self._status: Any = None  # once it has ended
        self._left = False

    def find(self, arguments: argparse.Namespace) -> None:
        """Start or find the task, and become its writer. Raises RequestError, UsageError."""
        token = token_of(arguments)
        if arguments.start:
            self._start(token)
        else:
            one = {} if arguments.pid is None else {"args": {"pid": arguments.pid}}
            found = self._client.call(self._procedure, {"action": "subscribe", **one}, token).response
            tasks = found if isinstance(found, list) else [found]
            if len(tasks) != 1:
                which = f"name the PID of {', '.join(tasks)}" if tasks else "nothing runs: --start starts it"
                raise UsageError(f"{self._procedure}: {which}")
            self._pid = int(tasks[0].rpartition("@")[2])
        try:
            self._call("input", attach=arguments.take)
            self._resize(self._client.call)
        except RequestError:
            if arguments.start:  # nobody asked for a task without us
                with suppress(RequestError):
                    self._call("stop")
            raise

    def _start(self, token: str | None) -> None:
        """Start it, if it is a command with a terminal. Raises RequestError."""
        api, _, verb = self._procedure.partition("/")
        if _input_of(self._client.call(f"{api}/info", None, token).response, verb) != "terminal":
            hint = f"`initspawn call {self._procedure}` starts it"
            raise RequestError("bad-state", f"it has no terminal: {hint}")
        self._pid = self._client.call(self._procedure, {"action": "start"}, token).response["pid"]

    def _call(self, action: str, **args: Any) -> None:
        self._client.call(self._procedure, {"action": action, "args": {"pid": self._pid, **args}})

    def _resize(self, send: Any) -> None:
        rows, columns = self._terminal.size()
        args = {"pid": self._pid, "rows": rows, "columns": columns}
        send(self._procedure, {"action": "resize", "args": args})

    def run(self) -> int:
        """Hand everything on. Returns the exit code; raises RequestError, OSError."""
        news, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signals = (signal.SIGWINCH, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
        before = [signal.signal(number, lambda *_: None) for number in signals]
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        self._terminal.take()
        try:
            for message in self._client.receive(wait=False):
                self._hear(message)
            while self._status is None and not self._left:
                self._turn(news)
        finally:
            self._terminal.give_back()
            signal.set_wakeup_fd(-1)
            for number, handler in zip(signals, before, strict=True):
                signal.signal(number, handler)
            os.close(news)
            os.close(wake)
        if self._status is not None:
            return ended(self._status, sys.stderr)
        again = f"initspawn attach {self._procedure} {self._pid}"
        complain(f"{self._procedure} goes on as pid {self._pid}; back to it: {again}")
        return OK

    def _turn(self, news: int) -> None:
        keys = [0] if len(self._keys) < _TYPED_AHEAD else []
        link = self._client.fileno()
        ready, _, _ = select.select([news, link, *keys], [], [])
        if news in ready:
            numbers = os.read(news, 64)
            if numbers.strip(bytes([signal.SIGWINCH])):
                self._left = True
                return
            self._resize(self._client.post)
        if link in ready:
            for message in self._client.receive():
                self._hear(message)
        if 0 in ready and self._status is None:
            typed, leave, _ = os.read(0, 4096).partition(_DETACH)
            self._keys += typed
            self._left = bool(leave) or not typed
        if self._keys and not self._sent and self._status is None:
            args = {"pid": self._pid, "base64": b2a_base64(self._keys, newline=False).decode()}
            self._keys = b""
            self._sent = self._client.post(self._procedure, {"action": "input", "args": args})

    def _hear(self, message: TaskEvent | tuple[int, Any]) -> None:
        if not isinstance(message, TaskEvent):
            number, answer = message
            if number == self._sent:
                self._sent = 0
                if isinstance(answer, ErrorReply) and answer.info.startswith("another client"):
                    raise RequestError(answer.status, answer.info)
            return
        data = message.data
        if message.task.endswith(f"@{self._pid}") and isinstance(data, dict):
            self._show(data)

    def _show(self, data: dict[str, Any]) -> None:
        if data.get("type") == FINAL:
            self._status = data.get("status") or {}
            return
        if PIECE in data:
            text = data.get("stdout", "")
            show(a2b_base64(text) if data[PIECE] == BASE64 else text.encode("utf-8", "surrogatepass"))
            return
        for line in _lines(data):
            show(plain(line).encode("utf-8", "backslashreplace") + b"\r\n")


def _input_of(told: Any, verb: str) -> Any:
    """What a verb's tasks have as standard input, as its API's `info` says. An unknown verb may have a
    terminal: the call of it says what is wrong.
    """
    for group in told["groups"]:
        for one in group["verbs"]:
            if one["verb"] == verb:
                return one.get("input")
    return "terminal"


def _lines(data: dict[str, Any]) -> list[str]:
    """What an encoder that tells lines, or values, made of the output."""
    found = []
    for name in ("stdout", "stderr"):
        value = data.get(name, [])
        found += [str(item) for item in (value if isinstance(value, list) else [value])]
    return found
