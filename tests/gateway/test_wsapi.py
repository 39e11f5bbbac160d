"""The service protocol: literal messages, one client's state, and anything a client may send."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from initspawn.gateway.afb import Answer, BadFrame
from initspawn.gateway.wsapi import NAMES, Asked, Wsapi, nstr
from initspawn.limits import FRAME_BYTES

VERSION = bytes.fromhex("56 09144c17 01 01")
SESSION = bytes.fromhex("53 0100 07000000 4d595555494400")
TOKEN = bytes.fromhex("54 0100 04000000 544f4b00")
CALL = bytes.fromhex("4b 0100 05000000 6563686f00 0100 0100 05000000 6e756c6c00 00000000")


def call(
    verb: str = "v", args: str = "null", *, number: int = 1, session: int = 0, token: int = 0,
    behalf: str | None = None,
) -> bytes:  # fmt: skip
    return b"K%b%b%b%b%b%b" % (
        number.to_bytes(2, "little"),
        nstr(verb.encode()),
        session.to_bytes(2, "little"),
        token.to_bytes(2, "little"),
        nstr(args.encode()),
        nstr(None if behalf is None else behalf.encode()),
    )


def asked(client: Wsapi, message: bytes) -> tuple[dict[str, object], Asked]:
    """What is asked of the supervisor, and what is remembered of it."""
    answers, body, remembered = client.take(7, message)
    assert answers == []
    assert body is not None
    assert remembered is not None
    return json.loads(body), remembered


def refused(client: Wsapi, message: bytes) -> bytes:
    """The answer to a call that goes no further."""
    (answer,), body, remembered = client.take(7, message)
    assert (body, remembered) == (None, None)
    return answer


def test_a_client_with_session_and_token() -> None:
    client = Wsapi("tb")
    assert client.take(1, VERSION) == ([b"\x76\x01"], None, None)
    assert client.take(1, SESSION) == ([], None, None)
    assert client.take(1, TOKEN) == ([], None, None)
    body, remembered = asked(client, CALL)
    assert body == {
        "id": 7, "call": "tb/echo", "args": None, "single": True, "token": "TOK", "session": "MYUUID",
    }  # fmt: skip
    assert client.reply(remembered, Answer(id=7)) == [
        bytes.fromhex("6b 0100 00000000 00000000 05000000 6e756c6c00")
    ]


def test_dropped_names_are_unknown() -> None:
    client = Wsapi("tb")
    for message in (SESSION, TOKEN, b"s\1\0", b"t\1\0"):
        client.take(1, message)
    assert refused(client, CALL)[:3] == b"k\1\0"
    body, _ = asked(client, call(token=1))
    assert "token" not in body


@pytest.mark.parametrize(
    ("text", "value"), [("null", None), ("[1]", [1]), ("nope", "nope"), ("1,2", "1,2"), ("", ""), ("é", "é")]
)
def test_arguments(text: str, value: object) -> None:
    assert asked(Wsapi("tb"), call(args=text))[0]["args"] == value


def test_acting_for_somebody_else() -> None:
    assert asked(Wsapi("tb"), call(behalf="3e8:63:0-NoLabel"))[0]["behalf"] == 1000
    for wrong in ("", "x:1:1-", "-1:0:0-", "0", "+0:0:0", "100000000:0:0-"):
        assert b"invalid-request" in refused(Wsapi("tb"), call(behalf=wrong))


def test_errors() -> None:
    client = Wsapi("tb")
    _, remembered = asked(client, call(number=5))
    wrong = Answer(id=7, status=Raw(b'"invalid-request"'), code=-12, info=Raw(b'"some text"'))
    assert client.reply(remembered, wrong) == [
        bytes.fromhex(
            "6b 0500 10000000 696e76616c69642d7265717565737400 0a000000 736f6d65207465787400"
            "05000000 6e756c6c00"
        )
    ]
    large = Answer(id=7, response=Raw(b'"' + b"x" * FRAME_BYTES + b'"'))
    assert b"internal-error" in client.reply(remembered, large)[0]


def test_a_subscription() -> None:
    client = Wsapi("tb")
    _, remembered = asked(client, call("e"))
    known = b"E\1\0" + nstr(b"tb/e")
    assert client.news(Answer(subscribed="tb/e"), [remembered]) == [known, b"X\1\0\1\0"]
    event = Answer(event=Raw(b'"tb/e"'), data=Raw(b'{"x":1}'))
    assert client.news(event, []) == [bytes.fromhex("50 0100 08000000 7b2278223a317d00")]
    # Of two calls each one is told of its own subscription.
    others = [asked(client, call("e", number=number))[1] for number in (2, 3)]
    assert [client.news(Answer(subscribed="tb/e"), others)[0] for _ in others] == [
        b"X\2\0\1\0",
        b"X\3\0\1\0",
    ]
    _, last = asked(client, call("e", number=4))
    assert client.news(Answer(unsubscribed="tb/e"), [last]) == [b"x\4\0\1\0", b"e\1\0"]
    assert client.news(Answer(unsubscribed="tb/e"), [last]) == []
    assert client.news(event, [])[0] == known


def test_an_event_nobody_wants() -> None:
    client = Wsapi("tb")
    assert client.take(7, b"U\1\0") == ([], None, None)
    client.news(Answer(event=Raw(b'"tb/e"')), [])
    _, body, remembered = client.take(7, b"U\1\0")
    assert remembered is None
    assert json.loads(body or b"") == {"id": 7, "unsubscribe": "tb/e"}


def test_an_event_too_large_for_a_frame() -> None:
    _, event = Wsapi("tb").news(Answer(event=Raw(b'"tb/e"'), data=Raw(b"[%b]" % (b" " * FRAME_BYTES))), [])
    assert event == b"P\1\0" + nstr(b'{"type":"dropped-event","count":1}')


def test_nothing_is_described() -> None:
    assert Wsapi("tb").take(1, b"D\7\0") == ([b"d\7\0" + nstr(b"null")], None, None)


@pytest.mark.parametrize("message", [b"V\0\0\0\0\1\1", VERSION[:-2] + b"\1\2", VERSION[:-2] + b"\0"])
def test_other_protocols_end_the_connection(message: bytes) -> None:
    with pytest.raises(BadFrame):
        Wsapi("tb").take(1, message)


@pytest.mark.parametrize("message", [b"", b"?", b"V\t\x14L\x17\1", b"S\1\0\0\0\0\0", b"K\1", b"U\1", b"D"])
def test_short_and_unknown_messages_are_ignored(message: bytes) -> None:
    assert Wsapi("tb").take(1, message) == ([], None, None)


@pytest.mark.parametrize(
    "message", [CALL[:-1], CALL[:3], CALL[:20], call("a\0b"), call(""), CALL.replace(b"echo", b"ec\xffo")]
)
def test_a_call_that_can_be_numbered_is_answered(message: bytes) -> None:
    answer = refused(Wsapi("tb"), message)
    assert answer == b"k\1\0" + nstr(b"invalid-request") + nstr(None) + nstr(b"null")


@pytest.mark.parametrize("opcode", [b"S", b"T"])
def test_names_are_bounded(opcode: bytes) -> None:
    client = Wsapi("tb")
    for number in range(NAMES):
        client.take(1, opcode + number.to_bytes(2, "little") + nstr(b"x"))
    with pytest.raises(BadFrame):
        client.take(1, opcode + b"\xff\xff" + nstr(b"x"))
    with pytest.raises(BadFrame):
        Wsapi("tb").take(1, opcode + b"\0\0" + nstr(b"x" * 5000))


MESSAGES = st.binary(max_size=40) | st.builds(
    lambda opcode, rest: opcode + rest, st.sampled_from([b"V", b"K", b"S", b"T", b"s", b"t", b"U", b"D"]),
    st.binary(max_size=40),
) | st.builds(
    lambda message, at, byte: message[:at] + byte + message[at + 1 :],
    st.sampled_from([VERSION, SESSION, TOKEN, CALL, call(behalf="0:0:0-x")]), st.integers(0, 60),
    st.binary(max_size=2),
)  # fmt: skip


@given(st.lists(MESSAGES, max_size=8))
def test_anything_a_client_may_send(messages: list[bytes]) -> None:
    client = Wsapi("tb")
    with contextlib.suppress(BadFrame):
        for number, message in enumerate(messages):
            answers, body, remembered = client.take(number, message)
            assert all(answers)
            if body is not None:
                asks = json.loads(body)
                assert asks["id"] == number
                assert asks.get("call", "tb/").startswith("tb/")
                assert (remembered is None) == ("unsubscribe" in asks)
