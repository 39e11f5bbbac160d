"""The pipe to a task's standard input: flow control, one writer, and every end."""

from __future__ import annotations

import os
import termios
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initspawn.errors import RequestError
from initspawn.sandbox.streams import Streams
from initspawn.supervisor.input import Input
from initspawn.supervisor.reactor import WRITE


class Pipe:
    """An input on a real pipe, with a reactor that calls when it is told to."""

    def __init__(self, size: tuple[int, int] | None = None) -> None:
        self.streams = Streams(fed=True, size=size)
        self.reader, *others = self.streams.open(os.geteuid())
        for fd in others:
            os.close(fd)
        os.set_blocking(self.reader, False)
        self.writer = self.streams.stdin
        self.callback: Any = None
        self.told: list[tuple[int, int]] = []
        self.me = SimpleNamespace(closed=False)
        self.input = Input(self, self.streams)  # type: ignore[arg-type]

    def watch(self, fd: int, mask: int, callback: Any) -> None:
        assert (fd, mask, self.callback) == (self.writer, WRITE, None)
        self.callback = callback

    def forget(self, fd: int) -> None:
        assert fd == self.writer
        assert self.callback is not None
        self.callback = None

    def close_reader(self) -> None:
        os.close(self.reader)
        self.reader = -1

    def give(self, data: bytes, *, end: bool = False, who: Any = None, take: bool = False) -> None:
        self.input.hold(who or self.me, "other" if who else "me", take=take)
        self.input.give(data, end, lambda taken, size: self.told.append((taken, size)))

    def read(self, most: int = 1 << 20) -> bytes:
        try:
            return os.read(self.reader, most)
        except BlockingIOError:
            return b"nothing"


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.input.close()
    assert made.callback is None
    assert made.streams.stdin == -1
    made.streams.close()
    if made.reader >= 0:
        made.close_reader()


@pytest.fixture
def terminal() -> Iterator[Pipe]:
    made = Pipe((24, 80))
    yield made
    made.input.close()
    made.streams.close()
    made.close_reader()


def test_what_fits_is_taken_at_once(pipe: Pipe) -> None:
    pipe.give(b"one\n")
    pipe.give(b"")
    assert pipe.told == [(4, 4), (0, 0)]
    assert pipe.read() == b"one\n"


def test_the_end_is_told_behind_the_data(pipe: Pipe) -> None:
    pipe.give(b"last", end=True)
    assert pipe.told == [(4, 4)]
    assert (pipe.read(), pipe.read()) == (b"last", b"")
    with pytest.raises(RequestError, match="closed"):
        pipe.give(b"more")


def test_the_answer_waits_for_room(pipe: Pipe) -> None:
    data = os.urandom(300_000)
    pipe.give(data, end=True)
    assert pipe.told == []
    with pytest.raises(RequestError, match="not taken yet"):
        pipe.give(b"more")
    got = b""
    while not pipe.told:
        got += pipe.read()
        pipe.callback(WRITE)
    got += pipe.read()
    assert got == data
    assert pipe.told == [(300_000, 300_000)]
    assert pipe.read() == b""


@pytest.mark.parametrize("how", ["reader", "task"])
def test_who_waits_is_told_that_nobody_reads(pipe: Pipe, how: str) -> None:
    pipe.give(bytes(300_000))
    if how == "reader":
        pipe.close_reader()
        pipe.callback(WRITE)
    else:
        pipe.input.close()
    ((taken, size),) = pipe.told
    assert 0 < taken < size == 300_000
    with pytest.raises(RequestError, match="closed"):
        pipe.give(b"more")


def test_one_writer_at_a_time(pipe: Pipe) -> None:
    other = SimpleNamespace(closed=False)
    pipe.give(b"a")
    with pytest.raises(RequestError, match="another client"):
        pipe.give(b"b", who=other)
    pipe.input.release(other, "other")
    with pytest.raises(RequestError, match="another client"):
        pipe.give(b"b", who=other)
    pipe.input.release(pipe.me, "me")
    pipe.give(b"b", who=other)
    other.closed = True  # its connection has ended
    pipe.give(b"c")
    assert pipe.read() == b"abc"


