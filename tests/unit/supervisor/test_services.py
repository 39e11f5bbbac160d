"""What starts by itself, in virtual time: order, requirements, conditions, restarts, time limits."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initspawn.limits import NOTIFY_SECONDS
from initspawn.supervisor import service as life
from initspawn.supervisor.service import Service, ServiceError
from tests.unit.supervisor.virtual import World, plan, restart, short

HOUR = 3600.0


def test_all_is_started_when_its_stage_is_reached() -> None:
    world = World(a=plan(stage="api"), b=plan(), c=plan(stage="early"))
    world.go("early")
    assert world.order() == ["c"]
    world.go("system")
    assert world.order() == ["c", "b"]
    assert world.states() == {"a": "waiting", "b": "running", "c": "running"}
    assert world.services.every["t/a"].why == "stage api is not reached"
    world.go("api")
    assert world.order() == ["c", "b", "a"]


def test_network_and_gateway_come_in_any_order() -> None:
    world = World(a=plan(stage="api"), n=plan(stage="network"), s=plan()).go("api")
    assert world.states() == {"a": "running", "n": "waiting", "s": "running"}
    world.go("network")
    assert world.states()["n"] == "running"
    assert World(a=plan(stage="api"), n=plan(stage="network"), s=plan()).go("network").order() == ["n", "s"]


def test_who_comes_after_waits_until_the_other_is_ready() -> None:
    world = World({"first": (5, 0)}, second=plan(after="first"), first=plan(ready="exited")).go()
    world.sleep(4.9)
    assert world.order() == ["first"]
    assert world.services.every["t/second"].why == "it comes after t/first, which is starting"
    world.sleep(0.2)
    assert world.states() == {"first": "done", "second": "running"}


@pytest.mark.parametrize("relation", ["after", "wants"])
@pytest.mark.parametrize("how", [(1, 3), (1, None), (-1, None)])
def test_a_failure_holds_nobody_up_that_only_comes_after(relation: str, how: Any) -> None:
    world = World({"a": how}, a=plan(ready="exited"), b=plan(**{relation: "a"})).go()
    world.sleep(2)
    assert world.states() == {"a": "failed", "b": "running"}


@pytest.mark.parametrize("how", [(1, 3), (1, None), (-1, None)])
def test_who_requires_what_failed_is_skipped_and_so_are_those_that_require_it(how: Any) -> None:
    world = World(
        {"a": how}, a=plan(ready="exited"), b=plan(requires="a"), c=plan(requires="b"), d=plan(after="c")
    )
    world.go().sleep(2)
    assert world.states() == {"a": "failed", "b": "skipped", "c": "skipped", "d": "running"}
    assert "b: skipped: it requires t/a, which is failed" in world.told
    assert "c: skipped: it requires t/b, which is skipped" in world.told


def test_a_diamond_starts_its_end_once() -> None:
    world = World(
        {"top": (1, 0), "left": (2, 0), "right": (3, 0)},
        bottom=plan(requires="left right"), left=plan(requires="top", ready="exited"),
        right=plan(requires="top", ready="exited"), top=plan(ready="exited"),
    ).go()  # fmt: skip
    world.sleep(10)
    assert world.order() == ["top", "left", "right", "bottom"]
    assert world.times("bottom") == [4.0]


def test_a_diamond_with_a_failure_skips_its_end() -> None:
    world = World(
        {"top": (1, 0), "left": (1, 1), "right": (5, 0)},
        bottom=plan(requires="left right"), left=plan(requires="top", ready="exited"),
        right=plan(requires="top", ready="exited"), top=plan(ready="exited"),
    ).go()  # fmt: skip
    world.sleep(10)
    assert world.states() == {"top": "done", "left": "failed", "right": "done", "bottom": "skipped"}


@pytest.mark.parametrize("wanted", [True, False])
def test_what_is_required_ends_and_so_does_who_requires_it(wanted: bool) -> None:
    world = World(a=plan(), b=plan(requires="a"), c=plan(wants="a")).go()
    world.end("a", 1, wanted=wanted)
    world.sleep(1)
    assert world.states() == {"a": "stopped" if wanted else "failed", "b": "stopped", "c": "running"}


def test_what_is_required_comes_back_and_who_requires_it_runs_on() -> None:
    world = World(a=plan(restart=restart()), b=plan(requires="a")).go()
    world.end("a", 1)
    world.sleep(5)
    assert world.states() == {"a": "running", "b": "running"}
    assert world.order() == ["a", "b", "a"]


def test_what_is_required_has_done_its_work() -> None:
    world = World({"a": (1, 0)}, a=plan(), b=plan(requires="a")).go()
    world.sleep(2)
    assert world.states() == {"a": "done", "b": "running"}


def test_ten_thousand_in_a_chain() -> None:
    plans = {f"n{number}": plan(requires=f"n{number - 1}" if number else "") for number in range(10_000)}
    assert set(World(**plans).go().states().values()) == {"running"}
    broken = World({"n0": (-1, None)}, **plans).go()
    assert broken.states() == {"n0": "failed"} | {f"n{number}": "skipped" for number in range(1, 10_000)}


# Conditions.


def test_a_condition_is_waited_for() -> None:
    world = World(a=plan())
    world.missing["a"] = "/dev/x is not there"
    world.go()
    assert world.services.every["t/a"].record(world.time)["why"] == "/dev/x is not there"
    world.services.look()
    assert world.order() == []
    del world.missing["a"]
    world.services.look()
    assert world.order() == ["a"]


def test_a_condition_that_does_not_hold_skips_who_says_so() -> None:
    world = World(a=plan(skip=True), b=plan(requires="a"))
    world.missing["a"] = "`x` is not so"
    world.go()
    assert world.states() == {"a": "skipped", "b": "skipped"}


def test_a_condition_is_looked_at_when_its_turn_comes() -> None:
    world = World({"a": (1, 0)}, a=plan(ready="exited"), b=plan(after="a", skip=True))
    world.missing["b"] = "not yet"
    world.go()
    world.sleep(0.5)
    del world.missing["b"]
    world.sleep(1)
    assert world.states() == {"a": "done", "b": "running"}


def test_a_restart_waits_for_its_conditions_too() -> None:
    world = World(a=plan(restart=restart())).go()
    world.missing["a"] = "gone"
    world.end("a", 1)
    world.sleep(100)
    assert world.states() == {"a": "waiting"}
    del world.missing["a"]
    world.services.look()
    assert world.states() == {"a": "running"}


@pytest.mark.parametrize(
    ("code", "well", "state"),
    [(0, True, "running"), (0, False, "skipped"), (1, True, "skipped"), (1, False, "running")],
)
def test_the_result_of_another(code: int, well: bool, state: str) -> None:
    world = World({"a": (1, code)}, a=plan(), b=plan(results=(("t/a", well),))).go()
    assert world.states()["b"] == "waiting"
    world.sleep(2)
    assert world.states()["b"] == state


def test_a_result_is_not_there_before_the_last_restart() -> None:
    world = World({"a": (1, 1)}, a=plan(restart=restart(tries=3)), b=plan(results=(("t/a", False),))).go()
    world.sleep(5.5)
    assert world.states() == {"a": "running", "b": "waiting"}
    world.sleep(5)
    assert world.states() == {"a": "failed", "b": "running"}


# Restarts.


@pytest.mark.parametrize(
    ("policy", "code", "state"),
    [("never", 0, "done"), ("never", 1, "failed"), ("never", None, "failed"),
     ("on-failure", 0, "done"), ("on-failure", 1, "paused"), ("on-failure", None, "paused"),
     ("always", 0, "paused"), ("always", 1, "paused"), ("always", 125, "failed"),
     ("on-failure", 125, "failed")],
)  # fmt: skip
def test_whether_it_is_started_again(policy: str, code: int | None, state: str) -> None:
    world = World(a=plan(restart=None if policy == "never" else restart(policy=policy))).go()
    world.end("a", code)
    assert world.states() == {"a": state}


def test_pauses_double_up_to_the_longest() -> None:
    world = World({"a": (0, 1)}, a=plan(restart=restart(longest=10.0))).go()
    world.sleep(60)
    assert world.times("a") == [0, 1, 3, 7, 15, 25, 35, 45, 55]


@pytest.mark.parametrize("life_of_it", [(0.0, 1), (0.0, None), (0.0, 0), (-1.0, None), (9.9, 1)])
def test_an_hour_of_crashes_has_a_bounded_number_of_starts(life_of_it: Any) -> None:
    world = World({"a": life_of_it}, a=plan(restart=restart(policy="always", pause=0.2, jitter=0.1)))
    world.chances = itertools.cycle([0.0, 0.3, 1.0]).__next__
    world.go().sleep(HOUR)
    starts = world.times("a")
    assert 40 <= len(starts) <= HOUR / 54 + 10, "60 s at most, 54 with the jitter"
    pauses = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert all(pause <= 60 + max(0, life_of_it[0]) + 0.001 for pause in pauses)


def test_only_what_ran_well_begins_with_the_first_pause_again() -> None:
    world = World(a=plan(restart=restart())).go()
    for run, pause in ((0, 1), (9.9, 2), (9.9, 4), (10, 1), (0, 2), (HOUR, 1)):
        world.sleep(run)
        world.end("a", 1)
        began = world.time
        world.sleep(pause)
        assert world.log[-1] == (began + pause, "start", "a")


def test_what_was_long_in_getting_ready_has_not_run_well() -> None:
    world = World({"a": (100, 1)}, a=plan(ready="exited", restart=restart())).go()
    world.sleep(310)
    assert world.times("a") == [0, 101, 203, 307]


def test_125_is_for_good_whenever_it_comes() -> None:
    world = World({"a": (1, 1)}, a=plan(restart=restart())).go()
    world.sleep(20)
    world.lives["a"] = (1, 125)
    world.sleep(HOUR)
    assert world.states() == {"a": "failed"}
    assert world.told[-1] == "a: exit 125; it is not started again"


def test_a_refused_start_is_no_exit_code() -> None:
    world = World({"a": (-1, 125)}, a=plan(restart=restart(permanent=(125,)))).go()
    assert world.states() == {"a": "paused"}
    assert world.told == ["a: start refused; it is started again in 1 s"]


def test_so_many_tries() -> None:
    world = World({"a": (0, 1)}, a=plan(restart=restart(tries=3))).go()
    world.sleep(HOUR)
    assert world.times("a") == [0, 1, 3]
    assert world.states() == {"a": "failed"}


def test_jitter_only_shortens() -> None:
    pauses = []
    for chance in (0.0, 0.5, 1.0):
        world = World({"a": (0, 1)}, a=plan(restart=restart(jitter=0.5)))
        world.chances = lambda chance=chance: chance  # type: ignore[misc]
        world.go().sleep(2)
        pauses.append(world.times("a")[1])
    assert pauses == [1.0, 0.75, 0.5]


def test_a_clock_that_jumps_starts_it_once() -> None:
    world = World({"a": (0, 1), "b": None}, a=plan(restart=restart()), b=plan()).go()
    world.leap(0)
    world.leap(HOUR)
    assert len(world.times("a")) == 2, "not all those that an hour would have had room for"
    assert world.states()["b"] == "running"


# Time limits and stops.


def test_what_does_not_get_ready_is_stopped_and_has_failed() -> None:
    world = World({"a": (HOUR, 0)}, a=plan(ready="exited", start_timeout=30.0)).go()
    world.sleep(29.9)
    assert world.states() == {"a": "starting"}
    world.sleep(0.15)
    assert world.states() == {"a": "ending"}
    world.sleep(1)
    assert world.states() == {"a": "failed"}
    assert world.told == ["a: not ready after 30 s; it is not started again"]


def test_each_try_has_its_own_time() -> None:
    keys = {"ready": "exited", "start_timeout": 30.0, "restart": restart(tries=2)}
    world = World({"a": (HOUR, 0)}, a=plan(**keys)).go()
    world.sleep(100)
    assert world.times("a") == [0, 31.1]
    assert world.states() == {"a": "failed"}


def test_ready_in_time_there_is_no_limit_any_more() -> None:
    world = World({"a": (29, 0)}, a=plan(ready="exited", start_timeout=30.0)).go()
    world.sleep(100)
    assert world.states() == {"a": "done"}
    assert [what for _, what, _ in world.log] == ["start"]


def test_what_somebody_has_stopped_stays_stopped() -> None:
    world = World(a=plan(restart=restart(policy="always"))).go()
    world.end("a", None, wanted=True)
    world.sleep(HOUR)
    assert world.states() == {"a": "stopped"}


def test_somebody_stops_it_while_it_waits_to_be_started_again() -> None:
    world = World({"a": (0, 1)}, a=plan(restart=restart()), b=plan(requires="a")).go()
    world.sleep(0.5)
    world.services.halt(world.services.every["t/a"])
    world.sleep(HOUR)
    assert world.states() == {"a": "stopped", "b": "stopped"}
    assert world.times("a") == [0]


def test_a_stop_for_a_requirement_is_no_failure() -> None:
    world = World(a=plan(), b=plan(requires="a", restart=restart(policy="always"))).go()
    world.end("a", 1)
    world.sleep(HOUR)
    assert world.states() == {"a": "failed", "b": "stopped"}
    assert world.services.every["t/b"].why == "it requires t/a, which is failed"


# Notifications and the watchdog.


def test_who_notifies_is_ready_when_it_says_so() -> None:
    world = World(a=plan(ready="notify", start_timeout=90.0), b=plan(after="a")).go()
    world.sleep(89)
    assert world.states() == {"a": "starting", "b": "waiting"}
    world.ready("a")
    assert world.states() == {"a": "running", "b": "running"}
    world.sleep(HOUR)
    assert world.states()["a"] == "running", "the limit was for getting ready"


@pytest.mark.parametrize("code", [0, 1])
def test_who_ends_before_it_is_ready_has_failed(code: int) -> None:
    world = World(a=plan(ready="notify"), b=plan(requires="a")).go()
    world.end("a", code)
    assert world.states() == {"a": "failed", "b": "skipped"}


def test_who_ends_well_after_it_was_ready_is_done() -> None:
    world = World(a=plan(ready="notify")).go()
    world.ready("a")
    world.end("a", 0)
    assert world.states() == {"a": "done"}


def test_more_time_can_be_asked_for() -> None:
    world = World(a=plan(ready="notify", start_timeout=10.0)).go()
    service = world.services.every["t/a"]
    world.sleep(9)
    world.services.extend(service, 5)
    world.sleep(4.9)
    assert world.states() == {"a": "starting"}
    world.services.extend(service, 0.2)
    world.sleep(0.15)
    assert world.states() == {"a": "starting"}
    world.sleep(0.2)
    assert world.states()["a"] in ("ending", "failed")


def test_to_ask_for_more_time_never_takes_any_away_and_is_bounded() -> None:
    world = World(a=plan(ready="notify", start_timeout=10.0), b=plan(ready="notify", start_timeout=10.0)).go()
    world.services.extend(world.services.every["t/a"], 0.001)
    world.services.extend(world.services.every["t/b"], 1e9)
    world.sleep(9.9)
    assert world.states()["a"] == "starting"
    world.sleep(NOTIFY_SECONDS)
    assert world.states()["b"] == "failed"


def test_without_a_limit_there_is_nothing_to_extend() -> None:
    world = World(a=plan(ready="notify")).go()
    world.services.extend(world.services.every["t/a"], 5)
    world.sleep(HOUR)
    assert world.states() == {"a": "starting"}


def test_who_gives_no_sign_of_life_is_stopped_and_has_failed() -> None:
    world = World(a=plan(watchdog=10.0, restart=restart(ran_well=HOUR))).go()
    for _ in range(5):
        world.sleep(9)
        world.services.feed(world.services.every["t/a"])
    world.sleep(9.9)
    assert world.states() == {"a": "running"}
    world.sleep(0.15)
    assert world.states() == {"a": "ending"}
    world.sleep(2)
    assert world.states() == {"a": "running"}
    assert world.told == ["a: no sign of life for 10 s; it is started again in 1 s"]


def test_who_may_not_have_been_heard_is_not_stopped() -> None:
    world = World(a=plan(watchdog=10.0)).go()
    for _ in range(50):
        world.floods["a"] = world.time
        world.sleep(9)
    assert world.states() == {"a": "running"}
    world.sleep(0.9)
    assert world.states() == {"a": "running"}
    world.sleep(0.2)
    assert world.states() == {"a": "failed"}, "when the flood is over it is seen to hang"
    assert world.told == ["a: no sign of life for 10 s; it is not started again"]


def test_who_is_heard_after_a_flood_goes_on() -> None:
    world = World(a=plan(watchdog=10.0)).go()
    world.floods["a"] = world.time + 9
    world.sleep(15)
    world.services.feed(world.services.every["t/a"])
    world.sleep(9.9)
    assert world.states() == {"a": "running"}
    world.sleep(0.2)
    assert world.states() == {"a": "failed"}


def test_the_watchdog_waits_until_it_is_ready() -> None:
    world = World(a=plan(ready="notify", watchdog=10.0)).go()
    world.sleep(HOUR)
    world.ready("a")
    world.sleep(9.9)
    assert world.states() == {"a": "running"}
    world.sleep(1)
    assert world.states() == {"a": "failed"}


def test_a_sign_of_life_before_it_is_ready_counts_for_nothing() -> None:
    world = World(a=plan(ready="notify", watchdog=10.0, start_timeout=5.0)).go()
    world.sleep(4)
    world.services.feed(world.services.every["t/a"])
    world.sleep(1.2)
    assert world.states() == {"a": "failed"}


def test_who_says_itself_that_it_hangs_is_stopped() -> None:
    world = World(a=plan(watchdog=10.0)).go()
    world.services.hangs(world.services.every["t/a"])
    world.sleep(1)
    assert world.states() == {"a": "failed"}
    assert world.told == ["a: it says that it hangs; it is not started again"]


def test_a_clock_that_jumps_ends_a_hanging_one_once() -> None:
    world = World(a=plan(watchdog=10.0)).go()
    world.leap(HOUR)
    world.leap(HOUR)
    assert world.states() == {"a": "failed"}
    assert [what for _, what, _ in world.log] == ["start", "stop"]


# The table.


def test_what_cannot_happen_is_a_fault() -> None:
    with pytest.raises(ServiceError, match=r"'ready' for t/a, which is waiting"):
        Service("t/a", plan(), 0.0).on(life.READY, 0.0)


def test_every_state_can_be_reached_and_left_unless_it_is_an_end() -> None:
    reached = {life.WAITING, *life.TRANSITIONS.values()}
    assert reached == set(life.STATES)
    ends = set(life.STATES) - {state for state, _ in life.TRANSITIONS}
    assert ends == {life.DONE, life.FAILED, life.SKIPPED, life.STOPPED}


MOVES = st.lists(
    st.tuples(
        st.sampled_from("abcde"), st.sampled_from(["end0", "end1", "kill", "want", "halt", "sleep", "lack"])
    ),
    max_size=40,
)
EDGES = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 4), st.sampled_from(["after", "requires", "wants"])),
    max_size=8,
)


@given(MOVES, EDGES, st.lists(st.booleans(), min_size=5, max_size=5))
def test_whatever_happens_no_rule_is_broken(
    moves: list[tuple[str, str]], edges: list[tuple[int, int, str]], again: list[bool]
) -> None:
    named: dict[str, dict[str, str]] = {name: {} for name in "abcde"}
    for one, other, relation in edges:
        if one > other:  # never in a circle
            own = named["abcde"[one]]
            own[relation] = f"{own.get(relation, '')} {'abcde'[other]}"
    world = World(
        **{name: plan(**own, restart=restart(tries=3) if more else None)
           for (name, own), more in zip(named.items(), again, strict=True)}
    ).go()  # fmt: skip
    for name, move in moves:
        service = world.services.every[f"t/{name}"]
        running = service.state in (life.STARTING, life.RUNNING)
        if move in ("end0", "end1", "kill", "want") and running:
            world.end(name, {"end0": 0, "end1": 1}.get(move), wanted=move == "want")
        elif move == "halt":
            world.services.halt(service)
        elif move == "lack":
            world.missing.pop(name, None) or world.missing.update({name: "something"})
            world.services.look()
        elif move == "sleep":
            world.sleep(3)
    world.sleep(HOUR)
    for service in world.services.every.values():
        required = [world.services.every[other].state for other in service.plan.requires]
        if service.state == life.RUNNING:
            assert not set(required) & set(life.BROKEN)
        assert service.state not in (life.ENDING, life.PAUSED), "nothing hangs half-way"
        if service.state == life.WAITING:
            assert service.why


def moments(world: World, name: str) -> dict[str, float]:
    found = world.services.every[f"t/{name}"].times()
    return {key: round(found[key] - 1000.0, 3) for key in life.MOMENTS if key in found}


def test_the_time_line_has_each_moment_and_what_was_waited_for_last() -> None:
    world = World(
        {"a": (2, 0), "b": (3, 0)}, a=plan(ready="exited"), b=plan(ready="exited"),
        c=plan(after="a b"), d=plan(stage="network"), e=plan(),
    )  # fmt: skip
    world.missing["e"] = "/x is not there"
    world.go().sleep(5)
    world.missing.clear()
    world.go("network").sleep(1)
    assert moments(world, "b") == {"due": 0.0, "started": 0.0, "ready": 3.0, "ended": 3.0}
    assert moments(world, "c") == {"due": 3.0, "started": 3.0, "ready": 3.0}
    waited = {short: world.services.every[f"t/{short}"].waited for short in "acde"}
    assert waited == {"a": "", "c": "t/b", "d": "stage network", "e": "/x is not there"}
    assert "waited" not in world.services.every["t/a"].times()


def test_the_time_line_of_one_that_is_restarted_is_bounded() -> None:
    """When it first got so far, and when it ended last."""
    world = World({"a": (20, 1)}, a=plan(restart=restart(policy="always")), b=plan(stage="network")).go()
    world.sleep(1000)
    found = moments(world, "a")
    assert (found["due"], found["ready"]) == (0.0, 0.0)
    assert found["ended"] > 900
    assert moments(world, "b") == {}
    world.go("network")
    assert set(world.services.every["t/a"].moments) == set(life.MOMENTS)


def test_the_time_line_of_one_that_is_ready_by_its_end() -> None:
    """Not by one that was a failure, nor by a later one."""
    world = World({"a": (2, 1)}, a=plan(ready="exited", restart=restart())).go()
    world.sleep(2.5)
    assert moments(world, "a") == {"due": 0.0, "started": 0.0, "ended": 2.0}
    world.lives["a"] = (3, 0)
    world.sleep(10)
    assert moments(world, "a") == {"due": 0.0, "started": 0.0, "ready": 6.0, "ended": 6.0}


def test_the_time_line_of_what_was_skipped_or_refused() -> None:
    world = World({"a": (-1, 0)}, a=plan(), b=plan(requires="a"), c=plan(skip=True))
    world.missing["c"] = "`x` is not so"
    world.go()
    assert moments(world, "a") == {"due": 0.0, "ended": 0.0}
    assert moments(world, "b") == {"ended": 0.0}
    assert moments(world, "c") == {"ended": 0.0}
    assert world.services.every["t/c"].times()["state"] == "skipped"


def test_what_is_still_being_found_out_skips_nobody() -> None:
    world = World(a=plan(skip=True), b=plan(after="a"))
    world.missing["a"] = "it is not known yet"
    world.searching.add("a")
    world.go()
    assert world.states() == {"a": "waiting", "b": "waiting"}
    world.searching.clear()
    world.missing["a"] = "it is not there"
    world.services.look()
    assert world.states() == {"a": "skipped", "b": "running"}
    assert world.told == ["a: skipped: it is not there"]


# Another plan while they run.


def renewed(world: World, *changed: str, **plans: Any) -> list[str]:
    """The names of those that are gone and still run."""
    named = {f"t/{name}": plan for name, plan in plans.items()}
    return [short(one) for one in world.services.renew(named, [f"t/{name}" for name in changed])]


def test_what_runs_goes_on_and_what_is_new_starts() -> None:
    world = World(a=plan(), b=plan()).go()
    assert renewed(world, "a", a=plan(restart=restart()), b=plan(), c=plan(after="a")) == []
    assert world.order() == ["a", "b", "c"]
    world.end("a", 1)  # the new plan says what follows from it
    world.sleep(1)
    assert world.order() == ["a", "b", "c", "a"]


def test_a_run_keeps_the_terms_that_it_began_with() -> None:
    """Its time limits and its sign of life are those that the process knows of."""
    world = World(
        a=plan(ready="notify", start_timeout=10.0), b=plan(watchdog=5.0), c=plan(ready="exited"), d=plan()
    ).go()
    plain, fed = plan(), plan(ready="notify", watchdog=1.0, start_timeout=1.0)
    renewed(world, a=plain, b=plan(ready="exited", restart=restart()), c=fed, d=fed)
    world.end("c", 0)
    assert world.states() == {"a": "starting", "b": "running", "c": "done", "d": "running"}
    world.sleep(4)
    world.services.feed(world.services.every["t/b"])
    world.sleep(4)
    assert world.states()["b"] == "running"
    world.sleep(1.5)  # it was due after five seconds
    assert world.states() == {"a": "starting", "b": "paused", "c": "done", "d": "running"}
    world.sleep(1)
    assert world.states() == {"a": "failed", "b": "starting", "c": "done", "d": "running"}


@pytest.mark.parametrize(
    ("state", "begins"), [("failed", True), ("skipped", True), ("done", False), ("stopped", False)]
)
def test_who_has_failed_or_was_skipped_may_try_again_when_it_is_another(state: str, begins: bool) -> None:
    keys: dict[str, Any] = {"ready": "exited"} if state in ("failed", "done") else {}
    if state == "skipped":
        keys["skip"] = True
    world = World({"a": (1, 3 if state == "failed" else 0)} if "ready" in keys else {}, a=plan(**keys))
    world.missing = {"a": "it is not so"} if state == "skipped" else {}
    world.go().sleep(2)
    if state == "stopped":
        world.end("a", None, wanted=True)
    assert world.states() == {"a": state}
    world.missing.clear()
    starts = len(world.order())
    renewed(world, a=plan(**keys))
    assert world.states() == {"a": state}, "it is as it was"
    renewed(world, "a", a=plan(**keys))  # its command is another
    assert len(world.order()) == starts + begins
    world.sleep(2)
    renewed(world, a=plan(**keys, stage="early"))
    assert len(world.order()) == starts + (2 if begins and state == "failed" else int(begins))


def test_what_waits_takes_the_new_plan_at_once() -> None:
    world = World({"a": (1, 1)}, a=plan(restart=restart(pause=50.0)), b=plan(stage="api"), c=plan(after="b"))
    world.go().sleep(2)
    assert world.states() == {"a": "paused", "b": "waiting", "c": "waiting"}
    assert renewed(world, a=plan(), b=plan(), c=plan(stage="network")) == []
    assert world.states() == {"a": "paused", "b": "running", "c": "waiting"}
    assert renewed(world, b=plan()) == []
    world.sleep(100)
    assert world.order() == ["a", "b"]
    assert renewed(world, a=plan(), b=plan()) == []
    assert world.order() == ["a", "b", "a"], "one that is there again is a new one"


def test_what_is_gone_is_told_and_its_end_changes_nobody() -> None:
    world = World(a=plan(requires="b"), b=plan(restart=restart()), c=plan(requires="a")).go()
    gone = world.services.renew({"t/c": plan()}, [])
    assert [short(one) for one in gone] == ["a", "b"]
    world.services.ended(gone[1], 3, "exit 3")
    world.sleep(5)
    assert world.order() == ["b", "a", "c"]
    assert world.states() == {"c": "running"}


def test_a_new_requirement_that_has_failed_counts_with_the_next_change() -> None:
    world = World({"bad": (1, 1)}, a=plan(), bad=plan(ready="exited")).go()
    world.sleep(2)
    renewed(world, a=plan(requires="bad"), bad=plan(ready="exited"))
    assert world.states() == {"a": "running", "bad": "failed"}, "what runs goes on"


def test_one_that_is_there_again_is_never_run_twice() -> None:
    """It has run on meanwhile; or is about to end, and is awaited."""
    world = World(a=plan(restart=restart())).go()
    for _ in range(2):
        assert renewed(world) == ["a"]
        assert renewed(world, a=plan(restart=restart(pause=2.0))) == []
        assert (world.states(), world.order()) == ({"a": "running"}, ["a"])
    world.end("a", 1)  # what follows from that says the plan
    assert world.states() == {"a": "paused"}
    world.sleep(2)
    (gone,) = world.services.renew({}, [])
    world.services.end(gone, "gone")
    assert renewed(world, a=plan(), b=plan(after="a")) == []
    assert world.states() == {"a": "waiting", "b": "waiting"}
    assert "its last run" in world.services.every["t/a"].why
    assert world.order() == ["a", "a"]
    world.sleep(1)
    assert world.states() == {"a": "running", "b": "running"}
    assert world.order() == ["a", "a", "a", "b"]
