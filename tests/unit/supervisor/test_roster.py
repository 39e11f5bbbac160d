"""How many at once, who waits, and whose turn it is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initspawn.errors import LaunchRefused, RequestError
from initspawn.limits import ENDED_TASKS, OWN_TASKS, TASKS
from initspawn.plan import HOSTS, Api, Command
from initspawn.supervisor.roster import Roster
from initspawn.supervisor.task import GONE, Life

API = Api(uid="a", api="a")


def command(**keys: Any) -> Command:
    return Command(uid="c", verb="c", sandbox="s", path="/c", **keys)


def task(of: Command, api: Api = API) -> Any:
    return SimpleNamespace(api=api, command=of, life=Life(), ticket=0)


def outcome(roster: Roster, new: Any) -> str:
    """What becomes of a new task."""
    try:
        lost = roster.admit(new)
    except RequestError:
        return "refused"
    return new.life.state if lost is None else f"{new.life.state} for {lost.ticket}"


@pytest.mark.parametrize(
    ("keys", "outcomes"),
    [
        ({}, ["starting"] * 5),
        ({"most": 1}, ["starting", "refused", "refused"]),
        ({"most": 2}, ["starting", "starting", "refused"]),
        ({"most": 1, "queue": 2}, ["starting", "queued", "queued", "refused", "refused"]),
        ({"most": 1, "queue": 2, "oldest_out": True},
         ["starting", "queued", "queued", "queued for 1", "queued for 2", "queued for 3"]),
    ],
)  # fmt: skip
def test_as_many_as_there_may_be(keys: dict[str, Any], outcomes: list[str]) -> None:
    roster, of = Roster(), command(**keys)
    assert [outcome(roster, task(of)) for _ in outcomes] == outcomes


def test_each_command_of_each_api_has_its_own_places() -> None:
    roster = Roster()
    one, other, api = command(most=1), command(most=1).replace(verb="d"), Api(uid="b", api="b")
    assert [outcome(roster, task(*what)) for what in ((one,), (other,), (one, api))] == ["starting"] * 3


def test_an_api_that_is_called_as_a_hidden_one_has_its_own_places() -> None:
    roster, of = Roster(), command(most=1)
    hidden = task(of.replace(most=0), Api(uid="a", api="a", hidden=True))
    assert [outcome(roster, new) for new in (hidden, task(of))] == ["starting"] * 2
    assert roster.alive(hidden.api, of) == [hidden]


def test_a_verb_that_is_called_as_what_exec_started_has_its_own_places() -> None:
    roster, of = Roster(), command(most=1)
    executed = task(of.replace(most=0, executed=True))
    assert [outcome(roster, new) for new in (executed, task(of))] == ["starting"] * 2
    assert roster.alive(API, executed.command) == [executed]
    assert executed not in roster.known(API, of)


def test_after_a_reload_a_command_of_the_same_name_has_the_same_places() -> None:
    roster, old, new = Roster(), command(most=1), command(most=2, queue=1)
    again = Api(uid="a", api="a")
    first = task(old)
    assert outcome(roster, first) == "starting"
    assert [outcome(roster, task(new, again)) for _ in range(3)] == ["starting", "queued", "refused"]
    assert roster.turn(API, old) is None
    roster.remove(first)
    assert roster.turn(API, old) is not None  # as many as are allowed by now


def test_why_it_is_refused() -> None:
    for keys, text in (
        ({"most": 1}, "`c` is already running and may only run once"),
        ({"most": 3}, "`c` is running 3 times already"),
        ({"most": 1, "queue": 1}, "`c` is running 1 times already, and 1 wait for their turn"),
    ):
        roster, of = Roster(), command(**keys)
        for _ in range(of.most + of.queue):
            roster.admit(task(of))
        with pytest.raises(RequestError) as caught:
            roster.admit(task(of))
        assert (caught.value.status, caught.value.info) == ("bad-state", text)


def test_there_are_never_more_than_all() -> None:
    roster, of = Roster(), command()
    for _ in range(TASKS):
        roster.admit(task(of))
    with pytest.raises(LaunchRefused):
        roster.admit(task(of))


def test_callers_leave_room_for_our_own() -> None:
    """A guard is put back however many tasks they have started."""
    roster, of, own = Roster(), command(), API.replace(hidden=True)
    for _ in range(TASKS):
        roster.admit(task(of))
    for _ in range(OWN_TASKS):
        assert outcome(roster, task(of, own)) == "starting"
    for api in (API, own):
        with pytest.raises(LaunchRefused):
            roster.admit(task(of, api))


def test_hosts_of_plug_ins_are_not_our_own() -> None:
    """However hidden they are, it is callers who have them started."""
    roster, of = Roster(), command()
    for _ in range(TASKS):
        roster.admit(task(of))
    with pytest.raises(LaunchRefused):
        roster.admit(task(of, Api(uid=HOSTS, api=HOSTS, hidden=True)))


def test_a_new_one_does_not_overtake_those_that_wait() -> None:
    roster, of = Roster(), command(most=1, queue=5)
    first, second, third = task(of), task(of), task(of)
    roster.admit(first)
    roster.admit(second)
    roster.remove(first)
    roster.admit(third)  # there would be a place for it
    assert third.life.state == "queued"
    assert roster.turn(API, of) is second
    assert roster.turn(API, of) is None


@given(st.integers(1, 4), st.integers(0, 5), st.booleans(), st.lists(st.sampled_from("+-")))
def test_turns(most: int, length: int, oldest_out: bool, what: str) -> None:
    """Never too many at once or in the queue; first come, first served; nobody is forgotten."""
    roster, of = Roster(), command(most=most, queue=length, oldest_out=oldest_out)
    running: list[Any] = []
    queue: list[Any] = []
    for event in what:
        if event == "-" and running:
            roster.remove(running.pop(0))
            found = roster.turn(API, of)
            assert found is (queue.pop(0) if queue else None)
            if found is not None:
                running.append(found)
        elif event == "+":
            new, full = task(of), len(queue) == length
            try:
                lost = roster.admit(new)
            except RequestError:
                assert len(running) == most
                assert full
                assert not (oldest_out and queue)
                continue
            if lost is not None:
                assert full
                assert lost is queue.pop(0)
                lost.life.on(GONE)
            (queue if new.life.state == "queued" else running).append(new)
        assert roster.starting == running
        assert roster.waiting == queue
        assert len(running) <= most
        assert len(queue) <= length
        assert not queue or len(running) == most


def test_of_those_that_have_ended_the_last_are_remembered() -> None:
    roster, of = Roster(), command()
    ended = [task(of) for _ in range(ENDED_TASKS + 1)]
    for one in ended[:-1]:
        roster.ended.append(one)
    assert roster.known(API, of) == ended[:-1]
    roster.ended.append(ended[-1])
    assert roster.known(API, of) == ended[1:]
