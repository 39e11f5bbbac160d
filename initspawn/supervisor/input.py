"""A task's standard input: a pipe that one client at a time writes to. Boot module.

Nothing piles up: one call's data at most waits for the command to read, and its answer waits with it.
"""

from __future__ import annotations

import os

from initspawn.errors import RequestError
from initspawn.supervisor.reactor import WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from initspawn.supervisor.reactor import Reactor

    class Writer(Protocol):
        """Whoever writes; it holds the input until it lets go or its connection is closed."""

        @property
        def closed(self) -> bool:
            """Whether its connection has ended."""


_AT_ONCE = 65536  # bytes for one write(2)


class Input:
    """`fd` is our end of the pipe, non-blocking; `close_fd` closes it."""

    def __init__(self, reactor: Reactor, fd: int, close_fd: Callable[[], None]) -> None:
        self._reactor = reactor
        self._fd = fd
        self._close_fd = close_fd
        self._writer: Writer | None = None
        self._left = memoryview(b"")
        self._size = 0
        self._end = False
        self._watched = False
        self._answer: Callable[[int, int], None] | None = None

    def give(self, writer: Writer, data: bytes, end: bool, answer: Callable[[int, int], None]) -> None:
        """Write data, then close the pipe if that is the `end`. `answer` is told how many bytes were taken,
        and of how many, when the last one is in the pipe or the command reads no more.

        Raises RequestError(bad-state): another client writes, it is closed, or a call is waiting already.
        """
        holder = self._writer
        if holder is not None and holder is not writer and not holder.closed:
            raise RequestError("bad-state", "another client writes to it")
        if self._answer is not None:
            raise RequestError("bad-state", "what was sent before is not taken yet")
        if self._fd < 0:
            raise RequestError("bad-state", "its standard input is closed")
        self._writer = writer
        self._left, self._size, self._end, self._answer = memoryview(data), len(data), end, answer
        self._write()

    def release(self, writer: Writer) -> None:
        """This client writes no more; another one may."""
        if self._writer is writer:
            self._writer = None

    def close(self) -> None:
        """Nothing more can be written: whoever waits is told."""
        if self._fd >= 0:
            self._watch(False)
            self._fd = -1
            self._close_fd()
        self._tell()

    def _write(self) -> None:
        try:
            while self._left:
                self._left = self._left[os.write(self._fd, self._left[:_AT_ONCE]) :]
        except BlockingIOError:
            self._watch(True)
            return
        except OSError:  # the command has closed it
            self.close()
            return
        self._watch(False)
        if self._end:
            self.close()
        else:
            self._tell()

    def _watch(self, wanted: bool) -> None:
        if wanted and not self._watched:
            self._reactor.watch(self._fd, WRITE, lambda _: self._write())
        elif self._watched and not wanted:
            self._reactor.forget(self._fd)
        self._watched = wanted

    def _tell(self) -> None:
        answer, self._answer = self._answer, None
        left, self._left = len(self._left), memoryview(b"")
        if answer is not None:
            answer(self._size - left, self._size)
