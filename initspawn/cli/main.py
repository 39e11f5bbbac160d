"""The command line: finds the sub-command, runs it, turns what went wrong into a line and an exit code.

Each sub-command is a module of this package with

    HELP                       one sentence
    configure(parser)          adds its arguments and, as `parser.epilog`, its examples
    main(arguments) -> int     does it; returns the exit code, raises what is below

Only the module that was asked for is imported: a client pays for no YAML, a check for no sockets.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module

from initspawn import __version__
from initspawn.cli.exits import DENIED, INTERRUPTED, NOT_FOUND, REFUSED, SYSTEM, TIME_LIMIT, USAGE, of_error
from initspawn.errors import ConfigError, InitspawnError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn, Protocol

    class Command(Protocol):
        """What a sub-command's module offers."""

        HELP: str

        def configure(self, parser: argparse.ArgumentParser) -> None:
            """Add the arguments."""

        def main(self, arguments: argparse.Namespace) -> int:
            """Do it."""

# In the order of `initspawn --help`.
COMMANDS = {
    "serve": "serve configuration files; every command becomes a verb",
    "reload": "have a running supervisor take its configuration as it is now",
    "run": "run one command of a file in its sandbox",
    "call": "call a verb of a running supervisor and follow its output",
    "attach": "connect this terminal with that of a running task",
    "token": "make, list and revoke tokens, also while the supervisor runs",
    "audit": "say whether the audit log is as it was written",
    "compile": "compile files into a plan, for this machine or an image of another",
    "check": "say what is wrong in configuration files, or what they offer",
    "explain": "say what a verb runs, as whom, and how it is confined",
    "compare": "run one command in several sandboxes and say what differs",
    "schema": "print the JSON Schema of configuration files, for editors",
    "doctor": "say what this kernel and this user can do",
}
EXAMPLES = """\
examples:
  initspawn check configs/demo.yaml
  initspawn explain configs/demo.yaml box/env
  initspawn serve configs/demo.yaml
  initspawn call demo/host/ls dir=/etc
"""
EXIT_CODES = f"""\
exit codes:
  0 done   {USAGE} wrong usage or configuration   {SYSTEM} system error   {TIME_LIMIT} time limit
  {REFUSED} start refused   {DENIED} denied   {NOT_FOUND} not found   128+N ended by signal N
  `call` and `run` exit with the code of the command they ran
"""


class Parser(argparse.ArgumentParser):
    """An argument parser that exits with our code for wrong usage, and leaves line breaks alone."""

    def __init__(self, **options: Any) -> None:
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(formatter_class=formatter, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Usage and message on stderr, then exit."""
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"{self.prog}: {message}\n")


def main(argv: list[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's own). Returns the exit code, raises nothing.

    With INITSPAWN_DEBUG=1 in the environment every exception passes with its traceback.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # it is closed: what is opened next would take its number
            setattr(sys, name, open(os.devnull, "r+"))  # noqa: SIM115
    if os.environ.get("INITSPAWN_DEBUG") == "1":
        return _run(sys.argv[1:] if argv is None else argv)
    try:
        code = _run(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BaseException as error:
        return _told(error)


def _run(argv: list[str]) -> int:
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # a command's output may hold what this terminal cannot show
            reconfigure(errors="backslashreplace")
    try:
        name = argv[0] if argv else ""
        if name not in COMMANDS:
            _explain_usage(argv)
        command: Command = import_module(f"initspawn.cli.{name}")
        parser = Parser(prog=f"initspawn {name}", description=command.HELP)
        command.configure(parser)
        arguments = parser.parse_intermixed_args(argv[1:])
    except SystemExit as leaving:  # argparse: help was printed, or usage was wrong
        return leaving.code if isinstance(leaving.code, int) else 0
    return command.main(arguments)


def _explain_usage(argv: list[str]) -> NoReturn:
    """What `initspawn` without a sub-command's name has to say. Raises SystemExit."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {text}" for name, text in COMMANDS.items()]
    parser = Parser(
        prog="initspawn",
        usage="initspawn COMMAND ...\n       initspawn COMMAND --help",
        description="\n".join(["Run configured commands in sandboxes.", "", "commands:", *lines]),
        epilog=f"{EXAMPLES}\n{EXIT_CODES}",
    )
    parser.add_argument("--version", action="version", version=f"initspawn {__version__}")
    parser.add_argument("command", metavar="COMMAND", nargs="?", help=argparse.SUPPRESS)
    wanted = parser.parse_known_args(argv)[0].command
    if wanted is None:
        unknown = [word for word in argv if word.startswith("-")]
        parser.error(f"unknown option {unknown[0]}" if unknown else "a command is missing")
    from difflib import get_close_matches

    close = get_close_matches(wanted, COMMANDS, 1)
    parser.error(f"no command {wanted!r}" + (f"; did you mean {close[0]!r}?" if close else ""))


def _told(error: BaseException) -> int:
    """Say on stderr what went wrong, in a line. Returns the exit code."""
    try:
        sys.stdout.flush()
    except OSError:  # the interpreter would try once more, and have an exit code of its own
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if isinstance(error, BrokenPipeError):  # nobody reads us any more: no reason for noise
        return of_error(error)
    if isinstance(error, ConfigError):
        from initspawn.cli.output import show_problems

        show_problems(error.problems)
    else:
        from initspawn.cli.output import complain

        complain(_message(error))
    return of_error(error)


def _message(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, (InitspawnError, OSError)):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        from initspawn.cli.installed import remedy

        if said := remedy(error):
            return said
    return f"internal error: {type(error).__name__}: {error} (INITSPAWN_DEBUG=1 shows where)"
