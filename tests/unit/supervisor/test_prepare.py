"""Clearing up behind a start: its cgroup goes as soon as it is empty."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

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
