"""AFB JSON: every message form as literal bytes, and nothing but BadFrame for anything else."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initspawn.errors import STATUS_CODES
from initspawn.gateway import afb
from initspawn.limits import FRAME_BYTES

INVALID = (1008, "invalid-frame")


def refused(data: bytes) -> tuple[int, str]:
    with pytest.raises(afb.BadFrame) as caught:
        afb.decode_message(data)
    return caught.value.code, caught.value.reason


@pytest.mark.parametrize(
    ("text", "call"),
    [
        (b'[2,"999999","tb/sub",null]', (b"999999", b'"tb/sub"', b"null", None)),
        (b'[2, 3 ,"tb/echo", [1,2,"x"] ]', (b"3", b'"tb/echo"', b'[1,2,"x"]', None)),
        (b'\n[2,\t"1"\r\n,"a/b" , null\n]\n', (b"1", b'"a/b"', b"null", None)),
        (b'[2,"id\\"q","a/b",1]', (b'id\\"q', b'"a/b"', b"1", None)),
        (b'[2,"\\u00e9\xc3\xa9","a/b",1]', (b"\\u00e9\xc3\xa9", b'"a/b"', b"1", None)),
        (b'[2,true,"a/b",1]', (b"true", b'"a/b"', b"1", None)),
        (b'[2,null,"a/b",1]', (b"null", b'"a/b"', b"1", None)),
        (b'[2,-1.50e3,"a/b",1]', (b"-1.50e3", b'"a/b"', b"1", None)),
        (b'[2,"","a/b",1]', (b"", b'"a/b"', b"1", None)),
        (b'[2,"1","hello/ping/sub",1]', (b"1", b'"hello/ping/sub"', b"1", None)),
        (b'[2,"1","/ping",1]', (b"1", b'"/ping"', b"1", None)),
        (b'[2,"1","a\\/b",1]', (b"1", b'"a\\/b"', b"1", None)),
        (b'[2,"1","a/b",{"a" : 1e999},"TOK"]', (b"1", b'"a/b"', b'{"a" : 1e999}', b'"TOK"')),
        (b'[2,"1","a/b",null,"t\\"k"]', (b"1", b'"a/b"', b"null", b'"t\\"k"')),
        (b'[2,"1","a/b",null,null]', (b"1", b'"a/b"', b"null", b'"null"')),
        (b'[2,"1","a/b",null,{"a": "b"}]', (b"1", b'"a/b"', b"null", b'"{\\"a\\": \\"b\\"}"')),
        (b'[2,"1","a/b",null,17]', (b"1", b'"a/b"', b"null", b'"17"')),
    ],
)
def test_calls(text: bytes, call: tuple[object, ...]) -> None:
    assert afb.decode_message(text) == call


def test_an_event_of_the_client_is_ignored() -> None:
    assert afb.decode_message(b'[5,"a/b",{"x":1}]') is None


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"{}",
        b"2",
        b"null",
        b'"[]"',
        b"[]",
        b"[2]",
        b'[2,"1","a/b"]',
        b'[2,"1","a/b",null,"t",1]',
        b'[3,"1"]',
        b'[4,"1",{},"t",1]',
        b'[5,"a/b"]',
        b'[5,"a/b",{},1]',
        *(b'[%d,"1","a/b",null]' % code for code in (0, 1, 6, 7, 8, 9, 22, -2)),
        b'[2.0,"1","a/b",null]',
        b'["2","1","a/b",null]',
        b'[2,"1","a/",null]',
        b'[2,"1","a//b",null]',
        b'[2,"1","/",null]',
        b'[2,[1],"a/b",null]',
        b'[2,{},"a/b",null]',
        b'[2,"1",["a/b"],null]',
        b'[2,"1","a/b",nul]',
        b'[2,"1","a/b",null',
        b'[2,"1","a/b",null,]',
        b'[2,"1","a/b",null] x',
        b'[2,"1","a/b","\\q"]',
        b'[2,"1","a/b","\x01"]',
        b'[2,"1","a/b",01]',
        b'[2,"1","a/b",NaN]',
        b"\xef\xbb\xbf[2,1,2,3]",
        b"[" * 100_000,
    ],
)
def test_malformed(text: bytes) -> None:
    assert refused(text) == INVALID


@pytest.mark.parametrize("name", [b'"ping"', b'""', b"5", b"null"])
def test_a_procedure_without_a_slash(name: bytes) -> None:
    assert refused(b'[2,"1",%b,null]' % name) == (1008, "")


@pytest.mark.parametrize("text", [b'[3,"1",{}]', b'[4,"1",{}]', b'[3,"1",{},"t"]'])
def test_a_reply_to_a_call_nobody_made(text: bytes) -> None:
    assert refused(text) == (1008, "unbound-call-id")


@pytest.mark.parametrize("text", [b'[2,"\xff","a/b",null]', b'[2,"1","a/b","\xed\xa0\x80"]', b"\xc3"])
def test_invalid_utf8(text: bytes) -> None:
    assert refused(text) == (1007, "")


def message(text: bytes) -> afb.Call:
    call = afb.decode_message(text)
    assert call is not None
    return call


def test_control_message_of_a_call() -> None:
    call = message(b'[2,"1","a/b",{"x":[1, 2]}]')
    assert afb.encode_call(7, call, None) == b'{"id":7,"call":"a/b","args":{"x":[1, 2]}}'
    assert (
        afb.encode_call(7, call, afb.text_json('t"k'))
        == b'{"id":7,"call":"a/b","args":{"x":[1, 2]},"token":"t\\"k"}'
    )


@pytest.mark.parametrize(
    ("control", "reply"),
    [
        (
            b'{"id":1,"status":"success","code":0,"response":[{"a":1},null]}',
            b'[3,"i",{"jtype":"afb-reply","request":{"status":"success","code":0},"response":[{"a":1},null]}]',
        ),
        (
            b'{"id":1,"status":"success","code":5}',
            b'[3,"i",{"jtype":"afb-reply","request":{"status":"success","code":5}}]',
        ),
        (
            b'{"id":1,"status":"success","code":0,"info":null,"response":null}',
            b'[3,"i",{"jtype":"afb-reply","request":{"status":"success","code":0}}]',
        ),
        (
            b'{"id":1,"status":"unknown-api","code":-3}',
            b'[4,"i",{"jtype":"afb-reply","request":{"status":"unknown-api","code":-3}}]',
        ),
        (
            b'{"id":1,"status":"invalid-request","code":-12,"info":"some \\"text\\""}',
            b'[4,"i",{"jtype":"afb-reply","request":'
            b'{"status":"invalid-request","info":"some \\"text\\"","code":-12}}]',
        ),
        (
            b'{"id":1,"status":"error","code":-1001,"response":"some text"}',
            b'[4,"i",{"jtype":"afb-reply","request":{"status":"error","code":-1001},"response":"some text"}]',
        ),
    ],
)
def test_replies(control: bytes, reply: bytes) -> None:
    assert afb.encode_reply(b"i", afb.decode_answer(control)) == reply


def test_values_pass_through_untouched() -> None:
    odd = b'{ "n" : 1.0000000000000000000000001, "e":"\\u00e9\\/" }'
    answer = afb.decode_answer(b'{"id":1,"status":"success","code":0,"response":%b}' % odd)
    assert odd in afb.encode_reply(b"1", answer)


def test_events() -> None:
    answer = afb.decode_answer(b'{"event":"tb/e","task":"s/c@1","seq":3,"data":{"x":1}}')
    assert answer.id is None
    assert afb.encode_event(answer) == b'[5,"tb/e",{"jtype":"afb-event","event":"tb/e","data":{"x":1}}]'
    assert afb.encode_event(answer, numbered=True) == (
        b'[5,"tb/e",{"jtype":"afb-event","event":"tb/e","data":{"x":1},"task":"s/c@1","seq":3}]'
    )
    none = afb.decode_answer(b'{"event":"tb/e"}')
    assert afb.encode_event(none) == b'[5,"tb/e",{"jtype":"afb-event","event":"tb/e","data":null}]'


@pytest.mark.parametrize("body", [b"", b"[]", b'{"id":"1"}', b'{"id":1', b'{"id":1,"code":"x"}', b"\xff"])
def test_a_supervisor_that_talks_nonsense(body: bytes) -> None:
    with pytest.raises(afb.BadFrame) as caught:
        afb.decode_answer(body)
    assert caught.value.code == 1011


def test_what_does_not_fit_a_frame() -> None:
    big = b'"%b"' % (b"x" * (FRAME_BYTES - 50))
    reply = afb.encode_reply(b"1", afb.decode_answer(b'{"id":1,"status":"success","response":%b}' % big))
    assert json.loads(reply)[2]["request"]["status"] == "internal-error"
    event = afb.encode_event(afb.decode_answer(b'{"event":"a/b","data":%b}' % big))
    assert json.loads(event)[2]["data"] == {"type": "dropped-event", "count": 1}
    task = b'{"event":"a/b","task":"box/c@12","seq":3,"data":%b}' % big
    marked = json.loads(afb.encode_event(afb.decode_answer(task), numbered=True))[2]
    assert (marked["seq"], marked["data"]) == (3, {"type": "dropped-event", "pid": 12, "count": 1})


@pytest.mark.parametrize("status", STATUS_CODES)
def test_errors_made_here_are_json(status: str) -> None:
    kind, number, reply = json.loads(afb.encode_error(b"1", status, 'a "b"'))
    assert (kind, number) == (4, "1")
    assert reply["request"] == {"status": status, "info": 'a "b"', "code": STATUS_CODES[status]}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(),
    lambda inner: st.lists(inner, max_size=5),
)


@given(st.binary(max_size=200) | st.lists(json_values, max_size=6).map(lambda v: json.dumps(v).encode()))
def test_no_input_raises_anything_else(data: bytes) -> None:
    for decode in (afb.decode_message, afb.decode_answer):
        with contextlib.suppress(afb.BadFrame):
            decode(data)


@given(st.text(), json_values, json_values)
def test_every_call_becomes_a_control_message(number: str, args: object, token: object) -> None:
    """Python's json is the judge of what the gateway builds from bytes."""
    call = message(json.dumps([2, number, "a/b", args, token]).encode())
    control = json.loads(afb.encode_call(9, call, call.token))
    assert (control["id"], control["call"], control["args"]) == (9, "a/b", args)
    if isinstance(token, str):
        assert control["token"] == token
    reply = afb.encode_reply(call.id, afb.decode_answer(b'{"id":9,"status":"success","response":1}'))
    assert json.loads(reply)[1] == number
