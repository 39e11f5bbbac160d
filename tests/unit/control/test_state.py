"""What the files of the state directory say, and when: tokens that are over."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from initspawn.control import state
from initspawn.control.state import State
from initspawn.control.tokens import NAME, write
from initspawn.limits import CALM_SECONDS
from initspawn.supervisor.reactor import Reactor
from initspawn.verbs.access import NOBODY, Token, Tokens, digest
from tests.support.full import Deaf


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


@pytest.mark.parametrize("stderr", [io.StringIO(), Deaf()], ids=["heard", "not heard"])
def test_a_token_that_was_revoked_is_none_though_memory_is_short(
    tmp_path: Path, stderr: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is valid until the file can be read, and then it is, though it has not changed again."""
    now = [1000.0]
    reactor, tokens = Reactor(clock=lambda: now[0]), Tokens()
    first, second = (Token(name=name, digest=digest(name), scopes=frozenset("*")) for name in "ab")
    write(str(tmp_path / NAME), [first, second])
    made = State(str(tmp_path), reactor, tokens)
    assert tokens.identity("a") != NOBODY
    asked: list[str] = []

    def no_memory(path: str) -> list[Token]:
        asked.append(path)
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stderr)
        patch.setattr(state, "read", no_memory)
        write(str(tmp_path / NAME), [second])
        reactor.turn()
        assert asked
        assert [tokens.identity(shown) for shown in "ab"] == [NOBODY, NOBODY]
    now[0] += CALM_SECONDS + 1
    reactor.turn()
    assert tokens.identity("a") == NOBODY
    assert tokens.identity("b") != NOBODY
    made.close(remove=True)
    reactor.close()


def test_who_was_not_told_of_a_change_is_told_later(kept: Kept) -> None:
    failing = [True]

    def recheck() -> None:
        if failing:
            failing.clear()
            raise MemoryError

    told: list[int] = []
    kept.tokens.on_change += [recheck, lambda: told.append(1)]
    with pytest.raises(MemoryError):
        kept.state._read()
    assert not told
    kept.passes(CALM_SECONDS + 1)
    assert told
    del kept.tokens.on_change[-2:]
