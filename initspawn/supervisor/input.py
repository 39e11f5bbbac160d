"""A task's standard input, a pipe or a terminal that one client at a time writes to. Boot module.

Nothing piles up: one call's data at most waits for the command to read, and its answer waits with it.
"""

from __future__ import annotations

import os

from initspawn.errors import RequestError
from initspawn.linux import terminal
from initspawn.supervisor.reactor import WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from initspawn.sandbox.streams import Streams
    from initspawn.supervisor.reactor import Reactor

    class Writer(Protocol):
        """Whoever writes; it holds the input until it lets go or its connection is closed."""

        @property
        def closed(self) -> bool:
            """Whether its connection has ended."""


_AT_ONCE = 65536  # bytes for one write(2)


class Input:
    """Writes to `streams.stdin`, and closes it."""

    def __init__(self, reactor: Reactor, streams: Streams) -> None:
        self.holder = ""  # the name of who writes; empty: nobody
        self._reactor = reactor
        self._streams = streams
        self._writer: Writer | None = None
        self._left = memoryview(b"")
        self._size = self._whole = 0  # bytes of the call; with what is typed for its end
        self._end = False
        self._amid_line = False
        self._watched = False
        self._answer: Callable[[int, int], None] | None = None

    def hold(self, writer: Writer, name: str, *, take: bool = False) -> None:
        """This client, called `name`, writes from now on. `take`: also when another one did, who is told if a
        call of it waits. Raises RequestError(bad-state): another one does, or it is closed.
        """
        if self._streams.stdin < 0:
            raise RequestError("bad-state", "its standard input is closed")
        if self._held_from(writer, name) and not take:
            raise RequestError("bad-state", f"another client writes to it: {self.holder}")
        if take and (self._writer, self.holder) != (writer, name):
            self._watch(False)
            self._tell()
        self._writer, self.holder = writer, name

    def give(self, data: bytes, end: bool, answer: Callable[[int, int], None]) -> None:
        """Write data of who holds it now. If that is the `end`, then close the pipe; at a terminal type what
        means the end there. `answer` is told how many bytes were taken, and of how many, when the last one
        is, or the command reads no more. Raises RequestError(bad-state): a call is waiting already.
        """
        if self._answer is not None:
            raise RequestError("bad-state", "what was sent before is not taken yet")
        self._size, self._end, self._answer = len(data), end, answer
        if data:
            self._amid_line = not data.endswith(b"\n")
        if end and self._streams.terminal:
            data += self._typed_end()
        self._left, self._whole = memoryview(data), len(data)
        self._write()

    def resize(self, writer: Writer, name: str, rows: int, columns: int) -> None:
        """Give the terminal another size. Raises RequestError(bad-state): there is none, or another's."""
        if not self._streams.terminal:
            raise RequestError("bad-state", "it has no terminal: its command does not say `terminal`")
        if self._held_from(writer, name):
            raise RequestError("bad-state", f"another client writes to it: {self.holder}")
        if self._streams.stdin < 0:
            raise RequestError("bad-state", "its terminal is closed")
        self._streams.resize(rows, columns)

    def release(self, writer: Writer, name: str) -> None:
        """This client writes no more; another one may."""
        if self._writer is writer and self.holder == name:
            self._writer, self.holder = None, ""

    def close(self) -> None:
        """Nothing more can be written: whoever waits is told."""
        self._watch(False)
        self._streams.close_stream("stdin")
        self._tell()

    def _held_from(self, writer: Writer, name: str) -> bool:
        """Whether another client writes, or somebody else over the same connection, as proxies have it."""
        holder = self._writer
        if holder is None or holder.closed:
            return False
        return holder is not writer or self.holder != name

    def _typed_end(self) -> bytes:
        """The end-of-file character; behind an unfinished line the first one only ends that (termios(3))."""
        try:
            typed = terminal.end_character(self._streams.stdin)
        except OSError:  # it is being torn down, and writing will tell
            return b""
        return typed * (1 + self._amid_line)

    def _write(self) -> None:
        fd = self._streams.stdin
        try:
            while self._left:
                self._left = self._left[os.write(fd, self._left[:_AT_ONCE]) :]
        except BlockingIOError:
            self._watch(True)
            return
        except OSError:  # the command has closed it
            self.close()
            return
        self._watch(False)
        if self._end and not self._streams.terminal:
            self.close()
        else:
            self._tell()

    def _watch(self, wanted: bool) -> None:
        if wanted and not self._watched:
            self._reactor.watch(self._streams.stdin, WRITE, lambda _: self._write())
        elif self._watched and not wanted:
            self._reactor.forget(self._streams.stdin)
        self._watched = wanted

    def _tell(self) -> None:
        answer, self._answer = self._answer, None
        left, self._left = len(self._left), memoryview(b"")
        if answer is not None:
            answer(min(self._size, self._whole - left), self._size)
