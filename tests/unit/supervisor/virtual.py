"""Hands for services in virtual time: what is started runs, or ends, as a test says."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

from initspawn.plan import Autostart, Restart
from initspawn.supervisor.service import Service
from initspawn.supervisor.services import Services


class Timer:
    """A callback to come."""

    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when, self.callback = when, callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True

    def __lt__(self, other: Timer) -> bool:
        return self.when < other.when


class World:
    """Services whose clock stands still until a test lets time pass.

    `lives[name]`: seconds that a run of it takes and its exit code (None: a signal), or None: it runs on. A
    number below zero is a refused start.
    """

    def __init__(
        self, lives: dict[str, tuple[float, int | None] | None] | None = None, **plans: Autostart
    ) -> None:
        self.time = 1000.0
        self.chances: Callable[[], float] = lambda: 0.0
        self.lives = lives or {}
        self.floods: dict[str, float] = {}  # of a service: when the way of its messages was last full
        self.missing: dict[str, str] = {}  # of a service: what does not hold
        self.searching: set[str] = set()  # of whom it is still being found out
        self.log: list[tuple[float, str, str]] = []
        self.told: list[str] = []
        self._timers: list[Timer] = []
        self._runs: dict[str, int] = {}
        self.services = Services({f"t/{name}": plan for name, plan in plans.items()}, self)

    # The Hands.

    def now(self) -> float:
        return self.time

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(self.time + seconds, callback)
        heapq.heappush(self._timers, timer)
        return timer

    def full(self, service: Service) -> float:
        return self.floods.get(short(service), float("-inf"))

    def chance(self) -> float:
        return self.chances()

    def holds(self, service: Service) -> str:
        return self.missing.get(short(service), "")

    def unsure(self, service: Service) -> bool:
        return short(service) in self.searching

    def start(self, service: Service) -> None:
        name = short(service)
        self.log.append((self.time, "start", name))
        run = self._runs[name] = self._runs.get(name, 0) + 1
        life = self.lives.get(name)
        if life is not None and life[0] < 0:
            self.services.ended(service, None, "start refused")
            return
        self.services.started(service)
        if life is not None:
            self.after(life[0], lambda: self._end(service, run, life[1]))

    def stop(self, service: Service, reason: str) -> None:
        self.log.append((self.time, "stop", short(service)))
        run = self._runs[short(service)]
        self.after(0.1, lambda: self._end(service, run, None))

    def tell(self, service: Service, text: str) -> None:
        self.told.append(f"{short(service)}: {text}")

    # What tests do.

    def _end(self, service: Service, run: int, code: int | None, *, wanted: bool = False) -> None:
        if self._runs.get(short(service)) == run:  # it has not ended before
            self._runs[short(service)] += 1
            how = "signal Killed" if code is None else f"exit {code}"
            self.services.ended(service, code, how, wanted=wanted)

    def end(self, name: str, code: int | None, *, wanted: bool = False) -> None:
        """Its run ends now."""
        self._end(self.services.every[f"t/{name}"], self._runs[name], code, wanted=wanted)

    def ready(self, name: str) -> None:
        self.services.ready(self.services.every[f"t/{name}"])

    def go(self, stage: str = "system") -> World:
        self.services.reach(stage)
        return self

    def sleep(self, seconds: float) -> None:
        """Let time pass, timer by timer."""
        end = self.time + seconds
        while self._timers and self._timers[0].when <= end:
            timer = heapq.heappop(self._timers)
            if not timer.cancelled:
                self.time = timer.when
                timer.callback()
        self.time = end

    def leap(self, seconds: float) -> None:
        """The clock jumps: all that is due comes at once, and what that asks for not before its time."""
        self.time += seconds
        due = [timer for timer in self._timers if timer.when <= self.time]
        self._timers = [timer for timer in self._timers if timer.when > self.time]
        heapq.heapify(self._timers)
        for timer in sorted(due):
            if not timer.cancelled:
                timer.callback()

    def states(self) -> dict[str, str]:
        return {short(service): service.state for service in self.services.every.values()}

    def order(self) -> list[str]:
        """Who was started, one after the other."""
        return [name for _, what, name in self.log if what == "start"]

    def times(self, name: str) -> list[float]:
        """When it was started, from the beginning on."""
        return [
            round(when - 1000.0, 3) for when, what, started in self.log if (what, started) == ("start", name)
        ]


def short(service: Service) -> str:
    return service.name.removeprefix("t/")


def plan(*, after: str = "", requires: str = "", wants: str = "", **keys: Any) -> Autostart:
    """An Autostart that names others by their verbs, separated by spaces."""
    named = {"after": after, "requires": requires, "wants": wants}
    return Autostart(
        **{key: tuple(f"t/{name}" for name in text.split()) for key, text in named.items()}, **keys
    )


def restart(**keys: Any) -> Restart:
    """By default 1, 2, 4, 8 and so on seconds, up to 60, without jitter."""
    return Restart(
        **{
            "policy": "on-failure",
            "pause": 1.0,
            "longest": 60.0,
            "jitter": 0.0,
            "ran_well": 10.0,
            "permanent": (125,),
            **keys,
        }
    )
