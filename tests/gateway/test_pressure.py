"""Slow readers, floods, limits, and ends of the processes on either side."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gateway.conftest import Gateway
from tests.gateway.fake_supervisor import Connection, until
from tests.gateway.raw_client import CLOSE, PING, PONG, RawClient, frame

EVENTS = 20_000  # of a thousand bytes each: more than all socket buffers together


def streaming(gateway: Gateway) -> Connection:
    """The control connection that carries a stream of events."""
    found: list[Connection] = until(lambda: [c for c in gateway.supervisor.connections if c.sent], "events")
    return found[0]


def resident(process: int) -> int:
    """A process's resident memory in KiB."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


def test_a_slow_reader_delays_nobody() -> None:
    with Gateway() as gateway, gateway.client(receive_buffer=4096) as slow, gateway.client() as other:
        before = resident(gateway.process.pid)
        slow.open().text(f'[2,"1","x/stream",{EVENTS}]')
        stream = streaming(gateway)
        other.open()
        held = -1
        while held != stream.sent:  # twenty quick answers without one event more: it is held back
            held = stream.sent
            for number in range(20):
                assert other.call("x/echo", number)[2]["response"] == number
        assert held < EVENTS
        assert resident(gateway.process.pid) - before < 8192
        assert slow.message()[:2] == [3, "1"]
        for number in range(1, EVENTS + 1):
            assert slow.message()[2]["data"]["n"] == number


def test_a_reader_that_leaves_in_the_middle(gateway: Gateway) -> None:
    ended = gateway.supervisor.ended()
    with gateway.client(receive_buffer=4096) as slow:
        slow.open().text(f'[2,"1","x/stream",{EVENTS}]')
        streaming(gateway)
    until(lambda: gateway.supervisor.ended() > ended, "the end of the control connection")


def test_pings_without_reading_the_pongs() -> None:
    """A client that asks and never listens is not read any further."""
    with Gateway() as gateway, gateway.client(receive_buffer=4096) as client, gateway.client() as other:
        before = resident(gateway.process.pid)
        client.open()
        client.socket.setblocking(False)
        pings = frame(b"x" * 125, PING) * 100
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while sent < 200 << 20:
                sent += client.socket.send(pings)
        assert sent < 200 << 20
        other.open()
        assert other.call("x/echo", 1)[2]["response"] == 1
        assert resident(gateway.process.pid) - before < 8192


def test_a_flood_of_calls_is_taken_in_pieces() -> None:
    count = 1000
    with Gateway() as gateway, gateway.client() as client:
        client.open()
        client.send(b"".join(frame(b'[2,"%d","x/hang",null]' % number) for number in range(count)))
        client.send(frame(b"behind", PING))
        (connection,) = until(
            lambda: [c for c in gateway.supervisor.connections if c.hanging], "the first calls"
        )
        most, answered = 0, 0
        while answered < count:
            until(lambda: connection.hanging, "further calls")
            most = max(most, len(connection.hanging))
            connection.release()
            while answered < len(gateway.supervisor.called("x/hang")) - len(connection.hanging):
                opcode, payload = client.frame()
                if opcode == PONG:
                    assert payload == b"behind"
                else:
                    answered += 1
        assert most <= 64


def test_the_supervisor_hangs_up() -> None:
    with Gateway() as gateway, gateway.client() as client:
        client.open()
        client.text('[2,"a","x/hang",null]')
        client.text('[2,"b","x/vanish",null]')
        for number in (b"a", b"b"):
            assert client.raw() == (
                b'[4,"%b",{"jtype":"afb-reply","request":{"status":"disconnected","code":-15}}]' % number
            )
        assert client.closed() == (1011, "")
        with gateway.client() as another:
            assert another.open().call("x/echo", 1)[2]["response"] == 1
        assert gateway.stop() == 0
        assert gateway.errors.splitlines() == [
            b"initspawn gateway: control connection lost: closed by the supervisor"
        ]


def test_the_supervisor_talks_nonsense() -> None:
    with Gateway() as gateway:
        for text in ('[2,"1","x/garbage",null]', '[2,"1","x/raw","{"]'):
            with gateway.client() as client:
                client.open().text(text)
                opcode, payload = client.frame()
                if opcode != CLOSE:
                    assert b'"disconnected"' in payload
                    opcode, payload = client.frame()
                assert (opcode, payload) == (CLOSE, b"\x03\xf3")
        assert gateway.stop() == 0
        assert b"Traceback" not in gateway.errors


def test_no_supervisor_for_a_connection() -> None:
    with Gateway() as gateway:
        os.unlink(gateway.supervisor.path)
        with gateway.client() as client:
            status, head, body = client.upgrade()
            assert (status, body) == (503, b"")
            assert "Retry-After" in head
            assert client.at_end()


