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


class Event(Record):
    """One record of a task's output. `seq` counts from 1 within the task, without gaps.

    `frame` keeps its encoded form once somebody reads it: all readers get the same bytes.
    """

    seq: int
    data: dict[str, Any]
    frame: bytes = b""
