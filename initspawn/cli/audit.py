"""`initspawn audit`: look whether the audit log is as it was written."""

from __future__ import annotations

import argparse
import os
import re
import sys

from initspawn.cli.exits import OK
from initspawn.cli.output import complain, write_line
from initspawn.cli.rundir import default_run_dir
from initspawn.control.audit import verify
from initspawn.control.state import AUDIT

HELP = "say whether the audit log is as it was written"
EXAMPLES = """\
examples:
  initspawn audit verify
  initspawn audit verify --state-dir /var/lib/initspawn --expect 1204:5f1c...

It prints the last record's number and chain. Kept on another machine and given as --expect, they show later
whether the log was cut or written anew; without, only that nothing within it was changed, moved or taken out.
"""
WRONG = 1


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `audit`."""
    parser.epilog = f"{EXAMPLES}\nexit code {WRONG}: it is not as it was written"
    parser.add_argument("order", choices=("verify",), help="what to do")
    parser.add_argument(
        "--expect", type=_expected, metavar="NUMBER:CHAIN", help="a record that must be there"
    )
    parser.add_argument(
        "--state-dir", "--run-dir", metavar="DIR", help="of the supervisor (default: your run directory)"
    )


def _expected(text: str) -> tuple[int, str]:
    found = re.fullmatch(r"([1-9][0-9]{0,17}):([0-9a-f]{64})", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text[:80]!r}: write NUMBER:CHAIN, as `audit verify` prints them")
    return int(found[1]), found[2]


def main(arguments: argparse.Namespace) -> int:
    """Print the result. Returns 0, or 1 when something is wrong. Raises OSError."""
    path = os.path.join(arguments.state_dir or default_run_dir(), AUDIT)
    found = verify(path, arguments.expect)
    if found.wrong:
        complain(found.wrong)
        return WRONG
    end = f", the last is {found.last}:{found.chain}" if found.records else ""
    write_line(f"{path}: {found.records} records as they were written{end}", sys.stdout)
    return OK
