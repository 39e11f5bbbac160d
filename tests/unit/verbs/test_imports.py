"""APIs of other servers: a connection that comes and goes, and what a service may do to us."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from initspawn.gateway.wsapi import nstr
from initspawn.limits import (
    EVENTS_PER_WAKE,
    IMPORT_BYTES,
    IMPORT_CALLS,
    IMPORT_LONGEST_PAUSE,
    IMPORT_SECONDS,
    OUT_BYTES,
)
from initspawn.supervisor.reactor import Reactor
from initspawn.verbs import wsapi
from initspawn.verbs.answer import Answer
from initspawn.verbs.imports import FIRST_PAUSE, STEADY_SECONDS, Backlog, Imported, merged


def reply(number: int, error: str | None = None, info: str | None = None, data: str = "null") -> bytes:
    texts = [None if text is None else text.encode() for text in (error, info, data)]
    return wsapi.frame(b"k" + number.to_bytes(2, "little") + b"".join(map(nstr, texts)))


def event(number: int, name: str) -> bytes:
    return wsapi.frame(b"E" + number.to_bytes(2, "little") + nstr(name.encode()))


def push(number: int, data: str) -> bytes:
    return wsapi.frame(b"P" + number.to_bytes(2, "little") + nstr(data.encode()))


class Bench:
    """An import, its clock, and the service that the test plays."""

    def __init__(self, place: Path) -> None:
        self.now = 0.0
        self.path = str(place / "lights")
        self.reactor = Reactor(lambda: self.now)
        self.events: list[tuple[str, bytes]] = []
        self.lost = 0
        self.answers: list[Answer] = []
        self.imported = Imported("lights", self.path, self.reactor, self.heard, self.gone)
        self.listener: socket.socket | None = None
        self.peer: socket.socket | None = None

    def heard(self, name: str, data: bytes) -> None:
        self.events.append((name, data))

    def gone(self) -> None:
        self.lost += 1

    def listen(self) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen()

    def accept(self) -> bytes:
        """Let the import connect, welcome it; what it said first."""
        assert self.listener is not None
        self.peer, _ = self.listener.accept()
        self.peer.settimeout(5)
        hello = self.peer.recv(100)
        self.say(wsapi.frame(b"v\x01"))
        return hello

    def up(self) -> None:
        self.listen()
        self.imported.connect()
        self.accept()

    def say(self, data: bytes) -> None:
        """The service says something, and it is read."""
        assert self.peer is not None
        self.peer.setblocking(False)
        while data:
            try:
                data = data[self.peer.send(data) :]
            except BlockingIOError:
                pass
            except OSError:
                return  # it has been hung up on
            self.reactor.turn()
        self.reactor.turn()

    def later(self, seconds: float) -> None:
        self.now += seconds
        self.reactor.turn()

    def call(self, verb: str = "on", arguments: Any = None) -> None:
        self.imported.call(verb, arguments, self.answers.append)

    def asked(self) -> list[bytes]:
        assert self.peer is not None
        self.peer.setblocking(False)
        try:
            return [payload for _, payload in wsapi.Frames().feed(self.peer.recv(1 << 20))]
        except BlockingIOError:
            return []

    def vanish(self) -> None:
        """The service ends."""
        assert self.peer is not None
        assert self.listener is not None
        self.peer.close()
        self.listener.close()
        os.unlink(self.path)
        self.reactor.turn()

    def close(self) -> None:
        self.imported.close()
        for one in (self.peer, self.listener):
            if one is not None:
                one.close()
        self.reactor.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def test_a_call_and_its_answer(bench: Bench) -> None:
    bench.listen()
    bench.imported.connect()
    assert bench.imported.about() == {"socket": bench.path, "connected": False, "failures": 0}
    assert bench.accept() == wsapi.frame(wsapi.HELLO)
    assert bench.imported.about() == {"socket": bench.path, "connected": True, "failures": 0}
    bench.call("on", {"level": 3})
    (asked,) = bench.asked()
    assert asked == b"K\1\0" + nstr(b"on") + bytes(4) + nstr(b'{"level":3}') + nstr(None)
    assert bench.answers == []
    bench.say(reply(1, data='{"was": [1, null]}'))
    assert bench.answers == [Answer(response={"was": [1, None]})]


@pytest.mark.parametrize(
    ("error", "info", "wanted"),
    [
        ("invalid-request", None, Answer(status="invalid-request")),
        ("no-item", "no lamp", Answer(status="no-item", info="no lamp")),
        ("burnt", "since\x1b[1m Monday", Answer(status="internal-error", info="burnt: since?[1m Monday")),
        ("success", None, Answer(status="internal-error", info="success")),
        ("x\n" * 5000, None, Answer(status="internal-error", info="x?" * 500)),
    ],
)
def test_errors(bench: Bench, error: str, info: str | None, wanted: Answer) -> None:
    bench.up()
    bench.call()
    bench.say(reply(1, error, info))
    assert bench.answers == [wanted]
    assert bench.imported.about()["failures"] == 1


def test_answers_in_any_order_and_numbers_that_come_round(bench: Bench) -> None:
    bench.up()
    bench.call()
    for number in range(2, 0x10000):
        bench.call()
        bench.say(reply(number))
        bench.asked()
    bench.answers.clear()
    bench.call()  # the first is still unanswered, so its number is taken
    assert [payload[1:3] for payload in bench.asked()] == [b"\2\0"]
    bench.say(reply(2, data="2") + reply(1, data="1") + reply(1) + reply(77))
    assert bench.answers == [Answer(response=2), Answer(response=1)]


def test_it_is_not_there_at_first(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    made: list[str] = []
    bench.imported.on_up.append(lambda: made.append("called"))
    bench.imported.connect()
    bench.call()
    assert bench.answers == [Answer(status="not-available", info="API `lights` is not connected")]
    for _ in range(20):
        bench.later(IMPORT_LONGEST_PAUSE)
    said = "initspawn: imported API lights: is not there: No such file or directory\n"
    assert capfd.readouterr().err == said  # once
    assert bench.imported.about()["problem"] == "No such file or directory"
    bench.listen()
    bench.later(IMPORT_LONGEST_PAUSE)
    assert made == []
    bench.accept()
    assert made == ["called"]
    assert "problem" not in bench.imported.about()
    assert capfd.readouterr().err == "initspawn: imported API lights: is there\n"


def test_the_pauses_grow(bench: Bench) -> None:
    attempts = []
    bench.imported.connect()
    connect = bench.imported.connect

    def counted() -> None:
        attempts.append(bench.now)
        connect()

    bench.imported.connect = counted  # type: ignore[method-assign]
    while bench.now < 60:
        bench.later(0.05)
    pauses = [round(later - before, 1) for before, later in itertools.pairwise(attempts)]
    assert pauses[0] < 1
    assert pauses == sorted(pauses)
    assert pauses[-1] == pytest.approx(IMPORT_LONGEST_PAUSE, abs=0.1)


def test_one_that_is_left_is_not_connected_again(bench: Bench) -> None:
    """Not by the attempt that was to come either."""
    bench.imported.connect()
    bench.imported.close()
    bench.listen()
    bench.later(IMPORT_LONGEST_PAUSE)
    assert bench.listener is not None
    bench.listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        bench.listener.accept()


def test_what_was_asked_of_one_that_is_left_is_answered(bench: Bench) -> None:
    bench.up()
    bench.call()
    bench.imported.close()
    assert bench.answers == [Answer(status="disconnected")]
    assert not bench.imported.about()["connected"]


def test_it_goes_and_comes_back(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    made: list[str] = []
    bench.imported.on_up.append(lambda: made.append("called"))
    bench.up()
    bench.call()
    bench.say(event(1, "lights/changed"))
    bench.vanish()
    assert bench.answers == [Answer(status="disconnected")]
    assert bench.lost == 1
    assert "imported API lights: is not there: " in capfd.readouterr().err
    bench.listen()
    bench.later(FIRST_PAUSE)
    bench.accept()
    assert made == ["called", "called"]
    bench.say(push(1, "1"))  # what the old one had announced counts no more
    assert bench.events == []
    bench.call()
    bench.say(reply(2))
    assert bench.answers[-1] == Answer()


def test_events(bench: Bench) -> None:
    bench.up()
    broadcast = wsapi.frame(b"B" + nstr(b"other/e") + nstr(b"2") + bytes(17))
    forget = wsapi.frame(b"e\1\0")
    bench.say(
        event(1, "lights/changed") + push(1, '{"a":1}') + broadcast + forget + push(1, "3") + push(9, "4")
    )
    assert bench.events == [("lights/changed", b'{"a":1}'), ("other/e", b"2")]


def test_an_answer_that_does_not_come(bench: Bench) -> None:
    bench.up()
    bench.call()
    bench.later(IMPORT_SECONDS)
    assert bench.answers == [Answer(status="timeout", info="API `lights` has not answered in time")]
    bench.say(reply(1))
    assert len(bench.answers) == 1


def test_who_does_not_welcome_us_is_no_service(bench: Bench) -> None:
    bench.listen()
    bench.imported.connect()
    bench.later(IMPORT_SECONDS)
    assert "does not answer as a service" in bench.imported.problem
    assert bench.lost == 0


@pytest.mark.parametrize(
    "said",
    [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x82\x7f" + b"\xff" * 8, wsapi.frame(b"{}", 1), wsapi.frame(b"k"),
     wsapi.frame(b"", wsapi.CLOSE), b"".join(event(number, "e") for number in range(wsapi.EVENTS + 1))],
)  # fmt: skip
def test_a_service_that_talks_nonsense(bench: Bench, said: bytes) -> None:
    bench.up()
    bench.call()
    bench.say(said)
    assert bench.answers == [Answer(status="disconnected")]
    assert not bench.imported.about()["connected"]
    assert bench.imported.problem


def test_a_ping_is_answered_and_a_pong_is_not(bench: Bench) -> None:
    bench.up()
    bench.say(wsapi.frame(b"you?", wsapi.PING) + wsapi.frame(b"", wsapi.PONG))
    assert bench.peer is not None
    assert bench.peer.recv(100) == wsapi.frame(b"you?", wsapi.PONG)


def test_of_the_pings_of_a_read_the_last_is_answered(bench: Bench) -> None:
    bench.up()
    assert bench.peer is not None
    bench.peer.sendall(b"".join(wsapi.frame(b"%d" % number, wsapi.PING) for number in range(5000)))
    for _ in range(5000):
        bench.reactor.turn()
    said = bench.peer.recv(1 << 16)
    assert said == wsapi.frame(b"4999", wsapi.PONG)


def test_a_wake_up_hands_on_so_many_frames(bench: Bench) -> None:
    """A service that says much at once delays nobody; what it said comes in its order."""
    bench.up()
    assert bench.peer is not None
    count = 3 * EVENTS_PER_WAKE + 5
    bench.peer.sendall(event(1, "lights/e") + b"".join(push(1, str(number)) for number in range(count)))
    bench.reactor.clock = itertools.count(1.0, 1e-6).__next__
    handed = []
    while len(bench.events) < count:
        before = len(bench.events)
        bench.reactor.turn()
        handed.append(len(bench.events) - before)
    assert max(handed) <= 2 * EVENTS_PER_WAKE  # those of the read, and of the timer after it
    assert [data for _, data in bench.events] == [b"%d" % number for number in range(count)]
    bench.peer.sendall(push(1, '"then"'))  # it is read again
    bench.reactor.turn()
    assert bench.events[-1] == ("lights/e", b'"then"')


def test_frames_of_a_lost_connection_are_lost_with_it(bench: Bench) -> None:
    bench.up()
    assert bench.peer is not None
    said = event(1, "lights/e") + b"".join(push(1, "0") for _ in range(3 * EVENTS_PER_WAKE))
    bench.reactor.clock = itertools.count(1.0, 1e-6).__next__
    bench.peer.sendall(said + wsapi.frame(b"", wsapi.CLOSE) + said)
    for _ in range(20):
        bench.reactor.turn()
    assert (len(bench.events), bench.lost) == (3 * EVENTS_PER_WAKE, 1)


def test_who_welcomes_us_and_closes_is_asked_ever_more_rarely(bench: Bench) -> None:
    bench.listen()
    assert bench.listener is not None
    bench.listener.setblocking(False)
    bench.imported.connect()
    times = []
    while bench.now < 60:
        try:
            peer, _ = bench.listener.accept()
        except BlockingIOError:
            bench.later(0.05)
            continue
        times.append(bench.now)
        with peer:
            peer.sendall(wsapi.frame(b"v\x01"))
            bench.reactor.turn()
        bench.reactor.turn()
    assert 5 < len(times) < 15
    assert times[-1] - times[-2] == pytest.approx(IMPORT_LONGEST_PAUSE, abs=0.2)


def test_after_a_connection_that_lasted_the_pause_is_the_first(bench: Bench) -> None:
    bench.imported.connect()
    for _ in range(20):
        bench.later(IMPORT_LONGEST_PAUSE)
    bench.listen()
    bench.later(IMPORT_LONGEST_PAUSE)
    bench.accept()
    bench.later(STEADY_SECONDS)
    bench.vanish()
    bench.listen()
    bench.later(FIRST_PAUSE)
    bench.accept()
    assert bench.imported.about()["connected"]


def test_a_service_that_reads_nothing(bench: Bench) -> None:
    bench.up()
    for _ in range(100):
        bench.call("v", "x" * 100_000)
    refused = [answer for answer in bench.answers if answer.status == "not-available"]
    assert refused[0].info == "API `lights` does not keep up"
    assert len(bench.imported._out) < OUT_BYTES + 200_000


def test_unanswered_calls_are_bounded(bench: Bench) -> None:
    bench.up()
    for _ in range(IMPORT_CALLS + 5):
        bench.call()
    assert [answer.status for answer in bench.answers] == ["not-available"] * 5


def test_a_call_that_is_too_large(bench: Bench) -> None:
    bench.up()
    bench.call("v", "x" * 1_048_500)
    assert bench.answers[0].status == "invalid-request"


def test_a_backlog_is_bounded() -> None:
    backlog = Backlog()
    for number in range(10):
        backlog.put(str(number), b"x" * (IMPORT_BYTES // 4))
    assert backlog.lost == 7
    assert [backlog.take()[0] for _ in range(3)] == ["7", "8", "9"]  # type: ignore[index]
    assert backlog.take() is None
    backlog.put("n", b"x" * (2 * IMPORT_BYTES))
    assert backlog.take() is None


@pytest.mark.parametrize(
    ("own", "given", "wanted"),
    [(None, None, None), (None, {"a": 1}, {"a": 1}), ({"a": 1}, None, {"a": 1}), ("x", {"a": 1}, "x"),
     ({"a": 1, "b": 1}, {"a": 2, "c": 2}, {"a": 1, "b": 1, "c": 2}), ([1], 5, [1])],
)  # fmt: skip
def test_what_is_sent(own: Any, given: Any, wanted: Any) -> None:
    assert merged(own, given) == wanted
