"""Every target takes its corpus and what hypothesis makes of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.table import ALSO, FACING, OTHERS, TARGETS
from tests.fuzz.target import CORPUS, decode, encode
from tests.law.test_imports import SOURCES


@pytest.mark.parametrize("name", TARGETS)
def test_corpus(name: str) -> None:
    target = TARGETS[name]
    found = target.corpus()
    assert found
    for data in [b"", *found]:
        target.take(data)


@st.composite
def _mutated(draw: st.DrawFn, corpus: list[bytes]) -> bytes:
    """Pieces of two examples, with bytes of neither between them, and some repeated."""
    one, other = draw(st.sampled_from(corpus)), draw(st.sampled_from(corpus))
    start, end = (draw(st.integers(0, len(part))) for part in (one, other))
    middle = draw(st.binary(max_size=8)) * draw(st.sampled_from((1, 1, 1, 2, 50)))
    return one[:start] + middle + other[end:]


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.data())
def test_mutations(name: str, data: st.DataObject) -> None:
    target = TARGETS[name]
    target.take(data.draw(_mutated(target.corpus()) | st.binary(max_size=200)))


def test_every_module_that_faces_strangers_has_a_target() -> None:
    covered = {module for target in TARGETS.values() for module in target.covers}
    facing = {
        module
        for module in SOURCES
        if module.partition(".")[0] in FACING and module not in FACING and SOURCES[module].read_text().strip()
    } | set(ALSO)
    assert covered <= SOURCES.keys(), "no such module"
    assert facing - covered - OTHERS.keys() == set(), "add a target in tests/fuzz, or say why none is needed"
    assert covered & OTHERS.keys() == set()
    assert OTHERS.keys() <= facing, "no such module"


def test_every_corpus_has_its_target() -> None:
    assert {path.stem for path in CORPUS.iterdir()} == TARGETS.keys()


@given(st.binary(max_size=300))
def test_a_line_of_the_corpus_is_any_bytes(data: bytes) -> None:
    assert decode(encode(data)) == data
    assert not encode(data).startswith("#")
    assert "\n" not in encode(data)
