"""Numbered checks of the verbs and of a task's life, the whole way: file, server, WebSocket client."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from initspawn.control.tokens import write as write_tokens
from initspawn.errors import RequestError
from initspawn.verbs.access import Token, digest
from tests.system.server import PATIENCE, Client, Server, children, serving, wait_for, write
from tests.system.test_serve import config, shell

pytestmark = pytest.mark.needs("userns")

RUNS = 100


def program(uid: str, path: str, *args: Any, **keys: Any) -> dict[str, Any]:
    """A command that runs a program."""
    return {"uid": uid, "exec": {"cmdpath": path, "args": list(args)}, **keys}


ENDLESS = program("endless", "/bin/sleep", "2", timeout=0)
COMMANDS = [
    shell("text", "echo a; echo b >&2; exit 3"),
    program("true", "/bin/true"),
    shell("line", "echo a; sleep 0.1; echo b >&2; sleep 0.1; printf last", encoder="line"),
    shell("sync", "echo a; exit 4", encoder="sync"),
    program("quiet", "/bin/true", encoder="sync"),
    program("echo", "/bin/echo", "[%a%]", "?b?", encoder={"output": "sync", "opts": {"maxlen": 65536}}),
    program("size", "/bin/sh", "-c", 'printf %%s "$$1" | wc -c', "sh", "%a%", encoder="sync"),
    program("much", "/bin/true", *["%a%"] * 100, encoder="sync"),
    program("told", "/bin/sh", "-c", "echo done", "sh", "%a%", encoder="sync", verbose=5),
    program("sleep", "/bin/sleep", "100"),
    program("cat", "/bin/cat", encoder="line", stdin=True),
    shell("sort", "sort -n | head -n 1", encoder="sync", stdin=True),
    program("deaf", "/bin/sleep", "100", stdin=True),
    shell("closes", "exec <&-; echo closed; sleep 100", encoder="line", stdin=True),
    program("two", "/bin/sleep", "100", max=2, queue={"length": 2}),
    program("newest", "/bin/sleep", "100", max=1, queue={"length": 1, "full": "oldest-out"}),
    program("turns", "/bin/true", single=True, queue={"length": 60}),
    shell("tree", "sleep 100 & echo $! ; wait", encoder="line"),
    shell("amid", "printf half >&2; echo ready; exec sleep 100", encoder="line"),
    program("once", "/bin/sleep", "100", once=True),
    program("slow", "/bin/sleep", "100", timeout=1),
    program("brief", "/bin/sleep", "0.2", timeout=5),
    shell("ticks", "while :; do echo tick; sleep 0.05; done", encoder="line"),
    shell("closed", "exec >&- ; sleep 2; exit 5"),
    shell("orphan", "sleep 30 & echo out; exit 7"),
]  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = tmp_path_factory.mktemp("verbs")
    acls = {"timeout": 1, **({"user": "nobody"} if os.geteuid() == 0 else {})}
    limited = {"uid": "limited", "prefix": "limited", "namespace": {}, "acls": acls, "commands": ENDLESS}
    made = config(*COMMANDS, prefix="")
    made["sandboxes"] = [made["sandboxes"], limited]
    with serving(place, write(place, "test.json", made)) as running:
        yield running


def start(client: Client, verb: str, query: Any = None) -> int:
    """Start a command; its pid."""
    reply = client.call(f"test/{verb}", query)
    assert reply["request"]["status"] == "success", reply
    return int(reply["response"]["pid"])


def stop(client: Client, verb: str, **args: Any) -> Any:
    """Stop a command's tasks; the response."""
    return client.call(f"test/{verb}", {"action": "stop", **({"args": args} if args else {})})["response"]


def of(client: Client, pid: int) -> list[dict[str, Any]]:
    """A task's events up to its last, without what all of them say."""
    client.final(pid)
    return [
        {key: value for key, value in event.items() if key not in ("pid", "name", "usage")}
        for event in client.events
        if event["pid"] == pid
    ]


