"""Our own standard input, handed to a task of a running supervisor."""

from __future__ import annotations

import os
from binascii import b2a_base64
from threading import Thread

from initspawn.cli.output import complain
from initspawn.control.client import Client, TaskEvent
from initspawn.errors import RequestError
from initspawn.event import INITIAL

_AT_ONCE = 65536  # bytes of one call


class Feeder:
    """Copies descriptor 0 to a task, over a connection of its own: it waits for room."""

    def __init__(self, path: str, procedure: str, token: str | None) -> None:
        self._path = path
        self._procedure = procedure
        self._token = token
        self._thread: Thread | None = None

    def hear(self, event: TaskEvent) -> None:
        """An event came; of commands that answer at their end it says that they run."""
        if isinstance(event.data, dict) and event.data.get("type") == INITIAL:
            self.begin(event.data["pid"])

    def begin(self, pid: int) -> None:
        """The task runs; may be called again."""
        if self._thread is None:
            self._thread = Thread(target=self._copy, args=(pid,), daemon=True)
            self._thread.start()

    def _copy(self, pid: int) -> None:
        try:
            with Client(self._path) as client:
                data = b"something"
                while data:
                    data = os.read(0, _AT_ONCE)
                    text = b2a_base64(data, newline=False).decode()
                    args = {"pid": pid, "base64": text, "eof": not data}
                    client.call(self._procedure, {"action": "input", "args": args}, self._token)
        except RequestError as error:
            # It has ended, or reads no more: its own output and status say what it makes of that.
            if error.info != "invalid pid" and "standard input is closed" not in error.info:
                complain(f"input: {error.info or error.status}")
        except OSError as error:
            complain(f"input: {error.strerror or error}")
