"""Configuration files compiled for the command line: as `serve` would, for us or for another user."""

from __future__ import annotations

import argparse
import os
import pwd

from initspawn.cli.exits import UsageError
from initspawn.config.compile import compile_files
from initspawn.plan import Plan


def add_user_option(parser: argparse.ArgumentParser) -> None:
    """`--user`: whose supervisor the files are compiled for."""
    parser.add_argument(
        "--user", metavar="NAME", help="as for a supervisor of this user, such as root (default: you)"
    )


def compile_for(files: list[str], user: str | None) -> Plan:
    """The plan of these files. Raises ConfigError, and UsageError for a user that does not exist."""
    number, group = os.geteuid(), os.getegid()
    if user is not None:
        number, group = _person(user)
    return compile_files(files, user=number, group=group, environ=os.environ)


def user_name(number: int) -> str:
    """A user's name, or its number where it has none."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _person(name: str) -> tuple[int, int]:
    try:
        entry = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except (KeyError, OverflowError):
        raise UsageError(f"there is no user {name!r}") from None
    return entry.pw_uid, entry.pw_gid