# Starts and encoders.


def test_check_028_events_have_the_name_of_the_verb_with_its_prefix(client: Client) -> None:
    last = client.final(start(client, "limited/endless"))
    assert last["name"] == "test/limited/endless"


def test_check_036_nothing_of_the_output_is_lost(client: Client) -> None:
    for _ in range(RUNS):
        pid = start(client, "text")
        assert of(client, pid) == [
            {"type": "data", "stdout": ["a"], "stderr": ["b"]},
            {"type": "final-event", "status": {"exit": 3}, "reason": "exit"},
        ]
        client.events.clear()


def test_check_037_no_output(client: Client) -> None:
    assert of(client, start(client, "true")) == [
        {"type": "data"},
        {"type": "final-event", "status": {"exit": 0}, "reason": "exit"},
    ]


def test_check_038_lines(client: Client) -> None:
    assert of(client, start(client, "line")) == [
        {"type": "data", "stdout": "a"},
        {"type": "data", "stderr": "b"},
        {"type": "data", "stdout": "last"},
        {"type": "final-event", "status": {"exit": 0}, "reason": "exit"},
    ]


def test_check_039_sync(client: Client) -> None:
    reply = client.call("test/sync")
    pid = reply["response"].pop("pid")
    expected = {"api": "test", "sandbox": "box", "command": "sync", "status": {"exit": 4}, "stdout": ["a"]}
    assert reply["response"].pop("usage")["seconds"] > 0
    assert reply["response"] == {**expected, "reason": "exit"}
    first = {"name": "test/sync", "type": "initial-event", "api": "test", "sandbox": "box", "command": "sync"}
    assert client.events == [{**first, "pid": pid}]


def test_check_040_sync_without_output(client: Client) -> None:
    found = set(client.call("test/quiet")["response"])
    assert found == {"api", "sandbox", "command", "pid", "status", "reason", "usage"}


# Arguments.


@pytest.mark.parametrize("size", [5000, 65534, 131071])
def test_check_080_long_values(client: Client, size: int) -> None:
    assert client.call("test/size", {"a": "x" * size})["response"]["stdout"] == [str(size)]


def test_a_value_longer_than_the_kernel_takes(client: Client) -> None:
    reply = client.call("test/size", {"a": "x" * 131072})
    assert reply["request"]["status"] == "invalid-request"
    assert "131071 bytes" in reply["request"]["info"]


def test_more_arguments_than_the_kernel_takes(client: Client) -> None:
    request = client.call("test/much", {"a": "x" * 131071})["request"]
    assert request["status"] == "internal-error"
    assert "start refused at" in request["info"]
    assert client.call("test/much", {"a": "x"})["response"]["status"] == {"exit": 0}


def test_check_090_verbose(client: Client) -> None:
    told = client.call("test/echo", {"args": {"a": "A"}, "verbose": 3})["response"]
    assert told["stdout"] == ["[A] "]
    pid = told["pid"]
    assert told["stderr"] == [
        f"start(echo)=> box/echo@{pid}",
        "command(echo)=> /bin/echo [A] ''",
        "end(echo)=> exit 0",
    ]
    assert "stderr" not in client.call("test/echo", {"args": {"a": "A"}, "verbose": 7})["response"]
    assert "stderr" not in client.call("test/echo", {"args": {"a": "A"}})["response"]


def test_verbosity_of_the_command(client: Client) -> None:
    told = client.call("test/told", {"a": "A"})["response"]
    assert told["stdout"] == ["done"]
    assert "argument(told)=> 4: %a% became A" in told["stderr"]
    assert "stderr" not in client.call("test/told", {"args": {"a": "A"}, "verbose": 0})["response"]


