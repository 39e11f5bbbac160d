"""The sample plug-in: what the guide says of it, for any chunking."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

SAMPLE = Path(__file__).resolve().parents[3] / "configs" / "plugins" / "blkcount.py"


def encoder(**options: Any) -> Any:
    spec = importlib.util.spec_from_file_location("blkcount", SAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ENCODERS["blkcount"](options)


def told(chunks: list[bytes], **options: Any) -> list[Any]:
    made = encoder(**options)
    return [event for chunk in chunks for event in made.feed("stdout", chunk)] + list(made.finish())


def test_blocks() -> None:
    sums = {"errcount": 0, "linecount": 3}
    assert told([b"1\n2\n3"], blkcount=2) == [["1", "2"], ["3"], sums]
    assert told([b"long line\n"], maxlen=4) == [["long"], {"errcount": 0, "linecount": 1}]


@pytest.mark.parametrize("value", [0, "3", True, 70000, None])
def test_wrong_options(value: Any) -> None:
    for name in ("blkcount", "maxlen"):
        with pytest.raises(ValueError, match=f"`{name}` must be"):
            encoder(**{name: value})


@given(
    chunks=st.lists(st.lists(st.sampled_from([b"\n", b"abc", b"\xff"])).map(b"".join)),
    size=st.integers(1, 4),
    maxlen=st.integers(1, 9),
)
def test_reads_do_not_show(chunks: list[bytes], size: int, maxlen: int) -> None:
    whole = told([b"".join(chunks)], blkcount=size, maxlen=maxlen)
    assert told(chunks, blkcount=size, maxlen=maxlen) == whole
