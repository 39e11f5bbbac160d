"""All commands that start by themselves: whose turn it is, and what follows from an end. Boot module; pure.

It starts nothing itself: its `Hands` do, and tell it what has become of that. Time is what their loop says.
"""

from __future__ import annotations

from _collections import deque

from initspawn.limits import NOTIFY_SECONDS
from initspawn.plan import NETWORK, STAGES, STARTED
from initspawn.plan import Autostart as Plan
from initspawn.supervisor import service as life
from initspawn.supervisor.service import Service

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any, Protocol

    class Timer(Protocol):
        """A callback to come."""

        def cancel(self) -> None:
            """It will not run."""

    class Hands(Protocol):
        """What acts for the services."""

        def now(self) -> float:
            """Seconds that only grow."""

        def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
            """Call back once, not before so many seconds have passed."""

        def full(self, service: Service) -> float:
            """When the way of its messages was last found full: then it may have been alive unheard."""

        def chance(self) -> float:
            """Any number from 0 to 1."""

        def holds(self, service: Service) -> str:
            """Empty if all that is asked of the machine is so; else what is not."""

        def unsure(self, service: Service) -> bool:
            """Whether it is still being found out what holds for it."""

        def start(self, service: Service) -> None:
            """Start it; `started` or `ended` is called now or later."""

        def stop(self, service: Service, reason: str) -> None:
            """End it; `ended` is called later."""

        def tell(self, service: Service, text: str) -> None:
            """Somebody should know."""


GONE = "it is not in the configuration any more"


