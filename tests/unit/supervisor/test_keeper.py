"""What the keeper says of a command that has ended, and when it starts it again."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from initspawn.supervisor.eventlog import EventLog
from initspawn.supervisor.keeper import Keeper


class Supervisor:
    """Starts and stops tasks in name only."""

    def __init__(self) -> None:
        self.closing = False
        self.reactor = self
        self.calls: list[Any] = []
        self.waits: list[tuple[float, Callable[[], None]]] = []

    def after(self, seconds: float, callback: Callable[[], None]) -> None:
        self.waits.append((seconds, callback))

    def start(self, *_: Any, on_start: Any, on_end: Any, **__: Any) -> Any:
        self.calls.append("start")
        self.task = SimpleNamespace(refusal=None, status={"exit": 3}, began=1.0, ended=2.0, log=EventLog())
        self._on_end = on_end
        on_start(self.task)
        return self.task

    def stop(self, task: Any) -> None:
        assert task is self.task
        self.calls.append("stop")

    def end(self, **status: Any) -> None:
        self.task.status = status or {"exit": 3}
        self._on_end(self.task)

    def pass_time(self) -> None:
        waits, self.waits = self.waits, []
        for _, callback in waits:
            callback()


@pytest.fixture
def supervisor() -> Supervisor:
    return Supervisor()


@pytest.fixture
def keeper(supervisor: Supervisor) -> Keeper:
    command = cast(Any, SimpleNamespace(uid="gateway", path="/g", arguments=()))
    made = Keeper(cast(Any, supervisor), cast(Any, None), command, ())
    made.start()
    return made


@pytest.mark.parametrize(
    ("status", "said"),
    [({"signal": "Killed"}, "signal Killed"), ({"exit": 3}, "exit 3"),
     ({"signal": "Killed", "info": "timeout"}, "signal Killed, info timeout")],
)  # fmt: skip
def test_an_end_is_told_in_words(
    supervisor: Supervisor,
    keeper: Keeper,
    status: dict[str, Any],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    supervisor.end(**status)
    assert capsys.readouterr().err == f"initspawn: gateway: ended ({said}), it is started again\n"
    supervisor.pass_time()
    assert supervisor.calls == ["start", "start"]


def test_pauses_grow(supervisor: Supervisor, keeper: Keeper) -> None:
    pauses = []
    for _ in range(4):
        supervisor.end()
        pauses.append(supervisor.waits[0][0])
        supervisor.pass_time()
    assert pauses == [0.1, 0.2, 0.4, 0.8]


def test_to_start_what_is_kept_changes_nothing(supervisor: Supervisor, keeper: Keeper) -> None:
    keeper.start()
    assert supervisor.calls == ["start"]


def test_whether_it_serves(supervisor: Supervisor, keeper: Keeper) -> None:
    found = [keeper.serving]
    for step in (supervisor.end, supervisor.pass_time, keeper.stop, supervisor.end, keeper.start):
        step()
        found.append(keeper.serving)
    assert found == [True, False, True, False, False, True]


def test_what_is_stopped_stays_so_until_it_is_started(
    supervisor: Supervisor, keeper: Keeper, capsys: Any
) -> None:
    keeper.stop()
    keeper.stop()
    supervisor.end()
    supervisor.pass_time()
    assert supervisor.calls == ["start", "stop", "stop"]
    assert capsys.readouterr().err == "", "it was asked for"
    keeper.start()
    assert supervisor.calls[3:] == ["start"]


def test_started_again_while_it_is_being_stopped(supervisor: Supervisor, keeper: Keeper) -> None:
    keeper.stop()
    keeper.start()
    assert supervisor.calls == ["start", "stop"], "never two at once"
    supervisor.end()
    supervisor.pass_time()
    assert supervisor.calls == ["start", "stop", "start"]


def test_a_pause_that_ends_after_a_stop(supervisor: Supervisor, keeper: Keeper) -> None:
    supervisor.end()
    keeper.stop()
    supervisor.pass_time()
    assert supervisor.calls == ["start"]
    supervisor.waits.clear()
    keeper.start()
    supervisor.end()
    keeper.stop()
    keeper.start()
    supervisor.pass_time()
    assert supervisor.calls == ["start"] * 3, "one start, though a pause was under way"


def test_who_writes_without_end_is_told_of_a_little_at_a_time(
    supervisor: Supervisor, keeper: Keeper, capsys: pytest.CaptureFixture[str]
) -> None:
    def said() -> list[str]:
        return capsys.readouterr().err.splitlines()

    for number in range(100):
        supervisor.task.log.append({"stderr": f"\x1b[2J{number}"})
    first = said()
    assert first[0] == "initspawn: gateway: ?[2J0", "what a terminal obeys is not passed on"
    assert len(first) < 50
    later = []
    while supervisor.waits:
        supervisor.pass_time()
        later.append(len(said()))
    assert sum(later) == 100 - len(first), "all of it"
    supervisor.task.log.append({"stdout": "more"})
    assert said() == ["initspawn: gateway: more"]


def test_a_stop_does_not_wait_for_all_that_it_wrote(
    supervisor: Supervisor, keeper: Keeper, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(1000):
        supervisor.task.log.append({"stderr": str(number)})
    supervisor.closing = True
    supervisor.pass_time()
    assert not supervisor.task.log.readers
    assert len(capsys.readouterr().err.splitlines()) < 100