def test_what_callers_do_is_told(client: Client, server: Server) -> None:
    pid = start(client, "sleep", {"verbose": 2})
    with server.client() as other:
        assert other.call("test/sleep", {"action": "subscribe", "args": {"pid": pid}})["response"]
        assert stop(other, "sleep", pid=pid)
    client.final(pid)
    (data,) = (event for event in client.events if event["type"] == "data")
    task = f"box/sleep@{pid}"
    assert data["stderr"] == [
        f"start(sleep)=> {task}", f"subscribe(sleep)=> {task}", f"stop(sleep)=> {task} signal 2"
    ]  # fmt: skip


def test_a_line_of_its_own(client: Client) -> None:
    """What is told while the command is in the middle of a line begins a new one."""
    pid = start(client, "amid", {"verbose": 2})
    client.until(lambda event: event["pid"] == pid and "stdout" in event)
    stop(client, "amid")
    client.final(pid)
    said = [event["stderr"] for event in client.events if "stderr" in event]
    assert said == [f"start(amid)=> box/amid@{pid}", "half", f"stop(amid)=> box/amid@{pid} signal 2"]


# Control.


def test_check_091_stop_all(client: Client) -> None:
    pids = [start(client, "sleep") for _ in range(2)]
    assert sorted(stop(client, "sleep")) == sorted(f"box/sleep@{pid}" for pid in pids)
    assert [client.final(pid)["status"] for pid in pids] == [{"signal": "Interrupt"}] * 2


def test_check_092_stop_one(client: Client) -> None:
    first, other = (start(client, "sleep") for _ in range(2))
    assert stop(client, "sleep", pid=first, signal="sigterm") == f"box/sleep@{first}"
    assert client.final(first)["status"] == {"signal": "Terminated"}
    assert stop(client, "sleep") == [f"box/sleep@{other}"]
    client.final(other)


def test_check_096_stop_ends_the_children(client: Client) -> None:
    pid = start(client, "tree")
    client.until(lambda event: event["type"] == "data")
    (child,) = wait_for(lambda: children(pid), "the shell's child")
    stop(client, "tree")
    client.final(pid)
    assert not os.path.exists(f"/proc/{child}")


def test_check_097_single(client: Client) -> None:
    pid = start(client, "once")
    again = client.call("test/once")["request"]
    assert (again["status"], again["code"]) == ("bad-state", -14)
    assert "`once` is already running" in again["info"]
    stop(client, "once")
    client.final(pid)
    pid = start(client, "once")
    stop(client, "once")
    client.final(pid)


@pytest.mark.racy
def test_of_a_thousand_starts_at_once_one_runs(server: Server) -> None:
    """From ten clients, over two kinds of doors."""
    with ExitStack() as stack:
        webs = [stack.enter_context(server.client()) for _ in range(9)]
        local = stack.enter_context(server.local())
        numbers = [(web, web.send("test/once")) for _ in range(100) for web in webs]
        posted = {local.post("test/once") for _ in range(100)}
        outcomes = [web.reply(number)["request"]["status"] for web, number in numbers]
        while posted:
            for message in local.receive():
                if isinstance(message, tuple):
                    number, answer = message
                    posted.discard(number)
                    outcomes.append(answer.status if isinstance(answer, RequestError) else "success")
        assert (len(outcomes), outcomes.count("success"), outcomes.count("bad-state")) == (1000, 1, 999)
        with server.local() as other:
            tasks = other.call("initspawn/tasks").response
            assert [task["state"] for task in tasks if task["command"] == "once"].count("running") == 1
            other.call("test/once", {"action": "stop"})
        wait_for(lambda: start_if_free(webs[0]), "its place")


def start_if_free(client: Client) -> bool:
    """Start the one there may be, and end it; False if there is one."""
    reply = client.call("test/once")
    if reply["request"]["status"] != "success":
        return False
    client.call("test/once", {"action": "stop"})
    client.final(reply["response"]["pid"])
    return True


