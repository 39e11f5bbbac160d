"""Commands of a plan run one after another in their sandboxes, without a server; what each did is kept."""

from __future__ import annotations

import _signal
from typing import Any

from initspawn.errors import LaunchRefused, RequestError
from initspawn.event import FINAL
from initspawn.linux import process
from initspawn.plan import Api, Command, Plan
from initspawn.supervisor.core import Supervisor
from initspawn.supervisor.eventlog import Reader
from initspawn.supervisor.reactor import Reactor
from initspawn.supervisor.running import Task

LINES = 2000  # kept of each stream of a run
_LINE_BYTES = 65536


class Ran:
    """What became of one start. `refusal` is empty when it ran; `measurement` is what it held at its exec."""

    def __init__(self) -> None:
        self.refusal = ""
        self.status: dict[str, Any] = {}
        self.output: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self.discarded = 0  # lines beyond LINES
        self.measurement: dict[str, Any] = {}
        self.own_cgroup = False

    def take(self, data: dict[str, Any]) -> None:
        """An event of the task."""
        for name, lines in self.output.items():
            if name not in data:
                continue
            if len(lines) < LINES:
                lines.append(str(data[name]))
            else:
                self.discarded += 1
        if data.get("type") == FINAL:
            self.status = data.get("status") or {}


def run_in_turn(
    plan: Plan, api: Api, starts: list[tuple[Command, tuple[str, ...]]], seconds: float
) -> list[Ran]:
    """Run each command with its argv to its end, each at most `seconds` (or its own time limit).

    The commands' sandboxes are those of `api`. Output is taken line by line, whatever their encoders. Must be
    called at most once in a process: it blocks signals and adopts orphans. Raises KeyboardInterrupt after
    Ctrl-C, OSError.
    """
    reactor = Reactor()
    turns = _Turns(reactor, api, [(_plain(command, seconds), argv) for command, argv in starts])
    reactor.signals(dict.fromkeys((_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP), turns.interrupt))
    process.set_child_subreaper()
    turns.supervisor = Supervisor(Plan(user=plan.user, group=plan.group, apis=(api,)), reactor)
    (turns.api,) = turns.supervisor.plan.apis  # as this machine can run it
    try:
        turns.next()
        reactor.run()
    finally:
        turns.supervisor.close(reactor.stop)
        reactor.run()
        reactor.close()
    if turns.interrupted:
        raise KeyboardInterrupt
    return turns.done


def _plain(command: Command, seconds: float) -> Command:
    timeout = min(command.timeout, seconds) if command.timeout else seconds
    return command.replace(
        timeout=timeout, most=0, verbose=0, encoder="line", encoder_options={"maxlen": _LINE_BYTES}
    )


class _Turns:
    """Whose turn it is."""

    def __init__(self, reactor: Reactor, api: Api, starts: list[tuple[Command, tuple[str, ...]]]) -> None:
        self.supervisor: Supervisor
        self.done: list[Ran] = []
        self.interrupted = False
        self._reactor = reactor
        self.api = api
        self._left = list(starts)

    def next(self) -> None:
        """Start the next one, or end."""
        if not self._left or self.interrupted:
            self._reactor.stop()
            return
        command, argv = self._left.pop(0)
        self.done.append(Ran())
        try:
            self.supervisor.start(
                self.api, command, argv, on_start=self._on_start, on_end=lambda _: self._soon()
            )
        except (RequestError, OSError) as error:
            self.done[-1].refusal = _reason(error)
            self._soon()

    def interrupt(self) -> None:
        """Ctrl-C: no more turns."""
        self.interrupted = True
        self.supervisor.kill_all()

    def _soon(self) -> None:
        self._reactor.after(0, self.next)

    def _on_start(self, task: Task) -> None:
        ran = self.done[-1]
        if task.refusal is not None:
            ran.refusal = _reason(task.refusal)
            return
        ran.measurement = task.measurement
        ran.own_cgroup = task.start is not None and task.start.cgroup is not None
        reader = Reader(task.log, lambda: self._read(reader, ran))

    def _read(self, reader: Reader, ran: Ran) -> None:
        while (event := reader.take()) is not None:
            ran.take(event.data)


def _reason(error: RequestError | OSError) -> str:
    return error.info if isinstance(error, (LaunchRefused, RequestError)) else str(error)
