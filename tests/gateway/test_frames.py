"""An open WebSocket: calls, replies, events, and each thing that closes it."""

from __future__ import annotations

import json
import threading

import pytest

from initspawn.limits import FRAME_BYTES
from tests.gateway.conftest import Gateway
from tests.gateway.fake_supervisor import until
from tests.gateway.raw_client import BINARY, CLOSE, CONT, PING, PONG, RawClient, frame


def test_replies(either: RawClient) -> None:
    either.text('[2, 3 ,"x/echo", [1,2,"x"] ]')
    assert either.raw() == (
        b'[3,"3",{"jtype":"afb-reply","request":{"status":"success","code":0},"response":[1,2,"x"]}]'
    )
    either.text(b'[2,"id\\"q","nope/verb",null]')
    assert either.raw() == (
        b'[4,"id\\"q",{"jtype":"afb-reply","request":{"status":"unknown-api","code":-3}}]'
    )
    args = '{"status":"invalid-request","code":-12,"info":"some text"}'
    either.text(f'[2,"a","x/fail",{args}]')
    assert either.raw() == (
        b'[4,"a",{"jtype":"afb-reply","request":{"status":"invalid-request","info":"some text","code":-12}}]'
    )


def test_empty_api_and_long_verb(client: RawClient) -> None:
    assert client.call("/ping")[2]["request"]["status"] == "unknown-api"
    assert client.call("x/procedure/sub/sub")[2]["response"] == "x/procedure/sub/sub"


def test_events(either: RawClient) -> None:
    either.text('[2,"1","x/stream",3]')
    assert either.message()[:2] == [3, "1"]
    for number in (1, 2, 3):
        kind, name, event = either.message()
        assert (kind, name, event["jtype"], event["event"]) == (5, "x/stream", "afb-event", "x/stream")
        assert event["data"]["n"] == number


def test_a_client_s_event_is_ignored(client: RawClient) -> None:
    client.text('[5,"a/b",{}]')
    assert client.call("x/echo", 1)[2]["response"] == 1


@pytest.mark.parametrize(
    ("data", "code", "reason"),
    [
        (frame(b'[1,"1","hello/ping",null]'), 1008, "invalid-frame"),
        (frame(b""), 1008, "invalid-frame"),
        (frame(b'[2,"1","x/",null]'), 1008, "invalid-frame"),
        (frame(b'[2,"1","x//y",null]'), 1008, "invalid-frame"),
        (frame(b'[2,"1","x/y",{]'), 1008, "invalid-frame"),
        (frame(b'[2,"1","ping",null]'), 1008, ""),
        (frame(b'[3,"1",{}]'), 1008, "unbound-call-id"),
        (frame(b'[2,"1","x/echo",null]', BINARY), 1003, ""),
        (frame(b'[2,"\xff","x/echo",null]'), 1007, ""),
        (frame(b"x", 3), 1002, ""),
        (b"\xc1\x80abcd", 1002, ""),
        (frame(b"x", CONT), 1002, ""),
        (frame(b"x" * 126, PING), 1002, ""),
        (frame(b"x", PING, fin=False), 1002, ""),
        (frame(b"\x03", CLOSE), 1002, ""),
        (frame(b"[", fin=False) + frame(b"[]"), 1002, ""),
        (b"\x81\xff" + (FRAME_BYTES + 1).to_bytes(8, "big"), 1009, ""),
        (b"\x81\x7f" + (FRAME_BYTES + 1).to_bytes(8, "big"), 1009, ""),
        (frame(b"x" * 900_000, fin=False) + frame(b"x" * 900_000, CONT), 1009, ""),
    ],
)
def test_what_closes(client: RawClient, data: bytes, code: int, reason: str) -> None:
    client.send(data)
    assert client.closed() == (code, reason)
    client.send(frame(b"", CLOSE))
    assert client.at_end()


def test_the_close_frame_s_bytes(client: RawClient) -> None:
    client.text('[1,"1","hello/ping",null]')
    assert client._take(17).hex() == "880f03f0696e76616c69642d6672616d65"


def test_calls_before_a_fault_are_made(client: RawClient, gateway: Gateway) -> None:
    calls = b"".join(frame(b'[2,"1","x/echo","before %d"]' % i) for i in range(3))
    client.send(calls + frame(b"", BINARY))
    client.send(frame(b'[2,"1","x/echo","after"]'))
    until(lambda: "before 2" in gateway.supervisor.called("x/echo"), "the calls before the fault")
    assert "after" not in gateway.supervisor.called("x/echo")


