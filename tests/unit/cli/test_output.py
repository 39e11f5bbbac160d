"""Arguments in, output and exit codes out."""

from __future__ import annotations

import io
import signal
from typing import Any

import pytest

from initspawn.cli import exits, output
from initspawn.cli.arguments import parse_arguments


class Terminal(io.StringIO):
    """Where control sequences would be obeyed."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("words", "values"),
    [
        ([], None),
        (["a=1", "b="], {"a": "1", "b": ""}),
        (["a=b=c"], {"a": "b=c"}),
        (["n:=1", "l:=[1, null]"], {"n": 1, "l": [1, None]}),
        (["a:b=1"], {"a:b": "1"}),
        (['{"a": "x=y"}'], {"a": "x=y"}),
        (["[1]"], [1]),
        (["12"], 12),
        (["true"], True),
        (['"text"'], "text"),
    ],
)
def test_arguments(words: list[str], values: Any) -> None:
    assert parse_arguments(words) == values


@pytest.mark.parametrize("words", [["a"], ["=1"], [":=1"], ["{"], ["a:=x"], ["a=1", "a=2"], ["{}", "a=1"]])
def test_wrong_arguments(words: list[str]) -> None:
    with pytest.raises(exits.UsageError):
        parse_arguments(words)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ({"exit": 0}, 0),
        ({"exit": 7}, 7),
        ({"signal": "Terminated"}, 143),
        ({"signal": "Bad system call"}, 128 + signal.SIGSYS),
        ({"signal": "64"}, 192),
        ({"signal": "Killed", "info": "timeout"}, 124),
        ({"signal": "no such"}, 111),
        ({"unknown": 255}, 111),
        (None, 111),
    ],
)
def test_the_code_of_an_end(status: Any, code: int) -> None:
    assert exits.of_status(status) == code


@pytest.mark.parametrize(
    ("data", "out", "err", "code"),
    [
        ({"type": "data", "pid": 1, "stdout": ["a", "", "b"], "stderr": ["c"]}, "a\n\nb\n", "c\n", None),
        ({"type": "data", "pid": 1, "stdout": "a"}, "a\n", "", None),
        ({"type": "data", "pid": 1, "stdout": ""}, "\n", "", None),
        ({"type": "data", "pid": 1, "stdout": "ends itself\n"}, "ends itself\n", "", None),
        ({"type": "data", "pid": 1, "stdout": {"a": [1]}}, '{"a": [1]}\n', "", None),
        ({"type": "data", "pid": 1, "stdout": [1, "x"]}, '[1, "x"]\n', "", None),
        ({"type": "data", "pid": 1}, "", "", None),
        ({"type": "initial-event", "pid": 1, "api": "a"}, "", "", None),
        ({"type": "dropped-event", "count": 3}, "", "initspawn: 3 events were lost\n", None),
        (
            {"type": "data", "pid": 1, "stdout": ["..."], "stdout-overflow": True},
            "...\n", "initspawn: the rest of stdout was discarded\n", None,
        ),
        ({"type": "final-event", "pid": 1, "status": {"exit": 3}}, "", "", 3),
        (
            {"type": "final-event", "pid": 1, "status": {"signal": "Killed", "info": "timeout"}},
            "", "initspawn: the command was ended by signal: Killed: its time was over\n", 124,
        ),
    ],
)  # fmt: skip
def test_an_event_is_printed(data: dict[str, Any], out: str, err: str, code: int | None) -> None:
    stdout, stderr = io.StringIO(), io.StringIO()
    assert output.show_event(data, stdout, stderr) == code
    assert (stdout.getvalue(), stderr.getvalue()) == (out, err)


HOSTILE = "\x1b]0;title\x07\x1b[2J\x9b31m\rback\x7f\u202etxt.exe\u2066"


def test_a_terminal_gets_no_control_sequences() -> None:
    terminal, pipe = Terminal(), io.StringIO()
    output.show_event({"stdout": HOSTILE + "\ttab"}, terminal, pipe)
    shown = terminal.getvalue()
    assert shown.isprintable() or shown.replace("\t", "").rstrip("\n").isprintable()
    assert "\\x1b]0;title\\x07" in shown
    assert "\\u202e" in shown
    assert "\ttab" in shown


def test_a_pipe_gets_what_was_written() -> None:
    pipe = io.StringIO()
    output.show_event({"stdout": HOSTILE}, pipe, pipe)
    assert pipe.getvalue() == HOSTILE + "\n"


def test_a_table_is_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_table([("A", "B"), ("long", "x"), ("s", "")], indent=" ")
    assert capsys.readouterr().out == " A     B\n long  x\n s\n"


@pytest.mark.parametrize(
    ("data", "out", "err"),
    [
        ({"rows": 3}, '{"rows": 3}\n', ""),
        ({"data": ["1", "2"]}, '{"data": ["1", "2"]}\n', ""),
        ({"encoder-error": "sample: it ended"}, "", "initspawn: encoder-error: sample: it ended\n"),
        ({"json-error": "unexpected", "line": "x"}, "", "initspawn: json-error: unexpected: x\n"),
    ],
)
def test_what_a_plugin_tells(data: dict[str, Any], out: str, err: str) -> None:
    stdout, stderr = io.StringIO(), io.StringIO()
    assert output.show_event({"type": "data", "pid": 1, **data}, stdout, stderr) is None
    assert (stdout.getvalue(), stderr.getvalue()) == (out, err)
