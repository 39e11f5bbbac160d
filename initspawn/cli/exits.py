"""Our exit codes, and which one each error and each way of ending comes to."""

from __future__ import annotations

import signal

from initspawn.errors import ConfigError, InitspawnError, LaunchRefused, RequestError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OK = 0
USAGE = 100
SYSTEM = 111
TIME_LIMIT = 124
REFUSED = 125
DENIED = 126
NOT_FOUND = 127
SIGNAL = 128
INTERRUPTED = SIGNAL + signal.SIGINT

_STATUS = {
    "invalid-request": USAGE,
    "timeout": TIME_LIMIT,
    "bad-state": REFUSED,
    "unauthorized": DENIED,
    "invalid-token": DENIED,
    "forbidden": DENIED,
    "insufficient-scope": DENIED,
    "unknown-api": NOT_FOUND,
    "unknown-verb": NOT_FOUND,
    "no-item": NOT_FOUND,
}
_REFUSAL = "start refused"  # how LaunchRefused begins, which a socket hands on as text


class UsageError(InitspawnError):
    """What the user asked for cannot be meant; found after the command line was parsed."""


def of_error(error: BaseException) -> int:
    """The exit code of an error that ends us."""
    if isinstance(error, BrokenPipeError):
        return SIGNAL + signal.SIGPIPE
    if isinstance(error, (UsageError, ConfigError)):
        return USAGE
    if isinstance(error, LaunchRefused):
        return REFUSED
    if isinstance(error, RequestError):
        if error.info.startswith(_REFUSAL):
            return REFUSED
        return _STATUS.get(error.status, SYSTEM)
    return SYSTEM


def of_status(status: Any) -> int:
    """The exit code for how a command ended: `{"exit": N}` or `{"signal": TEXT}`, as clients get it."""
    if not isinstance(status, dict):
        return SYSTEM
    code = status.get("exit")
    if type(code) is int:
        return code & 0xFF
    if status.get("info") == "timeout":
        return TIME_LIMIT
    ended_by = status.get("signal")
    for number in range(1, signal.NSIG) if ended_by is not None else ():
        if ended_by in (signal.strsignal(number), str(number), number):
            return SIGNAL + number
    return SYSTEM