def test_largest_frame(either: RawClient) -> None:
    """The largest legal frame is read; a call that no longer fits a control frame is answered."""
    frame_text = '[2,"1","x/echo","%s"]'
    text = frame_text % ("x" * (FRAME_BYTES - len(frame_text) + 2))
    assert len(text) == FRAME_BYTES
    either.text(text)
    assert either.message()[:2] == [4, "1"]
    either.text(frame_text % ("x" * (FRAME_BYTES - 200)))
    assert len(either.message()[2]["response"]) == FRAME_BYTES - 200


def test_replies_are_one_frame(client: RawClient) -> None:
    for size in (100, 125, 126, 70_000, 1_000_000):
        assert client.call("x/raw", json.dumps("y" * size))[2]["response"] == "y" * size


def test_fragments(either: RawClient) -> None:
    mask = either.mask
    either.send(frame(b'[2,"1",', fin=False, mask=mask))
    either.send(frame(b"", CONT, fin=False, mask=mask))
    either.send(frame(b"now", PING, mask=mask))
    assert either.frame() == (PONG, b"now")
    either.send(frame(b'"x/echo","\xc3', CONT, fin=False, mask=mask))
    either.send(frame(b'\xa9"]', CONT, mask=mask))
    assert either.message()[2]["response"] == "é"


def test_torn_frames(either: RawClient) -> None:
    data = frame(b'[2,"1","x/echo",1]', mask=either.mask) + frame(b'[2,"2","x/echo",2]', mask=either.mask)
    for byte in data:
        either.send(bytes((byte,)))
    assert [either.message()[1] for _ in range(2)] == ["1", "2"]


def test_mixed_masks(client: RawClient) -> None:
    client.send(b"".join(frame(b'[2,"%d","x/echo",1]' % i, mask=i % 2 == 0) for i in range(10)))
    assert [client.message()[1] for _ in range(10)] == [str(i) for i in range(10)]


def test_ping_and_pong(either: RawClient) -> None:
    either.send(frame(b"hello", PING, mask=either.mask))
    assert either.frame() == (PONG, b"hello")
    either.send(frame(b"unasked", PONG, mask=either.mask))
    assert either.call("x/echo", 1)[2]["response"] == 1


def test_close_of_the_client(either: RawClient) -> None:
    either.send(frame(b"\x03\xe8bye", CLOSE, mask=either.mask))
    assert either.closed() == (1000, "bye")
    assert either.at_end()


def test_empty_close_of_the_client(client: RawClient) -> None:
    client.send(frame(b"", CLOSE))
    assert client.frame() == (CLOSE, b"")
    assert client.at_end()


@pytest.mark.parametrize("size", range(0, 40, 3))
def test_abrupt_end_anywhere(gateway: Gateway, size: int) -> None:
    """The module's gateway must not have written a word about it, see conftest."""
    ended = gateway.supervisor.ended()
    with gateway.client() as client:
        client.open()
        client.send(frame(b'[2,"1","x/echo",12345678]')[:size])
    until(lambda: gateway.supervisor.ended() > ended, "the end of the control connection")


def test_a_call_of_a_client_that_leaves_at_once_is_made(gateway: Gateway) -> None:
    for number, goodbye in enumerate((b"", frame(b"", CLOSE))):
        with gateway.client() as client:
            client.open()
            client.send(frame(b'[2,"1","x/echo","leaving %d"]' % number) + goodbye)
        until(lambda: f"leaving {number}" in gateway.supervisor.called("x/echo"), "the call")  # noqa: B023


def test_replies_in_any_order(client: RawClient, gateway: Gateway) -> None:
    client.text('[2,"slow","x/hang",null]')
    assert client.call("x/echo", 1)[1] == "1"
    hanging = until(lambda: [c for c in gateway.supervisor.connections if c.hanging], "the hanging call")
    hanging[0].release()
    assert client.message()[1] == "slow"


def test_the_same_id_twice(client: RawClient) -> None:
    client.send(frame(b'[2,"1","x/echo","a"]') + frame(b'[2,"1","x/echo","b"]'))
    assert [client.message()[2]["response"] for _ in range(2)] == ["a", "b"]


def test_many_clients(gateway: Gateway) -> None:
    def work(number: int) -> None:
        with gateway.client(mask=bool(number % 2)) as client:
            client.open()
            results.append([client.call("x/echo", i)[2]["response"] for i in range(20)])

    results: list[list[int]] = []
    threads = [threading.Thread(target=work, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [list(range(20))] * 10