def test_who_shares_a_connection_shares_no_input(pipe: Pipe) -> None:
    pipe.give(b"a")
    with pytest.raises(RequestError, match="another client writes to it: me"):
        pipe.input.hold(pipe.me, "somebody")
    pipe.input.release(pipe.me, "somebody")
    assert pipe.input.holder == "me"


def test_a_writer_that_is_relieved_is_told(pipe: Pipe) -> None:
    other = SimpleNamespace(closed=False)
    pipe.give(bytes(300_000))
    with pytest.raises(RequestError, match="another client writes to it: me"):
        pipe.give(b"b", who=other)
    assert pipe.told == []
    pipe.input.hold(other, "other", take=True)
    ((taken, size),) = pipe.told
    assert 0 < taken < size == 300_000
    assert pipe.callback is None
    while pipe.read() != b"nothing":
        pass
    pipe.give(b"b", who=other)
    assert pipe.read() == b"b"
    with pytest.raises(RequestError, match="another client writes to it: other"):
        pipe.give(b"c")
    pipe.input.release(other, "other")
    assert pipe.input.holder == ""


def test_who_takes_its_own_place_loses_nothing(pipe: Pipe) -> None:
    pipe.give(bytes(300_000))
    pipe.input.hold(pipe.me, "me", take=True)
    assert pipe.told == []
    assert pipe.callback is not None


def test_no_size_without_a_terminal(pipe: Pipe) -> None:
    with pytest.raises(RequestError, match="has no terminal"):
        pipe.input.resize(pipe.me, "me", 1, 1)


def test_the_end_at_a_terminal_is_a_character(terminal: Pipe) -> None:
    terminal.give(b"one\n", end=True)
    terminal.give(b"", end=True)
    terminal.give(b"half", end=True)
    terminal.give(b"more\n")
    assert terminal.told == [(4, 4), (0, 0), (4, 4), (5, 5)]
    assert [terminal.read() for _ in range(6)] == [b"one\n", b"", b"", b"half", b"", b"more\n"]


def test_the_end_character_may_be_another(terminal: Pipe) -> None:
    modes = termios.tcgetattr(terminal.reader)
    modes[6][termios.VEOF] = b"Z"
    termios.tcsetattr(terminal.reader, termios.TCSANOW, modes)
    terminal.give(b"\x04\n", end=True)
    assert [terminal.read(), terminal.read()] == [b"\x04\n", b""]


def test_a_terminal_has_the_size_it_was_given(terminal: Pipe) -> None:
    assert os.get_terminal_size(terminal.reader) == (80, 24)
    terminal.input.resize(terminal.me, "me", 50, 132)
    assert os.get_terminal_size(terminal.reader) == (132, 50)
    other = SimpleNamespace(closed=False)
    terminal.input.hold(other, "other")
    with pytest.raises(RequestError, match="another client writes to it: other"):
        terminal.input.resize(terminal.me, "me", 1, 1)
    terminal.input.close()
    with pytest.raises(RequestError, match="closed"):
        terminal.input.resize(other, "other", 1, 1)


def test_a_terminal_belongs_to_one_user(terminal: Pipe) -> None:
    found = os.fstat(terminal.reader)
    assert (found.st_uid, found.st_mode & 0o777) == (os.geteuid(), 0o600)


def test_a_terminal_that_is_read_by_nobody_answers_when_it_is_hung_up(terminal: Pipe) -> None:
    """What it holds is bounded: the answer waits."""
    line = b"x" * 99 + b"\n"
    terminal.give(line * 5000)
    assert terminal.told == []
    terminal.input.close()
    ((taken, size),) = terminal.told
    assert 0 < taken < size == 500_000


@given(st.lists(st.binary(max_size=70_000), max_size=5), st.lists(st.integers(1, 100_000), min_size=1))
def test_every_byte_comes_once_and_in_order(pieces: list[bytes], reads: list[int]) -> None:
    pipe, got = Pipe(), b""
    for index, piece in enumerate(pieces):
        pipe.give(piece)
        while len(pipe.told) <= index:
            got += pipe.read(reads[index % len(reads)])
            pipe.callback(WRITE)
    pipe.input.close()
    while more := pipe.read():
        got += more
    pipe.close_reader()
    pipe.streams.close()
    assert got == b"".join(pieces)
    assert pipe.told == [(len(piece), len(piece)) for piece in pieces]
