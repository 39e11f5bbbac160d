"""Which encoders there are, and their options. Boot module."""

from __future__ import annotations

from initspawn.encoders.line import Line
from initspawn.encoders.lines import STREAM_BYTES
from initspawn.encoders.log import Log
from initspawn.encoders.raw import Raw
from initspawn.encoders.sync import Sync
from initspawn.encoders.text import Text
from initspawn.limits import MAX_DEPTH, MAX_LINE_BYTES, MAX_LINES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from initspawn.encoders.base import Encoder

DEFAULT = "text"
STREAM = "stream"  # of what has a terminal


def _json(**options: Any) -> Encoder:
    from initspawn.encoders.json import Json  # what it needs, no other encoder does

    return Json(**options)


def _stream(**options: Any) -> Encoder:
    from initspawn.encoders.stream import Stream  # mostly for terminals

    return Stream(**options)


ENCODERS: dict[str, Callable[..., Encoder]] = {
    "text": Text, "line": Line, "sync": Sync, "raw": Raw, "log": Log, "json": _json,
    "stream": _stream,
}  # fmt: skip

# A cut line holds at least one character of four bytes and its backslash. The upper ends keep a line,
# with every byte escaped, within a frame, and a value within what its readers may nest.
MAXLEN = range(6, 65536 + 1)
MAXLINE = range(1, 65536 + 1)
MAXDEPTH = range(1, 128 + 1)
RAW_BYTES = range(1, STREAM_BYTES + 1)

_LINES = (MAX_LINE_BYTES, MAXLEN)
# Each option that is a number: its default and what it may be.
NUMBERS: dict[str, dict[str, tuple[int, range]]] = {
    "text": {"maxlen": _LINES, "maxline": (MAX_LINES, MAXLINE)},
    "sync": {"maxlen": _LINES, "maxline": (MAX_LINES, MAXLINE)},
    "line": {"maxlen": _LINES},
    "raw": {"maxlen": (STREAM_BYTES, RAW_BYTES)},
    "json": {"maxlen": _LINES, "maxdepth": (MAX_DEPTH, MAXDEPTH)},
    "log": {},
    "stream": {},
}
FLAGS = {"raw": ("base64",), "stream": ("base64",)}
PATHS = {"log": ("stdout", "stderr")}
# What any encoder takes, and most of them have no use for: files share their options.
COMMON = ("maxlen", "maxline")


def make(name: str, options: dict[str, Any] | None = None) -> Encoder:
    """A new encoder for one task. Names are compared without case; unknown options mean nothing.

    Raises ValueError, its text meant for whoever wrote the configuration.
    """
    name = name.lower()
    if name not in ENCODERS:
        raise ValueError(f"no encoder {name!r}; there are {', '.join(ENCODERS)}")
    return ENCODERS[name](**complete(name, options or {}))


def options_of(name: str) -> tuple[str, ...]:
    """The options that an encoder has a use for."""
    return (*NUMBERS[name], *FLAGS.get(name, ()), *PATHS.get(name, ()))


def complete(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """All options of an encoder, those that are not given by their default. Raises ValueError."""
    found: dict[str, Any] = {}
    for option, (default, allowed) in NUMBERS[name].items():
        value = options.get(option, default)
        if type(value) is not int or value not in allowed:
            reason = f"must be a whole number from {allowed[0]} to {allowed[-1]}, not {value!r}"
            raise ValueError(f"`{option}` {reason}")
        found[option] = value
    for option in FLAGS.get(name, ()):
        found[option] = options.get(option, False)
        if not isinstance(found[option], bool):
            raise ValueError(f"`{option}` must be true or false, not {found[option]!r}")
    for option in PATHS.get(name, ()):
        found[option] = options.get(option, "")
        if not isinstance(found[option], str):
            raise ValueError(f"`{option}` must be a path, not {found[option]!r}")
    return found
