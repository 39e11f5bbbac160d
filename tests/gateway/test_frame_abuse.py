"""Frames that no honest client sends: lengths, control frames, fragments and close codes."""

from __future__ import annotations

import contextlib

import pytest

from tests.gateway.conftest import Gateway
from tests.gateway.fake_supervisor import until
from tests.gateway.raw_client import CLOSE, CONT, PING, PONG, TEXT, RawClient, frame
from tests.gateway.test_pressure import resident

CALL = b'[2,"1","x/echo",7]'
ANSWER = b'[3,"1",{"jtype":"afb-reply","request":{"status":"success","code":0},"response":7}]'


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ("817f 7fffffffffffffff", 1009),
        ("81ff 7fffffffffffffff 37fa213d", 1009),
        ("817f 8000000000000000", 1009),  # the highest bit must be 0 (RFC 6455, section 5.2)
        ("817f ffffffffffffffff", 1009),
        ("817f 0000000000100000", 1009),
        ("01 7f 0000000000100000", 1009),
        ("09 00", 1002),  # a ping in fragments
        ("08 00", 1002),
        ("89 7e 007e", 1002),  # a ping of 126 bytes
        ("88 7e 007e", 1002),
        ("88 01 03", 1002),  # half a close code
        ("88 02 0000", 1002),
        ("88 02 03e7", 1002),  # 999
        ("88 02 03ec", 1002),  # 1004, reserved
        ("88 02 03ed", 1002),  # 1005 and 1006 are never sent
        ("88 02 03ee", 1002),
        ("88 02 03f7", 1002),  # 1015 neither
        ("88 02 07d0", 1002),  # 2000
        ("88 02 1388", 1002),  # 5000
        ("88 04 03e8 c328", 1007),
        ("80 00", 1002),  # the rest of a message that has not begun
        ("01 01 5b 81 01 5b", 1002),  # a message within another
        ("c1 00", 1002),  # compressed, which nobody has agreed to
        ("a1 00", 1002),
        ("91 00", 1002),
        ("8b 00", 1002),
        ("83 00", 1002),
    ],
)
def test_what_ends_a_connection(either: RawClient, sent: str, code: int) -> None:
    data = bytes.fromhex(sent)
    either.send(data + b"\0" * 130 if len(data) > 3 and data[1] == 0x7E else data)
    assert either.closed()[0] == code


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1011, 1014, 3000, 4999])
def test_close_codes_are_given_back(either: RawClient, code: int) -> None:
    either.send(frame(code.to_bytes(2, "big"), CLOSE, mask=either.mask))
    assert either.closed()[0] == code
    assert either.at_end()


def test_a_hundred_thousand_fragments_and_then_some() -> None:
    """Empty ones, of one byte each, and a ping between them: the frames of one read are held, and no more."""
    with Gateway() as gateway, gateway.client(mask=False) as client:
        client.open()
        before = resident(gateway.process.pid)
        client.send(frame(b"[", TEXT, mask=False, fin=False))
        empty = frame(b"", CONT, mask=False, fin=False) * 1000
        for _ in range(100):
            client.send(empty)
        client.send(frame(b"p", PING, mask=False))
        assert client.frame() == (PONG, b"p")
        assert resident(gateway.process.pid) - before < 20_480
        spaces = frame(b" ", CONT, mask=False, fin=False) * 1000
        for _ in range(100):
            client.send(spaces)
        client.send(frame(CALL[1:], CONT, mask=False))
        assert client.raw() == ANSWER
        assert resident(gateway.process.pid) - before < 20_480


def test_fragments_of_more_than_a_message(gateway: Gateway, client: RawClient) -> None:
    """The limit is for the whole: the fragment that goes beyond it ends the connection."""
    before = len(gateway.supervisor.calls)
    client.send(frame(b"[", TEXT, fin=False))
    with contextlib.suppress(ConnectionError):
        for _ in range(64):
            client.send(frame(b" " * 65536, CONT, fin=False))
    assert client.closed()[0] == 1009
    assert len(gateway.supervisor.calls) == before


def test_the_other_end_is_there_no_more(gateway: Gateway) -> None:
    """Half of the connection is closed: what was asked for before is done, then the whole of it ends."""
    ended = gateway.supervisor.ended()
    with gateway.client() as client:
        client.open()
        client.text(CALL)
        assert client.raw() == ANSWER
        client.text('[2,"2","x/echo",8]')
        client.socket.shutdown(1)
        until(lambda: ("x/echo", 8) in gateway.supervisor.calls, "the last call")
        until(lambda: gateway.supervisor.ended() > ended, "the end of the control connection")
