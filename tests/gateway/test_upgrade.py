"""The door's first line: who gets a WebSocket, and with which words."""

from __future__ import annotations

import pytest

from tests.gateway.conftest import Gateway
from tests.gateway.raw_client import ACCEPT, KEY, frame


def test_the_c_client_s_handshake(gateway: Gateway) -> None:
    with gateway.client(mask=False) as client:
        status, head, _ = client.upgrade("/api?uuid=UU&token=TT", "Content-Length: 0")
        lines = head.split("\r\n")
        assert status == 101
        assert lines[0] == "HTTP/1.1 101 Switching Protocols"
        assert {
            "Connection: Upgrade",
            "Upgrade: websocket",
            f"Sec-WebSocket-Accept: {ACCEPT}",
            "Sec-WebSocket-Protocol: x-afb-ws-json1",
        } <= set(lines)
        assert "extensions" not in head.lower()
        client.send(b"\x81\x1a" + b'[2,"999999","x/echo",null]')
        assert client.raw() == (b'[3,"999999",{"jtype":"afb-reply","request":{"status":"success","code":0}}]')


def test_no_extension_is_accepted(gateway: Gateway) -> None:
    with gateway.client() as client:
        _, head, _ = client.upgrade("/api", "Sec-WebSocket-Extensions: permessage-deflate")
        assert "Extensions" not in head


@pytest.mark.parametrize(
    ("offer", "answer"),
    [(None, None), ("x-afb-ws-json1", "x-afb-ws-json1"), ("foo, X-AFB-WS-JSON1 bar", "x-afb-ws-json1")],
)
def test_subprotocol(gateway: Gateway, offer: str | None, answer: str | None) -> None:
    with gateway.client() as client:
        status, head, _ = client.upgrade(offer=offer)
        named = [
            line.split(": ")[1] for line in head.split("\r\n") if line.startswith("Sec-WebSocket-Protocol")
        ]
        assert status == 101
        assert named == ([answer] if answer else [])
        assert client.call("x/echo", 1)[2]["response"] == 1


def test_no_common_subprotocol(gateway: Gateway) -> None:
    with gateway.client() as client:
        status, _, body = client.upgrade(offer="chat, superchat")
        assert (status, body) == (412, b"")
        assert client.at_end()


@pytest.mark.parametrize(
    ("target", "headers", "wanted"),
    [
        ("/api", ["Sec-WebSocket-Version: 8"], 426),
        ("/api", ["Origin: http://evil.example"], 403),
        ("/api", ["Origin: null"], 403),
        ("/api/", [], 404),
        ("/api/x/echo", [], 200),
        ("/", [], 200),
        ("/nothing", [], 404),
    ],
)
def test_refused_upgrades(gateway: Gateway, target: str, headers: list[str], wanted: int) -> None:
    with gateway.client() as client:
        lines = ["Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {KEY}", *headers]
        if not any(line.startswith("Sec-WebSocket-Version") for line in headers):
            lines.append("Sec-WebSocket-Version: 13")
        status, head, body = client.request(target, *lines)
        assert status == wanted
        if wanted == 426:
            assert "Sec-WebSocket-Version: 13" in head
        if wanted in (403, 404, 426):
            assert body == b""


@pytest.mark.parametrize("missing", ["Sec-WebSocket-Key", "Sec-WebSocket-Version", "Connection"])
def test_incomplete_upgrades_are_plain_requests(gateway: Gateway, missing: str) -> None:
    lines = [
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {KEY}",
        "Sec-WebSocket-Version: 13",
    ]
    with gateway.client() as client:
        assert client.request("/api", *(line for line in lines if not line.startswith(missing)))[0] == 404


def test_a_key_that_is_no_key(gateway: Gateway) -> None:
    with gateway.client() as client:
        lines = [
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Key: x",
            "Sec-WebSocket-Version: 13",
        ]
        assert client.request("/api", *lines)[0] == 400


def test_an_upgrade_with_a_body_is_none(gateway: Gateway) -> None:
    with gateway.client() as client:
        assert client.upgrade("/api", "Content-Length: 2")[0] == 404


def test_host_of_a_rebound_name(gateway: Gateway) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example:80"):
        with gateway.client() as client:
            assert client.upgrade(host=host)[0] == 403
        with gateway.client() as client:
            assert client.request("/", host=host)[0] == 403


def test_same_origin(gateway: Gateway) -> None:
    with gateway.client() as client:
        host = f"localhost:{gateway.port}"
        assert client.upgrade("/api", f"Origin: http://{host}", host=host)[0] == 101


def test_frames_right_behind_the_request(gateway: Gateway) -> None:
    """RFC 6455 tells clients to wait; those that don't must not lose their first words."""
    with gateway.client() as client:
        head = (
            f"GET /api HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
        ).encode()
        client.send(head + frame(b'[2,"1","x/echo",1]') + frame(b'[2,"2","x/echo",2]', mask=False))
        assert client.response()[0] == 101
        assert [client.message()[2]["response"] for _ in range(2)] == [1, 2]


def test_request_head_in_pieces(gateway: Gateway) -> None:
    with gateway.client() as client:
        head = (
            "GET /api HTTP/1.1\r\nHost: localhost\r\nUpgrade: WebSocket\r\nConnection: x, Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
        )
        for byte in head.encode():
            client.send(bytes((byte,)))
        assert client.response()[0] == 101


@pytest.mark.parametrize(
    ("target", "headers", "token"),
    [
        ("/api?token=T", [], "T"),
        ("/api?x-afb-token=X&token=T", [], "X"),
        ("/api?x-afb-token=X", ["X-Afb-Token: H"], "H"),
        ("/api?ACCESS_TOKEN=A", ["x-afb-token: H"], "A"),
        ("/api?access_token=A", ["Authorization: Bearer B"], "B"),
        ("/api", [], None),
    ],
)
def test_credentials_reach_the_supervisor(
    gateway: Gateway, target: str, headers: list[str], token: str | None
) -> None:
    with gateway.client() as client:
        client.open(target, *headers)
        assert client.call("x/token")[2].get("response") == token


def test_the_fifth_element_replaces_the_credential(gateway: Gateway) -> None:
    with gateway.client() as client:
        client.open("/api?token=T")
        assert client.call("x/token")[2]["response"] == "T"
        assert client.call("x/token", None, "U")[2]["response"] == "U"
        assert client.call("x/token")[2]["response"] == "U"
        assert client.call("x/token", None, None)[2]["response"] == "null"


def test_the_fifth_element_wins_from_the_first_call(gateway: Gateway) -> None:
    with gateway.client() as client:
        client.open("/api?token=T")
        assert client.call("x/token", None, "U")[2]["response"] == "U"
        assert client.call("x/token")[2]["response"] == "U"
