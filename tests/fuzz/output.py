"""What commands and plug-ins write: encoders, event logs, plug-in frames, a terminal."""

from __future__ import annotations

import io
import json
import re
from types import SimpleNamespace
from typing import Any, cast

from initspawn.cli import output
from initspawn.control import wire
from initspawn.encoders.table import ENCODERS, make
from initspawn.event import PIECE
from initspawn.limits import CONTROL_BYTES, ENDED_LOG_BYTES
from initspawn.supervisor import devices
from initspawn.supervisor.eventlog import DROPPED, EventLog, Reader
from initspawn.supervisor.plugin import PluginEncoder
from tests.fuzz.target import Target

OPTIONS = {"maxlen": 12, "maxline": 3, "maxdepth": 4}
EVENT = {"event": "t/v", "task": "s/v@1", "seq": 1}


def _encoders(data: bytes) -> None:
    """Whatever comes of a stream fits a frame and does not depend on how it was read."""
    for name in ENCODERS:
        for stream in ("stdout", "stderr"):
            whole = _told(make(name, OPTIONS), stream, [data])
            assert whole == _told(make(name, OPTIONS), stream, [data[at : at + 1] for at in range(len(data))])
            for event in whole:
                assert len(wire.encode({**EVENT, "data": event})) <= CONTROL_BYTES
                json.dumps(event, ensure_ascii=False, allow_nan=False).encode()


def _told(encoder: Any, stream: str, pieces: list[bytes]) -> list[Any]:
    events = [event for piece in pieces for event in encoder.feed(stream, piece)] + encoder.finish()
    if any(PIECE in event for event in events):  # `stream` tells what it gets, as it gets it
        events = [{stream: "".join(event[stream] for event in events)}]
    return [*events, encoder.result()]


def _log(data: bytes) -> None:
    """A byte says what happens: an event, one read, a reader that leaves, one that comes back."""
    log = EventLog(events_limit=8, bytes_limit=4096)
    readers = [Reader(log, lambda: None)]
    seen: dict[Reader, int] = {}
    for byte in data[:2000]:
        reader = readers[byte % len(readers)]
        if byte < 128:
            log.append({"type": "data", "stdout": "x" * byte})
        elif byte < 200:
            event = reader.take()
            if event is not None:
                before = seen.get(reader, event.seq - 1)
                missed = event.data["count"] - 1 if event.data["type"] == DROPPED else 0
                assert event.seq == before + 1 + missed or reader not in seen
                seen[reader] = event.seq
        elif byte < 210:
            readers.append(Reader(log, lambda: None, byte - 199))
        elif byte < 230 and len(readers) > 1:
            readers.remove(reader)
            reader.name = "n" if byte % 2 else ""
            log.lost(reader)
        elif byte < 240:
            log.returned("n")
        log.crowded()
        assert len(log) <= 8
        assert log.next - log.first == len(log)
    log.shrink(ENDED_LOG_BYTES)


class _Peer:
    """A socket that is none."""

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        pass

    def send(self, data: bytes) -> int:
        return len(data)


def _plugin(data: bytes) -> None:
    """Frames of a plug-in host, in two reads; what it tells is an event, and it cannot say whose."""
    timer = SimpleNamespace(cancel=lambda: None)
    reactor = SimpleNamespace(forget=lambda _: None, change=lambda *_: None, after=lambda *_: timer)
    supervisor = SimpleNamespace(reactor=reactor, plan=None, stop=lambda *_: None)
    encoder = PluginEncoder(cast(Any, supervisor), {"host": "h", "options": None, "name": "p"})
    events: list[Any] = []
    encoder.tell = events.extend
    encoder._socket = cast(Any, _Peer())
    encoder.begin({})
    for part in (data[: len(data) // 2], data[len(data) // 2 :]):
        encoder._buffer += part
        while encoder._socket is not None and encoder._take():
            pass
    for event in events:
        assert not {"type", "pid"} & event.keys()
        json.dumps(event, ensure_ascii=False, allow_nan=False).encode()


def _watcher(data: bytes) -> None:
    """A record of the watcher says nothing but whether devices are there, or why not, in plain text."""
    for count in (1, 2, 7):
        try:
            found = devices.parse(data, count)
        except ValueError:
            continue
        if isinstance(found, str):
            assert found.isascii()
            assert found.isprintable()
            assert 0 < len(found) <= 200
        else:
            assert found == tuple(byte == ord("1") for byte in data)
            assert len(found) == count


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _terminal(data: bytes) -> None:
    """An event's data as JSON, or else a line of output: nothing of it commands a terminal."""
    try:
        event = json.loads(data)
    except (ValueError, RecursionError):
        event = None
    event = event if isinstance(event, dict) else {"stdout": data.decode("utf-8", "backslashreplace")}
    shown = _Terminal()
    output.show_event({**event, "type": "data"}, shown, shown)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown.getvalue())


TARGETS = (
    Target(
        "encoders",
        ("encoders.json", "encoders.line", "encoders.lines", "encoders.log", "encoders.raw",
         "encoders.stream", "encoders.sync", "encoders.table", "encoders.text", "encoders.values"),
        _encoders,
    ),
    Target("event-log", ("supervisor.eventlog",), _log),
    Target("plugin", ("supervisor.plugin",), _plugin),
    Target("watcher", ("supervisor.devices",), _watcher),
    Target("terminal", ("cli.output",), _terminal),
)  # fmt: skip
