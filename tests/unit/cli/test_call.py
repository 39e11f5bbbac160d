"""`initspawn call` against a socket that answers from a script."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from initspawn.boot import supervise
from initspawn.cli import call, connect, exits
from initspawn.cli.main import main

STARTED = {"api": "a", "sandbox": "s", "command": "c", "pid": 42}
OK = {"status": "success", "code": 0}


def event(pid: int = 42, kind: str = "data", **data: Any) -> dict[str, Any]:
    return {"event": "a/v", "task": f"s/c@{pid}", "seq": 1, "data": {"type": kind, "pid": pid, **data}}


@pytest.fixture
def run(supervisor: Any) -> Callable[..., tuple[int, list[dict[str, Any]]]]:
    """run(messages, words...): the exit code, and the calls the socket got."""

    def run(messages: list[dict[str, Any]], *words: str) -> tuple[int, list[dict[str, Any]]]:
        answering = supervisor(lambda _: messages)
        code = main(["call", *words, "--socket", answering.path, *([] if "--timeout" in words else TIMEOUT)])
        return code, answering.calls

    return run


TIMEOUT = ["--timeout", "10"]


def test_a_command_is_followed_to_its_end(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    messages = [
        {**OK, "response": STARTED},
        event(stdout="one"),
        event(pid=41, stdout="another's"),
        event(stderr="two"),
        event(pid=41, kind="final-event", status={"exit": 9}),
        event(kind="final-event", status={"exit": 3}),
    ]
    code, calls = run(messages, "a/v", "name=value", "n:=1")
    assert code == 3
    assert capsys.readouterr() == ("one\n", "two\n")
    assert [(made["call"], made["args"]) for made in calls] == [("a/v", {"name": "value", "n": 1})]


def test_a_synchronous_reply_is_printed(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    response = {**STARTED, "status": {"signal": "Terminated"}, "stdout": ["a", "b"]}
    assert run([event(kind="initial-event"), {**OK, "response": response}], "a/v")[0] == 143
    captured = capsys.readouterr()
    assert captured.out == "a\nb\n"
    assert "Terminated" in captured.err


def test_without_following_the_reply_is_all(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([{**OK, "response": STARTED}], "a/v", "--no-follow")[0] == 0
    assert json.loads(capsys.readouterr().out) == STARTED


def test_json_is_one_message_a_line(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    final = event(kind="final-event", status={"exit": 2})
    assert run([{**OK, "response": STARTED}, event(stdout="x"), final], "a/v", "--json")[0] == 2
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0]["response"] == STARTED
    assert lines[1:] == [event(stdout="x"), final]


def test_a_plain_text_is_printed_plainly(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([{**OK, "response": "pong=1"}], "a/ping")[0] == 0
    assert capsys.readouterr().out == "pong=1\n"


def test_subscriptions_are_followed_to_the_last_end(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    messages = [
        {**OK, "response": ["s/c@1", "s/c@2"]},
        event(pid=1, kind="final-event", status={"exit": 0}),
        event(pid=2, stdout="late"),
        event(pid=2, kind="final-event", status={"exit": 5}),
    ]
    code, calls = run(messages, "a/v", "--action", "subscribe")
    assert code == 5
    assert calls[0]["args"] == {"action": "subscribe"}
    assert capsys.readouterr().out == "late\n"


def test_nobody_to_subscribe_to(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([{**OK, "response": []}], "a/v", "--action", "subscribe")[0] == 0
    assert capsys.readouterr().out == "[]\n"


@pytest.mark.parametrize(
    ("status", "code", "info", "exit_code", "said"),
    [
        ("insufficient-scope", -9, None, 126, "$INITSPAWN_TOKEN"),
        ("unknown-verb", -4, None, 127, "a/info"),
        ("internal-error", -1, "start refused at 'user': x", 125, "start refused"),
        ("internal-error", -1, "broken", 111, "broken"),
        ("bad-state", -14, "only once", 125, "only once"),
        ("invalid-request", -12, "argument `x` is missing", 100, "`x` is missing"),
        ("invalid-request", -12, None, 100, "`pid`, `signal`, `from`, `queued`"),
    ],
)
def test_an_error_reply(
    run: Any,
    capsys: pytest.CaptureFixture[str],
    status: str,
    code: int,
    info: str | None,
    exit_code: int,
    said: str,
) -> None:
    message: dict[str, Any] = {"status": status, "code": code, **({"info": info} if info else {})}
    assert run([message], "a/v")[0] == exit_code
    assert said in capsys.readouterr().err


def test_a_time_limit_leaves_the_command_running(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([{**OK, "response": STARTED}], "a/v", "--timeout", "0.1")[0] == exits.TIME_LIMIT
    stop = "initspawn call a/v --action stop pid=42"
    said = f"initspawn: a/v is still running after 0.1 s, as pid 42; to stop it: {stop}\n"
    assert capsys.readouterr().err == said


def test_no_answer_is_another_end_of_time(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([], "a/v", "--timeout", "0.1")[0] == exits.TIME_LIMIT
    assert capsys.readouterr().err == "initspawn: timeout: no answer in time\n"


@pytest.mark.parametrize("command", ["call", "attach"])
def test_a_verb_without_its_api(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "list"]) == exits.USAGE
    assert capsys.readouterr().err == "initspawn: 'list' is no full name of a verb: write API/VERB\n"


def test_an_interrupt_leaves_the_command_running(
    run: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(call, "show_event", interrupted)
    assert run([{**OK, "response": STARTED}, event(stdout="x")], "a/v")[0] == 130
    assert "--action stop pid=42" in capsys.readouterr().err


def test_the_token_comes_from_the_environment_or_the_command_line(
    run: Any, monkeypatch: pytest.MonkeyPatch, supervisor: Any
) -> None:
    monkeypatch.setenv("INITSPAWN_TOKEN", "secret")
    assert run([OK], "a/v")[1][0]["token"] == "secret"


def test_no_supervisor(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["call", "a/v", "--run-dir", str(tmp_path)]) == exits.SYSTEM
    assert "initspawn serve" in capsys.readouterr().err


def test_a_strangers_directory_is_not_trusted(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = os.stat(tmp_path).st_uid
    if owner == 0:
        os.chown(tmp_path, 12345, 12345)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert main(["call", "a/v", "--run-dir", str(tmp_path)]) == exits.SYSTEM
    assert "belongs to user" in capsys.readouterr().err


def test_the_socket_has_the_name_the_supervisor_gives_it() -> None:
    assert connect.CONTROL == supervise.CONTROL


@pytest.mark.parametrize(
    ("words", "action", "query"),
    [
        ([], None, None),
        (["a=1"], None, {"a": "1"}),
        ([], "stop", {"action": "stop"}),
        (["pid=1"], "stop", {"action": "stop", "args": {"pid": "1"}}),
        (["action=1"], None, {"action": "start", "args": {"action": "1"}}),
        (["verbose=1", "a=2"], None, {"action": "start", "args": {"verbose": "1", "a": "2"}}),
        (['{"action": "stop"}'], None, {"action": "stop"}),
    ],
)
def test_what_is_sent(words: list[str], action: str | None, query: Any) -> None:
    assert call.make_query(words, action) == query


def test_verbosity_is_sent() -> None:
    assert call.make_query([], None, 3) == {"action": "start", "verbose": 3}
    assert call.make_query(["a=1"], "stop", 0) == {"action": "stop", "args": {"a": "1"}, "verbose": 0}
