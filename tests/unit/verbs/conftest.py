"""What verb tests share: a supervisor that starts nothing and a client that notes what it gets."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from initspawn.errors import LaunchRefused, RequestError
from initspawn.plan import OPTIONAL, REQUIRED, TEXT, Api, Command, Plan, Sandbox
from initspawn.supervisor.eventlog import EventLog
from initspawn.supervisor.task import DRAINED, GONE, MEASURED, QUEUED, READY, STOP, Life
from initspawn.verbs.access import Identity
from initspawn.verbs.answer import Answer
from initspawn.verbs.registry import Registry


class FakeTask:
    """A task as the verbs see it."""

    def __init__(self, api: Api, command: Command, argv: tuple[str, ...], pid: int, **calls: Any) -> None:
        self.api = api
        self.command = command
        self.sandbox = api.sandbox(command.sandbox)
        self.privilege = command.privilege or self.sandbox.privilege
        self.argv = argv
        self.pid = pid
        self.ticket = 0
        self.input: Any = None
        self.life = Life()
        self.owner = ""
        self.refusal: LaunchRefused | None = None
        self.log = EventLog()
        self.encoder = SimpleNamespace(synchronous=command.encoder == "sync")
        self.verbose = calls.pop("verbose", None)
        self.notes: list[tuple[str, str]] = []
        self._calls = calls

    @property
    def id(self) -> str:
        return f"{self.sandbox.uid}/{self.command.uid}@{self.pid}"

    @property
    def event_name(self) -> str:
        return f"{self.api.api}/{self.command.verb}"

    def describe(self) -> dict[str, Any]:
        return {"command": self.command.uid, "pid": self.pid}

    def result(self) -> dict[str, Any]:
        return {**self.describe(), "status": {"exit": 0}}

    def record(self) -> dict[str, Any]:
        return {"id": self.id, "state": self.life.state}

    def note(self, what: str, text: str) -> None:
        self.notes.append((what, text))

    def run(self) -> None:
        self.life.on(READY)
        self.life.on(MEASURED)
        self._calls["on_start"](self)

    def refuse(self, refusal: LaunchRefused) -> None:
        self.refusal = refusal
        self.life.on(GONE)
        self._calls["on_start"](self)
        self._calls["on_end"](self)

    def end(self) -> None:
        self.life.on(GONE)
        self.life.on(DRAINED)
        self._calls["on_end"](self)
        self.log.shrink(1)


class FakeReactor:
    """Callbacks wait until the test lets them run."""

    def __init__(self) -> None:
        self._waiting: list[Callable[[], None]] = []
        self.later: list[Callable[[], None]] = []

    def after(self, seconds: float, callback: Callable[[], None]) -> None:
        (self.later if seconds else self._waiting).append(callback)

    def pass_time(self) -> None:
        """Let run what was to wait a while."""
        waiting, self.later = self.later, []
        self._waiting += waiting
        self.run()

    def run(self) -> None:
        """Until there is nothing left to do."""
        while self._waiting:
            self._waiting.pop(0)()


class FakeSupervisor:
    """Starts nothing, remembers everything. Tasks begin to run when the test says so."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.every: list[FakeTask] = []
        self.ended: list[FakeTask] = []
        self.sent: list[tuple[str, int, int]] = []
        self.fails: RequestError | None = None
        self.reactor = FakeReactor()
        self.closing = False

    @property
    def tasks(self) -> list[FakeTask]:
        return [task for task in self.every if task.life.alive]

    @property
    def roster(self) -> SimpleNamespace:
        return SimpleNamespace(
            every=lambda: self.tasks, alive=self.alive, known=self.known, waiting=self.waiting
        )

    @property
    def waiting(self) -> list[FakeTask]:
        return [task for task in self.every if task.life.state == QUEUED]

    def alive(self, api: Api, command: Command) -> list[FakeTask]:
        return [
            task for task in self.every if task.life.alive and task.event_name == f"{api.api}/{command.verb}"
        ]

    def known(self, api: Api, command: Command) -> list[FakeTask]:
        return [task for task in self.every if task.command is command and task.api is api]

    def start(self, api: Api, command: Command, argv: tuple[str, ...], **calls: Any) -> FakeTask:
        if self.fails is not None:
            raise self.fails
        task = FakeTask(api, command, argv, 101 + len(self.every), **calls)
        self.every.append(task)
        return task

    def stop(self, task: FakeTask, number: int = signal.SIGTERM) -> None:
        task.life.on(STOP)
        self.sent.append(("stop", task.pid, number))

    def signal(self, task: FakeTask, number: int) -> None:
        self.sent.append(("signal", task.pid, number))


