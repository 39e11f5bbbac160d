"""A command verb's query as the reference reads it. Boot module; pure.

A query is either the strict form {"action", "args", "verbose"}, or something else, which then is the
arguments as a whole; an `action` that could be read stays in force all the same.
"""

from __future__ import annotations

from initspawn.errors import RequestError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

START, STOP, SUBSCRIBE, UNSUBSCRIBE = ACTIONS = ("start", "stop", "subscribe", "unsubscribe")
_KEYS = frozenset(("action", "args", "verbose"))
# Signals by name, as the reference takes them, and the highest number that is one.
SIGNALS = {"SIGINT": 2, "SIGKILL": 9, "SIGUSR1": 10, "SIGUSR2": 12, "SIGTERM": 15}
_LAST_SIGNAL = 64


def parse(query: Any) -> tuple[str, Any]:
    """(action, arguments) of a query. Raises RequestError(invalid-request) for an unknown action."""
    action, arguments = START, query
    if isinstance(query, dict):
        wanted = query.get("action", START)
        strict = isinstance(wanted, str) and query.keys() <= _KEYS and _is_level(query.get("verbose"))
        if isinstance(wanted, str):
            action = wanted.lower()
        if strict:
            arguments = query.get("args")
    if action not in ACTIONS:
        raise RequestError("invalid-request", "invalid action")
    return action, arguments


def parse_control(arguments: Any) -> tuple[int | None, int | None]:
    """(pid, signal) of a stop, subscribe or unsubscribe; None: all tasks, the default signal.

    Raises RequestError(invalid-request).
    """
    if arguments is None:
        return None, None
    if not isinstance(arguments, dict) or not arguments or arguments.keys() - {"pid", "signal"}:
        raise RequestError("invalid-request")
    pid, signal = arguments.get("pid"), arguments.get("signal")
    pid = _whole(pid)
    if not pid and signal is None:
        raise RequestError("invalid-request")
    return pid or None, None if signal is None else _signal(signal)


def _is_level(value: Any) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool))


def _whole(value: Any) -> int:
    if value is None:
        return 0
    if isinstance(value, str) and value.isdecimal() and len(value) < 20:
        return int(value)
    if type(value) is int and value >= 0:
        return value
    raise RequestError("invalid-request", "invalid pid")


def _signal(value: Any) -> int:
    if isinstance(value, str) and value.upper() in SIGNALS:
        return SIGNALS[value.upper()]
    if type(value) is int and 0 <= value <= _LAST_SIGNAL:
        return value
    names = ", ".join(SIGNALS)
    raise RequestError("invalid-request", f"invalid signal: write a number up to {_LAST_SIGNAL}, or {names}")
