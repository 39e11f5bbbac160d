"""What can be done with a command: start, stop, subscribe, unsubscribe, input, resize. Boot module."""

from __future__ import annotations

import _signal

from initspawn.errors import RequestError
from initspawn.sandbox.bind import bind
from initspawn.supervisor.task import QUEUED
from initspawn.verbs import query
from initspawn.verbs.access import OTHERS, allowed
from initspawn.verbs.answer import Answer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from initspawn.plan import Api, Command
    from initspawn.supervisor.core import Supervisor
    from initspawn.supervisor.input import Input, Writer
    from initspawn.supervisor.running import Task
    from initspawn.verbs.access import Identity

    class Caller(Protocol):
        """A door's end of one client."""

        identity: Identity
        session: str
        door: str

        @property
        def client(self) -> Writer:
            """The connection, the same for all its calls."""

        def subscribe(self, task: Task, first: int | None = None) -> None:
            """Send this client the task's events from that number on; None: from the first that is kept.

            Who names a number may come back for more, and its place is kept when its connection is lost.
            """

        def unsubscribe(self, task: Task) -> None:
            """Send no more of them."""

        def watch(self, watchers: dict[Writer, Callable[[str], None]]) -> None:
            """Enter here how this client is told that an imported API has gone, if it hears events."""


DEFAULT_SIGNAL = query.SIGNALS["SIGINT"]
# Signals that ask a program to end: what they do not end, the grace does. The others are only sent.
_ENDING = (_signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGABRT, _signal.SIGKILL, _signal.SIGTERM)


def start(
    supervisor: Supervisor,
    caller: Caller,
    api: Api,
    command: Command,
    arguments: Any,
    answer: Callable[[Answer], None],
    verbose: int | None = None,
) -> None:
    """Start a command for a caller, who is subscribed to its events. The answer comes before them: when
    the command runs, or was refused; for a synchronous encoder when it has ended. Raises RequestError.
    """
    argv = bind(command, arguments)
    identity = caller.identity

    def on_start(task: Task) -> None:
        if task.refusal is not None:
            answer(Answer(status=task.refusal.status, info=task.refusal.info))
            return
        if caller.identity == identity:  # it may have shown another token since, or a bad one
            caller.subscribe(task)
        if not task.encoder.synchronous:
            answer(Answer(response=task.describe()))

    def on_end(task: Task) -> None:
        if task.encoder.synchronous and task.refusal is None:
            answer(Answer(response=task.result()))

    task = supervisor.start(api, command, argv, on_start=on_start, on_end=on_end, verbose=verbose)
    task.owner, task.client = identity.name, caller.client


def feed(caller: Caller, tasks: list[Task], arguments: Any, answer: Callable[[Answer], None]) -> None:
    """Write to the standard input of one of some tasks; the answer comes when all of it is taken, or nobody
    reads any more. Raises RequestError.
    """
    asked = query.parse_input(arguments)
    task = _running(tasks, asked.pid)
    target = _input(task)
    def taken(count: int, size: int) -> None:
        if count < size:
            said = f"its standard input is closed: {count} of {size} bytes were taken"
            answer(Answer(status="bad-state", info=said, response={"taken": count}))
        else:
            answer(Answer(response={"taken": count}))

    name = caller.identity.name
    only_leaves = asked.detach and not (asked.data or asked.end or asked.attach)
    if not only_leaves:
        own = target.holder == name or allowed(caller.identity, OTHERS, task.privilege)
        target.hold(caller.client, name, take=asked.attach and own)
    if asked.data or asked.end:
        target.give(asked.data, asked.end, taken)
    else:
        taken(0, 0)
    if asked.detach:
        target.release(caller.client, name)


def resize(caller: Caller, tasks: list[Task], arguments: Any) -> str:
    """Give the terminal of one of some tasks another size. Returns the task's id. Raises RequestError."""
    pid, rows, columns = query.parse_resize(arguments)
    task = _running(tasks, pid)
    _input(task).resize(caller.client, caller.identity.name, rows, columns)
    return task.id


def _running(tasks: list[Task], pid: int) -> Task:
    found = [task for task in tasks if task.pid == pid and task.life.started and task.life.alive]
    if not found:
        raise RequestError("invalid-request", "invalid pid")
    return found[-1]


def _input(task: Task) -> Input:
    if task.input is None:
        reason = "it has no standard input: its command does not say `stdin` or `terminal`"
        raise RequestError("bad-state", reason)
    return task.input


def control(supervisor: Supervisor, caller: Caller, tasks: list[Task], action: str, arguments: Any) -> Any:
    """Stop or (un)subscribe those of some tasks that run: all of them, or the one of a pid. Who subscribes
    from a number on may also name one that has ended.

    Returns their ids, or the one id. Raises RequestError(invalid-request) for a pid that is none of theirs.
    """
    asked = query.parse_control(arguments)
    if asked.first is not None and action != query.SUBSCRIBE:
        raise RequestError("invalid-request", "`from` is for `subscribe` alone")
    if asked.ticket is not None and action != query.STOP:
        raise RequestError("invalid-request", "`queued` is for `stop` alone")
    tasks = _chosen(tasks, asked, caller.identity.name, queued=action == query.STOP)
    ids = [task.id for task in tasks]
    for task in tasks:
        usual = _signal.SIGHUP if task.command.terminal else DEFAULT_SIGNAL
        number = usual if asked.signal is None else asked.signal
        task.note(action, f"signal {number}" if action == query.STOP else "")
        if action == query.STOP:
            if number in _ENDING or task.life.state == QUEUED:
                supervisor.stop(task, number)
            else:
                supervisor.signal(task, number)
        elif action == query.SUBSCRIBE:
            caller.subscribe(task, asked.first)
        else:
            caller.unsubscribe(task)
    return ids if asked.pid is None and asked.ticket is None else ids[0]


def is_final(arguments: Any) -> bool:
    """Whether a stop ends all tasks of its command, and not one of them, nor only sends a signal."""
    asked = query.parse_control(arguments)
    return asked.pid is None and asked.ticket is None and asked.signal in (None, *_ENDING)


def _chosen(tasks: list[Task], asked: query.Control, name: str, *, queued: bool) -> list[Task]:
    """Those of some tasks that a control is about. Raises RequestError(invalid-request)."""
    waiting = [task for task in tasks if task.life.state == QUEUED]
    if asked.ticket is not None:
        found = [task for task in waiting if task.ticket == asked.ticket]
        if not found:
            raise RequestError("invalid-request", f"nothing waits as number {asked.ticket}")
        return found
    found = [task for task in tasks if task.life.started and (task.life.alive or asked.first is not None)]
    if asked.pid is None:
        return found + waiting if queued else found
    found = [task for task in found if task.pid == asked.pid]
    if not found:
        raise RequestError("invalid-request", "invalid pid")
    task = found[-1] if asked.first is None else _meant(found, asked.first, name)
    if asked.first is not None and asked.first > task.log.next:
        raise RequestError("invalid-request", f"the task's next event is number {task.log.next}")
    return [task]


def _meant(tasks: list[Task], first: int, name: str) -> Task:
    """Of some that have had the same number, oldest first, the one whose events somebody wants from there on:
    the newest, or, if more is asked for than that one has told, the newest that has. Whoever has had events
    and left goes on where it was.
    """
    known = [task for task in tasks if first <= task.log.next] or tasks
    kept = [task for task in known if first > 1 and task.log.keeps(name)]
    return (kept or known)[-1]
