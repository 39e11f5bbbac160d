"""Calls that a configuration makes itself: what is called, with which query, and what is heard of it."""

from __future__ import annotations

from typing import Any

import pytest

from initspawn.config.compile import compile_raw
from initspawn.errors import RequestError
from initspawn.limits import EVENT_TASKS
from initspawn.plan import Plan
from initspawn.verbs.access import Identity
from initspawn.verbs.answer import Answer
from initspawn.verbs.controller import Controller, Itself
from initspawn.verbs.registry import Registry
from tests.unit.verbs.conftest import LOCAL, Client, FakeSupervisor, FakeTask


def action(uid: str, target: str, **keys: Any) -> dict[str, Any]:
    return {"uid": uid, "action": f"api://t#{target}", **keys}


def command(uid: str, *args: str, **keys: Any) -> dict[str, Any]:
    return {"uid": uid, "exec": {"cmdpath": "/bin/true", "args": list(args)}, **keys}


class Controlled:
    """One configuration with its actions, loaded."""

    def __init__(self, **root: Any) -> None:
        commands = [
            command("c"),
            command("z", "%z%", "?a?"),
            command("sync", encoder="sync"),
            command("pid", "pid=%pid%", "?stdout?"),
        ]
        raw = {
            "metadata": {"uid": "u", "api": "t"},
            "sandboxes": {"uid": "sb", "commands": commands},
            **root,
        }
        api = compile_raw(raw, file="test", user=1000, group=1000, environ={})
        self.supervisor = FakeSupervisor(Plan(user=1000, group=1000, apis=(api,)))
        self.registry = Registry(self.supervisor)  # type: ignore[arg-type]
        self.controller = Controller(self.registry)
        self.controller.load()

    @property
    def started(self) -> list[tuple[str, ...]]:
        """What has been started, each with its arguments."""
        return [(task.command.uid, *task.argv[1:]) for task in self.supervisor.every]

    def happens(self, task: FakeTask, **data: Any) -> None:
        """An event of a task, and all that comes of it."""
        task.log.append({"pid": task.pid, **data})
        self.supervisor.reactor.run()

    def runs(self, number: int = 0) -> FakeTask:
        """Let a task run."""
        task = self.supervisor.every[number]
        task.run()
        self.supervisor.reactor.run()
        return task

    def ends(self, task: FakeTask) -> None:
        """Let it end."""
        task.end()
        self.supervisor.reactor.run()


# At the start.


def test_check_131_onload() -> None:
    assert Controlled(onload=action("first", "c", args={"action": "start"})).started == [("c",)]


@pytest.mark.parametrize("keys", [{}, {"args": {}}])
def test_check_132_onload_without_args(keys: Any) -> None:
    assert Controlled(onload=action("first", "c", **keys)).started == [("c",)]


def test_check_133_onload_with_text_for_arguments() -> None:
    made = Controlled(onload=[action("first", "c", args="string"), action("second", "z", args="string")])
    assert made.started == [("c",)]  # text names no argument, and the second needs one


def test_onload_and_onstart_in_order() -> None:
    made = Controlled(
        onstart=[action("3", "z", args={"z": 3}), action("4", "ping")],
        onload=[action("1", "z", args={"z": 1}), action("2", "z", args={"args": {"z": 2}})],
    )
    assert made.started == [("z", "1", ""), ("z", "2", ""), ("z", "3", "")]
    assert made.registry.pings == 1


def test_a_failed_onload_is_told_and_the_next_is_made(capsys: Any) -> None:
    made = Controlled(onload=[action("bad", "z"), action("good", "c")])
    assert made.started == [("c",)]
    assert capsys.readouterr().err == (
        "initspawn: t: onload `bad`: invalid-request: argument `z` is missing\n"
    )


def test_a_refused_onload_is_told(capsys: Any) -> None:
    from initspawn.errors import LaunchRefused

    made = Controlled(onload=action("bad", "c"))
    made.supervisor.every[0].refuse(LaunchRefused("mounts", 13))
    assert "onload `bad`: internal-error: start refused at 'mounts'" in capsys.readouterr().err


# Events.


@pytest.mark.parametrize("pattern", ["t/c", "t/*", "*", "*c"])
def test_check_135_events(pattern: str) -> None:
    made = Controlled(onload=action("go", "c"), events=action(pattern, "pid"))
    task = made.runs()
    made.happens(task, type="data", stdout="out")
    assert made.started[1:] == [("pid", f"pid={task.pid}", "out")]


def test_check_136_data_that_is_no_object() -> None:
    """What an encoder tells of that kind stands under `data`."""
    made = Controlled(
        onload=action("go", "c"), events=action("t/c", "z", args={"args": {"z": "seen"}}),
        sandboxes={"uid": "sb", "commands": [command("c"), command("z", "%data%", "%z%")]},
    )  # fmt: skip
    made.happens(made.runs(), type="data", data="text")
    assert made.started[1:] == [("z", "text", "seen")]