@pytest.mark.racy
def test_never_more_than_may_whoever_starts_and_stops(server: Server) -> None:
    """Starts and stops of many clients, in all orders: each start is answered once, and none is forgotten."""
    most = 2
    with ExitStack() as stack:
        clients = [stack.enter_context(server.client()) for _ in range(5)]
        watcher = stack.enter_context(server.local())
        calls: list[tuple[Client, str]] = []
        for turn in range(30):
            for client in clients:
                calls.append((client, client.send("test/two")))
                if turn % 3 == 2:
                    client.send("test/two", {"action": "stop", "args": {"signal": 9}})
            tasks = watcher.call("initspawn/tasks").response
            states = [task["state"] for task in tasks if task["command"] == "two"]
            states = [state for state in states if state != "ended"]
            assert len([state for state in states if state != "queued"]) <= most
            assert states.count("queued") <= most
        for client in clients:
            client.call("test/ping")

        def over() -> bool:
            watcher.call("test/two", {"action": "stop", "args": {"signal": 9}})
            tasks = watcher.call("initspawn/tasks").response
            return all(task["state"] == "ended" for task in tasks if task["command"] == "two")

        wait_for(over, "the end of all")
        answers = [client.reply(number)["request"] for client, number in calls]
    assert {answer["status"] for answer in answers} <= {
        "success", "bad-state", "not-available", "internal-error",
    }  # fmt: skip
    for answer in answers:  # a stop during a start
        if answer["status"] == "internal-error":
            assert answer["info"] == "start refused at 'start': it was stopped before it ran"


def waiting(client: Client, verb: str) -> list[int]:
    """The numbers in the queue of a command."""
    records = client.call("initspawn/tasks")["response"]
    assert all(record["id"] == f"box/{verb}#{record['queued']}" for record in records if "queued" in record)
    return [record["queued"] for record in records if record["state"] == "queued"]


def test_so_many_at_once_and_so_many_in_the_queue(client: Client) -> None:
    first, second = start(client, "two"), start(client, "two")
    calls = [client.send("test/two") for _ in range(2)]
    again = client.call("test/two")["request"]
    assert (again["status"], again["code"]) == ("bad-state", -14)
    assert again["info"] == "`two` is running 2 times already, and 2 wait for their turn"
    one, two = wait_for(lambda: len(waiting(client, "two")) == 2 and waiting(client, "two"), "both")
    # One is stopped as it waits, the other when its turn has come.
    args: dict[str, Any] = {"queued": two}
    assert client.call("test/two", {"action": "stop", "args": args})["response"] == f"box/two#{two}"
    assert client.reply(calls[1])["request"]["info"] == "it was stopped before its turn"
    assert client.call("test/two", {"action": "stop", "args": args})["request"]["status"] == "invalid-request"
    assert waiting(client, "two") == [one]
    client.call("test/two", {"action": "stop", "args": {"pid": first}})
    third = client.reply(calls[0])["response"]["pid"]
    assert waiting(client, "two") == []
    # A stop of all takes those that wait along.
    call = client.send("test/two")
    (number,) = wait_for(lambda: waiting(client, "two"), "it")
    ids = client.call("test/two", {"action": "stop"})["response"]
    assert ids == [f"box/two@{second}", f"box/two@{third}", f"box/two#{number}"]
    assert client.reply(call)["request"]["status"] == "not-available"
    for pid in (first, second, third):
        client.final(pid)


def test_a_full_queue_lets_the_oldest_go(client: Client) -> None:
    pid = start(client, "newest")
    older = client.send("test/newest")
    newer = client.send("test/newest")
    lost = client.reply(older)["request"]
    assert (lost["status"], lost["info"]) == ("bad-state", "a later start has taken its place in the queue")
    stop(client, "newest")
    client.final(pid)
    assert client.reply(newer)["request"]["status"] == "not-available"


def test_turns_come_in_order_and_one_at_a_time(client: Client) -> None:
    calls = [client.send("test/turns") for _ in range(50)]
    pids = [client.reply(call)["response"]["pid"] for call in calls]
    client.final(pids[-1])
    told = [event["pid"] for event in client.events if event["type"] == "final-event"]
    assert told == pids


