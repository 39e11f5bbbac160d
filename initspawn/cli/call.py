"""`initspawn call`: a verb of a running supervisor, and the output of what it starts."""

from __future__ import annotations

import argparse
import sys
import time

from initspawn.cli.arguments import FORMS, is_json, parse_arguments
from initspawn.cli.connect import TOKEN, add_place, connect, path_of, token_of
from initspawn.cli.exits import INTERRUPTED, OK, TIME_LIMIT, UsageError, of_status
from initspawn.cli.feed import Feeder
from initspawn.cli.output import complain, ended, show_event, show_json, show_output, write_line
from initspawn.control.client import Client, Reply
from initspawn.errors import RequestError
from initspawn.event import FINAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HELP = "call a verb of a running supervisor; what it starts is followed to its end"
EXAMPLES = """\
examples:
  initspawn call demo/host/ls dir=/etc
  initspawn call demo/host/sleep seconds:=5 --no-follow
  initspawn call demo/host/sleep --action stop signal=SIGTERM
  initspawn call demo/host/count --action subscribe
  echo hello | initspawn call demo/host/cat --input
  initspawn call demo/info
  initspawn call initspawn/tasks --json

Ctrl-C ends only this client; what it started goes on.
"""
ACTIONS = ("start", "stop", "subscribe", "unsubscribe", "input", "resize")
_QUERY_KEYS = {"action", "args", "verbose"}
_TASK_KEYS = {"api", "sandbox", "command", "pid"}


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `call`."""
    parser.epilog = EXAMPLES
    parser.add_argument("procedure", metavar="API/VERB", help="what to call")
    parser.add_argument("arguments", metavar="NAME=VALUE", nargs="*", default=[], help=FORMS)
    parser.add_argument("--action", choices=ACTIONS, help="what to do with a command (default: start)")
    parser.add_argument("--verbose", type=int, choices=range(5), help="how much the task tells of itself")
    parser.add_argument(
        "--input", action="store_true", help="hand our own standard input to the command that is started"
    )
    parser.add_argument("--no-follow", action="store_true", help="print the reply and leave")
    parser.add_argument("--json", action="store_true", help="print reply and events as they are, one a line")
    parser.add_argument("--timeout", type=_seconds, metavar="S", help="give up after S seconds (exit 124)")
    add_place(parser)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return value


def main(arguments: argparse.Namespace) -> int:
    """Call and follow. Returns the command's exit code, 0 for other calls.

    Raises RequestError for an error reply or a lost connection, OSError, UsageError.
    """
    if "/" not in arguments.procedure:
        raise UsageError(f"{arguments.procedure!r} is no full name of a verb: write API/VERB")
    if arguments.input and (arguments.no_follow or arguments.action not in (None, "start")):
        raise UsageError("--input goes with a start that is followed; else call the action `input`")
    query = make_query(arguments.arguments, arguments.action, arguments.verbose)
    path = path_of(arguments)
    deadline = None if arguments.timeout is None else time.monotonic() + arguments.timeout
    with connect(path, arguments.timeout) as client:
        token = token_of(arguments)
        feeder = Feeder(path, arguments.procedure, token) if arguments.input else None
        if feeder is not None:
            client.on_event = feeder.hear
        try:
            reply = client.call(arguments.procedure, query, token)
        except KeyboardInterrupt:
            complain("interrupted before the answer came; a command that was started goes on")
            return INTERRUPTED
        except RequestError as error:
            if arguments.json:
                show_json({"status": error.status, "code": error.code, "info": error.info})
            raise _explained(error, arguments.procedure) from None
        if feeder is not None and _is_task(reply.response) and "status" not in reply.response:
            feeder.begin(reply.response["pid"])
        return Followed(client, reply, arguments, deadline).run()


def make_query(words: list[str], action: str | None, verbose: int | None = None) -> Any:
    """What is sent for the words of the command line. Raises UsageError.

    With an action or a verbosity the words are their `args`. Otherwise they are sent as they are, unless a
    named argument would be read as part of the query itself.
    """
    values = parse_arguments(words)
    named = isinstance(values, dict) and not (len(words) == 1 and is_json(words[0]))
    if action is None and verbose is None and not (named and _QUERY_KEYS & values.keys()):
        return values
    query: dict[str, Any] = {"action": action or "start"}
    if values is not None:
        query["args"] = values
    if verbose is not None:
        query["verbose"] = verbose
    return query


def _explained(error: RequestError, procedure: str) -> RequestError:
    """The error, with what to do about it where that is all it needs."""
    hints = {
        "unknown-api": "`initspawn call initspawn/info` lists the APIs",
        "unknown-verb": f"`initspawn call {procedure.partition('/')[0]}/info` lists the verbs",
        "insufficient-scope": f"the caller may not do this; another --token or ${TOKEN}?",
        "invalid-request": "the arguments of a stop or subscribe are `pid`, `signal`, `from`, `queued`",
    }
    if error.info or error.status not in hints:
        return error
    return RequestError(error.status, f"{procedure}: {hints[error.status]}")


class Followed:
    """What comes after a reply: the output of the tasks it names, until all have ended."""

    def __init__(
        self, client: Client, reply: Reply, arguments: argparse.Namespace, deadline: float | None
    ) -> None:
        self._client = client
        self._reply = reply
        self._arguments = arguments
        self._deadline = deadline
        self._codes: list[int] = []
        self._waiting = set() if arguments.no_follow else _pids(reply.response, arguments.action or "start")

    def run(self) -> int:
        """Print everything. Returns the exit code; raises RequestError, OSError."""
        response = self._reply.response
        status = response.get("status") if _is_task(response) else None
        if self._arguments.json:
            show_json(self._plain_reply())
        elif status is not None:
            show_output(response, sys.stdout, sys.stderr)
            return ended(status, sys.stderr)
        elif not self._waiting:
            self._show_response()
        if status is not None:
            return of_status(status)
        return self._follow() if self._waiting else OK

    def _plain_reply(self) -> dict[str, Any]:
        plain = {"status": "success", "code": self._reply.code, "info": self._reply.info}
        return {**plain, "response": self._reply.response}

    def _show_response(self) -> None:
        response = self._reply.response
        if isinstance(response, str):
            write_line(response, sys.stdout)
        elif response is not None:
            show_json(response, indent=2)
        if self._reply.info:
            complain(self._reply.info)

    def _follow(self) -> int:
        events = self._client.events()
        try:
            while self._waiting:
                if self._deadline is not None:
                    self._client.timeout = self._deadline - time.monotonic()
                event = next(events)
                self._take(event.to_plain(), event.data)
        except KeyboardInterrupt:
            self._say_it_goes_on()
            return INTERRUPTED
        except RequestError as error:
            if error.status != "timeout":
                raise
            self._say_it_goes_on(f"is still running after {self._arguments.timeout:g} s, as")
            return TIME_LIMIT
        return next((code for code in self._codes if code), OK)

    def _take(self, event: dict[str, Any], data: Any) -> None:
        if not isinstance(data, dict):
            return
        pid = data.get("pid", _pid_of(event["task"]))  # a marker for lost events names no pid
        if pid not in self._waiting:
            return
        code = None
        if self._arguments.json:
            show_json(event)
            if data.get("type") == FINAL:
                code = of_status(data.get("status"))
        else:
            code = show_event(data, sys.stdout, sys.stderr)
        if code is not None:
            self._waiting.discard(pid)
            self._codes.append(code)

    def _say_it_goes_on(self, how: str = "goes on as") -> None:
        procedure = self._arguments.procedure
        for pid in sorted(self._waiting):
            stop = f"initspawn call {procedure} --action stop pid={pid}"
            complain(f"{procedure} {how} pid {pid}; to stop it: {stop}")


def _is_task(response: Any) -> bool:
    return isinstance(response, dict) and response.keys() >= _TASK_KEYS


def _pids(response: Any, action: str) -> set[int]:
    """The tasks whose events will come, by what a start or a subscription was answered."""
    if action == "start" and _is_task(response):
        pid = response["pid"]
        return {pid} if type(pid) is int else set()
    if action == "subscribe":
        tasks = response if isinstance(response, list) else [response]
        return {pid for pid in map(_pid_of, tasks) if pid}
    return set()


def _pid_of(task: Any) -> int:
    """The pid in a task's name `sandbox/command@pid`; 0 if there is none."""
    number = task.rpartition("@")[2] if isinstance(task, str) else ""
    return int(number) if number.isascii() and number.isdecimal() and len(number) < 20 else 0
