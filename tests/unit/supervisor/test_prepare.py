"""Clearing up behind a start: its cgroup goes as soon as it is empty."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from initspawn.errors import LaunchRefused
from initspawn.plan import HOSTS, Api, Sandbox
from initspawn.supervisor.prepare import Preparer
from initspawn.supervisor.room import CALLER


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


@pytest.mark.parametrize(
    ("api", "own"),
    [(Api(uid="gateway", api="gateway", hidden=True), True), (Api(uid=HOSTS, api=HOSTS, hidden=True), False),
     (Api(uid=HOSTS, api=HOSTS), False), (Api(uid="a", api="a"), False)],
)  # fmt: skip
def test_what_callers_have_started_leaves_room_for_our_own(api: Api, own: bool) -> None:
    """The hosts of plug-ins, too."""
    shares: list[float] = []
    room = SimpleNamespace(fits=lambda size: size, ceiling=shares.append)
    parts: list[Any] = [SimpleNamespace(each=False), SimpleNamespace(check=lambda _: None)]
    launcher: Any = SimpleNamespace(prepare=lambda *_, **__: "a start")
    reactor: Any = SimpleNamespace(room=room)
    box = Sandbox(uid="s", user=0, group=0, namespaces=("pid",))
    assert Preparer(launcher, *parts, reactor).prepare(api, box) == "a start"
    assert shares == [0.0 if own else CALLER]
    room.fits, room.lack = lambda _: 0, lambda *_, **__: False
    if own:
        Preparer(launcher, *parts, reactor).prepare(api, box)
    else:
        with pytest.raises(LaunchRefused, match="room"):
            Preparer(launcher, *parts, reactor).prepare(api, box)
