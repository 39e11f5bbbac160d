"""The guard when nft is late or fails, with a supervisor that only notes what is started."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from initspawn.linux import nftables
from initspawn.supervisor import guard
from initspawn.supervisor import service as life
from initspawn.supervisor.guard import OPEN, Guard


class Bench:
    """What a guard sees of its supervisor. Time goes on by the turns of the loop."""

    def __init__(self, *, open_on_failure: bool) -> None:
        self.now = 100.0
        self.started: list[str] = []
        self.ends: list[Callable[[Any], None]] = []
        self.closing = False
        self.roster = SimpleNamespace(barred="")
        self.reactor = SimpleNamespace(
            clock=lambda: self.now, turn=self._turn, after=self._after,
            watch=lambda _, __, heard: self.hears.append(heard),
        )  # fmt: skip
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.hears: list[Callable[[int], None]] = []
        self.changes: list[str] = []  # that the watch has not told yet
        self.torn: list[str] = []
        commands = [SimpleNamespace(uid=uid, path="/nft", arguments=()) for uid in ("close", "open")]
        self.service = SimpleNamespace(state=life.WAITING)
        plan = SimpleNamespace(
            open_on_failure=open_on_failure, until="vpn/up", api=SimpleNamespace(commands=commands)
        )
        self.looks: list[Callable[[], None]] = []
        services = SimpleNamespace(every={"vpn/up": self.service}, on_change=self.looks)
        self.marks: list[str] = []
        self.guard = Guard(self, services, plan, self.torn.append, self.marks.append)  # type: ignore[arg-type]

    def _turn(self, seconds: float) -> None:
        self.now += seconds

    def _after(self, *timer: Any) -> object:
        self.timers.append(timer)
        return SimpleNamespace(cancel=lambda: self.timers.remove(timer) if timer in self.timers else None)

    def stop(self, _: object) -> None:
        self.ends.pop(0)(SimpleNamespace(refusal=None, status={"signal": "Terminated"}))

    def start(self, _: Any, command: Any, __: Any, on_end: Callable[[Any], None]) -> object:
        self.started.append(command.uid)
        self.ends.append(on_end)
        return object()

    def fileno(self) -> int:
        """As the watch."""
        return -1

    def read(self) -> list[str]:
        """As the watch."""
        told, self.changes = self.changes, []
        return told

    def hear(self, *who: str) -> None:
        """Somebody changes the rules."""
        self.changes += who
        self.hears[0](0)

    def due(self) -> float:
        """The next timer's time has come; for how long it waited."""
        seconds, callback = self.timers.pop(0)
        self.now += seconds
        callback()
        return seconds

    def end(self) -> None:
        self.changes.append("our nft")
        self.ends.pop(0)(SimpleNamespace(refusal=None, status={"exit": 0}))


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Bench:
    """With a guard that opens on failure if the test is called with True."""
    made = Bench(open_on_failure=getattr(request, "param", False))
    monkeypatch.setattr(nftables, "Watch", lambda *_: made)
    return made


def closed(bench: Bench) -> Bench:
    """After its nft has ended in time."""
    bench.reactor.turn = lambda _: bench.end()
    bench.guard.begin()
    assert bench.guard.told()["state"] == "closed"
    return bench


@pytest.mark.parametrize(
    ("bench", "started"), [(True, ["close", "open"]), (False, ["close"])], indirect=["bench"]
)
def test_an_nft_that_is_late_leaves_what_the_setting_says(bench: Bench, started: list[str]) -> None:
    bench.guard.begin()
    assert bench.marks == ["guard not installed"]
    assert bool(bench.roster.barred) == ("open" not in started)
    bench.end()
    assert bench.started == started


def test_a_guard_that_cannot_be_closed_holds_up_a_stop_once(bench: Bench) -> None:
    bench.guard._state = OPEN
    stops = []

    def stop() -> None:
        stops.append(bench.guard.leave(stop))

    stop()
    assert stops == [True]
    bench.guard._left()  # its time is over
    assert stops == [True, False]


def test_rules_that_somebody_changes_are_put_back_at_once(bench: Bench) -> None:
    closed(bench).hear()  # of another table
    assert not bench.timers
    bench.hear("process 7 ('nft')")
    assert bench.torn == ["process 7 ('nft')"]
    assert bench.guard.told()["state"] == "being put back"
    assert bench.due() == 0
    bench.hear("our nft", "somebody")  # while it is put back: nobody knows who was last
    assert bench.started == ["close"] * 2
    bench.end()
    assert len(bench.torn) == 2
    assert bench.due() > 0  # who goes on and on does not keep us from everything else
    bench.end()
    told = bench.guard.told()
    assert (told["state"], told["repairs"], bench.timers) == ("closed", 2, [])
    assert bench.marks == ["guard closed", *("guard being put back", "guard closed") * 2]


def test_where_messages_were_lost_nobody_knows_that_ours_was_the_last_change(bench: Bench) -> None:
    closed(bench).hear("process 7 ('nft')")
    bench.due()
    bench.changes.append(nftables.LOST)  # our own among them, and perhaps one after it
    bench.ends.pop(0)(SimpleNamespace(refusal=None, status={"exit": 0}))
    assert bench.torn == ["process 7 ('nft')", nftables.LOST]
    bench.due()
    bench.end()
    assert (bench.guard.told()["state"], bench.timers) == ("closed", [])


def test_a_repair_that_fails_waits_no_longer_because_an_earlier_one_did(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "_said", lambda _: "busy")

    def fail() -> float:
        bench.ends.pop(0)(SimpleNamespace(refusal=None, status={"exit": 1}))
        return bench.due()

    closed(bench).hear("somebody")
    bench.due()
    first = fail()
    assert fail() > first
    bench.end()
    bench.hear("somebody")
    bench.due()
    assert fail() == first


def test_an_nft_that_hangs_is_ended_and_tried_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "_said", lambda _: "nothing")
    closed(bench).hear("somebody")
    bench.due()
    assert bench.due() == guard.SECONDS
    assert "signal Terminated" in bench.guard.told()["why"]
    bench.due()
    bench.end()
    assert (bench.guard.told()["state"], bench.timers) == ("closed", [])


def test_an_open_guard_has_no_rules_to_put_back(bench: Bench) -> None:
    closed(bench)
    bench.service.state = life.DONE
    bench.looks[0]()
    bench.end()
    bench.hear("somebody")
    assert (bench.guard.told()["state"], bench.timers, bench.torn) == ("open", [], [])


def test_a_stop_waits_until_the_rules_are_put_back(bench: Bench) -> None:
    closed(bench).hear("somebody")
    stops: list[str] = []
    assert bench.guard.leave(lambda: stops.append("now"))
    bench.timers.sort(key=lambda timer: timer[0])
    bench.due()
    assert not stops
    bench.end()
    assert stops == ["now"]


@pytest.mark.parametrize("bench", [True, False], indirect=True)
def test_a_guard_that_would_not_notice_counts_as_none(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "not permitted")

    monkeypatch.setattr(nftables, "Watch", refuse)
    bench.guard.begin()
    assert bench.started == []
    assert "nobody would notice" in bench.guard.told()["why"]
    assert bool(bench.roster.barred) is not bench.guard._plan.open_on_failure
