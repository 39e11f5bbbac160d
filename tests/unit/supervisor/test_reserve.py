"""Starts that wait: how many there are at most, and whose end is whose."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from initspawn.limits import RESERVE_STARTS
from initspawn.plan import Api, Command, Plan, Sandbox
from initspawn.supervisor.reserve import Reserve

Warm = Callable[..., "Waiting"]


class Loop:
    """Watches nothing, and lets no time pass."""

    def __init__(self) -> None:
        self.watch = self.forget = lambda *_: None
        self.room = SimpleNamespace(short=False)

    def after(self, seconds: float, callback: Callable[[], None]) -> Any:
        return SimpleNamespace(cancel=lambda: None)


class Waiting:
    """A reserve whose starts never get anywhere; `dropped` are those of which nothing is left."""

    def __init__(self, *warm: int) -> None:
        boxes = tuple(Sandbox(uid=f"s{number}", user=1, group=1) for number in range(len(warm)))
        commands = tuple(
            Command(uid=f"c{number}", verb=f"c{number}", sandbox=f"s{number}", path="/c", warm=count)
            for number, count in enumerate(warm)
        )
        self.api = Api(uid="a", api="a", sandboxes=boxes, commands=commands)
        self.made: list[Any] = []
        self.dropped: list[Any] = []
        loop: Any = Loop()
        preparer: Any = SimpleNamespace(prepare=self._prepare, drop=self.dropped.append)
        self.reserve = Reserve(loop, preparer)
        self.reserve.fill(Plan(user=0, group=0, apis=(self.api,)))

    def _prepare(self, api: Api, sandbox: Sandbox, *, spare: bool) -> Any:
        number = 1000 + 2 * len(self.made)
        start = SimpleNamespace(
            sandbox=sandbox, pid=number, command_pid=number + 1, held=True, alone=False,
            handshake=SimpleNamespace(fileno=lambda: 99), kill=lambda reaper: None,
            drop_handshake=lambda: None, stopped=lambda status: False,
            streams=SimpleNamespace(close=lambda: None),
        )  # fmt: skip
        self.made.append(start)
        return start


@pytest.fixture
def warm() -> Iterator[Warm]:
    made: list[Waiting] = []

    def make(*counts: int) -> Waiting:
        made.append(Waiting(*counts))
        return made[-1]

    yield make
    for one in made:
        one.reserve.close()


def test_there_are_never_more_than_so_many(warm: Warm) -> None:
    one = warm(RESERVE_STARTS - 2, 5)
    assert len(one.reserve.starts) == RESERVE_STARTS
    assert [start.sandbox.uid for start in one.made[-2:]] == ["s1", "s1"]
    assert one.reserve.take(one.api.sandboxes[0]) is one.made[0]
    one.reserve.refill(one.api, one.api.sandboxes[1])  # the place is whoever's asks first
    one.reserve.refill(one.api, one.api.sandboxes[0])
    assert len(one.reserve.starts) == RESERVE_STARTS
    assert one.made[-1].sandbox.uid == "s1"


def test_a_reaper_may_have_the_number_of_a_command_that_has_died(warm: Warm) -> None:
    """Whose own reaper has not said so yet."""
    one = warm(2)
    first, second = one.made
    second.pid = first.command_pid
    assert one.reserve.on_child(first.command_pid, 0)
    assert one.dropped == [second]
    assert one.reserve.starts == [first]
    assert one.reserve.on_child(first.command_pid, 0)  # now it is the command's
    assert one.reserve.starts == [first]
    assert not one.reserve.on_child(os.getpid(), 0)