def test_the_configurations_arguments_win() -> None:
    made = Controlled(onload=action("go", "c"), events=action("t/c", "pid", args={"pid": "mine"}))
    made.happens(made.runs(), type="data")
    assert made.started[1:] == [("pid", "pid=mine", "")]


def test_an_event_can_stop() -> None:
    made = Controlled(
        onload=[action("go", "c"), action("sleep", "z", args={"z": 1})],
        events=action("t/c", "z", args={"action": "stop", "args": {"signal": "SIGTERM"}}),
    )
    made.runs(1)
    made.happens(made.runs(0), type="data")
    assert made.supervisor.sent == [("stop", 102, 15)]


def test_events_one_after_the_other() -> None:
    made = Controlled(onload=action("go", "c"), events=action("t/c", "pid"))
    task = made.runs()
    for number in range(3):
        made.happens(task, type="data", stdout=number)
    assert len(made.started) == 2
    made.runs(1)
    assert made.started[2:] == [("pid", f"pid={task.pid}", "1")]
    made.runs(2)
    made.runs(3)
    assert [args[2] for args in made.started[1:]] == ["0", "1", "2"]


def test_events_do_not_take_every_place() -> None:
    """What a command writes starts so many tasks at most; the rest of it waits, and nothing is lost."""
    made = Controlled(onload=action("go", "c"), events=action("t/c", "pid"))
    task = made.runs()
    for number in range(EVENT_TASKS + 3):
        task.log.append({"pid": task.pid, "type": "data", "stdout": number})
    made.supervisor.reactor.run()
    for number in range(EVENT_TASKS):
        made.runs(1 + number)
    assert len(made.started) == 1 + EVENT_TASKS
    made.supervisor.reactor.pass_time()
    assert len(made.started) == 1 + EVENT_TASKS
    for number in range(3):
        made.ends(made.supervisor.every[1 + number])
        made.supervisor.reactor.pass_time()
        made.runs(1 + EVENT_TASKS + number)
    assert [args[2] for args in made.started[1:]] == [str(number) for number in range(EVENT_TASKS + 3)]


def test_a_full_house_can_still_be_stopped() -> None:
    made = Controlled(
        onload=[action("go", "z", args={"z": 1}), *(action(str(n), "c") for n in range(EVENT_TASKS))],
        events=action("t/z", "c", args={"action": "stop"}),
    )
    for number in range(1 + EVENT_TASKS):
        made.runs(number)
    made.happens(made.supervisor.every[0], type="data")
    assert len(made.supervisor.sent) == EVENT_TASKS


def test_all_actions_of_one_event() -> None:
    made = Controlled(onload=action("go", "c"), events=[action("t/c", "pid"), action("*", "c")])
    made.happens(made.runs(), type="data")
    assert [name for name, *_ in made.started[1:]] == ["pid", "c"]


@pytest.mark.parametrize("handlers", [["c"], ["c", "pid"], ["pid", "c", "sync"]])
def test_nothing_goes_round_in_a_circle(handlers: list[str]) -> None:
    """Each action at most once in every chain of causes, so every chain comes to an end."""
    made = Controlled(onload=action("go", "c"), events=[action("*", name) for name in handlers])
    heard = 0
    while heard < len(made.supervisor.every):
        task = made.runs(heard)
        made.happens(task, type="data")
        made.ends(task)
        heard += 1
        assert heard < 100
    chains = sum(len(_arrangements(handlers, length)) for length in range(len(handlers) + 1))
    assert len(made.started) == chains
    assert made.controller.listeners == {}


def _arrangements(items: list[str], length: int) -> list[tuple[str, ...]]:
    from itertools import permutations

    return list(permutations(items, length))


def test_only_what_the_api_started_is_heard() -> None:
    made = Controlled(events=action("*", "c"))
    Client(made.registry, LOCAL).call("t/c")
    made.happens(made.runs(), type="data")
    assert made.started == [("c",)]


def test_a_subscription_of_its_own() -> None:
    made = Controlled(
        onload=action("go", "c"),
        events=[action("t/c", "z", args={"action": "subscribe"}), action("t/z", "pid", args={"pid": "x"})],
    )
    client = Client(made.registry, LOCAL)
    client.call("t/z", {"z": 1})
    foreign = made.runs(1)
    made.happens(foreign, type="data")
    assert len(made.started) == 2
    made.happens(made.runs(0), type="data")  # now it subscribes, and hears from the first that is kept
    assert made.started[2:] == [("pid", "pid=x", "")]


def test_a_failure_is_told_once_for_each_task(capsys: Any) -> None:
    made = Controlled(onload=action("go", "c"), events=action("t/c", "z"))
    task = made.runs()
    for _ in range(3):
        made.happens(task, type="data")
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("initspawn: t: events `t/c`: invalid-request: argument `z` is missing; given: ")


