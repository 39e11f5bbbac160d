"""The life of a task: every state with everything that can happen in it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initspawn.supervisor import task
from initspawn.supervisor.task import Life, LifeError

# Written once more, whole: what comes of an event in a state, "" where it is a fault of the program.
EVENTS = ("ready", "measured", "stop", "gone", "drained", "wait", "turn")
TABLE = {
    "queued": ("", "", "", "refused", "", "", "starting"),
    "starting": ("held", "", "starting", "refused", "", "queued", ""),
    "held": ("", "running", "held", "refused", "", "", ""),
    "running": ("", "", "stopping", "draining", "", "", ""),
    "stopping": ("", "", "stopping", "draining", "", "", ""),
    "draining": ("", "", "draining", "", "ended", "", ""),
    "ended": ("", "", "ended", "", "", "", ""),
    "refused": ("", "", "refused", "", "", "", ""),
}


def in_state(state: str) -> Life:
    life = Life()
    life.state = state
    return life


def test_the_names() -> None:
    assert set(task.STATES) == set(TABLE)
    known = {task.READY, task.MEASURED, task.STOP, task.GONE, task.DRAINED, task.WAIT, task.TURN}
    assert known == set(EVENTS)
    assert Life().state == "starting"


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("state", TABLE)
def test_every_state_with_every_event(state: str, event: str) -> None:
    life, after = in_state(state), TABLE[state][EVENTS.index(event)]
    if after:
        assert life.on(event) == after
        assert life.state == after
    else:
        with pytest.raises(LifeError, match=f"'{event}' for a task that is {state}"):
            life.on(event)
        assert life.state == state


def test_an_unknown_event() -> None:
    with pytest.raises(LifeError):
        Life().on("coffee")


@pytest.mark.parametrize("state", TABLE)
def test_alive_and_started(state: str) -> None:
    life = in_state(state)
    assert life.alive == (state not in ("ended", "refused"))
    assert life.started == (state in ("running", "stopping", "draining", "ended"))


@given(st.lists(st.sampled_from(EVENTS)))
def test_an_end_is_final_and_a_start_is_not_undone(events: list[str]) -> None:
    life = Life()
    for event in events:
        alive, started = life.alive, life.started
        try:
            life.on(event)
        except LifeError:
            continue
        assert alive or not life.alive
        assert life.started or not started
        assert not (life.state == "refused" and started)
