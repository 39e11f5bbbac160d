"""The guard when nft is late or fails, with a supervisor that only notes what is started."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from initspawn.supervisor import service as life
from initspawn.supervisor.guard import OPEN, Guard


class Bench:
    """What a guard sees of its supervisor. Time goes on by the turns of the loop."""

    def __init__(self, *, open_on_failure: bool) -> None:
        self.now = 0.0
        self.started: list[str] = []
        self.ends: list[Callable[[Any], None]] = []
        self.closing = False
        self.roster = SimpleNamespace(barred="")
        self.reactor = SimpleNamespace(clock=lambda: self.now, turn=self._turn, after=lambda *_: None)
        commands = [SimpleNamespace(uid=uid, path="/nft", arguments=()) for uid in ("close", "open")]
        self.service = SimpleNamespace(state=life.WAITING)
        plan = SimpleNamespace(
            open_on_failure=open_on_failure, until="vpn/up", api=SimpleNamespace(commands=commands)
        )
        services = SimpleNamespace(every={"vpn/up": self.service}, on_change=[])
        self.guard = Guard(self, services, plan)  # type: ignore[arg-type]

    def _turn(self, seconds: float) -> None:
        self.now += seconds

    def start(self, _: Any, command: Any, __: Any, on_end: Callable[[Any], None]) -> object:
        self.started.append(command.uid)
        self.ends.append(on_end)
        return object()

    def end(self) -> None:
        self.ends.pop(0)(SimpleNamespace(refusal=None, status={"exit": 0}))


@pytest.mark.parametrize(("open_on_failure", "started"), [(True, ["close", "open"]), (False, ["close"])])
def test_an_nft_that_is_late_leaves_what_the_setting_says(open_on_failure: bool, started: list[str]) -> None:
    bench = Bench(open_on_failure=open_on_failure)
    bench.guard.begin()
    assert bool(bench.roster.barred) is not open_on_failure
    bench.end()
    assert bench.started == started


def test_a_guard_that_cannot_be_closed_holds_up_a_stop_once() -> None:
    bench = Bench(open_on_failure=False)
    bench.guard._state = OPEN
    stops = []

    def stop() -> None:
        stops.append(bench.guard.leave(stop))

    stop()
    assert stops == [True]
    bench.guard._left()  # its time is over
    assert stops == [True, False]