@pytest.mark.parametrize("target", ["c", "sync"])
def test_nothing_is_left_of_an_ended_task(target: str) -> None:
    made = Controlled(onload=action("go", target), events=action("*", "ping"))
    task = made.runs()
    made.happens(task, type="data")
    assert len(made.controller.listeners) == 1
    made.ends(task)
    assert made.controller.listeners == {}
    assert task.log.readers == []


def changed(made: Controlled, **root: Any) -> None:
    """The plan becomes another one."""
    known = [action for api in made.registry.apis.values() for action in api.onload]
    new = Controlled(**root)
    made.registry.renew(new.supervisor.plan)
    made.controller.renew()
    made.controller.load(known)
    made.supervisor.reactor.run()


@pytest.mark.parametrize("before", [[], action("t/c", "sync")])
def test_after_a_reload_what_runs_is_heard_by_the_new_events(before: Any) -> None:
    """Also what nobody's were for, and from then on."""
    made = Controlled(onload=action("go", "c"), events=before)
    task = made.runs()
    changed(made, events=action("t/c", "pid"))
    made.happens(task, type="data", stdout="x")
    assert made.started == [("c",), ("pid", "pid=101", "x")]
    changed(made)
    assert (made.controller.listeners, task.log.readers) == ({}, [])
    made.ends(task)
    Itself(made.controller, made.registry.apis["t"], ()).subscribe(made.runs(1))
    assert [one for _, one in made.controller.heard] == [made.supervisor.every[1]]


def test_a_start_on_its_way_while_the_plan_becomes_another_is_heard_by_the_new_events() -> None:
    made = Controlled(onload=action("go", "c"), events=action("t/c", "sync"))
    changed(made, events=action("t/c", "pid"))
    made.happens(made.runs(), type="data", stdout="x")
    assert made.started == [("c",), ("pid", "pid=101", "x")]


def test_while_the_supervisor_stops_nothing_is_called(capsys: Any) -> None:
    made = Controlled(onload=action("go", "c"), events=action("t/c", "pid"))
    task = made.runs()
    made.supervisor.closing = True
    made.happens(task, type="data")
    made.ends(task)
    assert made.started == [("c",)]
    assert made.controller.listeners == {}
    assert capsys.readouterr().err == ""


# Extra verbs.


def connected(made: Controlled, *scopes: str) -> Client:
    identity = Identity(kind="token", scopes=frozenset(scopes)) if scopes else LOCAL
    return Client(made.registry, identity)


def test_check_137_extra() -> None:
    made = Controlled(extra=action("x1", "z", args={"args": {"z": "E"}}))
    client = connected(made)
    assert client.call("t/x1", {}) is None
    assert made.started == [("z", "E", "")]
    made.runs()
    assert client.log == ["subscribed", Answer(response={"command": "z", "pid": 101})]
    client.call("t/x1", {"a": "A", "z": "mine"})
    assert made.started[1:] == [("z", "E", "A")]


def test_an_extra_verb_that_stops() -> None:
    made = Controlled(onload=action("go", "c"), extra=action("halt", "c", args={"action": "stop"}))
    made.runs()
    assert connected(made).call("t/halt") == Answer(response=["sb/c@101"])


def test_extra_verbs_are_not_listed() -> None:
    made = Controlled(extra=action("x1", "ping"))
    client = connected(made)
    answer = client.call("t/info")
    assert answer is not None
    assert "x1" not in str(answer.response)
    assert client.call("t/x1") == Answer(response="pong=1")


@pytest.mark.parametrize(
    ("scopes", "may"),
    [(("urn:x", "start"), True), (("*",), True), (("urn:x",), False), (("start",), False), (("see",), False)],
)
def test_an_extra_verb_takes_its_privilege_and_that_of_what_it_calls(
    scopes: tuple[str, ...], may: bool
) -> None:
    made = Controlled(extra=action("x1", "c", privileges="urn:x"))
    answer = connected(made, *scopes).call("t/x1", {})
    assert answer == (None if may else Answer(status="insufficient-scope"))
    assert len(made.started) == may


def test_an_extra_verb_hides_what_is_wrong_from_who_may_nothing() -> None:
    made = Controlled(extra=action("x1", "c"))
    assert connected(made, "records").call("t/x1", {"action": "fly"}) == Answer(status="insufficient-scope")
    answer = connected(made, "see").call("t/x1", {"action": "fly"})
    assert answer == Answer(status="invalid-request", info="invalid action")


def test_a_start_that_cannot_be_tried(capsys: Any) -> None:
    made = Controlled(onload=action("go", "c"), events=action("t/c", "pid"))
    task = made.runs()
    made.supervisor.fails = RequestError("bad-state", "runs already")
    made.happens(task, type="data")
    assert "events `t/c`: bad-state: runs already" in capsys.readouterr().err
