"""Procedures: who is let in, what is answered and when, and the built-in ones."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

from initspawn import limits
from initspawn.errors import STATUS_CODES, LaunchRefused, RequestError
from initspawn.plan import Api, Command, Sandbox
from initspawn.supervisor.eventlog import EventLog, Reader
from initspawn.verbs import builtin
from initspawn.verbs.access import Identity
from initspawn.verbs.answer import Answer
from tests.unit.verbs.conftest import Client

Connect = Callable[..., Any]
DENIED = Answer(status="insufficient-scope")


def refused(status: str, info: str | None = None) -> Answer:
    return Answer(status=status, info=info)


# The built-in procedures.


def test_ping_counts_over_all_apis(client: Any) -> None:
    for number, procedure in enumerate(["t/ping", "guarded/ping", "t/ping", "initspawn/ping"], 1):
        assert client.call(procedure, {"any": "query"}) == Answer(response=f"pong={number}")


@pytest.mark.parametrize(
    ("procedure", "status"),
    [
        ("t/nope", "unknown-verb"),
        ("t/C", "unknown-verb"),
        ("t/", "unknown-verb"),
        ("t/tools", "unknown-verb"),
        ("t/echo", "unknown-verb"),
        ("nope/ping", "unknown-api"),
        ("nope/c", "unknown-api"),
        ("T/c", "unknown-api"),
        ("", "unknown-api"),
        ("/", "unknown-api"),
        ("t", "unknown-verb"),
        ("secret/h", "unknown-api"),
        ("secret/ping", "unknown-api"),
        ("secret/info", "unknown-api"),
        ("initspawn/nope", "unknown-verb"),
        ("monitor/ping", "unknown-verb"),
    ],
)
def test_what_does_not_exist(client: Any, procedure: str, status: str) -> None:
    assert client.call(procedure).status == status
    assert STATUS_CODES[status] < 0


@pytest.mark.parametrize(
    ("procedure", "meant"),
    [
        ("t/tools/ecko", "tools/echo"), ("t/pong", "ping"), ("initspawn/task", "tasks"),
        ("monitor/sesion", "session"), ("t/zzz", ""), (f"t/tools/echo{'o' * 1000}", ""),
    ],
)  # fmt: skip
def test_a_verb_that_is_much_like_it_is_told(client: Any, procedure: str, meant: str) -> None:
    assert client.call(procedure) == refused("unknown-verb", f"did you mean `{meant}`?" if meant else None)


def test_who_may_see_nothing_is_told_of_no_verb(connect: Connect) -> None:
    for procedure in ("t/tools/ecko", "monitor/sesion"):
        assert connect("start").call(procedure) == DENIED


def test_info_has_exactly_this_shape() -> None:
    api = Api(
        uid="u",
        api="t",
        info="about",
        version="1.0",
        author="me",
        sandboxes=(
            Sandbox(uid="s", info="box", privilege="hidden", user=1, group=1),
            Sandbox(uid="empty", user=1, group=1),
        ),
        commands=(
            Command(
                uid="c",
                verb="p/c",
                sandbox="s",
                path="/c",
                info="does",
                usage={"x": "y"},
                sample=[{"args": 1}],
            ),
            Command(uid="d", verb="p/d", sandbox="s", path="/d"),
        ),
    )
    found = builtin.info(api)
    assert found == {
        "groups": [
            {
                "uid": "s",
                "info": "box",
                "verbs": [
                    {
                        "uid": "c",
                        "verb": "p/c",
                        "info": "does",
                        "sample": [{"args": 1}],
                        "usage": {"action": ["start", "stop"], "args": {"x": "y"}},
                    },
                    {"uid": "d", "verb": "p/d", "usage": {"action": ["start", "stop"]}},
                ],
            },
            {"uid": "empty", "verbs": []},
        ],
        "metadata": {"uid": "u", "info": "about", "version": "1.0", "author": "me"},
    }
    # The order of the keys is the protocol's too.
    assert list(found) == ["groups", "metadata"]
    assert list(found["groups"][0]) == ["uid", "info", "verbs"]
    assert list(found["groups"][0]["verbs"][0]) == ["uid", "verb", "info", "sample", "usage"]
    assert list(found["groups"][0]["verbs"][0]["usage"]) == ["action", "args"]
    assert list(found["metadata"]) == ["uid", "info", "version", "author"]


def test_info_of_nothing() -> None:
    assert builtin.info(Api(uid="u", api="t")) == {"groups": [], "metadata": {"uid": "u"}}


def test_info_is_the_apis(client: Any, registry: Any) -> None:
    assert client.call("t/info", "anything") == Answer(response=builtin.info(registry.apis["t"]))


def test_an_empty_usage_is_not_the_same_as_none() -> None:
    command = Command(uid="c", verb="c", sandbox="s", path="/c", usage={}, sample=[])
    api = Api(uid="u", api="t", sandboxes=(Sandbox(uid="s", user=1, group=1),), commands=(command,))
    (verb,) = builtin.info(api)["groups"][0]["verbs"]
    assert verb["usage"] == {"action": ["start", "stop"], "args": {}}
    assert verb["sample"] == []


@pytest.mark.parametrize(
    ("query", "response"),
    [
        ({"apis": False}, {"apis": {"monitor": True, "t": True, "guarded": True}}),
        ({"apis": "*"}, {"apis": {"monitor": True, "t": True, "guarded": True}}),
        ({}, None),
        (None, None),
        ("apis", None),
    ],
)
def test_monitor(client: Any, query: Any, response: Any) -> None:
    assert client.call("monitor/get", query) == Answer(response=response)


def test_our_own_info(client: Any) -> None:
    response = client.call("initspawn/info").response
    assert response["apis"] == ["t", "guarded"]
    assert response["limits"] == limits.TABLE
    assert all(isinstance(value, int | float) for value in response["limits"].values())
    assert response["version"]


def test_records_of_all_tasks(client: Any, supervisor: Any) -> None:
    client.call("t/c")
    client.call("t/c")
    hidden = supervisor.plan.apis[2]
    supervisor.start(hidden, hidden.commands[0], ("/h",))
    first = supervisor.every[0]
    first.run()
    first.end()
    supervisor.ended.append(first)
    assert client.call("initspawn/tasks").response == [
        {"id": "sb/c@101", "state": "ended"},
        {"id": "sb/c@102", "state": "starting"},
    ]


class FakeAutostart:
    """Commands that start by themselves, as the verbs see them."""

    def __init__(self) -> None:
        self.halted: list[str] = []

    def halt(self, name: str) -> None:
        self.halted.append(name)

    def records(self) -> list[dict[str, Any]]:
        return [{"command": "t/c"}]

    def timeline(self) -> dict[str, Any]:
        return {"marks": [{"what": "m", "time": 1.0}], "services": self.records()}


@pytest.fixture
def autostart(registry: Any) -> FakeAutostart:
    registry.autostart = FakeAutostart()
    return registry.autostart  # type: ignore[no-any-return]


def test_services_without_any(client: Any) -> None:
    assert client.call("initspawn/services").response == []
    assert client.call("initspawn/timeline").response == {"marks": [], "services": []}


@pytest.mark.parametrize(
    ("scopes", "shown"),
    [(("records",), 0), (("records", "others"), 1), (("*",), 1)],
)
def test_services_are_nobodys_own(registry: Any, autostart: Any, scopes: Any, shown: int) -> None:
    someone = Client(registry, Identity(kind="token", name="ada", scopes=frozenset(scopes)))
    assert len(someone.call("initspawn/services").response) == shown  # type: ignore[union-attr]
    times = someone.call("initspawn/timeline").response  # type: ignore[union-attr]
    assert (len(times["marks"]), len(times["services"])) == (shown, shown)


@pytest.mark.parametrize(
    ("query", "halted"),
    [
        ({"action": "stop"}, True),
        ({"action": "stop", "args": {"signal": "SIGKILL"}}, True),
        ({"action": "stop", "args": {"signal": "SIGUSR1"}}, False),
        ({"action": "stop", "args": {"pid": 101}}, False),
        ({"action": "unsubscribe"}, False),
        ({"action": "start"}, False),
    ],
)
def test_who_stops_all_of_a_command_halts_it(client: Any, autostart: Any, query: Any, halted: bool) -> None:
    client.call("t/c")
    client._registry.supervisor.every[0].run()
    client.call("t/c", query)
    assert autostart.halted == (["t/c"] if halted else [])


@pytest.mark.parametrize(("scopes", "halted"), [(("stop",), False), (("stop", "others"), True)])
def test_what_started_by_itself_is_halted_by_those_who_may_stop_others(
    registry: Any, autostart: Any, scopes: Any, halted: bool
) -> None:
    someone = Client(registry, Identity(kind="token", name="ada", scopes=frozenset(scopes)))
    assert someone.call("t/c", {"action": "stop"}).status == "success"  # type: ignore[union-attr]
    assert bool(autostart.halted) == halted


# Who is let in.


@pytest.mark.parametrize(
    "procedure",
    ["t/ping", "t/info", "t/c", "t/nope", "nope/ping", "nope/nope", "secret/h", "guarded/own", "", "/",
     "monitor/get", "monitor/nope", "initspawn/info", "initspawn/tasks", "initspawn/services",
     "initspawn/timeline", "initspawn/nope"],
)  # fmt: skip
@pytest.mark.parametrize("scopes", [(None,), (), ("other",)])
@pytest.mark.parametrize("query", [None, {"action": "foo"}, {"action": "stop", "args": 5}])
def test_who_may_nothing_learns_nothing(
    connect: Connect, supervisor: Any, procedure: str, scopes: tuple[str | None, ...], query: Any
) -> None:
    """Whether it exists and whether the query is right makes no difference."""
    assert connect(*scopes).call(procedure, query) == DENIED
    assert supervisor.every == []


def test_seeing_is_not_doing(connect: Connect, supervisor: Any) -> None:
    client = connect("see")
    assert client.call("t/ping") == Answer(response="pong=1")
    assert client.call("t/info").status == "success"
    assert client.call("t/nope") == refused("unknown-verb")
    for action in ("start", "stop", "subscribe", "unsubscribe"):
        assert client.call("t/c", {"action": action}) == DENIED
    assert client.call("initspawn/tasks") == DENIED
    assert supervisor.every == []


def test_records_are_a_right_of_their_own(connect: Connect) -> None:
    assert connect("records").call("initspawn/tasks") == Answer(response=[])
    assert connect("records").call("initspawn/info") == DENIED


@pytest.mark.parametrize(
    ("scope", "actions"),
    [
        ("start", {"start"}),
        ("stop", {"stop"}),
        ("output", {"subscribe", "unsubscribe"}),
        ("see", set()),
        ("records", set()),
        ("*", {"start", "stop", "subscribe", "unsubscribe"}),
    ],
)
def test_each_action_takes_its_right(connect: Connect, scope: str, actions: set[str]) -> None:
    client = connect(scope)
    for action in ("start", "stop", "subscribe", "unsubscribe"):
        answer = client.call("t/c", {"action": action})
        assert (answer == DENIED) == (action not in actions), action


@pytest.mark.parametrize(
    ("scope", "verbs"),
    [
        ("start", {"plain"}),
        ("urn:own", {"own", "both"}),
        ("urn:box", {"box"}),
        ("*", {"plain", "own", "box", "both"}),
        ("see", set()),
    ],
)
def test_the_commands_privilege_else_the_sandboxes(
    connect: Connect, supervisor: Any, scope: str, verbs: set[str]
) -> None:
    client = connect(scope)
    for verb in ("plain", "own", "box", "both"):
        assert (client.call(f"guarded/{verb}") == DENIED) == (verb not in verbs), verb
    assert {task.command.uid for task in supervisor.every} == verbs


def test_a_wrong_query_is_told_to_those_who_may_something(connect: Connect) -> None:
    for scope in ("start", "stop", "output", "see"):
        assert connect(scope).call("t/c", {"action": "foo"}) == refused("invalid-request", "invalid action")
    assert connect("records").call("t/c", {"action": "foo"}) == DENIED


# Starting.


def test_a_start_is_answered_when_the_command_runs(client: Any, supervisor: Any) -> None:
    assert client.call("t/c") is None
    (task,) = supervisor.every
    assert task.argv == ("/c",)
    task.run()
    assert client.log == ["subscribed", Answer(response={"command": "c", "pid": 101})]
    task.end()
    assert len(client.log) == 2


def test_a_synchronous_start_is_answered_at_its_end(client: Any, supervisor: Any) -> None:
    assert client.call("t/sync") is None
    (task,) = supervisor.every
    task.run()
    assert client.log == ["subscribed"]
    task.end()
    assert client.log[1:] == [Answer(response={"command": "sync", "pid": 101, "status": {"exit": 0}})]


@pytest.mark.parametrize("verb", ["c", "sync"])
def test_a_refused_start_is_answered_once(client: Any, supervisor: Any, verb: str) -> None:
    client.call(f"t/{verb}")
    refusal = LaunchRefused("mounts", 13, "openat /x")
    supervisor.every[0].refuse(refusal)
    assert client.log == [refused("internal-error", refusal.info)]
    assert "mounts" in refusal.info


@pytest.mark.parametrize(
    "error",
    [RequestError("bad-state", "runs already"), RequestError("not-available"), LaunchRefused("slot", 11)],
)
def test_a_start_that_cannot_be_tried(client: Any, supervisor: Any, error: RequestError) -> None:
    supervisor.fails = error
    assert client.call("t/c") == refused(error.status, error.info or None)


@pytest.mark.parametrize(
    "query", [{"args": {"a": "A", "b": "B"}}, {"a": "A", "b": "B"}, {"action": "START", "a": "A", "b": "B"}]
)
def test_arguments(client: Any, supervisor: Any, query: Any) -> None:
    client.call("t/tools/echo", query)
    assert supervisor.every[0].argv == ("/e", "A", "-B")


@pytest.mark.parametrize("query", [None, {}, {"args": {}}, {"args": None}, "text", [], {"args": {"A": 1}}])
def test_a_missing_argument_starts_nothing(client: Any, supervisor: Any, query: Any) -> None:
    said = "argument `a` is missing" + ("; given: 'A'" if query == {"args": {"A": 1}} else "")
    assert client.call("t/tools/echo", query) == refused("invalid-request", said)
    assert supervisor.every == []


# Controlling.


@pytest.fixture
def running(client: Any, supervisor: Any) -> list[Any]:
    """Two running tasks of t/c, one on its way, one of another command."""
    for procedure in ("t/c", "t/c", "t/c", "t/sync"):
        client.call(procedure)
    for number in (0, 1, 3):
        supervisor.every[number].run()
    client.subscribed.clear()
    return list(supervisor.every)


def test_stop_all(client: Any, supervisor: Any, running: list[Any]) -> None:
    assert client.call("t/c", {"action": "stop"}) == Answer(response=["sb/c@101", "sb/c@102"])
    assert supervisor.sent == [("stop", 101, signal.SIGINT), ("stop", 102, signal.SIGINT)]


@pytest.mark.parametrize("pid", [102, "102"])
def test_stop_one(client: Any, supervisor: Any, running: list[Any], pid: int | str) -> None:
    answer = client.call("t/c", {"action": "stop", "args": {"pid": pid, "signal": "sigterm"}})
    assert answer == Answer(response="sb/c@102")
    assert supervisor.sent == [("stop", 102, signal.SIGTERM)]


def test_nothing_runs(client: Any) -> None:
    for action in ("stop", "subscribe", "unsubscribe"):
        assert client.call("t/c", {"action": action}) == Answer(response=[])


@pytest.mark.parametrize("pid", [1, 103, 104, 999])
def test_a_pid_that_is_not_the_commands(client: Any, supervisor: Any, running: list[Any], pid: int) -> None:
    """Of nobody, on its way, of another command."""
    answer = client.call("t/c", {"action": "stop", "args": {"pid": pid}})
    assert answer == refused("invalid-request", "invalid pid")
    assert supervisor.sent == []


@pytest.mark.parametrize(
    ("query", "info"),
    [
        ({"action": "stop", "args": {}}, None),
        ({"action": "stop", "foo": 1}, None),
        ({"action": "stop", "args": "x"}, None),
        ({"action": "subscribe", "args": {"pid": 0}}, None),
        ({"action": "stop", "args": {"pid": -5}}, "invalid pid"),
    ],
)
def test_invalid_control(client: Any, supervisor: Any, running: list[Any], query: Any, info: Any) -> None:
    assert client.call("t/c", query) == refused("invalid-request", info)
    assert supervisor.sent == []


def test_an_invalid_signal(client: Any, supervisor: Any, running: list[Any]) -> None:
    answer = client.call("t/c", {"action": "stop", "args": {"signal": "sigfoo"}})
    assert answer.status == "invalid-request"
    assert answer.info.startswith("invalid signal")
    assert supervisor.sent == []


@pytest.mark.parametrize(
    ("number", "how"),
    [(0, "signal"), (1, "stop"), (2, "stop"), (9, "stop"), (10, "signal"), (12, "signal"), (15, "stop"),
     (19, "signal"), (64, "signal")],
)  # fmt: skip
def test_only_a_signal_that_ends_begins_a_stop(
    client: Any, supervisor: Any, running: list[Any], number: int, how: str
) -> None:
    client.call("t/c", {"action": "stop", "args": {"signal": number}})
    assert supervisor.sent == [(how, 101, number), (how, 102, number)]


def test_subscribe_and_unsubscribe(connect: Connect, supervisor: Any, running: list[Any]) -> None:
    other = connect("*")
    assert other.call("t/c", {"action": "subscribe"}) == Answer(response=["sb/c@101", "sb/c@102"])
    assert other.subscribed == [101, 102]
    answer = other.call("t/c", {"action": "unsubscribe", "args": {"pid": 101}})
    assert answer == Answer(response="sb/c@101")
    assert other.subscribed == [102]
    assert other.call("t/c", {"action": "subscribe", "args": {"signal": 9}}).status == "success"
    assert supervisor.sent == []


def test_subscribe_from_a_number_on(connect: Connect, running: list[Any]) -> None:
    task, other = running[0], connect("*")
    task.log.append({"n": 1})
    for first in (1, 2):
        args = {"pid": 101, "from": first}
        assert other.call("t/c", {"action": "subscribe", "args": args}) == Answer(response="sb/c@101")
        assert other.first == first
    for args in ({"pid": 101, "from": 3}, {"from": 1}, {"pid": 103, "from": 1}):
        assert other.call("t/c", {"action": "subscribe", "args": args}).status == "invalid-request"
    for action in ("stop", "unsubscribe"):
        answer = other.call("t/c", {"action": action, "args": {"pid": 101, "from": 1}})
        assert (answer.status, answer.info) == ("invalid-request", "`from` is for `subscribe` alone")


def test_from_a_number_on_it_is_the_task_that_has_told_so_much(connect: Connect, running: list[Any]) -> None:
    """Of those that were given the same number, one after the other."""
    old, new, *_ = running
    old.end()
    new.pid = old.pid
    for _ in range(5):
        old.log.append({"n": 1})
    new.log.append({"n": 1})
    other = connect("*")
    other.identity = other.identity.replace(name="me")
    places: list[EventLog] = []
    other.subscribe = lambda task, first: places.append(task.log)

    def subscribe(first: int) -> EventLog:
        args = {"pid": old.pid, "from": first}
        assert other.call("t/c", {"action": "subscribe", "args": args}).status == "success"
        return places.pop()

    assert [subscribe(first) is new.log for first in (1, 2, 3, 6)] == [True, True, False, False]
    args = {"pid": old.pid, "from": 7}
    answer = other.call("t/c", {"action": "subscribe", "args": args})
    assert answer.info == "the task's next event is number 2"
    place = Reader(old.log, lambda: None)
    place.name = "me"
    assert subscribe(2) is new.log
    old.log.lost(place)
    assert [subscribe(first) is new.log for first in (1, 2)] == [True, False]  # it goes on, or begins
    place.close()
    assert subscribe(2) is new.log


def test_the_rest_of_an_ended_task(connect: Connect, running: list[Any]) -> None:
    running[0].end()
    other = connect("*")
    query = {"action": "subscribe", "args": {"pid": 101}}
    assert other.call("t/c", query).status == "invalid-request"
    query["args"]["from"] = 1  # type: ignore[index]
    assert other.call("t/c", query) == Answer(response="sb/c@101")
    assert connect("output").call("t/c", query).status == "success"
    running[0].owner = "token:somebody"
    assert connect("output").call("t/c", query).status == "invalid-request"
    assert connect("output", "others").call("t/c", query).status == "success"


def test_an_ended_task_is_not_there(client: Any, running: list[Any]) -> None:
    running[0].end()
    assert client.call("t/c", {"action": "stop"}) == Answer(response=["sb/c@102"])


def test_after_a_reload_a_verb_that_is_gone_is_there_for_its_tasks_alone(
    client: Any, supervisor: Any, registry: Any
) -> None:
    client.call("t/c")
    (task,) = supervisor.every
    task.run()
    whole = supervisor.plan
    left = whole.apis[0].replace(commands=whole.apis[0].commands[1:])
    for _ in range(2):
        registry.renew(whole.replace(apis=(left,)))
        assert client.call("t/c", {"action": "subscribe"}) == Answer(response=["sb/c@101"])
        assert client.call("t/c").status == "unknown-verb"
    assert client.call("t/c", {"action": "stop"}) == Answer(response=["sb/c@101"])
    task.end()
    assert client.call("t/c", {"action": "stop"}).status == "unknown-verb"


def test_after_a_reload_the_new_privilege_counts_for_what_runs(
    client: Any, connect: Connect, supervisor: Any, registry: Any
) -> None:
    client.call("t/c")
    (task,) = supervisor.every
    task.run()
    api = supervisor.plan.apis[0]
    guarded = api.commands[0].replace(privilege="urn:new")
    registry.renew(supervisor.plan.replace(apis=(api.replace(commands=(guarded,)),)))
    assert task.privilege == "urn:new"
    assert connect("start", "stop", "others").call("t/c", {"action": "stop"}) == DENIED
    assert connect("urn:new", "urn:new#others").call("t/c", {"action": "stop"}).status == "success"


def test_after_a_reload_the_new_privilege_of_a_sandbox_counts_for_what_exec_started(
    client: Any, connect: Connect, supervisor: Any, registry: Any
) -> None:
    asked = {"sandbox": "sb", "exec": {"cmdpath": "/bin/sleep"}, "uid": "mine"}
    client.call("t/exec", asked)
    (task,) = supervisor.every
    task.run()
    api = supervisor.plan.apis[0]
    guarded = tuple(box.replace(privilege="urn:new") for box in api.sandboxes)
    registry.renew(supervisor.plan.replace(apis=(api.replace(sandboxes=guarded),)))
    assert task.privilege == "urn:new"
    listen = {"action": "subscribe"}
    assert connect("exec", "output", "others").call("t/exec", listen) == Answer(response=[])
    assert connect("exec", "*").call("t/exec", listen) == Answer(response=["sb/mine@101"])
    registry.renew(supervisor.plan.replace(apis=(api.replace(sandboxes=(), commands=()),)))
    assert task.privilege == "urn:new"


def test_after_a_reload_a_new_verb_has_no_part_of_what_exec_started_under_its_name(
    client: Any, connect: Connect, supervisor: Any, registry: Any
) -> None:
    client.call("t/exec", {"sandbox": "sb", "exec": {"cmdpath": "/bin/sleep"}, "uid": "mine"})
    (task,) = supervisor.every
    task.run()
    api = supervisor.plan.apis[0]
    verb = api.commands[0].replace(uid="mine", verb=task.command.verb, privilege="urn:new")
    registry.renew(supervisor.plan.replace(apis=(api.replace(commands=(*api.commands, verb)),)))
    listen = {"action": "subscribe"}
    assert connect("*").call(f"t/{verb.verb}", listen) == Answer(response=[])
    assert task.privilege is None
    assert client.call("t/exec", listen) == Answer(response=["sb/mine@101"])


@pytest.mark.parametrize("verb", ["reload", "sources"])
def test_only_the_control_socket_configures(client: Any, registry: Any, verb: str, connect: Connect) -> None:
    registry.configure = lambda verb, arguments: [verb, arguments]
    assert client.call(f"initspawn/{verb}", 1) == refused("insufficient-scope", "only by the control socket")
    client.door = "control"
    assert client.call(f"initspawn/{verb}", 1) == Answer(response=[verb, 1])
    token = connect("*", "exec", "configure")
    token.door = "control"
    assert token.call(f"initspawn/{verb}", 1) == DENIED
    registry.configure = None
    assert client.call(f"initspawn/{verb}").status == "not-available"
