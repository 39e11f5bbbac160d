"""What a target is, and the corpus in text files."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

CORPUS = Path(__file__).with_name("corpus")


class Target(NamedTuple):
    """A parser that bytes of a stranger reach.

    `covers`: the modules of initspawn that it is about, without that name. `run` takes any bytes; it may
    raise what is in `refuses` and nothing else, and asserts by itself what must hold of what it understood.
    """

    name: str
    covers: tuple[str, ...]
    run: Callable[[bytes], object]
    refuses: tuple[type[Exception], ...] = ()

    def take(self, data: bytes) -> None:
        """Run it. Raises what it must not."""
        try:
            self.run(data)
        except self.refuses:
            pass

    def corpus(self) -> list[bytes]:
        """Its examples. A line is one, with escapes as in Python's bytes; `#` begins a comment."""
        text = (CORPUS / f"{self.name}.txt").read_text(encoding="ascii")
        return [decode(line) for line in text.splitlines() if line and not line.startswith("#")]


def decode(line: str) -> bytes:
    """The bytes that a line of the corpus stands for."""
    return codecs.escape_decode(line.encode("ascii"))[0]


def encode(data: bytes) -> str:
    """The line of the corpus that stands for these bytes."""
    text = codecs.escape_encode(data)[0].decode("ascii")
    return f"\\x23{text[1:]}" if text.startswith("#") else text
