"""Requests that two readers could understand differently, that never end, or that are too much."""

from __future__ import annotations

import contextlib
import selectors
import socket
import time

import pytest

from tests.gateway.conftest import Gateway
from tests.gateway.fake_supervisor import PATIENCE, until
from tests.gateway.test_pressure import resident

HOST = b"Host: localhost\r\n"
POST = b"POST /api/x/echo HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
HIDDEN = b"GET /api/x/hidden HTTP/1.1\r\n" + HOST + b"\r\n"


def said(gateway: Gateway, *parts: bytes) -> list[int]:
    """The status of each answer on one connection, up to its end or half a second of silence."""
    found = []
    with gateway.client() as client, contextlib.suppress(EOFError, TimeoutError, ConnectionError):
        for part in parts:
            client.send(part)
        client.socket.settimeout(0.5)
        while True:
            status, head, _ = client.response()
            found.append(status)
            if "\r\nconnection: close" in head.lower():  # the rest is in words about it
                while rest := client.socket.recv(65536):
                    client.buffer += rest
                assert b"HTTP/1" not in client.buffer
                break
    return found


@pytest.mark.parametrize(
    "request_",
    [
        POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\n1234" + HIDDEN,
        POST + b"Content-Length: 1, 2\r\n\r\n1" + HIDDEN,
        POST + b"Content-Length: +1\r\n\r\n1" + HIDDEN,
        POST + b"Content-Length: 0x1\r\n\r\n1" + HIDDEN,
        POST + b"Content-Length: -1\r\n\r\n" + HIDDEN,
        POST + b"Content-Length: 18446744073709551617\r\n\r\n1" + HIDDEN,
        POST + b"Content-Length : 1\r\n\r\n1" + HIDDEN,
        POST + b"Content-Length: 1\r\n Content-Length: 2\r\n\r\n1" + HIDDEN,
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n1\r\n7\r\n0\r\n\r\n" + HIDDEN,
        POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
        POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
        POST + b"Transfer-Encoding: identity\r\n\r\n" + HIDDEN,
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
        POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + HIDDEN,
        POST + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n" + HIDDEN,
        POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n" + HIDDEN,
        POST + b"Transfer-Encoding: chunked\r\n\r\n1 ;x\n1\r\n" + HIDDEN,
        POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"1;" + b"x" * 70_000 + b"\r\n1\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"X: a\0b\r\n\r\n" + HIDDEN,
        b"GET / HTTP/1.1\r\n" + HOST + b"X\xff: a\r\n\r\n" + HIDDEN,
        b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n" + HIDDEN,
        b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n" + HIDDEN,
        b"GET / HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 20_000 + b"\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    ],
    ids=lambda value: value[-60:-40].decode("latin-1").encode("unicode_escape").decode() + str(len(value)),
)
def test_what_can_be_read_in_two_ways_is_refused(gateway: Gateway, request_: bytes) -> None:
    """One answer, a 4xx; what stands behind it is read by nobody."""
    before = len(gateway.supervisor.calls)
    answers = said(gateway, request_)
    assert len(answers) <= 1
    assert all(400 <= status < 500 for status in answers)
    assert len(gateway.supervisor.calls) == before


