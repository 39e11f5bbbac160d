"""The client's side of the service protocol: literal messages, and anything a service may send."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initspawn.gateway.wsapi import Wsapi, nstr
from initspawn.limits import FRAME_BYTES
from initspawn.verbs import wsapi
from initspawn.verbs.wsapi import Frames, Message, ServiceError, decode


def test_the_greeting_is_the_references() -> None:
    assert wsapi.frame(wsapi.HELLO) == bytes.fromhex("8207 56 09144c17 01 01")


def test_a_call_is_the_references_but_for_session_and_token() -> None:
    wanted = "4b 0100 05000000 6563686f00 0000 0000 05000000 6e756c6c00 00000000"
    assert wsapi.call(1, "echo", None) == bytes.fromhex("821d" + wanted)


def test_our_own_server_understands_a_call() -> None:
    ((_, payload),) = Frames().feed(wsapi.call(0xFFFE, "päng/x", {"a": [1, "/ü"]}))
    answers, body, asked = Wsapi("api").take(7, payload)
    assert (answers, asked and asked.procedure) == ([], "api/päng/x")
    assert body is not None
    assert '"args":{"a":[1,"/ü"]}' in body.decode()


@pytest.mark.parametrize(
    ("hexadecimal", "wanted"),
    [
        ("76 01", Message(kind=wsapi.WELCOME, number=1)),
        ("6b 0100 00000000 00000000 05000000 6e756c6c00", Message(kind=wsapi.REPLY, number=1, data=b"null")),
        ("6b 0500 10000000 696e76616c69642d7265717565737400 0a000000 736f6d65207465787400 05000000"
         "6e756c6c00",
         Message(kind=wsapi.REPLY, number=5, name="invalid-request", info="some text", data=b"null")),
        ("45 0200 05000000 74622f6500", Message(kind=wsapi.EVENT, number=2, name="tb/e")),
        ("65 0200", Message(kind=wsapi.FORGET, number=2)),
        ("50 0200 08000000 7b2278223a317d00", Message(kind=wsapi.PUSH, number=2, data=b'{"x":1}')),
        ("42 08000000 68656c6c6f2f6200 02000000 3100 6b00fb7c5aee45a2ba103a2db7d6f896 09",
         Message(kind=wsapi.BROADCAST, name="hello/b", data=b"1")),
        ("58 0100 0200", None),
        ("78 0100 0200", None),
        ("64 0100 05000000 6e756c6c00", None),
        ("", None),
        ("ff", None),
    ],
)  # fmt: skip
def test_the_references_messages(hexadecimal: str, wanted: Message | None) -> None:
    assert decode(bytes.fromhex(hexadecimal)) == wanted


@pytest.mark.parametrize("hexadecimal", ["76", "6b 01", "45 0200 05000000 7462", "50 0200", "42 ffffffff 00"])
def test_messages_that_end_early(hexadecimal: str) -> None:
    with pytest.raises(ServiceError):
        decode(bytes.fromhex(hexadecimal))


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536, FRAME_BYTES])
def test_frames_of_all_lengths(size: int) -> None:
    made = wsapi.frame(b"x" * size)
    frames = Frames()
    found = [one for at in range(0, len(made), 50_000) for one in frames.feed(made[at : at + 50_000])]
    assert found == [(wsapi.BINARY, b"x" * size)]


def test_a_call_that_is_too_large() -> None:
    with pytest.raises(ValueError, match="at most 1048500 are allowed"):
        wsapi.call(1, "v", "x" * FRAME_BYTES)


@pytest.mark.parametrize(
    "head",
    [
        b"\x82\x80", b"\x02\x00", b"\x00\x00", b"\xc2\x00",  # masked, in pieces, reserved bits
        b"\x82\x7f" + (FRAME_BYTES + 1).to_bytes(8, "big"), b"\x82\x7f" + b"\xff" * 8,
    ],
)  # fmt: skip
def test_frames_that_are_refused(head: bytes) -> None:
    with pytest.raises(ServiceError):
        Frames().feed(head)


@pytest.mark.parametrize(
    ("data", "wanted"),
    [(b"", None), (b"null", None), (b'{"a":1}', {"a": 1}), (b"no json", "no json"), (b"\xff", "\ufffd")],
)
def test_values(data: bytes, wanted: object) -> None:
    assert wsapi.value(data) == wanted


def test_a_value_that_is_too_deep_is_a_text() -> None:
    deep = b"[" * 100_000
    assert wsapi.value(deep) == deep.decode()


@given(st.binary(max_size=200))
def test_any_message(payload: bytes) -> None:
    with contextlib.suppress(ServiceError):
        decode(payload)


@given(st.sampled_from(b"vkEePBXxd"), st.lists(st.binary(max_size=12).map(nstr) | st.binary(max_size=3)))
def test_any_message_with_fields(kind: int, fields: list[bytes]) -> None:
    with contextlib.suppress(ServiceError):
        decode(bytes((kind,)) + b"".join(fields))


@given(st.lists(st.binary(max_size=300), max_size=5), st.lists(st.integers(1, 40), min_size=1))
def test_torn_anywhere(payloads: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(map(wsapi.frame, payloads))
    frames, found = Frames(), []
    at = turn = 0
    while at < len(stream):
        size = cuts[turn % len(cuts)]
        found += frames.feed(stream[at : at + size])
        at, turn = at + size, turn + 1
    assert [payload for _, payload in found] == payloads


@given(st.binary(max_size=400), st.integers(1, 50))
def test_any_stream_is_cut_the_same_however_it_comes(stream: bytes, size: int) -> None:
    def fed(step: int) -> tuple[list[tuple[int, bytes]], bool]:
        frames, found = Frames(), []
        try:
            for at in range(0, len(stream), step):
                found += frames.feed(stream[at : at + step])
        except ServiceError:
            return found, True
        return found, False

    whole, torn = fed(len(stream) or 1), fed(size)
    assert whole[1] == torn[1]
    assert whole[1] or whole == torn