def test_a_supervisor_that_is_full() -> None:
    """Which of the two it is depends on who is quicker; the connection ends properly in both."""
    with Gateway() as gateway:
        gateway.supervisor.full = True
        for _ in range(20):
            with gateway.client() as client:
                status = client.upgrade()[0]
                assert status == 503 or client.closed() == (1011, "")
                client.send(frame(b"", CLOSE))
                assert client.at_end()
        assert gateway.stop() == 0
        assert b"too many connections" in gateway.errors


def test_connection_limit() -> None:
    with Gateway(WEBSOCKETS=3) as gateway, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(gateway.client()).open() for _ in range(3)]
        with gateway.client() as one_too_many:
            assert one_too_many.upgrade()[0] == 503
            assert one_too_many.at_end()
        clients[0].socket.close()
        until(lambda: _admitted(gateway), "a free place")


def _admitted(gateway: Gateway) -> bool:
    with gateway.client() as client:
        return client.upgrade()[0] == 101


def test_slow_request_heads() -> None:
    with Gateway(HEAD_SECONDS=0.2) as gateway:
        with gateway.client() as silent:
            assert silent.at_end()
        with gateway.client() as slow:
            slow.send(b"GET / HTTP/1.1\r\nHost: ")
            assert slow.at_end()
        with gateway.client() as second:
            assert second.request("/")[0] == 200
            second.send(b"GET / HT")
            assert second.at_end()
        with gateway.client() as client:  # an open WebSocket has no such deadline
            client.open()
            with gateway.client() as silent:
                assert silent.at_end()
            assert client.call("x/echo", 1)[2]["response"] == 1


def test_a_client_that_ignores_our_close() -> None:
    with Gateway(CLOSE_SECONDS=0.2) as gateway, gateway.client() as client:
        client.open().text("[]")
        assert client.closed() == (1008, "invalid-frame")
        assert client.at_end()


def test_sigterm_says_goodbye() -> None:
    with Gateway() as gateway, gateway.client() as client, gateway.client() as idle:
        client.open()
        gateway.process.terminate()
        assert client.closed() == (1001, "")
        client.send(frame(b"\x03\xe9", CLOSE))
        assert client.at_end()
        assert idle.at_end()
        assert gateway.wait() == 0
        assert gateway.errors == b""
        until(lambda: gateway.supervisor.alive() == 0, "the end of all control connections")


def test_sigterm_with_clients_that_do_not_care() -> None:
    with Gateway() as gateway, gateway.client() as client, gateway.client(receive_buffer=4096) as slow:
        client.open()
        slow.open().text(f'[2,"1","x/stream",{EVENTS}]')
        streaming(gateway)
        assert gateway.stop() == 0


def test_the_supervisor_ends() -> None:
    with Gateway() as gateway:
        for connection in list(gateway.supervisor.connections):
            connection.end()
        assert gateway.wait() == 0


def test_killed_and_started_again() -> None:
    """The listening socket belongs to the supervisor: an attempt made in between only waits."""
    with Gateway() as gateway, gateway.client() as client:
        client.open()
        gateway.stop(signal.SIGKILL)
        until(lambda: gateway.supervisor.alive() == 0, "the end of all control connections")
        with pytest.raises((EOFError, ConnectionResetError)):
            client.frame()
        with RawClient(gateway.port) as early:
            early.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            gateway.start()
            assert early.response()[0] == 200


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (["--listen-fd", "{fd}", "--control", "/nonexistent/control"], 111, "No such file"),
        (["--listen-fd", "0", "--control", "x"], 111, "listening"),
        (["--listen-fd", "99", "--control", "x"], 111, "Bad file descriptor"),
        (["--listen-fd", "x", "--control", "x"], 100, "invalid int value"),
        ([], 100, "--control"),
    ],
)
def test_starts_that_fail(options: list[str], status: int, words: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as other:
        command = [sys.executable, "-m", "initspawn.gateway"]
        command += [option.format(fd=listener.fileno()) for option in options]
        done = subprocess.run(
            command, pass_fds=[listener.fileno()], stdin=other.fileno(), capture_output=True, text=True
        )
        assert done.returncode == status
        assert words in done.stderr
        assert done.stderr.count("\n") == 1


def test_connections_at_once() -> None:
    with Gateway(WEBSOCKETS=2, HTTP_CONNECTIONS=2) as gateway, contextlib.ExitStack() as stack:
        for _ in range(4):
            assert stack.enter_context(gateway.client()).request("/")[0] == 200
        with gateway.client() as client:
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.at_end()


def test_keep_alive_probes_are_inherited() -> None:
    with Gateway() as gateway:
        assert gateway.listener.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


def test_a_hundred_clients_fit_into_forty_megabytes() -> None:
    with Gateway() as gateway, contextlib.ExitStack() as stack:
        for number in range(100):
            client = stack.enter_context(gateway.client()).open()
            assert client.call("x/echo", number)[2]["response"] == number
        with gateway.client() as http:
            assert http.request("/api/x/echo")[0] == 200
        assert resident(gateway.process.pid) < 40_000
