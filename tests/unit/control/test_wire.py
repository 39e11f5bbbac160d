"""The control socket's frames: literal bytes, torn input, and nothing but WireError for bad ones."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initspawn.control.wire import FrameReader, Request, WireError, decode, decode_call, encode, pack
from initspawn.limits import CONTROL_BYTES


def test_literal_frame() -> None:
    assert (
        encode({"id": 1, "call": "a/b", "args": "é"}) == b'\x21\0\0\0{"id":1,"call":"a/b","args":"\xc3\xa9"}'
    )


def test_lone_surrogates_become_a_question_mark() -> None:
    assert encode({"a": "\ud800"}) == pack(b'{"a":"?"}')


def test_largest_frame() -> None:
    assert FrameReader().feed(pack(b"x" * CONTROL_BYTES)) == [b"x" * CONTROL_BYTES]
    with pytest.raises(ValueError, match="at most"):
        pack(b"x" * (CONTROL_BYTES + 1))


@pytest.mark.parametrize("length", [0, CONTROL_BYTES + 1, 2**32 - 1])
def test_impossible_lengths(length: int) -> None:
    """Refused from the header alone, before anything is buffered for it."""
    reader = FrameReader()
    assert reader.feed(length.to_bytes(4, "little")) == []
    assert reader.fault == f"a frame of {length} bytes, 1 to {CONTROL_BYTES} are allowed"


@given(st.lists(st.binary(min_size=1, max_size=30), max_size=6), st.lists(st.integers(1, 20), max_size=20))
def test_what_came_before_an_impossible_length_is_told(bodies: list[bytes], cuts: list[int]) -> None:
    """However the bytes come; and what comes behind it is nothing, whatever it looks like."""
    data = b"".join(map(pack, bodies)) + bytes(4) + pack(b"behind")
    reader, got = FrameReader(), []
    for cut in cuts:
        got += reader.feed(data[:cut])
        data = data[cut:]
    assert got + reader.feed(data) + reader.feed(pack(b"x")) == bodies
    assert reader.fault


@given(st.lists(st.binary(min_size=1, max_size=30), max_size=6), st.lists(st.integers(1, 20), max_size=20))
def test_torn_anywhere(bodies: list[bytes], cuts: list[int]) -> None:
    data = b"".join(map(pack, bodies))
    reader, got = FrameReader(), []
    for cut in cuts:
        got += reader.feed(data[:cut])
        data = data[cut:]
    assert got + reader.feed(data) == bodies


@pytest.mark.parametrize(
    ("body", "call"),
    [
        (b'{"id":0,"call":"a/b","args":null}', (0, "a/b", None, None)),
        (b'{"id":9007199254740992,"call":"/x"}', (2**53, "/x", None, None)),
        (b'{"id":1,"call":"a/b","args":[1,{}],"token":"t"}', (1, "a/b", [1, {}], "t")),
    ],
)
def test_calls(body: bytes, call: tuple[Any, ...]) -> None:
    number, procedure, args, token = call
    assert decode_call(body) == Request(number=number, procedure=procedure, args=args, token=token)


def test_a_call_with_all_its_keys() -> None:
    body = b'{"id":1,"call":"a/b","token":"t","session":"s","behalf":0,"single":true,"events":false}'
    assert decode_call(body) == Request(
        number=1, procedure="a/b", token="t", session="s", behalf=0, single=True, events=False
    )
    assert decode_call(b'{"id":1,"unsubscribe":"a/b"}') == Request(number=1, order="unsubscribe", about="a/b")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b"[" * 100_000,
        b"{}",
        b'{"id":1}',
        b'{"id":-1,"call":"a/b"}',
        b'{"id":true,"call":"a/b"}',
        b'{"id":1.0,"call":"a/b"}',
        b'{"id":9007199254740993,"call":"a/b"}',
        b'{"id":1,"call":1}',
        b'{"id":1,"call":"a/b","token":1}',
        b'{"id":1,"call":"a/b","more":1}',
        b'{"id":1,"call":"a/b","session":1}',
        b'{"id":1,"call":"a/b","events":1}',
        b'{"id":1,"call":"a/b","single":null}',
        b'{"id":1,"call":"a/b","behalf":-1}',
        b'{"id":1,"call":"a/b","behalf":true}',
        b'{"id":1,"unsubscribe":1}',
        b'{"id":1,"unsubscribe":"a/b","token":"t"}',
        b'{"id":1,"login":1}',
    ],
)
def test_bodies_that_are_no_calls(body: bytes) -> None:
    with pytest.raises(WireError):
        decode_call(body)


def test_more_digits_than_python_reads_are_a_number() -> None:
    request = decode_call(b'{"id":1,"call":"a/b","args":[2,-%b]}' % (b"9" * 5000))
    assert request.args == [2, -math.inf]


@given(st.binary(max_size=100))
def test_no_body_raises_anything_else(body: bytes) -> None:
    with contextlib.suppress(WireError):
        decode(body)
    with contextlib.suppress(WireError):
        decode_call(body)
