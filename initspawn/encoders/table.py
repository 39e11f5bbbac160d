"""Which encoders there are, and their options. Boot module."""

from __future__ import annotations

from initspawn.encoders.line import Line
from initspawn.encoders.sync import Sync
from initspawn.encoders.text import Text
from initspawn.limits import MAX_LINE_BYTES, MAX_LINES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from initspawn.encoders.base import Encoder

DEFAULT = "text"
ENCODERS = {"text": Text, "line": Line, "sync": Sync}

# A cut line holds at least one character of four bytes and its backslash. The upper ends keep a line,
# with every byte escaped, within a frame.
MAXLEN = range(6, 65536 + 1)
MAXLINE = range(1, 65536 + 1)


def make(name: str, options: dict[str, Any] | None = None) -> Encoder:
    """A new encoder for one task. Names are compared without case; unknown options mean nothing.

    Raises ValueError, its text meant for whoever wrote the configuration.
    """
    kind = ENCODERS.get(name.lower())
    if kind is None:
        raise ValueError(f"no encoder {name!r}; there are {', '.join(ENCODERS)}")
    options = options or {}
    maxlen = _number(options, "maxlen", MAX_LINE_BYTES, MAXLEN)
    maxline = _number(options, "maxline", MAX_LINES, MAXLINE)
    return kind(maxlen, maxline)


def _number(options: dict[str, Any], name: str, default: int, allowed: range) -> int:
    value = options.get(name, default)
    if type(value) is not int or value not in allowed:
        raise ValueError(f"`{name}` must be a whole number from {allowed[0]} to {allowed[-1]}, not {value!r}")
    return value
