"""The order in which services end, in virtual time."""

from __future__ import annotations

import pytest

from initspawn.supervisor.services import named
from initspawn.supervisor.stopping import Leaving, Stopping, longest
from tests.unit.supervisor.virtual import World, plan, restart


def stopped(world: World) -> dict[str, float]:
    """When each was asked to end, seconds after the order to stop."""
    begin = world.time
    before = len(world.log)
    Stopping(world.services).look()
    world.sleep(3600)
    return {name: round(when - begin, 3) for when, what, name in world.log[before:] if what == "stop"}


def test_each_waits_for_the_end_of_all_that_came_after_it() -> None:
    world = World(
        base=plan(), left=plan(after="base"), right=plan(requires="base"), top=plan(wants="left right"),
        alone=plan(),
    ).go()  # fmt: skip
    assert stopped(world) == {"top": 0.0, "alone": 0.0, "left": 0.1, "right": 0.1, "base": 0.2}
    assert set(world.states().values()) == {"stopped"}


def test_an_order_by_way_of_one_that_has_ended_holds() -> None:
    made = plan(ready="exited", after="daemon")
    world = World({"made": (1, 0)}, daemon=plan(), made=made, user=plan(after="made")).go()
    world.sleep(2)
    assert world.states()["made"] == "done"
    assert stopped(world) == {"user": 0.0, "daemon": 0.1}


def test_a_result_that_was_waited_for_is_an_order() -> None:
    world = World(
        {"job": (1, 0)},
        daemon=plan(), job=plan(ready="exited", after="daemon"), then=plan(results=(("t/job", True),)),
    ).go()  # fmt: skip
    world.sleep(2)
    assert stopped(world) == {"then": 0.0, "daemon": 0.1}


def test_nothing_is_started_from_then_on() -> None:
    world = World(
        {"fails": (5, 1)},
        fails=plan(restart=restart()), later=plan(after="slow"), slow=plan(ready="notify"),
        network=plan(stage="network"), held=plan(requires="fails"),
    ).go()  # fmt: skip
    world.sleep(5.5)
    assert world.states()["fails"] == "paused"
    starts = len(world.order())
    assert stopped(world) == {"held": 0.0, "slow": 0.0}
    world.go("api")
    assert len(world.order()) == starts
    assert set(world.states().values()) == {"stopped"}


def test_one_that_fails_while_it_waits_for_its_turn_is_not_started_again() -> None:
    world = World(base=plan(restart=restart()), top=plan(requires="base")).go()
    Stopping(world.services).look()
    world.end("base", 1)
    world.sleep(3600)
    assert world.states() == {"base": "stopped", "top": "stopped"}
    assert world.order() == ["base", "top"]


def test_one_that_hangs_while_it_waits_for_its_turn_is_ended_and_not_started_again() -> None:
    world = World(base=plan(watchdog=0.05, restart=restart()), top=plan(after="base")).go()
    assert stopped(world) == {"top": 0.0, "base": 0.05}
    assert world.order() == ["base", "top"]


def test_one_that_is_on_its_way_out_already_is_waited_for() -> None:
    world = World(base=plan(), top=plan(after="base", ready="exited", start_timeout=7.0)).go()
    world.sleep(7.05)
    assert world.states()["top"] == "ending"
    assert stopped(world) == {"base": 0.05}


def test_it_takes_no_longer_than_the_longest_chain_of_the_living() -> None:
    world = World(
        {"gone": (1, 0)},
        base=plan(stop_timeout=4.0), gone=plan(ready="exited", stop_timeout=100.0, after="base"),
        top=plan(after="gone", stop_timeout=20.0), other=plan(stop_timeout=5.0),
    ).go()  # fmt: skip
    world.sleep(2)
    assert Stopping(world.services).seconds == pytest.approx(24.0 + 2 * 3)
    assert Stopping(World().services).seconds == 0.0


def test_a_long_chain_needs_no_recursion() -> None:
    names = [f"n{number}" for number in range(3000)]
    before = {name: tuple(names[:1]) if index == 1 else () for index, name in enumerate(names)}
    before |= {names[index]: (names[index - 1],) for index in range(2, len(names))}
    assert longest(dict(reversed(before.items())), dict.fromkeys(names, 1.0)) == 3000
    many = {f"m{number}": plan() for number in range(2000)}
    assert set(stopped(World(**many).go()).values()) == {0.0}


def test_what_is_gone_ends_in_the_reverse_of_its_order_while_the_others_go_on() -> None:
    """Also by way of one that stays: `last` came after `stays`, and that after `first`."""
    plans = {"first": plan(), "stays": plan(after="first"), "last": plan(requires="stays"), "alone": plan()}
    world = World(**plans).go()
    before = {name: named(one.plan) for name, one in world.services.every.items()}
    gone = world.services.renew({"t/stays": plan()}, [])
    Leaving(world.services, gone, before)
    assert [name for _, what, name in world.log if what == "stop"] == ["alone", "last"]
    world.sleep(1)
    assert [name for _, what, name in world.log if what == "stop"] == ["alone", "last", "first"]
    assert world.states() == {"stays": "running"}
    assert world.services.on_change == []
    assert {one.state for one in gone} == {"stopped"}


def test_who_is_there_again_before_its_turn_to_leave_stays() -> None:
    world = World(first=plan(), last=plan(after="first")).go()
    before = {name: named(one.plan) for name, one in world.services.every.items()}
    Leaving(world.services, world.services.renew({}, []), before)
    world.services.renew({"t/first": plan()}, [])
    world.sleep(1)
    assert [name for _, what, name in world.log if what == "stop"] == ["last"]
    assert world.states() == {"first": "running"}
    assert world.services.on_change == []
