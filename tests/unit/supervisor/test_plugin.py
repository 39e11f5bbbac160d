"""The supervisor's end of a plug-in host's socket, with a host that the test plays."""

from __future__ import annotations

import json
import signal
import socket
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from initspawn.encoders.values import Values
from initspawn.errors import LaunchRefused
from initspawn.limits import JSON_BYTES, PLUGIN_BYTES, PLUGIN_SECONDS
from initspawn.supervisor.plugin import PluginEncoder
from initspawn.supervisor.reactor import READ, Reactor
from tests.support.full import full


class Played:
    """An encoder and the host's end of its socket."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.reactor = Reactor(clock=lambda: self.now)
        supervisor: Any = SimpleNamespace(reactor=self.reactor)
        self.encoder = PluginEncoder(supervisor, {"host": "h", "options": {}, "name": "played"})
        ours, self.host = socket.socketpair()
        ours.setblocking(False)
        self.encoder._socket = ours
        self.told: list[Any] = []
        self.encoder.tell = self.told.extend
        self.reactor.watch(ours.fileno(), READ, lambda _: self.encoder._readable())

    def say(self, *frames: tuple[bytes, bytes]) -> None:
        """Send these as the host does, and turn the loop until they are told."""
        data = b"".join(len(body).to_bytes(4, "little") + kind + body for kind, body in frames)
        sender = threading.Thread(target=self.host.sendall, args=(data,))
        sender.start()
        while self.encoder.busy:
            self.reactor.turn(0.02)
        sender.join()


@pytest.fixture
def played() -> Iterator[Played]:
    made = Played()
    yield made
    made.encoder.close()
    made.host.close()
    made.reactor.close()


def test_a_large_event_is_read_in_small_bites(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else is served while one is read."""
    sizes: list[int] = []
    feed = Values.feed

    def counted(values: Values, data: bytes) -> list[Any]:
        sizes.append(len(data))
        return feed(values, data)

    monkeypatch.setattr(Values, "feed", counted)
    value = [1] * 100_000
    body = json.dumps(value).encode()
    played.encoder.feed("stdout", b"x")
    played.say((b"e", body), (b"e", b'{"a": "b"}'), (b".", b""))
    assert played.told == [{"data": value}, {"a": "b"}]
    assert sum(sizes) == len(body) + len(b'{"a": "b"}')
    assert max(sizes) <= played.encoder.chunk


@pytest.mark.parametrize("events", [0, 2])
def test_a_host_that_does_not_answer_in_time(played: Played, events: int) -> None:
    """Whatever it has told of it: what counts is that it is done."""
    played.encoder.feed("stdout", b"x")
    played.host.sendall((b"\x02\0\0\0e" + b"{}") * events)
    played.reactor.turn()
    played.now += PLUGIN_SECONDS - 0.01
    played.reactor.turn()
    assert played.told == [{}] * events
    assert played.encoder.busy
    played.now += 0.02
    played.reactor.turn()
    reason = f"played: it has not answered for {PLUGIN_SECONDS:g} s"
    assert played.told == [{}] * events + [{"encoder-error": reason}]
    assert not played.encoder.busy


def test_time_passes_only_while_a_host_is_asked_and_heard(played: Played) -> None:
    played.now += PLUGIN_SECONDS + 1
    played.reactor.turn()
    played.encoder.feed("stdout", b"x")
    played.encoder.pause()  # who reads its events is slow
    played.now += PLUGIN_SECONDS + 1
    played.reactor.turn()
    played.encoder.resume()
    played.now += PLUGIN_SECONDS - 0.01
    played.say((b".", b""))
    assert played.told == []


@pytest.mark.parametrize("more", [0, 1])
def test_what_a_host_may_tell_in_one_answer(played: Played, more: int) -> None:
    sizes = [PLUGIN_BYTES // 4] * 3
    sizes.append(PLUGIN_BYTES - sum(sizes) - 5 * 5 + more)  # with the headers, that of the last frame too
    frames = [(b"e", b'"' + b"x" * (size - 2) + b'"') for size in sizes]
    played.encoder.feed("stdout", b"x")
    threading.Thread(target=_send_all, args=(played.host, frames), daemon=True).start()
    while played.encoder.busy:
        played.reactor.turn(0.02)
    told = [len(event["data"]) + 2 if "data" in event else event for event in played.told]
    reason = f"played: it said more than {PLUGIN_BYTES} bytes at once"
    assert told == sizes + ([{"encoder-error": reason}] if more else [])
    if not more:  # the next answer has as much room
        played.encoder.feed("stdout", b"x")
        played.say(*frames, (b".", b""))
        assert len(played.told) == 2 * len(sizes)


def _send_all(host: socket.socket, frames: list[tuple[bytes, bytes]]) -> None:
    try:
        for kind, body in (*frames, (b".", b"")):
            host.sendall(len(body).to_bytes(4, "little") + kind + body)
    except OSError:  # it hung up
        pass


BAD = [(b"", "no JSON"), (b"1 2", "no JSON"), (b"[", "no JSON"), (b"1" * (JSON_BYTES + 1), "no frame")]


@pytest.mark.parametrize(("body", "reason"), BAD)
def test_events_that_are_none(played: Played, body: bytes, reason: str) -> None:
    played.encoder.feed("stdout", b"x")
    threading.Thread(target=_send, args=(played.host, body), daemon=True).start()
    while not played.told:
        played.reactor.turn(0.02)
    (event,) = played.told
    assert reason in event["encoder-error"]


def _send(host: socket.socket, body: bytes) -> None:
    try:
        host.sendall(len(body).to_bytes(4, "little") + b"e" + body)
    except OSError:  # it hung up
        pass


def test_a_host_that_ends_with_its_socket_still_open_somewhere(played: Played) -> None:
    """Its end is told; nobody waits for what cannot come."""
    task: Any = SimpleNamespace(refusal=None, status={"exit": 1})

    def too_long(*_: object) -> None:
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(5)
    try:
        played.encoder._on_end(task)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert played.told == [{"encoder-error": "played: it ended (exit 1)"}]


def test_a_host_for_which_there_is_no_descriptor_is_a_shortage(played: Played) -> None:
    host = SimpleNamespace(uid="h", path="/h", arguments=())
    supervisor: Any = SimpleNamespace(
        reactor=played.reactor, plan=SimpleNamespace(hosts=SimpleNamespace(commands=[host]))
    )
    encoder = PluginEncoder(supervisor, {"host": "h", "options": {}, "name": "played"})
    with full(), pytest.raises(LaunchRefused, match="EMFILE"):
        encoder.open()
    assert [lack["what"] for lack in played.reactor.room.told()] == ["descriptors"]
