"""Nobody talks before a command is ready: the rule set that says so, put in and taken away.

nft(8) does it, as a task like any other, in one transaction of the kernel's. The rules stay in the kernel
whatever becomes of us; whoever comes after us replaces them. Who else changes them while it is closed, or
takes them away (`nft flush ruleset`), is noticed, and they are put back. Loaded where a plan has a guard.
"""

from __future__ import annotations

from initspawn.errors import RequestError
from initspawn.linux import nftables
from initspawn.say import say
from initspawn.supervisor import service as life
from initspawn.supervisor.eventlog import Reader
from initspawn.supervisor.reactor import READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from initspawn.plan import Guard as GuardPlan
    from initspawn.supervisor.core import Supervisor
    from initspawn.supervisor.reactor import Timer
    from initspawn.supervisor.running import Task
    from initspawn.supervisor.services import Services

CLOSE, OPEN = "close", "open"  # the commands of its API, and its states
_TORN = "torn"  # somebody else has changed the rules
_TOLD = {"": "not installed", CLOSE: "closed", OPEN: "open", _TORN: "being put back"}
TABLE = "initspawn"
SECONDS = 6.0  # that nft may take, also before anything runs: less than PID 1's patience
_LAST_SECONDS = 2.0  # and at the end
_APART = 0.2  # seconds between two repairs: somebody may go on and on
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0  # until a change is tried again that has failed


