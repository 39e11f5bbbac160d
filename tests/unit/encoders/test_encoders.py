"""The encoders' output for literal input, case by case."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from initspawn.encoders.lines import STREAM_BYTES, LineSplitter
from initspawn.encoders.table import ENCODERS, make
from initspawn.limits import FRAME_BYTES


def split(data: bytes, maxlen: int = 512) -> list[str]:
    splitter = LineSplitter(maxlen)
    return splitter.feed(data) + splitter.finish()


def run(name: str, *chunks: tuple[str, bytes], **options: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    encoder = make(name, options)
    events = [event for chunk in chunks for event in encoder.feed(*chunk)]
    return events + encoder.finish(), encoder.result()


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"last", ["last"]),
        (b"a\nlast", ["a", "last"]),
        (b"a\r\n\r\n\nb\rc\n\td", ["a", "", "", "b\rc", "\td"]),
        (b"a\r\r\n", ["a\r"]),
        (b"a\r", ["a\r"]),
        ("é€𐍈\n".encode(), ["é€𐍈"]),
        (b"caf\xe9\xff\n", ["caf\\xe9\\xff"]),
        (b"\xed\xa0\x80\n", ["\\xed\\xa0\\x80"]),  # a surrogate
        (b"\xe2\x82\n\xac\n", ["\\xe2\\x82", "\\xac"]),  # a sequence never continues behind a line's end
        (b"a\0b\x1b[1m\n", ["a\0b\x1b[1m"]),
    ],
)
def test_lines(data: bytes, lines: list[str]) -> None:
    assert split(data) == lines


@pytest.mark.parametrize("end", [b"", b"\n"])
@pytest.mark.parametrize(
    ("line", "pieces"),
    [
        (b"0123456789abcdefghijklmnopq", ["01234567\\", "89abcdef\\", "ghijklmn\\", "opq"]),
        (b"012345678", ["012345678"]),
        (b"0123456789", ["01234567\\", "89"]),
        ("1234567é0".encode(), ["1234567\\", "é0"]),
        ("123456€012".encode(), ["123456\\", "€012"]),
        ("1234567𐍈".encode(), ["1234567\\", "𐍈"]),
        ("éééé é".encode(), ["éééé\\", " é"]),
        (b"\xbf" * 10, ["\\xbf" * 8 + "\\", "\\xbf" * 2]),  # no sequence to keep whole
        (b"\xc3" + b"\xbf" * 9, ["ÿ" + "\\xbf" * 6 + "\\", "\\xbf" * 2]),
    ],
)
def test_long_lines(line: bytes, end: bytes, pieces: list[str]) -> None:
    assert split(line + end, maxlen=10) == pieces


def test_a_carriage_return_counts_until_the_line_ends() -> None:
    assert split(b"012345678\r\n", maxlen=10) == ["01234567\\", "8"]
    assert split(b"01234567\r\n", maxlen=10) == ["01234567"]


def test_text_tells_all_at_the_end() -> None:
    encoder = make("text")
    assert not encoder.synchronous
    assert encoder.feed("stdout", b"a\n") == encoder.feed("stderr", b"b\n") == []
    assert encoder.finish() == [{"stdout": ["a"], "stderr": ["b"]}]
    assert encoder.result() == {}


def test_text_without_output_is_still_told() -> None:
    assert run("text") == ([{}], {})


def test_line_tells_each_line_in_order() -> None:
    chunks = [("stdout", b"a\n"), ("stderr", b"b\n"), ("stdout", b"la"), ("stdout", b"st")]
    assert run("line", *chunks) == ([{"stdout": "a"}, {"stderr": "b"}, {"stdout": "last"}], {})


def test_line_tells_a_line_once_it_is_complete() -> None:
    encoder = make("line")
    assert encoder.feed("stdout", b"a\nb") == [{"stdout": "a"}]
    assert encoder.feed("stdout", b"\n") == [{"stdout": "b"}]
    assert encoder.finish() == []


def test_line_has_no_limit_of_lines() -> None:
    events, _ = run("line", ("stdout", b"1\n2\n3\n4\n5\n"), maxline=2)
    assert events == [{"stdout": text} for text in "12345"]


def test_sync_tells_it_in_the_reply() -> None:
    assert make("sync").synchronous
    assert run("sync", ("stdout", b"a\n")) == ([], {"stdout": ["a"]})
    assert run("sync") == ([], {})


def test_the_rest_is_discarded_after_maxline_lines() -> None:
    numbers = b"".join(b"%d\n" % number for number in range(1, 11))
    assert run("sync", ("stdout", numbers), maxline=3) == (
        [],
        {"stdout": ["1", "2", "3", "..."], "stdout-overflow": True},
    )
    assert run("text", ("stdout", b"x\n"), ("stderr", numbers), maxline=3) == (
        [{"stdout": ["x"], "stderr": ["1", "2", "3", "..."], "stderr-overflow": True}],
        {},
    )


def test_maxline_lines_are_no_overflow_but_an_unterminated_one_more_is() -> None:
    assert run("sync", ("stdout", b"1\n2\n"), maxline=2) == ([], {"stdout": ["1", "2"]})
    assert run("sync", ("stdout", b"1\n2\n3"), maxline=2) == (
        [],
        {"stdout": ["1", "2", "..."], "stdout-overflow": True},
    )


@pytest.mark.parametrize("line", [b"\x01" * 500, b'"' * 500, b"\xff" * 500, b""])
def test_an_event_always_fits_in_a_frame(line: bytes) -> None:
    from initspawn.control import wire

    lines = (line + b"\n") * (STREAM_BYTES // (len(line) + 1))
    events, _ = run("text", ("stdout", lines), ("stderr", lines), maxline=65536)
    assert len(events[0]["stdout"]) > 10
    if line:
        assert events[0]["stdout-overflow"]
    wire.encode({"event": "api/" + "v" * 1000, "data": events[0]})


def test_memory_is_bounded_for_an_endless_line() -> None:
    import tracemalloc

    encoder = make("text")
    chunk = b"x" * 65536
    tracemalloc.start()
    try:
        for _ in range(160):
            assert encoder.feed("stdout", chunk) == []
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    (event,) = encoder.finish()
    assert len(event["stdout"]) == 129
    assert event["stdout-overflow"]


@pytest.mark.parametrize("name", ENCODERS)
def test_names_have_no_case(name: str) -> None:
    assert type(make(name.upper())).__name__.lower() == name


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nope", {}, "no encoder 'nope'; there are text, line, sync, raw, log, json, stream"),
        ("text", {"maxlen": 0}, "`maxlen` must be a whole number from 6 to 65536, not 0"),
        ("text", {"maxlen": 65537}, "not 65537"),
        ("text", {"maxlen": True}, "not True"),
        ("line", {"maxlen": "10"}, "not '10'"),
        ("text", {"maxline": 0}, "`maxline` must be a whole number from 1 to 65536, not 0"),
        ("sync", {"maxline": 1.0}, "not 1.0"),
        ("sync", {"maxline": None}, "not None"),
        ("raw", {"maxlen": 0}, "`maxlen` must be a whole number from 1 to"),
        ("raw", {"base64": 1}, "`base64` must be true or false, not 1"),
        ("json", {"maxdepth": 0}, "`maxdepth` must be a whole number from 1 to 128, not 0"),
    ],
)
def test_wrong_options_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(name, options)


def test_each_option_has_a_default_and_others_mean_nothing() -> None:
    events, _ = run("text", ("stdout", b"x\n" * 129), maxlen=100, colour=1)
    assert len(events[0]["stdout"]) == 129
    assert events[0]["stdout-overflow"]
    events, _ = run("line", ("stdout", b"x" * 512), maxline=1)
    assert [len(event["stdout"]) for event in events] == [511, 2]


def test_stream_tells_pieces_as_they_come() -> None:
    encoder = make("stream")
    assert not encoder.synchronous
    assert encoder.feed("stdout", b"login: ") == [{"stdout": "login: ", "piece": "text"}]
    assert encoder.feed("stderr", b"\x1b[1m\r\n") == [{"stderr": "\x1b[1m\r\n", "piece": "text"}]
    assert encoder.feed("stdout", "€".encode()[:2]) == []
    assert encoder.feed("stdout", "€".encode()[2:] + b"\xff") == [{"stdout": "€\\xff", "piece": "text"}]
    assert encoder.feed("stdout", b"\xe2") == []
    assert encoder.finish() == [{"stdout": "\\xe2", "piece": "text"}]
    every = bytes(range(256))
    (event,) = make("stream", {"base64": True}).feed("stdout", every)
    assert (base64.b64decode(event["stdout"], validate=True), event["piece"]) == (every, "base64")


def test_raw_tells_both_streams_as_they_are() -> None:
    assert make("raw").synchronous
    expected = {"stdout": "a\r\nb", "stderr": "e\n"}
    assert run("raw", ("stdout", b"a\r\nb"), ("stderr", b"e\n")) == ([], expected)
    assert run("raw") == ([], {"stdout": "", "stderr": ""})


def test_raw_cuts_no_character() -> None:
    assert run("raw", ("stdout", "12345678é".encode()), maxlen=9)[1]["stdout"] == "12345678"
    assert run("raw", ("stdout", "12345678é".encode()), maxlen=10)[1] == {"stdout": "12345678é", "stderr": ""}
    assert run("raw", ("stdout", "é".encode()), maxlen=1)[1] == {
        "stdout": "", "stderr": "", "stdout-overflow": True,
    }  # fmt: skip


def test_raw_bytes_survive_in_base64() -> None:
    every = bytes(range(256))
    _, result = run("raw", ("stdout", every), base64=True)
    assert base64.b64decode(result["stdout"], validate=True) == every
    assert result["stderr"] == ""
    _, result = run("raw", ("stderr", every), base64=True, maxlen=10)
    assert (base64.b64decode(result["stderr"]), result["stderr-overflow"]) == (every[:10], True)


@pytest.mark.parametrize("content", [b"x", b"\x01", b'"', b"\xff", "\U0001f600".encode()])
@pytest.mark.parametrize("encoded", [False, True])
def test_a_raw_reply_always_fits_in_a_frame(content: bytes, encoded: bool) -> None:
    from initspawn.control import wire

    data = content * (2 * STREAM_BYTES // len(content))
    _, result = run("raw", ("stdout", data), ("stderr", data), base64=encoded)
    assert result["stdout-overflow"]
    assert result["stderr-overflow"]
    frame = wire.encode({"response": result, "info": "v" * 1000})
    assert STREAM_BYTES < len(frame) < FRAME_BYTES


def test_a_task_with_every_encoder_needs_no_json_before_its_own() -> None:
    source = (
        "import sys; from initspawn.encoders.table import make\n"
        "for name in ('text', 'line', 'sync', 'raw'): make(name)\n"
        "assert not {'re', 'json', 'binascii', 'initspawn.encoders.values'} & sys.modules.keys()"
    )
    root = str(Path(__file__).parents[3])
    code = f"import sys; sys.path.insert(0, {root!r})\n{source}"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, timeout=30)
