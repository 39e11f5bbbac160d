"""The pipe to a task's standard input: flow control, one writer, and every end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initspawn.errors import RequestError
from initspawn.supervisor.input import Input
from initspawn.supervisor.reactor import WRITE


class Pipe:
    """An input on a real pipe, with a reactor that calls when it is told to."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.writer, False)
        os.set_blocking(self.reader, False)
        self.callback: Any = None
        self.told: list[tuple[int, int]] = []
        self.me = SimpleNamespace(closed=False)
        self.input = Input(self, self.writer, self.close_writer)  # type: ignore[arg-type]

    def watch(self, fd: int, mask: int, callback: Any) -> None:
        assert (fd, mask, self.callback) == (self.writer, WRITE, None)
        self.callback = callback

    def forget(self, fd: int) -> None:
        assert fd == self.writer
        assert self.callback is not None
        self.callback = None

    def close_writer(self) -> None:
        assert self.callback is None, "closed while it is watched"
        os.close(self.writer)
        self.writer = -1

    def close_reader(self) -> None:
        os.close(self.reader)
        self.reader = -1

    def give(self, data: bytes, *, end: bool = False, who: Any = None) -> None:
        self.input.give(who or self.me, data, end, lambda taken, size: self.told.append((taken, size)))

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
    if made.reader >= 0:
        made.close_reader()
    assert made.writer == -1


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
    pipe.input.release(other)
    with pytest.raises(RequestError, match="another client"):
        pipe.give(b"b", who=other)
    pipe.input.release(pipe.me)
    pipe.give(b"b", who=other)
    other.closed = True  # its connection has ended
    pipe.give(b"c")
    assert pipe.read() == b"abc"


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
    assert got == b"".join(pieces)
    assert pipe.told == [(len(piece), len(piece)) for piece in pieces]