# Input.


def give(client: Client, verb: str, **args: Any) -> dict[str, Any]:
    return client.call(f"test/{verb}", {"action": "input", "args": args})


def test_input_and_its_end(client: Client) -> None:
    pid = start(client, "cat")
    assert give(client, "cat", pid=pid, data="one\ntwo\n")["response"] == {"taken": 8}
    assert client.until(lambda event: event.get("stdout") == "two")
    assert give(client, "cat", pid=pid, base64="w6kK", eof=True)["response"] == {"taken": 3}
    assert client.final(pid)["status"] == {"exit": 0}
    assert [event["stdout"] for event in client.events if event["type"] == "data"] == ["one", "two", "é"]
    assert give(client, "cat", pid=pid, data="more")["request"]["info"] == "invalid pid"


def test_much_input_waits_until_it_is_read(client: Client) -> None:
    pid = start(client, "cat")
    lines = "".join(f"line {number}\n" for number in range(50_000))
    assert give(client, "cat", pid=pid, data=lines, eof=True)["response"] == {"taken": len(lines)}
    client.final(pid)
    told = [event["stdout"] for event in client.events if event["type"] == "data"]
    assert told == lines.splitlines()


def test_input_that_nobody_reads(client: Client) -> None:
    pid = start(client, "deaf")
    number = client.send("test/deaf", {"action": "input", "args": {"pid": pid, "data": "x" * 500_000}})
    again = give(client, "deaf", pid=pid, data="x")["request"]
    assert (again["status"], again["info"]) == ("bad-state", "what was sent before is not taken yet")
    assert client.call("test/ping")["request"]["status"] == "success"
    stop(client, "deaf")
    reply = client.reply(number)
    assert reply["request"]["status"] == "bad-state"
    assert 0 < reply["response"]["taken"] < 500_000
    client.final(pid)


def test_input_that_the_command_closes(client: Client) -> None:
    pid = start(client, "closes")
    client.until(lambda event: event.get("stdout") == "closed")
    assert give(client, "closes", pid=pid, data="x")["request"]["status"] == "bad-state"
    stop(client, "closes")
    client.final(pid)


def test_one_writes_and_many_read(server: Server, client: Client) -> None:
    pid = start(client, "cat")
    give(client, "cat", pid=pid, data="mine\n")
    with server.client() as other:
        other.call("test/cat", {"action": "subscribe", "args": {"pid": pid}})
        refusal = give(other, "cat", pid=pid, data="no\n")["request"]
        assert refusal["status"] == "bad-state"
        assert refusal["info"] == "another client writes to it: token:start"
        assert give(client, "cat", pid=pid, data="", attach=True)["request"]["status"] == "success"
        give(client, "cat", pid=pid, detach=True)
        assert give(other, "cat", pid=pid, data="yours\n")["response"] == {"taken": 6}
        for each in (client, other):
            each.until(lambda event: event.get("stdout") == "yours")
        assert give(client, "cat", pid=pid, data="no\n")["request"]["status"] == "bad-state"
    # Who has left writes no more.
    wait_for(lambda: give(client, "cat", pid=pid, eof=True)["request"]["status"] == "success", "the place")
    client.final(pid)


def test_who_may_takes_over(server: Server, client: Client) -> None:
    """From a client of the same name, or with the right to touch what is others'."""
    pid = start(client, "deaf")
    number = client.send("test/deaf", {"action": "input", "args": {"pid": pid, "data": "x" * 500_000}})
    assert client.call("test/ping")["request"]["status"] == "success"
    with server.client() as other, server.local() as local:
        assert give(other, "deaf", pid=pid)["request"]["status"] == "bad-state"
        assert give(other, "deaf", pid=pid, attach=True)["response"] == {"taken": 0}
        reply = client.reply(number)  # it waited, and is relieved
        assert reply["request"]["status"] == "bad-state"
        assert 0 < reply["response"]["taken"] < 500_000
        query = {"action": "input", "args": {"pid": pid}}
        with pytest.raises(RequestError, match="another client writes to it: token:start"):
            local.call("test/deaf", query)
        query["args"]["attach"] = True
        local.call("test/deaf", query)
        info = give(other, "deaf", pid=pid, attach=False)["request"]["info"]
        assert info == f"another client writes to it: user:{os.geteuid()}"
    stop(client, "deaf")
    client.final(pid)


