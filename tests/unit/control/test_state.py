"""What the files of the state directory say, and when: tokens that are over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from initspawn.control.state import State
from initspawn.supervisor.reactor import Reactor
from initspawn.verbs.access import NOBODY, Token, Tokens, digest


class Kept:
    """A state with a token for an hour; a clock for the time of day, and one for timers."""

    def __init__(self, place: Path) -> None:
        self.date, self.now = 1e9, 1000.0
        self.reactor = Reactor(clock=lambda: self.now)
        known = Token(name="t", digest=digest("secret"), scopes=frozenset("*"), expires=self.date + 3600)
        self.tokens = Tokens([known], clock=lambda: self.date)
        self.who = self.tokens.identity("secret")
        self.cut: list[float] = []  # when a door has found that its client is nobody any more
        self.state = State(str(place), self.reactor, self.tokens)
        self.tokens.on_change.append(self._recheck)

    def _recheck(self) -> None:
        if self.tokens.current(self.who) == NOBODY:
            self.cut.append(self.now)

    def passes(self, seconds: float) -> None:
        """Time, for both clocks."""
        self.date += seconds
        self.now += seconds
        self.reactor.turn()


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    made = Kept(tmp_path)
    yield made
    made.state.close(remove=True)
    made.reactor.close()


def test_a_token_is_over_at_its_time(kept: Kept) -> None:
    for _ in range(514):
        kept.passes(7)
    assert kept.cut == []
    kept.passes(2.02)
    assert kept.cut == [kept.now]
    kept.passes(100)
    assert len(kept.cut) == 1


def test_a_token_is_over_though_the_timers_have_slept(kept: Kept) -> None:
    """As they do while the machine is suspended, or when the time of day is set."""
    kept.passes(20)
    kept.date += 3600
    began = kept.now
    while not kept.cut:
        kept.passes(1)
    assert kept.now - began <= 11
