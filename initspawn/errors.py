"""Errors every floor may raise, and the AFB status each becomes at a door. Boot module.

InitspawnError
+-- ConfigError          the configuration is wrong (carries every problem found)
+-- PlanError            a stored plan is damaged, stale or not trustworthy
+-- RequestError         a caller's request cannot be done: an AFB status and a reason
    +-- LaunchRefused    a start was refused: the step of the child's ladder and its errno
"""

from __future__ import annotations

import errno as errno_names
import os

# AFB status texts and codes (the wire protocol's table of codes).
STATUS_CODES = {
    "success": 0,
    "internal-error": -1,
    "out-of-memory": -2,
    "unknown-api": -3,
    "unknown-verb": -4,
    "not-available": -5,
    "unauthorized": -6,
    "invalid-token": -7,
    "forbidden": -8,
    "insufficient-scope": -9,
    "bad-api-state": -10,
    "no-reply": -11,
    "invalid-request": -12,
    "no-item": -13,
    "bad-state": -14,
    "disconnected": -15,
    "timeout": -16,
}


class InitspawnError(Exception):
    """Root of all errors of this package."""


class Problem:
    """One thing wrong in a configuration file: where, what, and what to write instead."""

    __slots__ = ("column", "file", "hint", "key", "line", "message")

    def __init__(
        self, *, file: str, line: int, key: str, message: str, hint: str = "", column: int = 0
    ) -> None:
        self.file = file
        self.line = line
        self.column = column
        self.key = key
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        key = f" {self.key}:" if self.key else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{place}:{key} {self.message}{hint}"


class ConfigError(InitspawnError):
    """A configuration was refused. `problems` lists everything found, in file order."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class PlanError(InitspawnError):
    """A stored plan cannot be used; the message says why."""


class RequestError(InitspawnError):
    """A request that is answered with an error: AFB status text and an optional info."""

    def __init__(self, status: str, info: str = "") -> None:
        super().__init__(f"{status}: {info}" if info else status)
        self.status = status
        self.info = info

    @property
    def code(self) -> int:
        return STATUS_CODES[self.status]


class LaunchRefused(RequestError):
    """A start that was refused: nothing of the command has run.

    `step` is the name of the ladder's step, `errno` its error number (0 where there is none).
    """

    def __init__(self, step: str, errno: int = 0, detail: str = "") -> None:
        name = errno_names.errorcode.get(errno, str(errno))
        reason = f"{os.strerror(errno)} ({name})" if errno else ""
        text = ": ".join(part for part in (f"start refused at '{step}'", reason, detail) if part)
        super().__init__("internal-error", text)
        self.step = step
        self.errno = errno
        self.detail = detail