class Client:
    """A door's end of one client."""

    def __init__(self, registry: Registry, identity: Identity) -> None:
        self.identity = identity
        self.session = "S"
        self.door = "test"
        self.client = self
        self.closed = False
        self.subscribed: list[int] = []
        self.first: int | None = None  # of the last subscription
        self.log: list[Any] = []
        self._registry = registry

    def subscribe(self, task: Any, first: int | None = None) -> None:
        self.subscribed.append(task.pid)
        self.first = first
        self.log.append("subscribed")

    def unsubscribe(self, task: Any) -> None:
        self.subscribed.remove(task.pid)

    def watch(self, watchers: Any) -> None:
        watchers[self] = lambda name: self.log.append(f"{name} has gone")

    def call(self, procedure: str, arguments: Any = None) -> Answer | None:
        """Call; the answer, None if there is none yet. There is never a second one."""
        answers: list[Answer] = []

        def answer(given: Answer) -> None:
            assert not answers, "answered twice"
            answers.append(given)
            self.log.append(given)

        self._registry.call(self, procedure, arguments, answer)
        return answers[0] if answers else None


PLAN = Plan(
    user=0,
    group=0,
    apis=(
        Api(
            uid="uid",
            api="t",
            sandboxes=(Sandbox(uid="sb", user=1, group=1),),
            commands=(
                Command(uid="c", verb="c", sandbox="sb", path="/c"),
                Command(uid="sync", verb="sync", sandbox="sb", path="/s", encoder="sync"),
                Command(
                    uid="echo", verb="tools/echo", sandbox="sb", path="/e",
                    arguments=(((REQUIRED, "a"),), ((TEXT, "-"), (OPTIONAL, "b"))),
                ),
            ),
        ),
        Api(
            uid="guarded",
            api="guarded",
            sandboxes=(
                Sandbox(uid="open", user=1, group=1),
                Sandbox(uid="closed", user=1, group=1, privilege="urn:box"),
            ),
            commands=(
                Command(uid="plain", verb="plain", sandbox="open", path="/p"),
                Command(uid="own", verb="own", sandbox="open", path="/o", privilege="urn:own"),
                Command(uid="box", verb="box", sandbox="closed", path="/b"),
                Command(uid="both", verb="both", sandbox="closed", path="/b", privilege="urn:own"),
            ),
        ),
        Api(
            uid="secret",
            api="secret",
            hidden=True,
            sandboxes=(Sandbox(uid="h", user=1, group=1),),
            commands=(Command(uid="h", verb="h", sandbox="h", path="/h"),),
        ),
    ),
)  # fmt: skip

LOCAL = Identity(kind="local", user=1000)


@pytest.fixture
def supervisor() -> FakeSupervisor:
    """Serves PLAN and runs nothing."""
    return FakeSupervisor(PLAN)


@pytest.fixture
def registry(supervisor: FakeSupervisor) -> Registry:
    return Registry(supervisor)  # type: ignore[arg-type]


@pytest.fixture
def connect(registry: Registry) -> Callable[..., Client]:
    """connect(scope, ...): a client with a token of these scopes; connect(None): one with nothing."""

    def connect(*scopes: str | None, kind: str = "token") -> Client:
        if scopes == (None,):
            return Client(registry, Identity(kind="nobody"))
        return Client(registry, Identity(kind=kind, scopes=frozenset(filter(None, scopes))))

    return connect


@pytest.fixture
def client(registry: Registry) -> Client:
    """A client that may do everything."""
    return Client(registry, LOCAL)
