"""`json`: one event per JSON value on stdout, as soon as it is complete; stderr line by line."""

from __future__ import annotations

from initspawn.encoders.base import STDERR, STDOUT, Encoder
from initspawn.encoders.lines import LineSplitter
from initspawn.encoders.values import Values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Json(Encoder):
    """Events {"stdout": VALUE}, {"json-error": MESSAGE, "line": TEXT} and {"stderr": LINE}.

    A `null` that is no part of a value is no event.
    """

    chunk = 2048  # at worst half as many events at once

    def __init__(self, maxlen: int, maxdepth: int) -> None:
        self._values = Values(maxdepth, maxlen)
        self._lines = LineSplitter(maxlen)

    def feed(self, stream: str, data: bytes) -> list[dict[str, Any]]:
        """The values, faults and lines that these bytes complete."""
        if stream == STDERR:
            return [{STDERR: line} for line in self._lines.feed(data)]
        return _events(self._values.feed(data))

    def finish(self) -> list[dict[str, Any]]:
        """A value that only the end completes, or the fault that it is cut off; stderr's last line."""
        return _events(self._values.finish()) + [{STDERR: line} for line in self._lines.finish()]


def _events(found: list[Any]) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    for item in found:
        if len(item) == 2:
            events.append({"json-error": item[0], "line": item[1]})
        elif item[0] is not None:
            events.append({STDOUT: item[0]})
    return events
