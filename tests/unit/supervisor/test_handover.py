"""Whether the boot waits, goes on, or goes elsewhere, in virtual time."""

from __future__ import annotations

from typing import Any

import pytest

from initspawn.plan import Autostart
from initspawn.supervisor.handover import Handover
from tests.unit.supervisor.virtual import World, plan, restart


def first(**keys: Any) -> Autostart:
    """One that the boot waits for until it has ended, for ten seconds."""
    return plan(**{"stage": "early", "ready": "exited", "handover": True, "start_timeout": 10.0, **keys})


class Boot:
    """What was decided, and when; the first look is the supervisor's first sign of life."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.decided: list[tuple[float, str]] = []
        self.held = False
        world.go("early")
        self.handover = Handover(world.services, self.decide, lambda: self.held)
        self.handover.look()

    def decide(self, what: str) -> None:
        self.decided.append((round(self.world.time - 1000.0, 3), what))


def test_nobody_is_waited_for_who_does_not_ask() -> None:
    boot = Boot(World({"a": (5, 1)}, a=plan(stage="early", ready="exited")))
    assert boot.decided == [(0.0, "boot")]


def test_it_waits_until_the_last_one_is_ready() -> None:
    boot = Boot(World({"a": (5, 0), "b": (7, 0)}, a=first(), b=first(), c=first(ready="started")))
    assert boot.decided == []
    assert boot.handover.lacks() == ["t/a", "t/b"]
    boot.world.sleep(6)
    assert boot.handover.lacks() == ["t/b"]
    boot.world.sleep(60)
    assert boot.decided == [(7.0, "boot")]


@pytest.mark.parametrize("fate", ["boot", "recovery", "reboot"])
@pytest.mark.parametrize("how", [(2, 1), (2, None), (-1, None)])
def test_a_failure_has_the_fate_that_it_says(how: Any, fate: str) -> None:
    boot = Boot(World({"a": how}, a=first(on_failure=fate, on_timeout="reboot")))
    boot.world.sleep(60)
    assert [what for _, what in boot.decided] == [fate]


@pytest.mark.parametrize("fate", ["boot", "recovery", "reboot"])
def test_one_that_is_late_has_the_other(fate: str) -> None:
    boot = Boot(World({"a": (40, 0)}, a=first(on_timeout=fate, on_failure="reboot")))
    boot.world.sleep(60)
    assert boot.decided == [(10.0, fate)]


def test_who_waits_for_something_that_never_comes_is_late_too() -> None:
    world = World(a=first(on_timeout="recovery"))
    world.missing["a"] = "/dev/ttyUSB0 is not there"
    boot = Boot(world)
    world.sleep(60)
    assert boot.decided == [(10.0, "recovery")]
    assert world.told == ["a: not ready 10 s after the boot began"]


def test_without_a_time_limit_it_waits_for_ever() -> None:
    boot = Boot(World({"a": (5000, 0)}, a=first(start_timeout=0.0)))
    boot.world.sleep(4999)
    assert boot.decided == []
    boot.world.sleep(2)
    assert boot.decided == [(5000.0, "boot")]


def test_it_is_tried_again_within_the_time() -> None:
    again = first(restart=restart(tries=5), on_failure="recovery")
    boot = Boot(World({"a": (1, 1)}, a=again))
    boot.world.lives["a"] = (1, 0)
    boot.world.sleep(60)
    assert [what for _, what in boot.decided] == ["boot"]
    assert len(boot.world.times("a")) == 2


def test_the_worst_fate_of_several_counts() -> None:
    world = World(
        {"a": (3, 1), "b": (3, 1), "c": (9, 0)},
        a=first(on_failure="recovery"), b=first(on_failure="reboot"), c=first(),
    )  # fmt: skip
    boot = Boot(world)
    world.sleep(60)
    assert boot.decided == [(3.0, "recovery")]  # it failed first, and a machine has one fate


def test_what_is_held_goes_nowhere_but_away() -> None:
    """A hold keeps the boot from going on, not from recovery."""
    boot = Boot(World({"a": (5, 0)}, a=first()))
    boot.held = True
    boot.world.sleep(60)
    assert boot.decided == []
    boot.held = False
    boot.handover.look()
    assert boot.decided == [(60.0, "boot")]
    held = Boot(World({"a": (5, 1)}, a=first(on_failure="recovery")))
    held.held = True
    held.world.sleep(60)
    assert held.decided == [(5.0, "recovery")]
