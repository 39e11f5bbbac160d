"""The audit log: who called what, and what was decided. JSON, one record a line.

    {"time": SECONDS, "door": TEXT, "who": TEXT, "call": TEXT, "action": TEXT?, "decision": TEXT, "times": N?}

`decision` is `allowed`, or the status that the call was refused with. What everybody who may see anything may
ask (ping, info) is recorded only when it was refused. Of equal records within a second only the first one
is written, and then how often it came. At `limit` bytes the file becomes FILE.1, which is then lost.
"""

from __future__ import annotations

import json
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

LIMIT = 4 << 20  # bytes of one file
_TEXT = 200  # characters of a name that a client has chosen
_TOGETHER = 1.0  # seconds


class Audit:
    """Appends to `path`, which only its owner may read. Raises OSError if it cannot be opened."""

    def __init__(self, path: str, limit: int = LIMIT, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._limit = limit
        self._clock = clock
        self._fd = self._open()
        self._last: dict[str, Any] = {}
        self._since = 0.0
        self._more = 0

    def record(self, door: str, who: str, call: str, action: str | None, decision: str) -> None:
        """Write one. A full disk is told on standard error and stops nobody's work."""
        entry = {"door": door, "who": who, "call": call[:_TEXT]}
        if action is not None:
            entry["action"] = action[:_TEXT]
        entry["decision"] = decision
        now = self._clock()
        if entry == self._last and 0 <= now - self._since < _TOGETHER:  # the clock may have been set back
            self._more += 1
            return
        self._flush(now)
        self._last, self._since = entry, now
        self._write({"time": round(now, 3), **entry})

    def close(self) -> None:
        """Write what is held back, and close the file."""
        self._flush(self._clock())
        os.close(self._fd)

    def _flush(self, now: float) -> None:
        if self._more:
            self._write({"time": round(now, 3), **self._last, "times": self._more})
            self._more = 0

    def _write(self, entry: dict[str, Any]) -> None:
        try:
            if os.fstat(self._fd).st_size > self._limit:
                os.replace(self._path, f"{self._path}.1")
                os.close(self._fd)
                self._fd = self._open()
            os.write(self._fd, json.dumps(entry).encode() + b"\n")
        except OSError as error:
            print(f"initspawn: the audit log {self._path}: {error.strerror}", file=sys.stderr)

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(self._path, flags, 0o600)
