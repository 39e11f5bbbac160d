"""A command verb's query as the reference reads it. Boot module; pure.

A query is either the strict form {"action", "args", "verbose"}, or something else, which then is the
arguments as a whole; an `action` that could be read stays in force all the same.
"""

from __future__ import annotations

from initspawn.errors import RequestError
from initspawn.limits import TERMINAL_SIZE
from initspawn.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

START, STOP, SUBSCRIBE, UNSUBSCRIBE, INPUT, RESIZE = ACTIONS = (
    "start", "stop", "subscribe", "unsubscribe", "input", "resize",
)  # fmt: skip
_KEYS = frozenset(("action", "args", "verbose"))
# Signals by name, as the reference takes them, and the highest number that is one.
SIGNALS = {"SIGINT": 2, "SIGKILL": 9, "SIGUSR1": 10, "SIGUSR2": 12, "SIGTERM": 15}
_LAST_SIGNAL = 64
_SIZES = range(1, TERMINAL_SIZE + 1)
_LEVELS = range(5)  # verbosity that a query may ask for; a higher one is for the configuration alone


def parse(query: Any) -> tuple[str, Any, int | None]:
    """(action, arguments, verbosity) of a query; None: the command's verbosity.

    Raises RequestError(invalid-request) for an unknown action.
    """
    action, arguments, level = START, query, None
    if isinstance(query, dict):
        wanted = query.get("action", START)
        if isinstance(wanted, str):
            action = wanted.lower()
            asked = query.get("verbose")
            level = whole(asked)
            if query.keys() <= _KEYS and (level is not None or asked is None):
                arguments = query.get("args")
    if action not in ACTIONS:
        raise RequestError("invalid-request", "invalid action")
    return action, arguments, level if level in _LEVELS else None


def blend(own: Any, given: Any) -> tuple[str, Any, int | None]:
    """The same of two queries, where `own` wins: its action if it names one, and each of its arguments.

    Arguments go with the action they were written for: those of `own` with the one it names, or a start;
    those of `given` with the one it names, or any. Raises RequestError like `parse`.
    """
    action, arguments, level = parse(given)
    own_action, own_arguments, own_level = parse(own)
    if _names_action(own) and own_action != action:
        action = own_action
        if _names_action(given):
            arguments = None
    if own_action == action and own_arguments is not None:
        both = isinstance(own_arguments, dict) and isinstance(arguments, dict)
        arguments = {**arguments, **own_arguments} if both else own_arguments
    return action, arguments, level if own_level is None else own_level


def _names_action(query: Any) -> bool:
    return isinstance(query, dict) and isinstance(query.get("action"), str)


class Control(Record):
    """What a stop, subscribe or unsubscribe says. Without pid and ticket it is about all tasks.

    pid: the task's. ticket: its number in the queue. signal: None for the default one. first: the number of
    the event to begin with.
    """

    pid: int | None = None
    ticket: int | None = None
    signal: int | None = None
    first: int | None = None


_CONTROL_KEYS = frozenset(("pid", "queued", "signal", "from"))


def parse_control(arguments: Any) -> Control:
    """The arguments of a stop, subscribe or unsubscribe. Raises RequestError(invalid-request)."""
    if arguments is None:
        return Control()
    if not isinstance(arguments, dict) or not arguments or arguments.keys() - _CONTROL_KEYS:
        raise RequestError("invalid-request")
    if arguments.get("queued") is not None:
        ticket = whole(arguments["queued"])
        if len(arguments) > 1 or ticket is None or ticket < 1:
            raise RequestError("invalid-request", "`queued` is the number of one that waits, alone")
        return Control(ticket=ticket)
    pid, signal, first = (arguments.get(name) for name in ("pid", "signal", "from"))
    number = 0 if pid is None else whole(pid)
    if number is None or number < 0:
        raise RequestError("invalid-request", "invalid pid")
    if not number and signal is None:
        raise RequestError("invalid-request")
    if first is not None:
        if not number or signal is not None:
            raise RequestError("invalid-request", "`from` takes a `pid`, and nothing else")
        first = whole(first)
        if first is None or first < 1:
            raise RequestError("invalid-request", "invalid from: write the number of an event, from 1 on")
    return Control(pid=number or None, signal=None if signal is None else _signal(signal), first=first)


class Feed(Record):
    """What an `input` says: that its client writes from now on, even if another one did; bytes for a task,
    then the end of its input, or that somebody else may write.
    """

    pid: int
    data: bytes = b""
    end: bool = False
    attach: bool = False
    detach: bool = False


_INPUT_KEYS = frozenset(("pid", "data", "base64", "eof", "attach", "detach"))


def parse_input(arguments: Any) -> Feed:
    """The arguments of an `input`. Raises RequestError(invalid-request)."""
    if not isinstance(arguments, dict) or arguments.keys() - _INPUT_KEYS:
        raise RequestError("invalid-request", "write {pid: N, data: TEXT or base64: TEXT, eof: true}")
    pid = _pid(arguments)
    end, attach, detach = flags = [arguments.get(name, False) for name in ("eof", "attach", "detach")]
    if any(type(flag) is not bool for flag in flags):
        raise RequestError("invalid-request", "`eof`, `attach` and `detach` are true or false")
    data, coded = arguments.get("data", ""), arguments.get("base64", "")
    if not isinstance(data, str) or not isinstance(coded, str) or (data and coded):
        raise RequestError("invalid-request", "`data` is a text, or `base64` is one")
    sent = _decoded(coded) if coded else _encoded(data)
    return Feed(pid=pid, data=sent, end=end, attach=attach, detach=detach)


def parse_resize(arguments: Any) -> tuple[int, int, int]:
    """(pid, rows, columns) of a `resize`. Raises RequestError(invalid-request)."""
    if not isinstance(arguments, dict) or arguments.keys() != {"pid", "rows", "columns"}:
        raise RequestError("invalid-request", "write {pid: N, rows: N, columns: N}")
    rows, columns = (whole(arguments[name]) for name in ("rows", "columns"))
    if rows not in _SIZES or columns not in _SIZES:
        raise RequestError("invalid-request", f"`rows` and `columns` are numbers from 1 to {TERMINAL_SIZE}")
    assert rows is not None
    assert columns is not None
    return _pid(arguments), rows, columns


def _pid(arguments: dict[str, Any]) -> int:
    pid = whole(arguments.get("pid"))
    if pid is None or pid < 1:
        raise RequestError("invalid-request", "invalid pid")
    return pid


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise RequestError("invalid-request", "`data` is no text: half of a surrogate pair") from None


def _decoded(text: str) -> bytes:
    from binascii import Error, a2b_base64

    try:
        return a2b_base64(text, strict_mode=True)
    except (Error, ValueError):
        raise RequestError("invalid-request", "`base64` is not base64") from None


def whole(value: Any) -> int | None:
    """The whole number that a value of a query is: `3`, `3.0`, `"3"` or `"0x3"`; None for all others."""
    if type(value) is int:
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and value.isascii() and value.isalnum() and len(value) < 20:
        try:
            return int(value, 0)
        except ValueError:
            return None
    return None


def _signal(value: Any) -> int:
    if isinstance(value, str) and value.isascii() and value.upper() in SIGNALS:
        return SIGNALS[value.upper()]
    if type(value) is int and 0 <= value <= _LAST_SIGNAL:
        return value
    names = ", ".join(SIGNALS)
    raise RequestError("invalid-request", f"invalid signal: write a number up to {_LAST_SIGNAL}, or {names}")
