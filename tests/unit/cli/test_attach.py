"""`attach --start`: what it has started does not outlive a refusal."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from initspawn.cli.attach import Session
from initspawn.control.client import Client, ErrorReply, Reply
from initspawn.errors import RequestError

INFO = {"groups": [{"uid": "box", "verbs": [{"verb": "c", "input": "terminal"}, {"verb": "plain"}]}]}


class Server(Client):
    """Answers every call but one action's."""

    def __init__(self, refused: str) -> None:
        self.refused = refused
        self.calls: list[tuple[str, Any]] = []

    def call(self, procedure: str, arguments: Any = None, token: str | None = None) -> Reply:
        self.calls.append((procedure, arguments))
        if procedure.endswith("/info"):
            return Reply(response=INFO)
        if arguments["action"] == self.refused:
            raise ErrorReply("forbidden", "not you", -1, None)
        return Reply(response={"pid": 42})


class Screen:
    """A terminal of a size."""

    def size(self) -> tuple[int, int]:
        return 24, 80


def begin(server: Server, procedure: str, *, start: bool = True) -> None:
    arguments = argparse.Namespace(start=start, take=False, pid=None, token=None)
    Session(server, procedure, Screen()).find(arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("refused", ["input", "resize"])
def test_what_was_started_is_stopped_when_it_cannot_be_attached_to(refused: str) -> None:
    server = Server(refused)
    with pytest.raises(RequestError, match="not you"):
        begin(server, "t/c")
    assert server.calls[-1] == ("t/c", {"action": "stop", "args": {"pid": 42}})


def test_what_can_be_attached_to_goes_on() -> None:
    server = Server("")
    begin(server, "t/c")
    assert [arguments and arguments["action"] for _, arguments in server.calls] == [
        None, "start", "input", "resize",
    ]  # fmt: skip


def test_what_has_no_terminal_is_not_started() -> None:
    server = Server("")
    with pytest.raises(RequestError, match="it has no terminal"):
        begin(server, "t/plain")
    assert server.calls == [("t/info", None)]
