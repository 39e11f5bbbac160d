"""The json encoder, input by input: tolerance, faults, resynchronisation and bounds."""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import pytest

from initspawn.encoders.table import make
from initspawn.limits import JSON_BYTES


def told(data: bytes, **options: int) -> list[dict[str, Any]]:
    encoder = make("json", options)
    return encoder.feed("stdout", data) + encoder.finish()


def values(data: bytes, **options: int) -> list[Any]:
    """The values told; every event must be one."""
    return [event["stdout"] for event in told(data, **options)]


def faults(data: bytes, **options: int) -> list[tuple[str, str]]:
    return [
        (event["json-error"], event["line"]) for event in told(data, **options) if "json-error" in event
    ]


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", []),
        (b" \n\t\r\n", []),
        (b"[]{}", [[], {}]),
        (b'{"a":{"a":[{"b":null}]}}', [{"a": {"a": [{"b": None}]}}]),
        (b'{"a":1,"a":2}', [{"a": 2}]),
        (b"[1,2,]", [[1, 2]]),
        (b"['it\\'s', \"it's\"]", [["it's", "it's"]]),
        (b'"\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9"', ['"\\/\b\f\n\r\t\u00e9']),
        (b'"a\tb\x01"', ["a\tb\x01"]),
        (b'"\\u0000"', ["\0"]),
        (b'"\\ud83d\\ude00"', ["\U0001f600"]),
        (b'"\\ud83d"', ["\\ud83d"]),
        (b'"caf\xe9 \xff"', ["caf\\xe9 \\xff"]),
        (b'"\xed\xa0\x80"', ["\\xed\\xa0\\x80"]),
        (b"// one\n1 /* two */ 2 /**/[/* three\n*/3]", [1, 2, [3]]),
        (b"-0 0.5 1e3 -12.25E-1", [0, 0.5, 1000.0, -1.225]),
        (b"18446744073709551615 -9223372036854775808", [18446744073709551615, -9223372036854775808]),
        (b"18446744073709551616", [1.8446744073709552e19]),
        (b"NaN [Infinity,-Infinity] 1e999", ["NaN", ["Infinity", "-Infinity"], "Infinity"]),
    ],
)
def test_what_is_taken(data: bytes, found: list[Any]) -> None:
    assert values(data) == found


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"{1:2}", "unexpected character"),
        (b"{a:2}", "unexpected character"),
        (b'{"a" 2}', "unexpected character"),
        (b'{"a":}', "unexpected character"),
        (b'{"a":1 "b":2}', "unexpected character"),
        (b"{,}", "unexpected character"),
        (b"[,]", "unexpected character"),
        (b"[1 2]", "unexpected character"),
        (b"[1}", "unexpected character"),
        (b"]", "unexpected character"),
        (b",2", "unexpected character"),
        (b"01", "unexpected character"),
        (b"+1", "unexpected character"),
        (b"1.", "unexpected character"),
        (b"True", "unexpected character"),
        (b"undefined", "unexpected character"),
        (b"/", "unexpected character"),
        (b"\0", "unexpected character"),
        (b"\xef\xbb\xbf{}", "unexpected character"),
        (b"1" * 401, "unexpected character"),
        (b'"a\n"', "unterminated string"),
        (b'"a\\\n"', "unterminated string"),
        (b'"\\x41"', "unknown escape in a string"),
        (b'"\\u12"', "unknown escape in a string"),
        (b'"a', "unexpected end of data"),
        (b'"a\\', "unexpected end of data"),
        (b'{"a":', "unexpected end of data"),
        (b"[1", "unexpected end of data"),
        (b"[ // never closed", "unexpected end of data"),
        (b"/* never closed", "unexpected end of data"),
    ],
)
def test_what_is_not(data: bytes, fault: str) -> None:
    first, *_ = told(data)
    assert first["json-error"] == fault


def test_a_comment_at_the_end_is_no_fault() -> None:
    assert values(b"1 // the end") == [1]


