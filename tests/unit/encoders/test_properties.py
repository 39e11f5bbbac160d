"""What holds for the encoders' output whatever a command writes, and however it arrives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initspawn.encoders.lines import LineSplitter
from initspawn.encoders.table import ENCODERS, make

# Pieces that matter to the splitter, so that short inputs meet every rule.
piece = st.sampled_from([b"\n", b"\r\n", b"\r", b"\t", b"x" * 9, b"a", "é€𐍈".encode(), b"\xff", b"\xe2\x82"])
content = st.lists(piece | st.binary(max_size=30), max_size=40).map(b"".join)
maxlens = st.integers(min_value=6, max_value=40)


@st.composite
def divided(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """Some bytes, whole and cut anywhere."""
    data = draw(content)
    cuts = sorted(draw(st.lists(st.integers(min_value=0, max_value=len(data)), max_size=8)))
    return data, [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def told(encoder: Any, stream: str, chunks: list[bytes]) -> list[Any]:
    events = [event for chunk in chunks for event in encoder.feed(stream, chunk)]
    return [*events, *encoder.finish(), encoder.result()]


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from texts(item)


@pytest.mark.parametrize("name", ENCODERS)
@given(case=divided(), maxlen=maxlens, maxline=st.integers(min_value=1, max_value=20))
def test_reads_do_not_show(name: str, case: tuple[bytes, list[bytes]], maxlen: int, maxline: int) -> None:
    whole, chunks = case
    options = {"maxlen": maxlen, "maxline": maxline}
    in_one = told(make(name, options), "stdout", [whole])
    assert told(make(name, options), "stdout", chunks) == in_one
    for text in texts(in_one):
        text.encode("utf-8")


@given(text=st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"])), maxlen=maxlens)
def test_pieces_respect_characters_and_maxlen(text: str, maxlen: int) -> None:
    splitter = LineSplitter(maxlen)
    pieces = splitter.feed(text.encode()) + splitter.finish()
    *cut, last = pieces or [""]
    assert "".join(piece[:-1] for piece in cut) + last == text
    for piece in cut:
        assert piece.endswith("\\")
        assert maxlen - 4 <= len(piece.encode()) < maxlen
    assert len(last.encode()) < maxlen
