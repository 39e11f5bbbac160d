"""The audit log: who called what, and what was decided. JSON, one record a line.

    {"n": NUMBER, "time": SECONDS, "door": TEXT, "who": TEXT, "call": TEXT, "action": TEXT?, "decision": TEXT,
     "times": N?, "chain": SHA-256}

`decision` is `allowed`, or the status that the call was refused with. What everybody who may see anything may
ask (ping, info) is recorded only when it was refused. Of equal records within a second only the first one
is written, and then how often it came. At `limit` bytes the file becomes FILE.1, which is then lost; as long
as no new one can be made it grows.

`n` counts, also across files and supervisors. `chain` is over the record before and this one (`chained`), so
one that was changed, taken out or moved is found; but whoever may write the file can write a whole new chain:
against that, and against a cut at the end, helps only a number and its chain that is kept elsewhere.
"""

from __future__ import annotations

import json
import os
import time

from initspawn.record import Record
from initspawn.say import say
from initspawn.verbs.access import digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

LIMIT = 4 << 20  # bytes of one file
_TEXT = 200  # characters of a name that a client has chosen
_TOGETHER = 1.0  # seconds
_TAIL = 1 << 16  # bytes in which the last record is looked for


class Audit:
    """Appends to `path`, which only its owner may read. Raises OSError if it cannot be opened."""

    def __init__(self, path: str, limit: int = LIMIT, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._limit = limit
        self._clock = clock
        self._fd = self._open()
        self._number, self._chain = _last(path)
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
                self._rotate()
            record = {"n": self._number + 1, **entry}
            chain = chained(self._chain, record)
            line = json.dumps({**record, "chain": chain}).encode() + b"\n"
            if os.write(self._fd, line) == len(line):
                self._number, self._chain = record["n"], chain
            else:
                os.write(self._fd, b"\n")  # the disk is full: what comes later is to be whole
        except OSError as error:
            self._complain(error)

    def _rotate(self) -> None:
        """Go on in a new file; where there can be none, in this one: no record is lost for it."""
        try:
            try:
                os.replace(self._path, f"{self._path}.1")
            except FileNotFoundError:  # somebody has removed it
                pass
            try:
                fresh = self._open()
            except BaseException:
                os.replace(f"{self._path}.1", self._path)
                raise
        except OSError as error:
            self._complain(error)
            return
        os.close(self._fd)
        self._fd = fresh

    def _complain(self, error: OSError) -> None:
        say(f"the audit log {self._path}: {error.strerror}")

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(self._path, flags, 0o600)
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            os.write(fd, b"\n")  # the machine lost power in the middle of a line
        return fd


def chained(before: str, record: Mapping[str, Any]) -> str:
    """The chain of a record, which has none yet, behind one with the chain `before`; empty: the first."""
    return digest(before + json.dumps(record))


class Found(Record):
    """What `verify` has found: how many records are as they were written, the last one's number and chain,
    and what is wrong with the first that is not; empty: nothing.
    """

    records: int = 0
    last: int = 0
    chain: str = ""
    wrong: str = ""


def verify(path: str, expected: tuple[int, str] | None = None) -> Found:
    """Look whether the log is as it was written: the file before this one, if there is one, and this.
    `expected`: a number and the chain that it had at another time. Raises OSError.
    """
    records, last, chain = 0, 0, ""
    missing = expected
    for name in (f"{path}.1", path):
        if name != path and not os.path.exists(name):
            continue
        with open(name, "rb") as file:
            for line, raw in enumerate(file, 1):
                record, wrong = _checked(raw, last, chain, first=records == 0)
                if not wrong and missing is not None and record["n"] == missing[0]:
                    wrong = "" if record["chain"] == missing[1] else "it is not the one that was expected"
                    missing = None
                if wrong:
                    return Found(records=records, last=last, chain=chain, wrong=f"{name}:{line}: {wrong}")
                records, last, chain = records + 1, record["n"], record["chain"]
    if missing is not None:
        end = f"{path}: record {missing[0]} is not there any more"
        return Found(records=records, last=last, chain=chain, wrong=end)
    return Found(records=records, last=last, chain=chain, wrong="")


def _checked(raw: bytes, last: int, chain: str, *, first: bool) -> tuple[dict[str, Any], str]:
    """A line's record, and what is wrong with it behind the one with this number and chain."""
    try:
        record = json.loads(raw)
        number, own = record["n"], record.pop("chain")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}, "it is no record"
    if first and number != 1:  # what came before is lost: nothing is known of its chain
        return {**record, "chain": own}, ""
    if number != last + 1:
        return {}, f"record {last + 1} is missing, this is {number!r}"
    if own != chained(chain, record):
        return {}, f"record {number} is not as it was written"
    return {**record, "chain": own}, ""


def _last(path: str) -> tuple[int, str]:
    """Number and chain of the last record that is one, in this file or the one before; or 0 and nothing."""
    for name in (path, f"{path}.1"):
        try:
            with open(name, "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
                lines = file.read(_TAIL).splitlines()
        except OSError:
            continue
        for raw in reversed(lines):
            try:
                record = json.loads(raw)
                if isinstance(record["n"], int) and isinstance(record["chain"], str):
                    return record["n"], record["chain"]
            except (ValueError, TypeError, KeyError, RecursionError):
                continue
    return 0, ""
