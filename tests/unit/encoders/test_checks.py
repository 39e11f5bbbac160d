"""The conformance checks of the encoders, number by number, where no command has to run."""

from __future__ import annotations

from typing import Any

from initspawn.encoders.table import make


def run(name: str, *chunks: bytes, stream: str = "stdout", **options: int) -> Any:
    """The events of these bytes; of a synchronous encoder what its reply says."""
    encoder = make(name, options)
    events = [event for chunk in chunks for event in encoder.feed(stream, chunk)] + encoder.finish()
    return encoder.result() if encoder.synchronous else events


def numbers(last: int) -> bytes:
    return b"".join(b"%d\n" % number for number in range(1, last + 1))


def test_check_037_text_without_output() -> None:
    assert run("text") == [{}]


def test_check_040_sync_without_output() -> None:
    assert run("sync") == {}


def test_check_041_raw_as_it_is() -> None:
    encoder = make("raw")
    encoder.feed("stdout", b"a\r\nb")
    encoder.feed("stderr", b"e\n")
    assert encoder.result() == {"stdout": "a\r\nb", "stderr": "e\n"}


def test_check_042_raw_grows() -> None:
    assert run("raw", b"x" * 1000, b"y" * 1000) == {"stdout": "x" * 1000 + "y" * 1000, "stderr": ""}


def test_check_043_raw_exact_fit() -> None:
    assert run("raw", b"0123456789", maxlen=10) == {"stdout": "0123456789", "stderr": ""}


def test_check_044_raw_overflow() -> None:
    expected = {"stdout": "0123456789", "stderr": "", "stdout-overflow": True}
    assert run("raw", b"0123456", b"789abc", maxlen=10) == expected


def test_check_045_sync_maxline() -> None:
    assert run("sync", numbers(10), maxline=3) == {"stdout": ["1", "2", "3", "..."], "stdout-overflow": True}


def test_check_046_sync_long_line() -> None:
    pieces = ["01234567\\", "89abcdef\\", "ghijklmn\\", "opq"]
    assert run("sync", b"0123456789abcdefghijklmnopq\n", maxlen=10) == {"stdout": pieces}


def test_check_047_sync_line_that_fits() -> None:
    assert run("sync", b"012345678\n", maxlen=10) == {"stdout": ["012345678"]}


def test_check_048_sync_ends_of_lines() -> None:
    assert run("sync", b"a\r\n\r\n\nb\rc\n\td") == {"stdout": ["a", "", "", "b\rc", "\td"]}


def test_check_049_line_has_no_maxline() -> None:
    assert run("line", numbers(5), maxline=2) == [{"stdout": text} for text in "12345"]


def test_check_050_json_values() -> None:
    found = run("json", b'{"a":1}[1,2] 12 "s" true')
    assert found == [{"stdout": value} for value in ({"a": 1}, [1, 2], 12, "s", True)]


def test_check_051_json_null() -> None:
    assert run("json", b"null") == []


def test_check_052_json_single_quotes() -> None:
    assert run("json", b"{'m':'x'}") == [{"stdout": {"m": "x"}}]


def test_check_053_json_trailing_comma() -> None:
    assert run("json", b'{"a":1,}') == [{"stdout": {"a": 1}}]


def test_check_054_json_in_two_writes() -> None:
    assert run("json", b'{"a":', b"1}") == [{"stdout": {"a": 1}}]


def test_check_055_json_in_step_again() -> None:
    found = run("json", b'abc\n{"ok":1}\n')
    assert found == [{"json-error": "unexpected character", "line": "abc"}, {"stdout": {"ok": 1}}]


def test_check_056_json_without_fault() -> None:
    assert run("json", b'{"a":1}\n') == [{"stdout": {"a": 1}}]


def test_check_057_json_cut_off() -> None:
    assert run("json", b'{"a":[1') == [{"json-error": "unexpected end of data", "line": '{"a":[1'}]


def test_check_058_json_stderr() -> None:
    assert run("json", b"line\n", stream="stderr") == [{"stderr": "line"}]


def test_check_059_json_maxdepth() -> None:
    assert run("json", b"[[[1]]]", maxdepth=2) == [{"json-error": "nesting too deep", "line": "[[[1]]]"}]