class Services:
    """The services of one plan, by name and in its order."""

    def __init__(self, plans: dict[str, Plan], hands: Hands) -> None:
        self.hands = hands
        now = hands.now()
        self.every = {name: Service(name, plan, now) for name, plan in plans.items()}
        self._left: dict[str, Service] = {}  # gone with an earlier plan, and may still run
        self._reached: set[str] = set()
        self._followers: dict[str, list[Service]] = {}
        self._timers: dict[Service, Timer] = {}
        self._waiting: deque[Service] = deque()  # to be looked at
        self._looking = False
        self._closed = False
        self.on_change: list[Callable[[], None]] = []  # called when the state of any has changed
        self._relate()

    def _relate(self) -> None:
        self._followers.clear()
        for service in self.every.values():
            for other in dict.fromkeys(named(service.plan)):
                self._followers.setdefault(other, []).append(service)

    def renew(self, plans: dict[str, Plan], changed: Collection[str]) -> list[Service]:
        """From now on these are the plans. Who runs goes on as it began; who has failed or was skipped may
        try again if its plan, or what it runs (`changed`), is another; who was gone, is there again and runs
        is the same. Returns those that are gone and run.
        """
        left = {name: service for name, service in self._left.items() if service.state in life.ALIVE}
        gone, self.every, now = self.every, {}, self.hands.now()
        for name, plan in plans.items():
            service = gone.pop(name, None)
            if service is None and name in left and left[name].state != life.ENDING:
                service = left.pop(name)
            if service is not None and service.state in (life.FAILED, life.SKIPPED):
                service = None if name in changed or service.plan != plan else service
            self.every[name] = service = service or Service(name, plan, now)
            service.plan = plan
        self._relate()
        for service in gone.values():
            service.plan = Plan(stage=service.plan.stage)  # nobody is waited for, and it is not started again
            self.halt(service, GONE)
        running = {name: service for name, service in gone.items() if service.state in life.ALIVE}
        self._left = left | running
        self.look()
        return [*running.values()]

    def reach(self, stage: str) -> None:
        """The boot has come so far: to this stage and to all that it implies."""
        self._reached.update(reached(stage))
        self.look()

    def look(self) -> None:
        """Something has changed that services may wait for."""
        self._look(service for service in self.every.values() if service.state == life.WAITING)

    def started(self, service: Service) -> None:
        """Its command runs."""
        if service.state != life.STARTING:
            return
        service.moments.setdefault(life.RUNS, self.hands.now())
        if service.run.ready == STARTED:
            self.ready(service)
        elif service.run.start_timeout:
            service.deadline = self.hands.now() + service.run.start_timeout
            self._await(service, lambda: self._too_late(service))

    def ready(self, service: Service) -> None:
        """It is ready."""
        if service.state == life.STARTING:
            self._on(service, life.READY)
            if service.run.watchdog:
                self.feed(service)
                self._await(service, lambda: self._hangs(service))

    def feed(self, service: Service) -> None:
        """It has said that it is alive."""
        if service.state == life.RUNNING and service.run.watchdog:
            service.deadline = self.hands.now() + service.run.watchdog

    def extend(self, service: Service, seconds: float) -> None:
        """It has asked for so much more time from now on for getting ready."""
        if service.state == life.STARTING and service.deadline:
            seconds = min(seconds, NOTIFY_SECONDS)
            service.deadline = max(service.deadline, self.hands.now() + seconds)

    def hangs(self, service: Service) -> None:
        """It has said itself that it hangs."""
        self._stop(service, life.RETRY, "it says that it hangs", "watchdog")

    def ended(self, service: Service, code: int | None, how: str, *, wanted: bool = False) -> None:
        """Its command has ended, or never ran. `code`: its exit code, if it had one; `how`: in words;
        `wanted`: somebody has stopped it.
        """
        wanted = wanted or self._closed
        event = service.intent or (life.HALT if wanted else service.judge(code, self.hands.now()))
        if service.intent:
            how = service.why
            if self._closed:
                event = life.HALT
            elif event == life.RETRY:  # we have asked for its end because it failed
                event = service.judge(None, self.hands.now())
        if event == life.RETRY:
            pause = service.pause(self.hands.chance())
            self.hands.tell(service, f"{how}; it is started again in {pause:.3g} s")
            self._on(service, event, how)
            self._after(service, pause, lambda: self._on(service, life.AGAIN))
            return
        if event == life.GIVE_UP:
            self.hands.tell(service, f"{how}; it is not started again")
        self._on(service, event, how)

    def refuse(self, service: Service, why: str) -> None:
        """It may not run, now or later."""
        self.hands.tell(service, why)
        self._on(service, life.GIVE_UP, why)

    def halt(self, service: Service, why: str = "somebody has stopped it") -> None:
        """Somebody wants it ended: where no task runs, it is not started any more either."""
        if service.state in (life.WAITING, life.PAUSED):
            self._on(service, life.HALT, why)

    def close(self, why: str) -> None:
        """From now on nothing is started, and nothing follows from the end of another."""
        self._closed = True
        for service in self.every.values():
            if service.state in (life.WAITING, life.PAUSED):
                self._on(service, life.HALT, why)

    def end(self, service: Service, why: str) -> None:
        """End it for good."""
        self._stop(service, life.HALT, why, "stop")

    def _await(self, service: Service, late: Callable[[], None]) -> None:
        """Call `late` at the deadline, which may be moved meanwhile."""
        left = service.deadline - self.hands.now()
        if left > 0:
            self._after(service, left, lambda: self._await(service, late))
        else:
            late()

    def _hangs(self, service: Service) -> None:
        # Whoever shares its way of messages can keep it busy, and must not be able to end it by that.
        heard = self.hands.full(service) + service.run.watchdog
        if heard > self.hands.now():
            service.deadline = heard
            self._await(service, lambda: self._hangs(service))
            return
        why = f"no sign of life for {service.run.watchdog:g} s"
        self._stop(service, life.RETRY, why, "watchdog")

    def _too_late(self, service: Service) -> None:
        self._stop(service, life.RETRY, f"not ready after {service.run.start_timeout:g} s", "timeout")

    def _stop(self, service: Service, intent: str, why: str, reason: str) -> None:
        if service.state in (life.STARTING, life.RUNNING):
            self._on(service, life.STOP, why)
            service.intent = intent
            self.hands.stop(service, reason)

    def _after(self, service: Service, seconds: float, callback: Callable[[], None]) -> None:
        """One timer for each service: every change of its state ends the one before."""
        self._timers[service] = self.hands.after(seconds, callback)

    def _on(self, service: Service, event: str, why: str = "") -> None:
        timer = self._timers.pop(service, None)
        if timer is not None:
            timer.cancel()
        service.on(event, self.hands.now(), why)
        self._look([self.every.get(service.name, service), *self._followers.get(service.name, ())])
        for tell in self.on_change:
            tell()

    def _look(self, services: Any) -> None:
        """Look at these one after the other, and at those that change because of them: chains may be long."""
        self._waiting.extend(services)
        if self._looking or self._closed:
            return
        self._looking = True
        try:
            while self._waiting:
                self._consider(self._waiting.popleft())
        finally:
            self._looking = False

    def _consider(self, service: Service) -> None:
        broken = self._broken(service)
        if service.state == life.WAITING:
            if broken:
                self._skip(service, broken)
                return
            lacking, service.why = self._lacks(service)
            if not lacking:
                lacking = service.why = self.hands.holds(service)
                if lacking and service.plan.skip and not self.hands.unsure(service):
                    self._skip(service, lacking)
                    return
            if lacking and not service.starts:
                service.waited = lacking
            if not service.why:
                self._on(service, life.START)
                self.hands.start(service)
        elif broken and service.state == life.PAUSED:
            self._skip(service, broken)
        elif broken:
            self._stop(service, life.HALT, broken, "requires")

    def _skip(self, service: Service, why: str) -> None:
        self.hands.tell(service, f"skipped: {why}")
        self._on(service, life.SKIP, why)

    def _broken(self, service: Service) -> str:
        """Why it cannot be any more, in words; empty if it can."""
        for name in service.plan.requires:
            state = self.every[name].state
            if state in life.BROKEN:
                return f"it requires {name}, which is {state}"
        if service.state == life.WAITING:
            for name, well in service.plan.results:
                state = self.every[name].state
                if state in life.SETTLED and state not in (life.RUNNING, _result(well)):
                    return f"{name} is {state}"
        return ""

    def _lacks(self, service: Service) -> tuple[str, str]:
        """What it waits for among stages and others, and why in words; both are empty for nothing."""
        plan, left = service.plan, self._left.get(service.name)
        if left is not None and left.state in life.ALIVE:
            return "its last run", "it comes after its last run, which has not ended"
        if plan.stage not in self._reached:
            return f"stage {plan.stage}", f"stage {plan.stage} is not reached"
        for name in (*plan.after, *plan.wants):
            if self.every[name].state not in life.SETTLED:
                return name, f"it comes after {name}, which is {self.every[name].state}"
        for name in plan.requires:
            if self.every[name].state not in life.MET:
                return name, f"it requires {name}, which is {self.every[name].state}"
        for name, well in plan.results:
            if self.every[name].state != _result(well):
                return name, f"it waits for {name} to be {_result(well)}"
        return "", ""


def reached(stage: str) -> tuple[str, ...]:
    """Where a boot has been that has come to this stage, which is the last of them. Network and gateway
    come in any order, after the system.
    """
    return (*STAGES[: min(STAGES.index(stage), STAGES.index(NETWORK))], stage)


def _result(well: bool) -> str:
    return life.DONE if well else life.FAILED


def named(plan: Plan) -> tuple[str, ...]:
    """All others that one with this plan comes after."""
    return (*plan.after, *plan.requires, *plan.wants, *(name for name, _ in plan.results))
