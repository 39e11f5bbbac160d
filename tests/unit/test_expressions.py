"""No regular expression of ours takes more time than its text is long: none comes from elsewhere."""

from __future__ import annotations

import gc
import importlib
import itertools
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.law.test_imports import SOURCES

LENGTH = 10_000
SECONDS = 0.4  # of processor time; what grows with the square takes many times as long
CHARACTERS = "a0 -.\\/:\"',\n[({*_%$=\x00"


def _patterns(value: Any, name: str) -> Iterator[tuple[str, re.Pattern[Any]]]:
    if isinstance(value, re.Pattern):
        yield name, value
    elif isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _patterns(inner, name)


def _all() -> dict[str, tuple[re.Pattern[Any], str]]:
    """Every compiled expression of a module, with the source of that module."""
    found: dict[str, tuple[re.Pattern[Any], str]] = {}
    for module, path in SOURCES.items():
        source = path.read_text(encoding="utf-8")
        if "re.compile" in source and not module.endswith("__main__"):
            loaded = importlib.import_module(f"initspawn.{module}")
            for name, value in vars(loaded).items():
                for number, (_, pattern) in enumerate(_patterns(value, name)):
                    found[f"{module}.{name}.{number}"] = pattern, source
    return found


PATTERNS = _all()
TEXTS = [
    (piece * LENGTH)[:LENGTH] + end
    for piece in [*CHARACTERS, *map("".join, itertools.permutations("a0 -.\\/:\"'\n_", 2))]
    for end in ("", "\x01")
]


def _took(use: Callable[[Any], Any], text: Any) -> float:
    gc.disable()  # what others have left is not its fault
    before = time.thread_time()
    use(text)
    took = time.thread_time() - before
    gc.enable()
    return took


def _uses(pattern: re.Pattern[Any], name: str, source: str) -> list[Callable[[Any], Any]]:
    """As its module uses it: another way may well be slower. One of a table is looked for and matched."""
    verbs = set(re.findall(rf"\b{name}(?:\[[^]]*\])?\.(\w+)", source))
    uses = [getattr(pattern, verb) for verb in sorted(verbs & {"match", "fullmatch"})]
    if not verbs or verbs - {"match", "fullmatch"}:
        uses.append(lambda text: list(pattern.finditer(text)))
    return uses


@pytest.mark.parametrize("name", PATTERNS)
def test_it_takes_no_more_time_than_its_text_is_long(name: str) -> None:
    pattern, source = PATTERNS[name]
    texts = TEXTS if isinstance(pattern.pattern, str) else [text.encode("latin-1") for text in TEXTS]
    for use in _uses(pattern, name.split(".")[-2], source):
        for text in texts:
            assert _took(use, text) < SECONDS, (pattern.pattern, text[:20])


@pytest.mark.parametrize(
    ("slow", "text"), [("(a*)*b", "a" * 24), (r"(.*,){6}x", "a," * 70), (r"(a|aa)+$", "a" * 34 + "b")]
)
def test_what_takes_more_is_noticed(slow: str, text: str) -> None:
    assert _took(re.compile(slow).match, text) > SECONDS
