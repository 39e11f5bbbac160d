"""`exec`: who may, what is understood, and what is started of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initspawn.config.compile import compile_raw
from initspawn.plan import Plan
from initspawn.verbs.access import NOBODY, Identity
from initspawn.verbs.answer import Answer
from initspawn.verbs.registry import Registry
from tests.unit.verbs.conftest import LOCAL, Client, FakeSupervisor, FakeTask

DENIED = Answer(status="insufficient-scope")
ECHO = {"sandbox": "SB", "exec": {"cmdpath": "/bin/echo", "args": ["%a%", "$HOME", 1, {"x": [1]}]}}


class Served:
    """Two sandboxes, one of them with a privilege, and a client."""

    def __init__(self, *scopes: str, identity: Identity | None = None) -> None:
        raw = {
            "metadata": {"uid": "u", "api": "t"},
            "sandboxes": [
                {"uid": "SB", "prefix": "", "verbose": 1, "acls": {"timeout": 5}, "commands": []},
                {
                    "uid": "closed",
                    "privilege": "urn:p",
                    "commands": {"uid": "c", "exec": {"cmdpath": "/bin/true"}},
                },
            ],
        }
        api = compile_raw(raw, file="test", user=1000, group=1000, environ={})
        self.supervisor = FakeSupervisor(Plan(user=1000, group=1000, apis=(api,)))
        token = Identity(kind="token", scopes=frozenset(scopes)) if scopes else LOCAL
        self.client = Client(Registry(self.supervisor), identity or token)  # type: ignore[arg-type]

    def call(self, query: Any) -> Answer | None:
        return self.client.call("t/exec", query)

    def starts(self, query: Any) -> FakeTask:
        """The task that a query starts."""
        assert self.call(query) is None, "refused"
        return self.supervisor.every[-1]

    def refuses(self, query: Any) -> str:
        """What is said of a query that starts nothing."""
        answer = self.call(query)
        assert answer is not None
        assert answer.status == "invalid-request"
        assert self.supervisor.every == []
        return answer.info or ""


# Who may.


@pytest.mark.parametrize(
    ("scopes", "may"),
    [
        (("exec",), True),
        (("exec", "*"), True),
        (("*",), False),
        (("start", "stop", "see", "output", "records"), False),
        (("urn:p",), False),
    ],
)
def test_it_has_to_be_granted_by_its_name(scopes: tuple[str, ...], may: bool) -> None:
    served = Served(*scopes)
    assert served.call(ECHO) == (None if may else DENIED)
    assert len(served.supervisor.every) == may


def test_nobody_may() -> None:
    assert Served(identity=NOBODY).call(ECHO) == DENIED


def test_who_may_not_is_not_told_what_is_wrong() -> None:
    for query in (None, {}, {"sandbox": "nope"}, {"action": "fly"}, {"action": "stop"}):
        assert Served("*").call(query) == DENIED


@pytest.mark.parametrize(
    ("scopes", "may"), [(("exec",), False), (("exec", "urn:p"), True), (("exec", "*"), True)]
)
def test_the_sandboxes_privilege_counts_too(scopes: tuple[str, ...], may: bool) -> None:
    assert Served(*scopes).call({**ECHO, "sandbox": "closed"}) == (None if may else DENIED)


def test_only_apis_of_files_have_it() -> None:
    client = Served().client
    assert client.call("initspawn/exec", ECHO) == Answer(status="unknown-verb")
    assert client.call("monitor/exec", ECHO) == Answer(status="unknown-verb")
    assert client.call("nope/exec", ECHO) == Answer(status="unknown-api")


# What is started.


def test_check_138_exec() -> None:
    served = Served()
    assert served.refuses({"sandbox": "nope", "exec": {"cmdpath": "/bin/true"}}) == "invalid sandbox uid"
    task = served.starts({**ECHO, "encoder": "sync"})
    assert (task.command.uid, task.command.verb, task.sandbox.uid) == ("dynamic", "dynamic", "SB")
    assert task.command.encoder == "sync"
    assert task.argv == ("/bin/echo", "%a%", "$HOME", "1", '{"x": [1]}')  # nothing is replaced


@pytest.mark.parametrize("name", ["sb", "SB", "Sb", "CLOSED"])
def test_sandboxes_in_any_case(name: str) -> None:
    assert Served().starts({**ECHO, "sandbox": name}).sandbox.uid.lower() == name.lower()


def test_a_name_of_its_own() -> None:
    task = Served().starts({**ECHO, "sandbox": "closed", "uid": "mine"})
    assert (task.command.uid, task.command.verb) == ("mine", "closed/mine")


@pytest.mark.parametrize(
    ("args", "items"), [(None, ()), ([], ()), ("one", ("one",)), (5, ("5",)), ({"a": 1}, ('{"a": 1}',))]
)
def test_arguments(args: Any, items: tuple[str, ...]) -> None:
    task = Served().starts({"sandbox": "SB", "exec": {"cmdpath": "/bin/true", "args": args}})
    assert task.argv[1:] == items


@pytest.mark.parametrize(
    ("sandbox", "asked", "limit"),
    [("SB", 0, 5), ("SB", 3, 3), ("SB", 9, 5), ("SB", "3", 3), ("closed", 0, 0), ("closed", 9, 9)],
)
def test_the_sandboxes_time_limit_holds(sandbox: str, asked: Any, limit: float) -> None:
    task = Served().starts({**ECHO, "sandbox": sandbox, "timeout": asked})
    assert task.command.timeout == limit


def test_verbosity() -> None:
    served = Served()
    assert served.starts({**ECHO, "verbose": 3}).verbose == 3
    task = served.starts(ECHO)
    assert (task.verbose, task.command.verbose) == (None, 1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"exec": None}, "`exec` must be"),
        ({"exec": "ls"}, "`exec` must be"),
        ({"exec": {}}, "`exec` must be"),
        ({"exec": {"cmdpath": "echo"}}, "absolute"),
        ({"exec": {"cmdpath": 5}}, "`exec` must be"),
        ({"exec": {"cmdpath": "/x\0"}}, "NUL"),
        ({"exec": {"cmdpath": "/\ud800"}}, "not valid Unicode"),
        ({"exec": {"cmdpath": "/x", "env": {}}}, "`cmdpath` and `args` only"),
        ({"exec": {"cmdpath": "/x", "args": [None]}}, "may not be null"),
        ({"exec": {"cmdpath": "/x", "args": ["a\0"]}}, "NUL"),
        ({"exec": {"cmdpath": "/x", "args": ["x" * 131072]}}, "131071 bytes"),
        ({"uid": "a/b"}, "`uid` must be a name"),
        ({"uid": ".."}, "`uid` must be a name"),
        ({"uid": ""}, "`uid` must be a name"),
        ({"uid": "x" * 65}, "`uid` must be a name"),
        ({"uid": 5}, "`uid` must be a name"),
        ({"uid": "c", "sandbox": "closed"}, "`closed/c` is a verb already"),
        ({"timeout": -1}, "`timeout` must be"),
        ({"timeout": 1.5}, "`timeout` must be"),
        ({"timeout": 10**12}, "`timeout` must be"),
        ({"encoder": "log"}, "`encoder` must be one of"),
        ({"encoder": {"output": "log", "opts": {"stdout": "/etc/passwd"}}}, "`encoder` must be one of"),
        ({"encoder": {"output": "text", "plugin": "p"}}, "`encoder` must be a name"),
        ({"encoder": {"output": "text", "opts": {"maxlen": 0}}}, "`maxlen`"),
        ({"encoder": {"output": "raw", "opts": {"maxlem": 1}}}, "raw has no option 'maxlem'; it has maxlen,"),
        ({"encoder": {"output": "line", "opts": {"base64": True}}}, "line has no option 'base64'; it has"),
        ({"encoder": 5}, "`encoder` must be one of"),
        ({"sandbox": 5}, "invalid sandbox uid"),
        ({"more": 1}, "unknown key 'more'"),
        ({"action": "fly"}, "invalid action"),
    ],
)
def test_refused(changes: dict[str, Any], said: str) -> None:
    assert said in Served().refuses({**ECHO, **changes})


@pytest.mark.parametrize("query", [None, {}, [], "text", {"sandbox": "SB"}, {"exec": ECHO["exec"]}])
def test_something_is_missing(query: Any) -> None:
    Served().refuses(query)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("/bin/true"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["cmdpath", "args", "output", "opts", "maxlen"]), inner, max_size=3)
    ),
)


@given(
    st.dictionaries(st.sampled_from(["action", "exec", "uid", "timeout", "verbose", "encoder"]), json_values)
)
def test_whatever_is_sent_is_started_or_refused(changes: dict[str, Any]) -> None:
    served = Served()
    answer = served.call({**ECHO, **changes})
    if answer is not None:
        assert answer.status == "invalid-request"
        assert served.supervisor.every == []


# Control of what was started so.


def test_stopping() -> None:
    served = Served()
    tasks = [served.starts(ECHO), served.starts({**ECHO, "uid": "mine"})]
    assert served.client.call("t/closed/c") is None
    for task in served.supervisor.every:
        task.run()
    assert served.call({"action": "stop"}) == Answer(response=["SB/dynamic@101", "SB/mine@102"])
    assert served.supervisor.sent == [("stop", 101, 2), ("stop", 102, 2)]
    one = {"action": "stop", "args": {"pid": tasks[1].pid, "signal": "SIGTERM"}}
    assert served.call(one) == Answer(response="SB/mine@102")
    other = {"action": "stop", "args": {"pid": 103}}
    assert served.call(other) == Answer(status="invalid-request", info="invalid pid")


def test_what_runs_in_a_sandbox_that_is_not_open_to_the_caller() -> None:
    served = Served()
    served.starts({**ECHO, "sandbox": "closed"}).run()
    served.client.identity = Identity(kind="token", scopes=frozenset(("exec",)))
    assert served.call({"action": "stop"}) == Answer(response=[])