@pytest.mark.parametrize("body", [b"12", b"[1,2", b""])
def test_half_a_body_is_no_call(gateway: Gateway, body: bytes) -> None:
    """Half of `123` is a number too."""
    for head in (b"Content-Length: 9\r\n\r\n" + body, b"Transfer-Encoding: chunked\r\n\r\n9\r\n" + body):
        before = len(gateway.supervisor.calls)
        with gateway.client() as client:
            client.send(POST + head)
            client.socket.shutdown(socket.SHUT_WR)
            assert client.at_end() or client.buffer.startswith(b"HTTP/1.1 400 ")
        with gateway.client() as other:
            other.request("/api/x/echo?n=1")
        assert gateway.supervisor.calls[before:] == [("x/echo", {"n": "1"})]


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"http://localhost/", 404),
        (b"http://evil.example/api/x/echo", 404),
        (b"//evil.example/api/x/echo", 404),
        (b"*", 404),
        (b"/%2e%2e/%2e%2e/etc/passwd", 404),
        (b"/..%2f..%2fetc%2fpasswd", 404),
        (b"/%252e%252e/", 404),
        (b"/app.js%00", 404),
        (b"/api/..", 404),
        (b"/%61pp.js", 200),
        (b"/#", 404),
    ],
)
def test_targets(gateway: Gateway, target: bytes, status: int) -> None:
    before = len(gateway.supervisor.calls)
    assert said(gateway, b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n") == [status]
    assert len(gateway.supervisor.calls) == before


def test_a_hundred_pipelined_requests_are_answered_in_order(gateway: Gateway) -> None:
    with gateway.client() as client:
        for number in range(100):
            client.send(b"GET /api/x/echo?n=%d HTTP/1.1\r\n" % number + HOST + b"\r\n")
        for number in range(100):
            assert client.response()[2].endswith(b'"response":{"n":"%d"}}' % number)


def test_a_thousand_slow_requests() -> None:
    """Each gives a byte now and then: none holds its place longer than a head may take, and whoever comes
    when there is no place is dropped at once. Memory stays where it was.
    """
    with Gateway(HEAD_SECONDS=0.3) as gateway, selectors.DefaultSelector() as selector:
        before = resident(gateway.process.pid)
        head = b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 1000
        for _ in range(1000):
            slow = socket.create_connection(("127.0.0.1", gateway.port))
            slow.setblocking(False)
            selector.register(slow, selectors.EVENT_READ)
        most, end = 0, time.monotonic() + PATIENCE
        step = 0
        while selector.get_map() and time.monotonic() < end:
            for key, _ in selector.select(0.05):
                slow = key.fileobj  # type: ignore[assignment]
                with contextlib.suppress(OSError):
                    assert not slow.recv(4096)
                selector.unregister(slow)
                slow.close()
            step += 1
            for key in list(selector.get_map().values()):
                with contextlib.suppress(OSError):
                    key.fileobj.send(head[step : step + 1])  # type: ignore[union-attr]
            most = max(most, resident(gateway.process.pid))
        assert not selector.get_map()
        assert most - before < 8192
        with gateway.client() as client:
            assert client.request("/")[0] == 200


DEEP = 100_000


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[" * DEEP + b"]" * DEEP, 400),
        (b'{"a":' * DEEP + b"1" + b"}" * DEEP, 400),
        (b"NaN", 400),
        (b"-Infinity", 400),
        (b'"\\ud800"', 400),
        (b'"\\ud800\\ud800"', 400),
        (b'"\xed\xa0\x80"', 400),
        (b'"\xc0\x80"', 400),
        (b"1 2", 400),
        (b"[1,]", 400),
        (b"{1:2}", 400),
        (b'"a\nb"', 400),
        (b"\xef\xbb\xbf1", 400),
        (b"1,2", 400),
        (b'1],"token":["x"', 400),
        (b'1},"single":{', 400),
        (b" " * 2_000_000, 413),
    ],
    ids=lambda value: repr(value[:20]) if isinstance(value, bytes) else str(value),
)
def test_bodies_that_are_no_json(gateway: Gateway, body: bytes, status: int) -> None:
    before = len(gateway.supervisor.calls)
    assert said(gateway, POST + b"Content-Length: %d\r\n\r\n" % len(body), body) == [status]
    assert len(gateway.supervisor.calls) == before


def test_a_body_of_64_mebibytes() -> None:
    """It is refused for what it says of itself; one that says nothing is, as soon as it is too much."""
    with Gateway() as gateway:
        before = resident(gateway.process.pid)
        assert said(gateway, POST + b"Content-Length: 67108864\r\n\r\n") == [413]
        chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
        with gateway.client() as client:
            client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                for _ in range(1024):
                    client.send(chunk)
            with contextlib.suppress(ConnectionError, EOFError):
                assert client.response()[0] == 413
        until(lambda: resident(gateway.process.pid) - before < 8192, "memory as before")


def test_of_equal_names_the_last_counts(gateway: Gateway) -> None:
    """Only one reader decodes them, so nobody else can have understood another."""
    with gateway.client() as client:
        headers = "Content-Type: application/json", "Content-Length: 15"
        client.request("/api/x/echo", *headers, method="POST", body=b'{"a":1,"a":"2"}')
    assert gateway.supervisor.calls[-1] == ("x/echo", {"a": "2"})