class Guard:
    """The guard of one supervisor, following the service that opens it."""

    def __init__(
        self, supervisor: Supervisor, services: Services, plan: GuardPlan, on_torn: Callable[[str], None],
        mark: Callable[[str], None],
    ) -> None:  # fmt: skip
        """`on_torn` is told who has changed the rules of a closed guard, `mark` what becomes of it."""
        self._on_torn = on_torn
        self._mark = mark
        self._supervisor = supervisor
        self._services = services
        self._plan = plan
        self._state = ""
        self._wanted = CLOSE
        self._task: Task | None = None
        self._patience: Timer | None = None  # for that
        self._failure = ""
        self._pause = _FIRST_PAUSE
        self._was_ready = False
        self._then: Callable[[], None] | None = None  # what comes when it is left
        self._leaving = False
        self._watch: nftables.Watch | None = None
        self._others: list[str] = []  # who has changed the rules since they were ours
        self._repairs = 0
        self._repaired = 0.0  # when the last one began

    def begin(self) -> None:
        """Close it, before anything else is started; serves the loop meanwhile. Where that cannot be done,
        nothing that shares the network may start, unless the guard is to be open on failure.
        """
        reactor = self._supervisor.reactor
        end = reactor.clock() + SECONDS
        try:
            self._watch = nftables.Watch(nftables.INET, TABLE)
            reactor.watch(self._watch.fileno(), READ, lambda _: self._hear())
        except OSError as error:
            self._failure = f"nobody would notice who takes it away: {error.strerror}"
        else:
            self._change()
        while self._state != CLOSE and not self._failure and reactor.clock() < end:
            reactor.turn(end - reactor.clock())
        if self._state == CLOSE:
            self._services.on_change.append(self._look)
            return
        self._failure = self._failure or f"nft has not ended after {SECONDS:g} s"
        self._mark(_mark_of(""))
        self._wanted = OPEN if self._plan.open_on_failure else ""  # if nft is late, not for ever
        if not self._plan.open_on_failure:
            self._supervisor.roster.barred = f"the guard could not be installed: {self._failure}"
        followed = "goes on without" if self._plan.open_on_failure else "does not start what uses the network"
        self._tell(f"{self._failure}; initspawn {followed}")

    def leave(self, then: Callable[[], None]) -> bool:
        """The supervisor is about to end everything. True if the guard has to be closed before that, for the
        tunnel ends too, or its rules are put back; then `then` is called when it is.
        """
        service = self._services.every[self._plan.until]
        if self._leaving or self._state not in (OPEN, _TORN):
            return False
        if self._state == OPEN and (self._plan.open_on_failure or service.state == life.DONE):
            return False  # in the latter case nothing ends that it was open for
        self._leaving = True  # once: it may fail to close
        self._then = then
        self._supervisor.reactor.after(_LAST_SECONDS, self._left)
        self._want(CLOSE)
        return True

    def told(self) -> dict[str, Any]:
        """What `info` says of it."""
        about = {"state": _TOLD[self._state], "until": self._plan.until, "repairs": self._repairs}
        return {**about, "why": self._failure} if self._failure else about

    def close(self) -> None:
        """Follow the rules no more."""
        if self._watch is not None:
            self._supervisor.reactor.forget(self._watch.fileno())
            self._watch.close()
            self._watch = None

    def _hear(self) -> None:
        """Somebody has changed tables; it may have been our own nft."""
        if self._watch is not None:
            self._others += self._watch.read()
        if self._task is None:
            self._repair()

    def _repair(self) -> None:
        """Put the rules back if they are no longer ours."""
        others, self._others = self._others, []
        if not others or self._state != CLOSE or self._supervisor.closing:
            return
        self._state = _TORN
        self._mark(_mark_of(_TORN))
        self._repairs += 1
        who = ", ".join(dict.fromkeys(others))
        self._tell(f"its rules were changed by {who}; they are put back")
        self._on_torn(who)
        reactor = self._supervisor.reactor
        now = reactor.clock()
        self._repaired = max(now, self._repaired + _APART)
        reactor.after(self._repaired - now, self._change)

    def _look(self) -> None:
        """Some service has become another."""
        state = self._services.every[self._plan.until].state
        self._was_ready = self._was_ready or state in life.MET
        failed = state in life.BROKEN or self._was_ready
        self._want(OPEN if state in life.MET or (failed and self._plan.open_on_failure) else CLOSE)

    def _want(self, state: str) -> None:
        if self._then is not None:
            state = CLOSE
        if state != self._wanted:
            self._wanted = state
            self._pause = _FIRST_PAUSE
            if self._task is None:
                self._change()

    def _change(self) -> None:
        """Make it what is wanted, unless that is under way."""
        wanted = self._wanted
        if self._task is not None or self._supervisor.closing or wanted in ("", self._state):
            return
        if self._watch is not None:
            self._watch.read()
        self._others.clear()
        api = self._plan.api
        command = next(command for command in api.commands if command.uid == wanted)
        argv = (command.path, *("".join(text for _, text in item) for item in command.arguments))
        try:
            self._task = self._supervisor.start(
                api, command, argv, on_end=lambda task: self._ended(wanted, task)
            )
        except (RequestError, OSError) as error:
            self._done(wanted, str(error))
        else:
            self._patience = self._supervisor.reactor.after(SECONDS, self._too_long)

    def _too_long(self) -> None:
        """nft hangs: the next try may not."""
        if self._task is not None:
            self._supervisor.stop(self._task)

    def _ended(self, wanted: str, task: Task) -> None:
        self._task = None
        if self._patience is not None:
            self._patience.cancel()
        if task.refusal is not None:
            self._done(wanted, task.refusal.info or task.refusal.status)
        elif task.status == {"exit": 0}:
            self._done(wanted, "")
        else:
            ending = ", ".join(f"{name} {value}" for name, value in task.status.items())
            self._done(wanted, f"nft ended ({ending}): {_said(task)}")

    def _done(self, wanted: str, failure: str) -> None:
        self._failure = failure
        if not failure:
            self._state = wanted
            self._mark(_mark_of(wanted))
            self._pause = _FIRST_PAUSE
            self._tell(_TOLD[wanted])
            if self._watch is not None:
                others = self._others + self._watch.read()
                # The first change was this one; after a loss nobody knows whether it was the last, too.
                self._others = others if others[:1] == [nftables.LOST] else others[1:]
                self._repair()
        elif self._state:  # not the first time, of which `begin` tells
            self._tell(f"{failure}; it is tried again in {self._pause:g} s")
            self._supervisor.reactor.after(self._pause, self._change)
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)
            return
        if self._state:
            self._change()  # something else may be wanted by now
        if self._state == CLOSE:
            self._left()

    def _left(self) -> None:
        then, self._then = self._then, None
        if then is not None:
            self._wanted = ""
            then()

    def _tell(self, text: str) -> None:
        say(f"guard: {text}")


def _mark_of(state: str) -> str:
    """In the time line."""
    return f"guard {_TOLD[state]}"


def _said(task: Task) -> str:
    """The first line that a task has written."""
    reader = Reader(task.log, lambda: None)
    try:
        while (event := reader.take()) is not None:
            for stream in ("stderr", "stdout"):
                if event.data.get(stream):
                    return str(event.data[stream])
    finally:
        reader.close()
    return "it says nothing"
