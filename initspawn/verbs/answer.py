"""What a call comes to. Boot module."""

from __future__ import annotations

from initspawn.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Answer(Record):
    """An AFB status, an info, a response; the latter two may be absent (None)."""

    status: str = "success"
    info: str | None = None
    response: Any = None
