"""Frames between host and agent: whatever the pieces they come in, the same frames come out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qemu.frames import HEADER, OUT, RUN, Parser, frame

FRAMES = st.lists(
    st.tuples(st.integers(1, 7), st.integers(0, 2**32 - 1), st.binary(max_size=300)), max_size=6
)


@given(FRAMES, st.lists(st.integers(1, 50), min_size=1))
def test_pieces_of_any_size(frames: list[tuple[int, int, bytes]], sizes: list[int]) -> None:
    data = b"".join(frame(*one) for one in frames)
    parser, found, start = Parser(), [], 0
    while start < len(data):
        size = sizes[len(found) % len(sizes)]
        found += parser.feed(data[start : start + size])
        start += size
    assert found == frames


def test_a_frame_without_payload_is_its_header() -> None:
    assert frame(RUN, 7) == HEADER.pack(RUN, 7, 0)
    assert Parser().feed(frame(OUT, 1, b"x")[:-1]) == []
