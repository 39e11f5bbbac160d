"""`initspawn run`: one command in its sandbox, without a server."""

from __future__ import annotations

import _signal
import argparse
import sys
from collections.abc import Callable
from typing import Any

from initspawn.cli.arguments import FORMS, parse_arguments
from initspawn.cli.compiled import FILES, plan_to_run
from initspawn.cli.exits import OK
from initspawn.cli.output import ended, show_event, show_json, show_output
from initspawn.cli.pick import pick
from initspawn.linux import process
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

Ctrl-C asks the command to end; a second one ends it.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `run`."""
    parser.epilog = EXAMPLES
    parser.add_argument("file", metavar="FILE", help=FILES)
    parser.add_argument("verb", metavar="VERB", help="the verb, or API/VERB")
    parser.add_argument("arguments", metavar="NAME=VALUE", nargs="*", default=[], help=FORMS)
    parser.add_argument("--verbose", type=int, choices=range(10), help="how much it tells of itself")
    parser.add_argument("--json", action="store_true", help="print the events as they are, one a line")


def main(arguments: argparse.Namespace) -> int:
    """Run it. Returns its exit code; raises ConfigError, RequestError, LaunchRefused, OSError."""
    plan = plan_to_run([arguments.file])
    api, command = pick(plan, arguments.verb)
    argv = bind(command, parse_arguments(arguments.arguments))
    reactor = Reactor()
    once = Once(reactor, show_json=arguments.json)
    reactor.signals(dict.fromkeys((_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP), once.interrupt))
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
        once.supervisor.close(reactor.stop)
        reactor.run()
        reactor.close()
    if once.fault is not None:
        raise once.fault
    if once.task is not None and once.task.refusal is not None:
        raise once.task.refusal
    return once.code


class Once:
    """The one task, and what is printed of it."""

    def __init__(self, reactor: Reactor, *, show_json: bool) -> None:
        self.supervisor: Supervisor | None = None
        self.task: Task | None = None
        self.code = OK
        self.fault: OSError | None = None  # why nothing more can be printed
        self._reactor = reactor
        self._json = show_json
        self._interrupted = False

    def on_start(self, task: Task) -> None:
        """It runs, or was refused."""
        self.task = task
        if task.refusal is None:
            reader = Reader(task.log, lambda: self._take(reader))

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
            self.supervisor.stop(self.task, _signal.SIGINT)

    def _print(self, data: dict[str, Any]) -> None:
        if self._json:
            show_json(data)
        elif (code := show_event(data, sys.stdout, sys.stderr)) is not None:
            self.code = code

    def _print_result(self, result: dict[str, Any]) -> None:
        if self._json:
            show_json(result)
            return
        show_output(result, sys.stdout, sys.stderr)
        self.code = ended(result["status"], sys.stderr)