def new_token(server: Server, name: str, *scopes: str) -> str:
    """A token that a running server knows."""
    secret = secrets.token_hex()
    made = Token(name=name, digest=digest(secret), scopes=frozenset((*scopes, "see")))
    write_tokens(str(server.run_dir / "tokens"), [made])
    with server.client(f"{server.open_url}?token={secret}") as client:
        wait_for(lambda: client.call("test/ping")["request"]["status"] == "success", "the token")
    return secret


def test_who_may_not_does_not_take_over(server: Server, client: Client) -> None:
    writer = new_token(server, "writer", "start", "input", "output")
    with server.client(f"{server.open_url}?token={writer}") as weak, server.local() as local:
        pid = start(weak, "cat")
        local.call("test/cat", {"action": "input", "args": {"pid": pid}})
        refusal = give(weak, "cat", pid=pid, attach=True)["request"]
        assert (refusal["status"], refusal["info"]) == (
            "bad-state", f"another client writes to it: user:{os.geteuid()}",
        )  # fmt: skip
        local.call("test/cat", {"action": "input", "args": {"pid": pid, "detach": True}})
        assert give(weak, "cat", pid=pid, eof=True)["request"]["status"] == "success"
        weak.final(pid)


def test_input_for_a_command_that_reads_none(client: Client) -> None:
    pid = start(client, "sleep")
    answer = give(client, "sleep", pid=pid, data="x")["request"]
    assert answer["status"] == "bad-state"
    assert "does not say `stdin`" in answer["info"]
    stop(client, "sleep")
    client.final(pid)


