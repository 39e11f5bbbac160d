"""The protocol's example exchanges, byte for byte from raw sockets, masked and unmasked, by their numbers.

Those of JSON and REST over TCP and over a unix socket; 13 to 15 are the service protocol's.

Numbers 16 to 18 are RPC version 3, which is not offered. Events have the numbers that the server chooses, so
in number 15 another one comes first; broadcasts of services are not made.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.gateway.conftest import Gateway
from tests.gateway.raw_client import BINARY, RawClient, frame

HANDSHAKE = (
    b"GET /api?uuid=UU&token=TT HTTP/1.1\r\nHost: 127.0.0.1:1234\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MfpIVG082jFTV7SxTNNijQ==\r\n"
    b"Sec-WebSocket-Protocol: x-afb-ws-json1\r\nContent-Length: 0\r\n\r\n"
)
OK = {"id": 0, "status": "success", "code": 0}


def answer(response: Any = None, **more: Any) -> dict[str, Any]:
    return {**OK, "response": response, **more}


def event(data: Any, name: str = "tb/e") -> dict[str, Any]:
    return {"event": name, "task": "s/c@1", "seq": 1, "data": data}


KINDS = [(door, mask) for door in ("tcp", "unix") for mask in (True, False)]
NAMES = [f"{door}, {'masked' if mask else 'unmasked'}" for door, mask in KINDS]


@pytest.fixture(params=KINDS, ids=NAMES)
def plain(gateway: Gateway, request: pytest.FixtureRequest) -> Iterator[RawClient]:
    """A connection on which nothing has been said yet."""
    door, mask = request.param
    with gateway.client(mask=mask) if door == "tcp" else gateway.local("http", mask=mask) as client:
        yield client


@pytest.fixture
def either(plain: RawClient) -> RawClient:
    """The same, an open WebSocket."""
    return plain.open()


@contextlib.contextmanager
def scripted(gateway: Gateway, **answers: list[dict[str, Any]]) -> Iterator[None]:
    """Procedures, `/` written as `__`, and what the supervisor says to them."""
    gateway.supervisor.script = {name.replace("__", "/"): said for name, said in answers.items()}
    yield
    gateway.supervisor.script = {}


def replay(client: RawClient, *lines: str) -> None:
    """`C>` is sent as a text frame, `S>` must come as one."""
    for line in lines:
        direction, text = line[:3], line[3:]
        if direction == "C> ":
            client.text(text)
        else:
            assert direction == "S> "
            assert client.raw() == text.encode()


def reply(kind: int, number: str, request: str, response: str = "") -> str:
    more = f',"response":{response}' if response else ""
    return f'S> [{kind},"{number}",{{"jtype":"afb-reply","request":{{{request}}}{more}}}]'


SUCCESS = '"status":"success","code":0'


def test_exchange_1_and_2(gateway: Gateway, plain: RawClient) -> None:
    client = plain
    with scripted(gateway, tb__sub=[answer()]):
        client.send(HANDSHAKE)
        status, head, _ = client.response()
        assert status == 101
        lines = head.split("\r\n")
        assert lines[0] == "HTTP/1.1 101 Switching Protocols"
        assert {line for line in lines[1:] if not line.startswith("Date: ")} == {
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Accept: f5I2h53hBsT5ES3EHhnxAJ2nqsw=",
            "Sec-WebSocket-Protocol: x-afb-ws-json1",
        }
        call = b'[2,"999999","tb/sub",null]'
        client.send(frame(call) if client.mask else b"\x81\x1a" + call)
        assert client.raw() == reply(3, "999999", SUCCESS)[3:].encode()


def test_exchange_3(gateway: Gateway, either: RawClient) -> None:
    with scripted(gateway, hello__ping=[answer([{"a": 1}, None, "ping count=2"])]):
        replay(
            either,
            'C> [2,"2","hello/ping",{"a":1},"TOK"]',
            reply(3, "2", SUCCESS, '[{"a":1},null,"ping count=2"]'),
        )
    assert ("hello/ping", {"a": 1}) in gateway.supervisor.calls


def test_exchange_4(gateway: Gateway, either: RawClient) -> None:
    with scripted(gateway, tb__st=[answer(code=5)]):
        replay(either, 'C> [2,"s5","tb/st",5]', reply(3, "s5", '"status":"success","code":5'))


def test_exchange_5(gateway: Gateway, either: RawClient) -> None:
    with scripted(gateway, hello__nope=[answer(status="unknown-verb", code=-4)]):
        replay(
            either,
            'C> [2,"4","nope/verb",null]',
            reply(4, "4", '"status":"unknown-api","code":-3'),
            'C> [2,"5","hello/nope",null]',
            reply(4, "5", '"status":"unknown-verb","code":-4'),
        )


def test_exchange_6(gateway: Gateway, either: RawClient) -> None:
    with scripted(gateway, tb__stt=[answer(status="invalid-request", code=-12, info="some text")]):
        replay(
            either,
            'C> [2,"a","tb/stt",-12]',
            reply(4, "a", '"status":"invalid-request","info":"some text","code":-12'),
        )
    with scripted(gateway, tb__stt=[answer("some text", status="error", code=-1001)]):
        replay(
            either, 'C> [2,"b","tb/stt",-1001]', reply(4, "b", '"status":"error","code":-1001', '"some text"')
        )


def test_exchange_7(gateway: Gateway, either: RawClient) -> None:
    with scripted(gateway, tb__echo=[answer([1, 2, "x"])]):
        replay(either, 'C> [2, 3 ,"tb/echo", [1,2,"x"] ]', reply(3, "3", SUCCESS, '[1,2,"x"]'))


def test_exchange_8(either: RawClient) -> None:
    replay(either, 'C> [1,"1","hello/ping",null]')
    received = b""
    while len(received) < 17:
        received += either.socket.recv(64)
    assert received == bytes.fromhex("88 0f 03f0 696e76616c69642d6672616d65")


def test_exchange_9(gateway: Gateway, either: RawClient) -> None:
    with scripted(gateway, **{"hello__has-loa-1": [answer(status="insufficient-scope", code=-9)]}):
        replay(
            either,
            'C> [2,"26","hello/has-loa-1",null]',
            reply(4, "26", '"status":"insufficient-scope","code":-9'),
        )


def test_exchange_10(gateway: Gateway, either: RawClient) -> None:
    pushed = [event({"x": 1}), answer(1), event(["t1", 3]), event(None)]
    said = 'S> [5,"tb/e",{"jtype":"afb-event","event":"tb/e","data":%s}]'
    with scripted(gateway, tb__sub=[answer()], tb__push=pushed):
        replay(
            either,
            'C> [2,"7","tb/sub",null]',
            reply(3, "7", SUCCESS),
            'C> [2,"8","tb/push",{"x":1}]',
            said % '{"x":1}',
            reply(3, "8", SUCCESS, "1"),
            said % '["t1",3]',
            said % "null",
        )


def test_exchange_11(gateway: Gateway, either: RawClient) -> None:
    apis = {"apis": {"hello": True, "monitor": True, "fakename": "hello"}}
    session = {"uuid": "UU", "timeout": 32000000, "remain": 32000000}
    with scripted(gateway, monitor__get=[answer(apis)], monitor__session=[answer(session)]):
        replay(
            either,
            'C> [2,"17","monitor/get",{"apis":false}]',
            reply(3, "17", SUCCESS, '{"apis":{"hello":true,"monitor":true,"fakename":"hello"}}'),
            'C> [2,"15","monitor/session",null]',
            reply(3, "15", SUCCESS, '{"uuid":"UU","timeout":32000000,"remain":32000000}'),
        )


def test_exchange_12(gateway: Gateway, either: RawClient) -> None:
    lost = [answer(status="disconnected", code=-15), event("tb", "monitor/disconnected")]
    with scripted(gateway, tb__hang=lost):
        replay(
            either,
            'C> [2,"5","tb/hang",null]',
            reply(4, "5", '"status":"disconnected","code":-15'),
            'S> [5,"monitor/disconnected",'
            '{"jtype":"afb-event","event":"monitor/disconnected","data":"tb"}]',
        )


# The service protocol.


@pytest.fixture(params=[True, False], ids=["masked", "unmasked"])
def service(gateway: Gateway, request: pytest.FixtureRequest) -> Iterator[RawClient]:
    """A client of the service socket of the API `tb`."""
    with gateway.local("wsapi tb", mask=request.param) as client:
        yield client


def exchange(client: RawClient, *lines: str) -> None:
    """Unmasked frames in hexadecimal, `C>` sent (masked where the client masks), `S>` received."""
    for line in lines:
        data = bytes.fromhex(line[3:])
        if line.startswith("C> "):
            assert data[0] == 0x82
            assert data[1] == len(data) - 2
            client.send(frame(data[2:], BINARY, mask=client.mask))
        else:
            while len(client.buffer) < len(data):
                client.buffer += client.socket.recv(4096)
            assert client.buffer[: len(data)].hex(" ") == data.hex(" ")
            client.buffer = client.buffer[len(data) :]


def test_exchange_13(gateway: Gateway, service: RawClient) -> None:
    with scripted(gateway, tb__echo=[answer()]):
        exchange(
            service,
            "C> 8207 56 09144c17 01 01",
            "C> 820e 53 0100 07000000 4d595555494400",
            "C> 820b 54 0100 04000000 544f4b00",
            "C> 821d 4b 0100 05000000 6563686f00 0100 0100 05000000 6e756c6c00 00000000",
            "S> 8202 76 01",
            "S> 8214 6b 0100 00000000 00000000 05000000 6e756c6c00",
        )


def test_exchange_14(gateway: Gateway, service: RawClient) -> None:
    with scripted(gateway, tb__stt=[answer(status="invalid-request", code=-12, info="some text")]):
        exchange(
            service,
            "C> 821b 4b 0500 04000000 73747400 0000 0000 04000000 2d313200 00000000",
            "S> 822e 6b 0500 10000000 696e76616c69642d7265717565737400 0a000000 736f6d65207465787400"
            "05000000 6e756c6c00",
        )


def test_exchange_15(gateway: Gateway, service: RawClient) -> None:
    said = [event(1, "tb/a"), {"subscribed": "tb/e"}, answer(), event({"x": 1})]
    with scripted(gateway, tb__e=said):
        exchange(
            service,
            "C> 821a 4b 0100 02000000 6500 0000 0000 05000000 6e756c6c00 00000000",
            "S> 820c 45 0100 05000000 74622f6100",
            "S> 8209 50 0100 02000000 3100",
            "S> 820c 45 0200 05000000 74622f6500",
            "S> 8205 58 0100 0200",
            "S> 8214 6b 0100 00000000 00000000 05000000 6e756c6c00",
            "S> 820f 50 0200 08000000 7b2278223a317d00",
        )


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(b"text", mask=False), 1003),
        (b"\xc2\x00", 1002),
        (b"\x83\x00", 1002),
        (b"\x82\x7f" + (1_048_501).to_bytes(8, "big"), 1009),
        (frame(b"V\0\0\0\0\1\1", BINARY, mask=False), 1008),
    ],
    ids=["text", "reserved bit", "opcode", "too large", "another protocol"],
)
def test_what_ends_a_service_connection(service: RawClient, sent: bytes, code: int) -> None:
    service.send(sent)
    assert service.closed()[0] == code


# REST and the development page.


@pytest.mark.parametrize("door", ["tcp", "unix"])
def test_exchange_19(gateway: Gateway, door: str) -> None:
    with gateway.client() if door == "tcp" else gateway.local("http") as client, scripted(
        gateway,
        hello__ping=[answer([{"a": "2", "b": None, "c": ""}, None, "ping count=16"])],
        **{"hello__has-loa-1": [answer(status="insufficient-scope", code=-9)]},
        tb__st=[answer(status="invalid-request", code=-12)],
    ):
        status, head, body = client.request("/api/hello/ping?a=1&b&c=&a=2")
        assert status == 200
        assert f"\r\nset-cookie: x-afb-uuid-{client.port if door == 'tcp' else 0}=" in head
        cookie = head.partition("set-cookie: ")[2].partition(";")[0]
        assert client.request("/api/hello/ping", f"Cookie: {cookie}")[1].count(cookie) == 1
        gateway.supervisor.calls.pop()
        assert "; Path=/; Max-Age=32000000; HttpOnly; SameSite=Lax" in head
        assert body == (
            b'{"jtype":"afb-reply","request":{"status":"success","code":0},'
            b'"response":[{"a":"2","b":null,"c":""},null,"ping count=16"]}'
        )
        assert gateway.supervisor.called("hello/ping")[-1] == {"a": "2", "b": None, "c": ""}
        status, head, body = client.request("/api/hello/has-loa-1")
        assert status == 403
        assert '\r\nwww-authenticate: error="insufficient_scope"' in head.lower()
        assert body == b'{"jtype":"afb-reply","request":{"status":"insufficient-scope","code":-9}}'
        status, _, body = client.request(
            "/api/tb/st", "Content-Type: application/json", "Content-Length: 3", method="POST", body=b"-12"
        )
        assert status == 200
        assert body == b'{"jtype":"afb-reply","request":{"status":"invalid-request","code":-12}}'


def test_exchange_20(gateway: Gateway, either: RawClient) -> None:
    described = {"demo": {"openapi": "3.0.0"}}
    with scripted(
        gateway, monitor__get=[answer({"apis": described})], demo__info=[answer({"name": "demo"})]
    ):
        replay(
            either,
            'C> [2,"1","monitor/get",{"apis":false},"HELLO"]',
            reply(3, "1", SUCCESS, '{"apis":{"demo":{"openapi":"3.0.0"}}}'),
            'C> [2,"2","demo/info",{},"HELLO"]',
            reply(3, "2", SUCCESS, '{"name":"demo"}'),
            'C> [2,"3","monitor/get",{"apis":true},"HELLO"]',
            reply(3, "3", SUCCESS, '{"apis":{"demo":{"openapi":"3.0.0"}}}'),
        )