@pytest.mark.parametrize(
    ("data", "events"),
    [
        # On its line all is lost, behind it nothing.
        (b'1 x 2\n3', [{"stdout": 1}, ("unexpected character", "x 2"), {"stdout": 3}]),
        (b'{"k":x} [0]\n{"ok":1}', [("unexpected character", '{"k":x} [0]'), {"stdout": {"ok": 1}}]),
        # Written over several lines: skipped to the bracket that closes it.
        (b'{\n "a": x,\n "b": {"c": 1}\n}\n"ok"', [("unexpected character", ' "a": x,'), {"stdout": "ok"}]),
        (b'[\n{"a":x},\n{"b":1}\n]\n12', [("unexpected character", '{"a":x},'), {"stdout": 12}]),
        # Never closed: a line that begins with a bracket is a new value.
        (b'{"a":[1\n{"ok":1}', [("unexpected character", '{"a":[1'), {"stdout": {"ok": 1}}]),
        (b'{"a":[x\n\n[1]', [("unexpected character", '{"a":[x'), {"stdout": [1]}]),
        (b'{"a": "b\n{"ok":1}', [("unterminated string", '{"a": "b'), {"stdout": {"ok": 1}}]),
        # Each bad line once.
        (b"no json\nat all\n", [("unexpected character", "no json"), ("unexpected character", "at all")]),
    ],
)  # fmt: skip
def test_back_in_step(data: bytes, events: list[Any]) -> None:
    expected = [
        {"json-error": event[0], "line": event[1]} if isinstance(event, tuple) else event for event in events
    ]
    assert told(data) == expected


def test_the_line_of_a_fault_is_bounded() -> None:
    assert faults(b"x" * 100 + b"\n", maxlen=10) == [("unexpected character", "xxxxxxxx\\")]
    assert faults(b"[1,x" + b"y" * 100, maxlen=10) == [("unexpected character", "[1,xyyyy\\")]
    assert faults(b"x\xff\n") == [("unexpected character", "x\\xff")]
    assert faults(b"x\r\n") == [("unexpected character", "x")]


def test_a_fault_is_told_before_its_line_ends_if_the_line_is_long() -> None:
    encoder = make("json", {"maxlen": 10})
    assert encoder.feed("stdout", b"?" * 9) == []
    assert encoder.feed("stdout", b"?") == [{"json-error": "unexpected character", "line": "????????\\"}]
    assert encoder.feed("stdout", b"?" * 20 + b"\n1 ") == [{"stdout": 1}]


def test_values_that_are_too_large() -> None:
    fits = b'"' + b"x" * (JSON_BYTES - 2) + b'"'
    assert values(fits + b"1") == [fits[1:-1].decode(), 1]
    ((message, line),) = faults(fits[:-1] + b'x" 2\n3', maxlen=16)
    assert message == f"a value of more than {JSON_BYTES} bytes"
    assert line == '"xxxxxxxxxxxxx\\'
    assert told(fits[:-1] + b'x"\n3')[1] == {"stdout": 3}
    assert told(b"[" + b" " * JSON_BYTES + b"]\n3")[1:] == [{"stdout": 3}]


def test_depth() -> None:
    assert values(b"[" * 128 + b"]" * 128, maxdepth=128)
    assert faults(b"[" * 129 + b"]" * 129, maxdepth=128)[0][0] == "nesting too deep"
    assert values(b"[[1],[2]]", maxdepth=2) == [[[1], [2]]]


HOSTILE = {
    "an endless string": b'"' + b"x" * 200_000,
    "an endless string of escapes": b'"' + b'\\"' * 100_000,
    "brackets": b"[" * 200_000,
    "a list of lists": b"[" + b"[]," * 65_000,
    "a number": b"1" * 200_000,
    "a comment": b"/*" + b"*" * 200_000,
    "a comment in a value": b"[/*" + b"/" * 200_000,
    "white space": b" " * 200_000,
    "slashes": b"/" * 200_000,
    "one bad line": b"x" * 200_000,
    "bad lines": b"x\n" * 20_000,
    "objects never closed": b'{"a":\n' * 20_000,
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_time_grows_with_the_length_alone(data: bytes) -> None:
    """Byte by byte, which is the worst a command can do: quadratic work would take far longer."""
    encoder = make("json")
    began = time.process_time()
    for byte in data:
        encoder.feed("stdout", bytes((byte,)))
    encoder.finish()
    assert time.process_time() - began < 10


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_memory_is_bounded(data: bytes) -> None:
    encoder = make("json")
    chunk = data[: len(data) // 2048 * 2048]
    tracemalloc.start()
    try:
        for _ in range(4):
            for at in range(0, len(chunk), 2048):
                encoder.feed("stdout", chunk[at : at + 2048])
        assert tracemalloc.get_traced_memory()[1] < 32 * JSON_BYTES
    finally:
        tracemalloc.stop()


def test_stderr_is_lines() -> None:
    encoder = make("json", {"maxlen": 10})
    assert encoder.feed("stderr", b'{"a":1}\nx') == [{"stderr": '{"a":1}'}]
    assert encoder.feed("stderr", b"x" * 10) == [{"stderr": "xxxxxxxx\\"}]
    assert encoder.feed("stdout", b"1") == []
    assert encoder.finish() == [{"stdout": 1}, {"stderr": "xxx"}]