@pytest.mark.parametrize("verb", ["cat", "sort"])
def test_the_command_line_hands_its_input_on(server: Server, verb: str) -> None:
    """Also to a command whose reply comes at its end."""
    lines = "".join(f"{number}\n" for number in range(100_000, 140_000))
    command = [sys.executable, "-m", "initspawn", "call", "--socket", str(server.run_dir / "control")]
    done = subprocess.run(
        [*command, f"test/{verb}", "--input"], input=lines, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (lines if verb == "cat" else "100000\n")


def test_the_command_line_and_a_command_that_reads_none(server: Server) -> None:
    command = [sys.executable, "-m", "initspawn", "call", "--socket", str(server.run_dir / "control")]
    done = subprocess.run(
        [*command, "test/brief", "--input"], input="x", capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert "does not say `stdin`" in done.stderr
    command += ["test/cat", "--input", "--no-follow"]
    refused = subprocess.run(command, capture_output=True, timeout=60)
    assert refused.returncode == 100


# Time.


def test_check_098_timeout(client: Client) -> None:
    began = time.monotonic()
    pid = start(client, "slow")
    assert client.final(pid)["status"] == {"signal": "Killed", "info": "timeout"}
    assert 1 <= time.monotonic() - began < 10


def test_check_099_an_end_before_the_time(client: Client) -> None:
    assert client.final(start(client, "brief"))["status"] == {"exit": 0}
    assert client.call("test/ping")["response"].startswith("pong=")


def test_check_100_no_time_limit_of_the_sandbox(client: Client) -> None:
    assert client.final(start(client, "limited/endless"))["status"] == {"exit": 0}


# Other clients.


def test_check_101_another_connection_listens(client: Client, server: Server) -> None:
    pid = start(client, "ticks")
    task = f"box/ticks@{pid}"
    with server.client() as other:
        assert other.call("test/ticks", {"action": "subscribe"})["response"] == [task]
        other.until(lambda event: event["type"] == "data" and event["pid"] == pid)
        assert other.call("test/ticks", {"action": "unsubscribe"})["response"] == [task]
        other.events.clear()
        for _ in range(3):
            client.receive()
        other.call("test/ping")
        assert other.events == []
    stop(client, "ticks")
    client.final(pid)


def test_check_102_the_starter_leaves(client: Client, server: Server) -> None:
    with server.client() as starter:
        pid = start(starter, "sleep")
    assert client.call("test/sleep", {"action": "subscribe"})["response"] == [f"box/sleep@{pid}"]
    assert stop(client, "sleep") == [f"box/sleep@{pid}"]
    assert client.final(pid)["status"] == {"signal": "Interrupt"}


def test_check_103_the_server_ends(tmp_path: Path) -> None:
    box = config(shell("tree", "trap '' TERM INT; setsid sleep 100 & echo up; wait", encoder="line"))
    with serving(tmp_path, write(tmp_path, "test.json", box)) as server, server.client() as client:
        pid = start(client, "tree")
        client.until(lambda event: event["type"] == "data")
        family = [pid, *wait_for(lambda: children(pid), "the command's child"), *server.children()]
        assert server.stop()[0] == 0
    assert not [member for member in family if os.path.exists(f"/proc/{member}")]


# Streams and ends.


def test_check_104_closed_output_blocks_nobody(client: Client) -> None:
    pid = start(client, "closed")
    began = time.monotonic()
    assert client.call("test/ping")["response"].startswith("pong=")
    assert time.monotonic() - began < 1
    assert client.final(pid)["status"] == {"exit": 5}


def test_check_105_a_grandchild_holds_the_output(client: Client) -> None:
    began = time.monotonic()
    events = of(client, start(client, "orphan"))
    assert events == [
        {"type": "data", "stdout": ["out"]},
        {"type": "final-event", "status": {"exit": 7}, "reason": "exit"},
    ]
    assert time.monotonic() - began < 10


def test_check_106_start_over_http(server: Server) -> None:
    address = urlsplit(server.page)
    assert address.hostname is not None
    connection = HTTPConnection(address.hostname, address.port, timeout=PATIENCE)
    head = {"Authorization": f"Bearer {server.token}", "Content-Type": "application/json"}
    for verb, more in (("sync", {"status": {"exit": 4}, "reason": "exit", "stdout": ["a"]}), ("true", {})):
        connection.request("POST", f"/api/test/{verb}", "{}", head)
        answer = connection.getresponse()
        reply = json.load(answer)
        assert (answer.status, reply["request"]["status"]) == (200, "success")
        base = {"api": "test", "sandbox": "box", "command": verb, "pid": reply["response"]["pid"]}
        if more:
            assert reply["response"].pop("usage")["seconds"] > 0
        assert reply["response"] == {**base, **more}
    connection.close()


def test_check_107_what_cannot_be_executed(tmp_path: Path) -> None:
    """A directory is refused with the file; what becomes one later, at the start and with the reason."""
    place = tmp_path / "bin"
    place.mkdir()
    tool = place / "tool"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    for path in (*tmp_path.parents[:3], tmp_path, place):  # pytest-xdist has one more
        path.chmod(path.stat().st_mode | 0o055)
    file = write(tmp_path, "test.json", config(program("tool", str(tool))))
    with serving(tmp_path, file) as server, server.client() as client:
        client.final(start(client, "tool"))
        tool.unlink()
        tool.mkdir()
        reply = client.call("test/tool")
        assert reply["request"]["status"] == "internal-error"
        assert "Permission denied (EACCES)" in reply["request"]["info"]
        assert "response" not in reply
        assert client.call("initspawn/tasks")["response"][-1]["state"] == "ended"
