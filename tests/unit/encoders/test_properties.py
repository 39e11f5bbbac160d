"""What holds for the encoders' output whatever a command writes, and however it arrives."""

from __future__ import annotations

import json
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initspawn.encoders import values
from initspawn.encoders.lines import LineSplitter
from initspawn.encoders.table import ENCODERS, make

# Pieces that matter to the splitters, so that short inputs meet every rule.
lines = st.sampled_from([b"\n", b"\r\n", b"\r", b"\t", b"x" * 9, b"a", "é€𐍈".encode(), b"\xff", b"\xe2\x82"])
json_bits = st.sampled_from(
    [b"{", b"}", b"[", b"]", b",", b":", b'"', b"'", b"\\", b"\\u", b"d83d", b'"a":', b"/", b"//", b"/*",
     b"*/", b"1", b"-0.5e3", b"true", b"null", b"NaN", b" ", b"\n", b"\n{", b'{"a":[1,{}]}', b"'b'"]
)  # fmt: skip
piece = lines | json_bits
content = st.lists(piece | st.binary(max_size=30), max_size=40).map(b"".join)
maxlens = st.integers(min_value=6, max_value=40)
json_value = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.text(st.characters(codec="utf-8"))
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=12,
)  # fmt: skip


@st.composite
def divided(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """Some bytes, whole and cut anywhere."""
    data = draw(content)
    cuts = sorted(draw(st.lists(st.integers(min_value=0, max_value=len(data)), max_size=8)))
    return data, [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def told(encoder: Any, stream: str, chunks: list[bytes]) -> list[Any]:
    events = [event for chunk in chunks for event in encoder.feed(stream, chunk)]
    events += encoder.finish()
    if any("piece" in event for event in events):  # `stream` tells what it gets, as it gets it
        events = ["".join(event[stream] for event in events)]
    return [*events, encoder.result()]


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("name", ENCODERS)
@given(case=divided(), maxlen=maxlens, few=st.integers(min_value=1, max_value=20))
def test_reads_do_not_show(
    name: str, stream: str, case: tuple[bytes, list[bytes]], maxlen: int, few: int
) -> None:
    whole, chunks = case
    options = {"maxlen": maxlen, "maxline": few, "maxdepth": few}
    in_one = told(make(name, options), stream, [whole])
    assert told(make(name, options), stream, chunks) == in_one
    assert told(make(name, options), stream, [bytes([byte]) for byte in whole]) == in_one
    json.loads(json.dumps(in_one, ensure_ascii=False, allow_nan=False).encode())


@given(case=divided(), size=st.integers(min_value=1, max_value=30))
def test_reads_do_not_show_in_what_is_too_large(case: tuple[bytes, list[bytes]], size: int) -> None:
    whole, chunks = case
    with mock.patch.object(values, "JSON_BYTES", size):
        assert told(make("json"), "stdout", chunks) == told(make("json"), "stdout", [whole])


@given(
    found=st.lists(json_value, max_size=6),
    ascii_only=st.booleans(),
    indent=st.none() | st.integers(0, 3),
    between=st.sampled_from([" ", "\n", "\r\n", " /* c */ ", " // c\n"]),
)
def test_every_json_value_comes_through(
    found: list[Any], ascii_only: bool, indent: int | None, between: str
) -> None:
    text = between.join(json.dumps(value, ensure_ascii=ascii_only, indent=indent) for value in found)
    events = told(make("json", {"maxdepth": 128}), "stdout", [text.encode()])
    assert events == [*({"stdout": value} for value in found if value is not None), {}]


@given(bad=st.binary(max_size=60).filter(lambda data: b"\n" not in data), rest=json_value)
def test_a_fault_costs_no_line_but_its_own(bad: bytes, rest: Any) -> None:
    """A value that begins its line with a bracket is always found, and told behind at most one fault."""
    whole = b"[x " + bad + b"\n" + json.dumps([rest]).encode()
    if bad.rstrip(b" \t\r").endswith(b","):
        return
    fault, value, _ = told(make("json", {"maxlen": 512}), "stdout", [whole])
    assert fault["json-error"] == "unexpected character"
    assert value == {"stdout": [rest]}


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
