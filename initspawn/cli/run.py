"""`initspawn run`: one command in its sandbox, without a server."""

from __future__ import annotations

import _signal
import argparse
import os
import sys
from binascii import a2b_base64
from collections.abc import Callable
from typing import Any

from initspawn.cli.arguments import FORMS, parse_arguments
from initspawn.cli.compiled import FILES, plan_to_run
from initspawn.cli.exits import OK, UsageError
from initspawn.cli.output import ended, show_event, show_json, show_output
from initspawn.cli.pick import pick
from initspawn.cli.pour import Pour
from initspawn.cli.terminal import Terminal, show
from initspawn.encoders.table import STREAM
from initspawn.event import FINAL, PIECE
from initspawn.linux import process
from initspawn.plan import Command
from initspawn.sandbox.bind import bind
from initspawn.supervisor.core import Supervisor
from initspawn.supervisor.eventlog import Reader
from initspawn.supervisor.reactor import Reactor
from initspawn.supervisor.running import Task

HELP = "run one command of a file in its sandbox; its output and its exit code are ours"
EXAMPLES = """\
examples:
  initspawn run configs/demo.yaml host/id
  initspawn run configs/demo.yaml demo/host/ls dir=/etc
  initspawn run configs/demo.yaml box/sort --input names.txt
  initspawn run configs/demo.yaml box/shell --terminal

Ctrl-C asks the command to end; a second one ends it. With --terminal it is a key like others.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `run`."""
    parser.epilog = EXAMPLES
    parser.add_argument("file", metavar="FILE", help=FILES)
    parser.add_argument("verb", metavar="VERB", help="the verb, or API/VERB")
    parser.add_argument("arguments", metavar="NAME=VALUE", nargs="*", default=[], help=FORMS)
    parser.add_argument("--verbose", type=int, choices=range(10), help="how much it tells of itself")
    parser.add_argument("--json", action="store_true", help="print the events as they are, one a line")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--input", metavar="FILE", help="what it reads on its standard input; - for our own")
    how.add_argument("--terminal", action="store_true", help="connect this terminal with the command's")


def main(arguments: argparse.Namespace) -> int:
    """Run it. Returns its exit code; raises ConfigError, RequestError, LaunchRefused, OSError."""
    plan = plan_to_run([arguments.file])
    api, command = pick(plan, arguments.verb)
    argv = bind(command, parse_arguments(arguments.arguments))
    source = _input(command, arguments)
    terminal = None
    if arguments.terminal:
        terminal = Terminal()
        command = command.replace(
            terminal=terminal.size(), encoder=STREAM, encoder_options={"base64": True}
        )
    reactor = Reactor()
    once = Once(reactor, source, terminal, show_json=arguments.json)
    handlers = dict.fromkeys((_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP), once.interrupt)
    reactor.signals({**handlers, _signal.SIGWINCH: once.resize} if terminal else handlers)
    process.set_child_subreaper()
    # The spawner shall know what it needs, and nothing else.
    used = api.replace(sandboxes=(api.sandbox(command.sandbox),), commands=(command,))
    once.supervisor = Supervisor(plan.replace(apis=(used,)), reactor)
    (used,) = once.supervisor.plan.apis  # as this machine can run it
    try:
        once.supervisor.start(
            used, command, argv, on_start=once.on_start, on_end=once.on_end, verbose=arguments.verbose
        )
        reactor.run()
    finally:
        once.leave()
        once.supervisor.close(reactor.stop)
        reactor.run()
        reactor.close()
        if source > 0:
            os.close(source)
    if once.fault is not None:
        raise once.fault
    if once.task is not None and once.task.refusal is not None:
        raise once.task.refusal
    return once.code


def _input(command: Command, arguments: argparse.Namespace) -> int:
    """What is handed to the command's standard input; -1 for nothing. Raises UsageError, OSError."""
    if arguments.terminal:
        if command.terminal is None:
            raise UsageError(f"`{command.verb}` has no terminal: its command does not say `terminal`")
        if arguments.json:
            raise UsageError("--json and --terminal do not go together")
        return 0
    if arguments.input is None:
        return -1
    if not command.stdin and command.terminal is None:
        raise UsageError(f"`{command.verb}` reads no input: its command does not say `stdin` or `terminal`")
    return 0 if arguments.input == "-" else os.open(arguments.input, os.O_RDONLY | os.O_CLOEXEC)


class Once:
    """The one task, what it reads from the descriptor `source`, and what is printed of it.

    `terminal`: ours, which is the command's as long as it runs.
    """

    def __init__(
        self, reactor: Reactor, source: int, terminal: Terminal | None, *, show_json: bool
    ) -> None:
        self.supervisor: Supervisor | None = None
        self.task: Task | None = None
        self.code = OK
        self.fault: OSError | None = None  # why nothing more can be printed
        self._source = source
        self._terminal = terminal
        self._pour: Pour | None = None
        self._reactor = reactor
        self._json = show_json
        self._interrupted = False

    def on_start(self, task: Task) -> None:
        """It runs, or was refused."""
        self.task = task
        if task.refusal is None:
            reader = Reader(task.log, lambda: self._take(reader))
            self._reactor.after(0, self._feed)  # when its input is there

    def _feed(self) -> None:
        if self.task is None or self.task.input is None or not self.task.life.alive:
            return
        if self._terminal is not None:
            self._terminal.take()
        self._pour = Pour(self._reactor, self.task.input, self._source)

    def resize(self) -> None:
        """Our terminal has another size, and so does the command's."""
        if self._pour is not None and self._terminal is not None:
            self._pour.resize(*self._terminal.size())

    def leave(self) -> None:
        """Nothing more is read, and our terminal is ours again."""
        if self._pour is not None:
            self._pour.close()
        if self._terminal is not None:
            self._terminal.give_back()

    def on_end(self, task: Task) -> None:
        """All is told."""
        if task.refusal is None and task.encoder.synchronous:
            self._guard(self._print_result, task.result())
        self._reactor.stop()

    def interrupt(self) -> None:
        """Ctrl-C: politely, then for good."""
        if self.supervisor is None:
            return
        if self._interrupted:
            self.supervisor.kill_all()
        elif self.task is not None:
            self._end()
        self._interrupted = True

    def _take(self, reader: Reader) -> None:
        while (event := reader.take()) is not None:  # also what cannot be printed, or the command would wait
            self._guard(self._print, event.data)

    def _guard(self, show: Callable[[dict[str, Any]], None], data: dict[str, Any]) -> None:
        """Print something; when that fails, nothing more, and the command is asked to end."""
        if self.fault is not None:
            return
        try:
            show(data)
        except OSError as error:
            self.fault = error
            self._reactor.after(0, self._end)

    def _end(self) -> None:
        if self.supervisor is not None and self.task is not None:
            self.supervisor.stop(self.task, None if self.task.command.terminal else _signal.SIGINT)

    def _print(self, data: dict[str, Any]) -> None:
        if data["type"] == FINAL:
            self.leave()
        if self._json:
            show_json(data)
        elif self._terminal is not None and PIECE in data:
            show(a2b_base64(data["stdout"]))
        elif (code := show_event(data, sys.stdout, sys.stderr)) is not None:
            self.code = code

    def _print_result(self, result: dict[str, Any]) -> None:
        if self._json:
            show_json(result)
            return
        show_output(result, sys.stdout, sys.stderr)
        self.code = ended(result["status"], sys.stderr)
