"""Who has sent a message, and the marks of the time line."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from initspawn.linux import process
from initspawn.plan import Api, Plan, Sandbox
from initspawn.supervisor.autostart import Autostart
from initspawn.supervisor.task import GONE, MEASURED, READY, Life


def test_a_message_is_of_the_task_that_its_sender_is_below(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another may have had its number before, or that of the reaper above it."""

    def task(pid: int, reaper: int, *events: str) -> Any:
        made = SimpleNamespace(
            pid=pid, start=SimpleNamespace(pid=reaper), life=Life(), api=Api(uid="a", api="a"),
            sandbox=Sandbox(uid="s", user=1, group=1),
        )  # fmt: skip
        for event in (READY, MEASURED, *events):
            made.life.on(event)
        return made

    clock = SimpleNamespace(clock=lambda: 0.0)
    supervisor: Any = SimpleNamespace(plan=Plan(user=0, group=0), reactor=clock)
    autostart = Autostart(supervisor, "")
    services: Any = ["drains", "drains too", "runs"]
    tasks = [task(7, 5, GONE), task(6, 3, GONE), task(4, 3)]
    autostart._tasks = dict(zip(services, tasks, strict=True))
    lines = {7: [7, 4, 3, 1], 4: [4, 3, 1], 8: [8, 1]}

    def lineage(pid: int) -> list[int]:
        if pid not in lines:
            raise FileNotFoundError
        return lines[pid]

    monkeypatch.setattr(process, "lineage", lineage)
    senders: dict[int, Any] = {pid: autostart._sender(("a", "s"), pid) for pid in (7, 4, 8, 6, 9)}
    # The last two are gone: of one it is known whose number it had.
    assert senders == {7: "runs", 4: "runs", 8: None, 6: "drains too", 9: None}
    assert autostart._sender(("a", "another"), 4) is None


def test_of_what_happens_often_the_first_time_and_the_last_ones_are_told() -> None:
    now = 0.0
    supervisor = SimpleNamespace(plan=Plan(user=0, group=0), reactor=SimpleNamespace(clock=lambda: now))
    autostart = Autostart(supervisor, "")  # type: ignore[arg-type]
    for _ in range(50):
        now += 1
        autostart.mark("stage early")
        autostart.mark_again("guard closed")
        autostart.mark_again("guard open")
    told = [(mark["what"], mark["time"]) for mark in autostart.timeline()["marks"]]
    assert told[:3] == [("stage early", 1.0), ("guard closed", 1.0), ("guard open", 1.0)]
    later = told[3:]
    assert [what for what, _ in later] == ["guard closed", "guard open"] * 16
    assert [when for _, when in later[::2]] == [float(number) for number in range(35, 51)]
