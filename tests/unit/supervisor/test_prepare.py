"""Clearing up behind a start: its cgroup goes as soon as it is empty."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from initspawn.plan import Api, Sandbox
from initspawn.supervisor.prepare import Preparer


class Made:
    """A start with a cgroup that cannot be removed as often as `busy`, and a clock that only adds up."""

    cgroup = "/base/task-1/main"

    def __init__(self, busy: int) -> None:
        self.busy = busy
        self.waits: list[float] = []
        self.timers: list[Callable[[], None]] = []

    def close(self) -> None:
        pass

    def remove(self, group: str) -> bool:
        assert group == self.cgroup
        self.busy -= 1
        return self.busy < 0

    def after(self, seconds: float, then: Callable[[], None]) -> None:
        self.waits.append(seconds)
        self.timers.append(then)


@pytest.mark.parametrize("busy", [0, 1, 3, 30])
def test_a_cgroup_that_stays_is_tried_ever_more_rarely(busy: int) -> None:
    made: Any = Made(busy)
    Preparer(made, made, made, made).drop(made)
    while made.timers:
        made.timers.pop()()
    assert made.waits == [min(0.05 * 2**number, 60.0) for number in range(busy)]


def test_a_start_that_finds_no_memory_leaves_no_cgroup() -> None:
    left: list[str] = []

    def make(*_: Any) -> str:
        left.append("group")
        return left[0]

    def fails(*_: Any, **__: Any) -> None:
        raise MemoryError

    groups: Any = SimpleNamespace(each=True, make=make, remove=lambda group: not left.remove(group))
    room = SimpleNamespace(fits=lambda size: size, ceiling=lambda _: 100)
    parts: list[Any] = [SimpleNamespace(prepare=fails), groups, SimpleNamespace(check=lambda _: None)]
    reactor: Any = SimpleNamespace(room=room)
    with pytest.raises(MemoryError):
        Preparer(*parts, reactor).prepare(Api(uid="a", api="a"), Sandbox(uid="s", user=0, group=0))
    assert left == []
