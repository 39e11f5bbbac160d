"""Unmasked client frames before the installed `websockets`: when that changes, this fails."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame
from websockets.protocol import State
from websockets.server import ServerProtocol

from initspawn.gateway.unmasked import MaskFilter
from tests.gateway.raw_client import PING, TEXT, frame


def received(*parts: bytes, filtered: bool = True) -> tuple[list[tuple[int, bytes]], ServerProtocol]:
    """What the installed frame core makes of a client's bytes."""
    core = ServerProtocol(state=State.OPEN, max_size=2**20)
    masks = MaskFilter()
    frames: list[tuple[int, bytes]] = []
    for part in parts:
        core.receive_data(masks.feed(part) if filtered else part)
        for event in core.events_received():
            assert isinstance(event, Frame)
            frames.append((int(event.opcode), bytes(event.data)))
    return frames, core


def test_the_library_still_refuses_unmasked_frames() -> None:
    """If this fails, the filter has lost its reason and can go."""
    frames, core = received(frame(b"x", mask=False), filtered=False)
    assert not frames
    assert core.close_sent is not None
    assert core.close_sent.code == 1002


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 100_000])
@pytest.mark.parametrize("mask", [True, False])
def test_every_length_form(size: int, mask: bool) -> None:
    payload = bytes(i % 251 for i in range(size))
    assert received(frame(payload, mask=mask))[0] == [(TEXT, payload)]


def test_literal_bytes() -> None:
    text = b'[2,"999999","tb/sub",null]'
    assert MaskFilter().feed(b"\x81\x1a" + text) == b"\x81\x9a\0\0\0\0" + text
    assert MaskFilter().feed(b"\x81\x81abcdx") == b"\x81\x81abcdx"


def test_masked_frames_pass_without_a_copy() -> None:
    data = frame(b"one") + frame(b"two")
    assert MaskFilter().feed(data) is data


@given(
    st.lists(st.tuples(st.binary(max_size=300), st.booleans(), st.sampled_from([TEXT, PING])), max_size=6),
    st.lists(st.integers(1, 400), max_size=12),
)
def test_torn_anywhere(messages: list[tuple[bytes, bool, int]], cuts: list[int]) -> None:
    wanted = [(opcode, payload[:125]) for payload, _, opcode in messages]
    data = b"".join(frame(payload[:125], opcode, mask=mask) for payload, mask, opcode in messages)
    parts = []
    for cut in cuts:
        parts.append(data[:cut])
        data = data[cut:]
    frames, core = received(*parts, data)
    assert frames == wanted
    assert core.parser_exc is None


def test_byte_by_byte() -> None:
    data = frame(b"a" * 300, mask=False) + frame(b"b" * 70_000, mask=True) + frame(b"", PING, mask=False)
    frames, _ = received(*(data[i : i + 1] for i in range(len(data))))
    assert [(opcode, len(payload)) for opcode, payload in frames] == [(TEXT, 300), (TEXT, 70_000), (PING, 0)]


@given(st.lists(st.binary(max_size=40), max_size=5))
def test_any_bytes_at_all(parts: list[bytes]) -> None:
    """The filter never raises, loses nothing, and gives the same output however the input is torn."""
    torn, whole = MaskFilter(), MaskFilter()
    pieces = b"".join(torn.feed(part) for part in parts)
    assert pieces == whole.feed(b"".join(parts))
