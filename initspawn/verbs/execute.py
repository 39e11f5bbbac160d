"""`exec`: a command that no file holds, in a sandbox that one does. Boot module.

The query is what a command is in a file, but nothing in it is expanded: no `$NAME`, no `%name%`. What is not
understood is refused. Encoders that write files are not for callers.
"""

from __future__ import annotations

from initspawn.encoders.table import COMMON, DEFAULT, complete, options_of
from initspawn.errors import RequestError
from initspawn.plan import TEXT, Command
from initspawn.sandbox.bind import as_text
from initspawn.verbs.query import whole

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from initspawn.plan import Api, Sandbox

EXEC = "exec"
_KEYS = frozenset(("action", "sandbox", "exec", "uid", "timeout", "verbose", "encoder"))
_ENCODERS = ("text", "line", "sync", "raw", "json", "stream")
_UID = "dynamic"
_LONGEST_UID = 64
_LONGEST_TIME = 315_360_000  # ten years, in seconds


def sandbox_of(api: Api, query: Any) -> Sandbox:
    """The sandbox that a query names, in any case. Raises RequestError."""
    if not isinstance(query, dict):
        raise _wrong("write {sandbox: UID, exec: {cmdpath: /PATH, args: [TEXT]}}")
    unknown = query.keys() - _KEYS
    if unknown:
        raise _wrong(f"unknown key {sorted(unknown)[0]!a}; known: {', '.join(sorted(_KEYS))}")
    wanted = query.get("sandbox")
    if isinstance(wanted, str):
        for same in (str, str.lower):
            for sandbox in api.sandboxes:
                if same(sandbox.uid) == same(wanted):
                    return sandbox
    raise _wrong("invalid sandbox uid")


def command_of(sandbox: Sandbox, query: dict[str, Any]) -> Command:
    """The command of a query in that sandbox. Raises RequestError."""
    program = query.get("exec")
    if not isinstance(program, dict) or not isinstance(program.get("cmdpath"), str):
        raise _wrong("`exec` must be {cmdpath: /PATH, args: [TEXT]}")
    if program.keys() - {"cmdpath", "args"}:
        raise _wrong("`exec` knows `cmdpath` and `args` only")
    path = as_text("cmdpath", program["cmdpath"])
    if not path.startswith("/"):
        raise _wrong("`cmdpath` must be absolute")
    uid = query.get("uid", _UID)
    if not isinstance(uid, str) or not _is_name(uid):
        raise _wrong("`uid` must be a name: no path, printable, 64 characters at most")
    verb = f"{sandbox.prefix}/{uid}" if sandbox.prefix else uid
    encoder, options = _encoder(query.get("encoder", DEFAULT))
    return Command(
        uid=uid,
        verb=verb,
        sandbox=sandbox.uid,
        path=path,
        arguments=_arguments(program.get("args")),
        timeout=_seconds(query.get("timeout", 0), sandbox.timeout),
        verbose=sandbox.verbose,
        encoder=encoder,
        encoder_options=options,
        executed=True,
    )


def _arguments(args: Any) -> tuple[tuple[tuple[str, str], ...], ...]:
    """One item for each element; anything but a list is one."""
    items = args if isinstance(args, list) else [] if args is None else [args]
    if None in items:
        raise _wrong("an argument may not be null")
    return tuple(((TEXT, as_text(f"args[{index}]", item)),) for index, item in enumerate(items))


def _seconds(value: Any, limit: float) -> float:
    """The time limit: not more than the sandbox has for its commands, if it has one."""
    asked = whole(value)
    if asked is None or not 0 <= asked <= _LONGEST_TIME:
        raise _wrong("`timeout` must be a whole number of seconds")
    return min(float(asked) or limit, limit) if limit else float(asked)


def _encoder(value: Any) -> tuple[str, dict[str, Any]]:
    given = value if isinstance(value, dict) else {"output": value}
    name, options = given.get("output"), given.get("opts", {})
    if given.keys() - {"output", "opts"} or not isinstance(options, dict):
        raise _wrong("`encoder` must be a name, or {output: NAME, opts: {...}}")
    if not isinstance(name, str) or name.lower() not in _ENCODERS:
        raise _wrong(f"`encoder` must be one of {', '.join(_ENCODERS)}")
    name = name.lower()
    known = options_of(name)
    unknown = options.keys() - {*known, *COMMON}
    if unknown:
        raise _wrong(f"`encoder`: {name} has no option {min(unknown)!a}; it has {', '.join(known)}")
    try:
        complete(name, options)
    except ValueError as error:
        raise _wrong(f"`encoder`: {error}") from None
    return name, options


def _is_name(uid: str) -> bool:
    """Names become parts of task ids and of directories."""
    return uid not in ("", ".", "..") and "/" not in uid and uid.isprintable() and len(uid) <= _LONGEST_UID


def _wrong(info: str) -> RequestError:
    return RequestError("invalid-request", info)
