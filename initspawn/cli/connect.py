"""Reaching a running supervisor: which control socket is meant, and whether it may be trusted."""

from __future__ import annotations

import argparse
import os

from initspawn.cli.rundir import default_run_dir
from initspawn.control.client import Client
from initspawn.errors import InitspawnError

CONTROL = "control"  # the socket's name in the run directory
TOKEN = "INITSPAWN_TOKEN"


def add_place(parser: argparse.ArgumentParser) -> None:
    """The options that say where the supervisor is, and who we are."""
    parser.add_argument("--token", help=f"credential (default: ${TOKEN}, which no process list shows)")
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--run-dir", metavar="DIR", help="the supervisor's run directory (default: yours)")
    place.add_argument("--socket", metavar="PATH", help="its control socket")


def token_of(arguments: argparse.Namespace) -> str | None:
    """The credential to show."""
    found: str | None = arguments.token or os.environ.get(TOKEN)
    return found


def path_of(arguments: argparse.Namespace) -> str:
    """The control socket. Raises InitspawnError if a stranger could have put it into the run directory."""
    if arguments.socket:
        return str(arguments.socket)
    directory = arguments.run_dir or default_run_dir()
    try:
        owner = os.lstat(directory).st_uid
    except OSError:
        owner = os.geteuid()  # not there: the connection says it better
    if owner not in (0, os.geteuid()):
        raise InitspawnError(f"{directory} belongs to user {owner}; if you trust it, name its --socket")
    return os.path.join(directory, CONTROL)


def connect(path: str, timeout: float | None = None) -> Client:
    """A client of that control socket; `timeout` in seconds. Raises InitspawnError."""
    try:
        return Client(path, timeout)
    except (FileNotFoundError, ConnectionRefusedError):
        raise InitspawnError(f"no supervisor answers at {path}: start one with `initspawn serve`") from None
    except OSError as error:
        raise InitspawnError(f"{path}: {error.strerror or error}") from None
