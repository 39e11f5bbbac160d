"""`initspawn token`: make, list and revoke the tokens of a supervisor, while it runs or before."""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches

from initspawn.cli.exits import NOT_FOUND, OK, UsageError
from initspawn.cli.output import complain
from initspawn.cli.rundir import default_run_dir, prepare_run_dir
from initspawn.control.tokens import NAME, read, write
from initspawn.verbs.access import ACTIONS, EVERYTHING, Token, digest

HELP = "make, list and revoke tokens, also while the supervisor runs"
EXAMPLES = f"""\
examples:
  initspawn token add viewer --scope see --scope output
  initspawn token add operator --scope '*' --expires 12h
  initspawn token add door --scope urn:door --scope urn:window#stop
  initspawn token list
  initspawn token revoke viewer

scopes:
  {EVERYTHING}                   everything but `exec`
  ACTION              {", ".join(ACTIONS)}: of commands without a privilege
  PRIVILEGE           all actions of commands that name it, with one's own tasks
  PRIVILEGE#ACTION    this action of them
"""
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `token`."""
    parser.epilog = EXAMPLES
    parser.add_argument("order", choices=("add", "list", "revoke"), help="what to do")
    parser.add_argument("name", nargs="?", metavar="NAME", help="what the audit log calls its owner")
    parser.add_argument("--scope", action="append", default=[], help="what it grants; repeatable")
    parser.add_argument("--expires", type=_seconds, metavar="TIME", help="how long: 90s, 10m, 12h, 7d")
    parser.add_argument(
        "--state-dir", "--run-dir", metavar="DIR", help="of the supervisor (default: your run directory)"
    )


def _seconds(text: str) -> int:
    found = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write 90s, 10m, 12h or 7d")
    return int(found[1]) * _UNITS[found[2]]


def main(arguments: argparse.Namespace) -> int:
    """Do it. Raises UsageError, InitspawnError, OSError."""
    if (arguments.order == "list") != (arguments.name is None):
        raise UsageError("write `token list`, or `token add NAME`, or `token revoke NAME`")
    directory = os.path.abspath(arguments.state_dir or default_run_dir())
    path = os.path.join(directory, NAME)
    if arguments.order == "add" or os.path.lexists(directory):
        prepare_run_dir(directory)
    if arguments.order != "add" and not (tokens := read(path)):
        complain(f"there are no tokens in {directory}; --state-dir names another directory")
        return OK if arguments.order == "list" else NOT_FOUND
    if arguments.order == "list":
        _show(tokens)
        return OK
    with _alone(path):
        tokens = read(path)
        others = [token for token in tokens if token.name != arguments.name]
        if arguments.order == "add":
            return _add(path, arguments, others, exists=len(others) < len(tokens))
        if len(others) == len(tokens):
            complain(f"there is no token {arguments.name!r}; `initspawn token list` says which there are")
            return NOT_FOUND
        write(path, others)
    return OK


def _add(path: str, arguments: argparse.Namespace, others: list[Token], *, exists: bool) -> int:
    """Write a new token and print it: only now can it be seen."""
    if exists:
        raise UsageError(f"there is a token {arguments.name!r} already: revoke it, or take another name")
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", arguments.name):
        raise UsageError(f"{arguments.name!r}: a name has letters, digits, `.`, `_` and `-`")
    if not arguments.scope:
        raise UsageError(
            f"without --scope it would grant nothing; write --scope '{EVERYTHING}' for all but `exec`, "
            "or less, such as --scope see --scope output (`initspawn token --help`)"
        )
    for scope in sorted(set(arguments.scope) - {EVERYTHING, *ACTIONS}):
        close = get_close_matches(scope, ACTIONS, 1, 0.65)
        if close:
            complain(f"`{scope}` is taken for a privilege; did you mean the action `{close[0]}`?")
    token = secrets.token_urlsafe(24)
    until = None if arguments.expires is None else time.time() + arguments.expires
    fresh = Token(name=arguments.name, digest=digest(token), scopes=frozenset(arguments.scope), expires=until)
    write(path, [*others, fresh])
    print(token)
    return OK


def _show(tokens: list[Token]) -> None:
    for token in tokens:
        end = "never ends"
        if token.expires is not None:
            over = "ended" if token.expires <= time.time() else "ends"
            end = f"{over} {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(token.expires))}"
        print(f"{token.name}  {' '.join(sorted(token.scopes))}  {end}")


@contextmanager
def _alone(path: str) -> Iterator[None]:
    """Two changes at once would lose one."""
    fd = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
