"""What happens to a task, as values. Boot module.

An `Event` is one output record of one task. Its `data` is what clients get as the event's data,
so its keys are those of the AFB events: `type` first, then `pid`, then what the encoder made.
"""

from __future__ import annotations

from initspawn.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

INITIAL = "initial-event"
DATA = "data"
FINAL = "final-event"

# The key of output that is told as it came and not in lines, and what the output then is.
PIECE = "piece"
TEXT, BASE64 = "text", "base64"


class Event(Record):
    """One record of a task's output. `seq` counts from 1 within the task, without gaps.

    `frame` keeps its encoded form once somebody reads it: all readers get the same bytes.
    """

    seq: int
    data: dict[str, Any]
    frame: bytes = b""


def named_by(pattern: str, name: str) -> bool:
    """Whether an event's name is that pattern; `*` in it stands for any characters, also none."""
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == name
    if not name.startswith(first):
        return False
    at = len(first)
    for piece in rest[:-1]:
        at = name.find(piece, at)
        if at < 0:
            return False
        at += len(piece)
    return name.endswith(rest[-1]) and len(name) - len(rest[-1]) >= at
