"""What sub-commands print with: tables, problems, and the output of commands as events bring it."""

from __future__ import annotations

import re
import sys

from initspawn.cli.exits import of_status
from initspawn.event import BASE64, DATA, FINAL, PIECE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any, TextIO

    from initspawn.errors import Problem

_DROPPED = "dropped-event"
_ERRORS = ("json-error", "log-error", "encoder-error", "error")
# What an event's data says in other words, or of itself; the rest is a plug-in's.
_TOLD = {"type", "pid", PIECE, "stdout", "stderr", "stdout-overflow", "stderr-overflow", *_ERRORS}
# Control characters but tab and newline, ESC and the 8-bit CSI and OSC with them; and what turns the
# direction of writing, with which a text can show as another.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """The text with all control characters as escapes: it cannot command a terminal."""
    return _CONTROL.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def write_line(text: str, stream: TextIO) -> None:
    """Write a text as a line, or as the lines it is; harmless when `stream` is a terminal.

    Raises OSError, BrokenPipeError when nobody reads.
    """
    if stream.isatty():
        text = plain(text)
    stream.write(text if text.endswith("\n") else f"{text}\n")
    stream.flush()


def complain(text: str) -> None:
    """One line of our own on stderr."""
    write_line("initspawn: " + " ".join(text.splitlines()), sys.stderr)


def show_problems(problems: Sequence[Problem]) -> None:
    """All problems of a configuration on stderr, each on its line, and how many there are."""
    for problem in problems:
        write_line(" ".join(str(problem).splitlines()), sys.stderr)
    complain(f"{len(problems)} problem{'' if len(problems) == 1 else 's'}")


def show_table(rows: Iterable[Sequence[str]], *, indent: str = "") -> None:
    """Rows on stdout with aligned columns; the first one is the header."""
    lines = [[plain(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = "  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True))
        write_line(f"{indent}{padded}".rstrip(), sys.stdout)


def show_output(data: dict[str, Any], out: TextIO, err: TextIO) -> None:
    """What a command wrote, from an event's data or a synchronous reply: stdout to `out`, stderr to `err`.

    A stream's value is a line, a list of lines, a piece that may end anywhere, or any other JSON value.
    Raises OSError.
    """
    for name, stream in (("stdout", out), ("stderr", err)):
        if name in data and PIECE in data:
            _write_piece(data[name], data[PIECE], stream)
        elif name in data:
            value = data[name]
            lines = isinstance(value, list) and all(isinstance(item, str) for item in value)
            for item in value if lines else [value]:
                write_line(item if isinstance(item, str) else _json(item), stream)
        if data.get(f"{name}-overflow"):
            write_line(f"initspawn: the rest of {name} was discarded", err)
    for name in _ERRORS:
        if name in data:
            at = f": {data['line']}" if name == "json-error" and "line" in data else ""
            write_line(f"initspawn: {name}: {data[name]}{at}", err)


def _write_piece(value: Any, kind: Any, stream: TextIO) -> None:
    """Write a piece of a stream, without a line break of ours; harmless when `stream` is a terminal."""
    if kind == BASE64:
        from binascii import a2b_base64

        data = a2b_base64(value)
        if not stream.isatty():
            stream.flush()
            stream.buffer.write(data)
            stream.buffer.flush()
            return
        value = data.decode("utf-8", "backslashreplace")
    if stream.isatty():
        value = plain(value.replace("\r\n", "\n"))
    stream.write(value)
    stream.flush()


def show_event(data: dict[str, Any], out: TextIO, err: TextIO) -> int | None:
    """Print one event's data. Returns the exit code if the command has ended with it, else None.

    Raises OSError.
    """
    kind = data.get("type")
    if kind == _DROPPED:
        write_line(f"initspawn: {data.get('count', 'some')} events were lost", err)
        return None
    show_output(data, out, err)
    more = {name: value for name, value in data.items() if name not in _TOLD}
    if kind == DATA and more and "json-error" not in data:
        write_line(_json(more), out)
    if kind != FINAL:
        return None
    return ended(data.get("status"), err)


def ended(status: Any, err: TextIO) -> int:
    """The exit code of a status object; an end by a signal is told on `err`."""
    if isinstance(status, dict) and "signal" in status:
        reason = {"timeout": ": its time was over"}.get(str(status.get("info")), "")
        write_line(f"initspawn: the command was ended by signal: {status['signal']}{reason}", err)
    return of_status(status)


def show_json(value: Any, *, indent: int | None = None) -> None:
    """A value as JSON on stdout. Raises OSError."""
    write_line(_json(value, indent), sys.stdout)


def _json(value: Any, indent: int | None = None) -> str:
    import json

    return json.dumps(value, ensure_ascii=False, indent=indent)
