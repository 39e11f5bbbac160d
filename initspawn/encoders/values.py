"""A byte stream into JSON values: concatenated, tolerant, bounded, and back in step after bad input.

Besides strict JSON it takes single-quoted strings and keys, a comma after the last element, `//` and
`/* */` comments, and NaN and infinities, which become text, because JSON has no such numbers. A number
that fits in no 64 bits becomes a floating point number. Bytes that are no UTF-8 and halves of surrogate
pairs stand in strings as escapes (`\\xff`, `\\ud800`), so that a value can always be written as JSON.
A string ends on its line.

A fault is told once, with the line it is on. What follows it is skipped up to the end of that line, or of
the line that closes the brackets still open; a line that begins with a bracket of its own, and not as
an element behind a comma, is always a new value.

Every byte is looked at a bounded number of times, and what is kept is at most one value of JSON_BYTES
bytes. The result depends on the bytes alone, never on how they were divided into reads. Loaded with the
first such encoder: `re` is no module of the boot stage.
"""

from __future__ import annotations

import re

from initspawn.encoders.lines import LineSplitter
from initspawn.limits import JSON_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# What may come next: a value; a value or the end of the list; a key or the end of the object; ...
_VALUE, _ELEMENT, _KEY, _COLON, _COMMA = range(5)
_OPENING, _CLOSING, _QUOTES, _SLASH = b"[{", b"]}", b"\"'", ord("/")
_SPACE = re.compile(rb"[ \t\r\n]*")
_WORD = re.compile(rb"[-+.\w]*")
_SPECIAL = {ord('"'): re.compile(rb'["\\\n]'), ord("'"): re.compile(rb"['\\\n]")}
_ESCAPE = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|(.))")
_ESCAPED = {
    b'"': '"', b"'": "'", b"\\": "\\", b"/": "/", b"b": "\b", b"f": "\f", b"n": "\n", b"r": "\r", b"t": "\t",
}  # fmt: skip
_NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_LONGEST_WORD = 400
_LONGEST_INTEGER = 20  # characters that 64 bits may need
_INTEGERS = range(-(1 << 63), 1 << 64)
_WORDS: dict[bytes, Any] = {
    b"true": True, b"false": False, b"null": None,
    b"NaN": "NaN", b"Infinity": "Infinity", b"-Infinity": "-Infinity",
}  # fmt: skip

UNEXPECTED = "unexpected character"
ENDED = "unexpected end of data"
TOO_DEEP = "nesting too deep"
TOO_LARGE = f"a value of more than {JSON_BYTES} bytes"


class _Fault(Exception):
    """The bytes from `at` on cannot go on what came before."""

    def __init__(self, message: str, at: int) -> None:
        self.message = message
        self.at = at


class Values:
    """One stream's values. `maxdepth`: how many brackets may be open; `maxlen`: bytes of a line told."""

    def __init__(self, maxdepth: int, maxlen: int) -> None:
        self._maxdepth = maxdepth
        self._maxlen = maxlen
        self._buffer = bytearray()  # from the value's first byte, or what is not looked at yet
        self._at = 0  # the first byte that is not understood yet
        self._found: list[Any] = []
        self._ended = False
        # Within a value:
        self._start = -1
        self._stack: list[Any] = []
        self._keys: list[str] = []
        self._expect = _VALUE
        self._string = 0  # how far a string has been searched for its end
        self._comment = b""  # what ends the comment we are in
        # Behind a fault:
        self._skipping = False
        self._message = ""  # not told yet
        self._line = bytearray()
        self._open = 0  # brackets
        self._last = 0  # the line's last byte that is no white space
        self._at_line = False  # at the beginning of a line, with brackets open

    def feed(self, data: bytes) -> list[Any]:
        """What these bytes complete, in order: (value,) or a fault as (message, line)."""
        self._buffer += data
        while self._skip() if self._skipping else self._step():
            pass
        used = self._at if self._start < 0 else self._start
        del self._buffer[:used]
        self._at -= used
        self._string -= used if self._string else 0
        self._start = 0 if self._start >= 0 else -1
        found, self._found = self._found, []
        return found

    def finish(self) -> list[Any]:
        """What the end of the stream completes."""
        self._ended = True
        found = self.feed(b"")
        if self._start >= 0 or (self._comment and self._comment != b"\n"):
            self._fault(ENDED, len(self._buffer) if self._start >= 0 else self._at)
        if self._message:
            self._tell()
        return found + self._found

    # One step of reading: False when the next one needs more bytes.

    def _step(self) -> bool:
        limit = len(self._buffer)
        if self._start >= 0:
            limit = min(limit, self._start + JSON_BYTES)
        try:
            if self._take(limit):
                return True
        except _Fault as fault:
            self._fault(fault.message, fault.at)
            return True
        if self._start >= 0 and limit == self._start + JSON_BYTES:
            self._fault(TOO_LARGE, limit)
            return True
        return False

    def _take(self, limit: int) -> bool:
        if self._comment:
            return self._take_comment(limit)
        if self._string:
            return self._take_string(limit)
        self._at = at = _SPACE.match(self._buffer, self._at, limit).end()  # type: ignore[union-attr]
        if at == limit:
            return False
        mark = self._buffer[at]
        if mark == _SLASH:
            return self._open_comment(limit)
        if self._start < 0:
            self._start = at  # and from here on the limit is another one
            return True
        if mark in _QUOTES:
            if self._expect in (_COLON, _COMMA):
                raise _Fault(UNEXPECTED, at)
            self._string = at + 1
        elif mark in _OPENING:
            self._open_container({} if mark == _OPENING[1] else [])
        elif mark in _CLOSING:
            self._close_container(dict if mark == _CLOSING[1] else list)
        elif mark == ord(":") and self._expect == _COLON:
            self._expect = _VALUE
            self._at += 1
        elif mark == ord(",") and self._expect == _COMMA:
            self._expect = _KEY if isinstance(self._stack[-1], dict) else _ELEMENT
            self._at += 1
        else:
            return self._take_word(limit)
        return True

    def _open_comment(self, limit: int) -> bool:
        if self._at + 1 == limit and not self._ended:
            return False
        kind = bytes(self._buffer[self._at + 1 : min(self._at + 2, limit)])
        if kind not in (b"/", b"*"):
            self._start = self._at if self._start < 0 else self._start
            raise _Fault(UNEXPECTED, self._at)
        self._comment = b"\n" if kind == b"/" else b"*/"
        self._at += 2
        return True

    def _take_comment(self, limit: int) -> bool:
        end = self._buffer.find(self._comment, self._at, limit)
        if end < 0:
            self._at = max(self._at, limit - len(self._comment) + 1)  # its end may have begun
            return False
        self._at = end + len(self._comment)
        self._comment = b""
        return True

    def _take_string(self, limit: int) -> bool:
        special = _SPECIAL[self._buffer[self._at]]
        while True:
            match = special.search(self._buffer, self._string, limit)
            if match is None:
                self._string = limit
                return False
            end = match.start()
            del match  # it would keep the buffer from growing
            mark = self._buffer[end]
            if mark in _QUOTES:
                break
            if mark != ord("\n") and end + 1 >= limit:
                self._string = end
                return False
            if mark == ord("\n") or self._buffer[end + 1] == ord("\n"):
                raise _Fault("unterminated string", self._at)
            self._string = end + 2
        text = _text(bytes(self._buffer[self._at + 1 : end]))
        if text is None:
            raise _Fault("unknown escape in a string", self._at)
        self._string, self._at = 0, end + 1
        if self._expect == _KEY:
            self._keys.append(text)
            self._expect = _COLON
        else:
            self._put(text)
        return True

    def _take_word(self, limit: int) -> bool:
        at = self._at
        end = _WORD.match(self._buffer, at, limit).end()  # type: ignore[union-attr]
        if end == at or self._expect not in (_VALUE, _ELEMENT) or end - at > _LONGEST_WORD:
            raise _Fault(UNEXPECTED, at)
        if end == limit and not (self._ended and limit == len(self._buffer)):
            return False
        word = bytes(self._buffer[at:end])
        value = _WORDS[word] if word in _WORDS else _number(word)
        if value is word:
            raise _Fault(UNEXPECTED, at)
        self._at = end
        self._put(value)
        return True

    def _open_container(self, container: Any) -> None:
        if self._expect not in (_VALUE, _ELEMENT):
            raise _Fault(UNEXPECTED, self._at)
        if len(self._stack) >= self._maxdepth:
            raise _Fault(TOO_DEEP, self._at)
        self._stack.append(container)
        self._expect = _KEY if isinstance(container, dict) else _ELEMENT
        self._at += 1

    def _close_container(self, kind: type) -> None:
        if not self._stack or type(self._stack[-1]) is not kind or self._expect in (_VALUE, _COLON):
            raise _Fault(UNEXPECTED, self._at)
        self._at += 1
        self._put(self._stack.pop())

    def _put(self, value: Any) -> None:
        """A value is complete: it goes where it belongs."""
        self._expect = _COMMA if self._stack else _VALUE
        if not self._stack:
            self._start = -1
            self._found.append((value,))
        elif isinstance(self._stack[-1], dict):
            self._stack[-1][self._keys.pop()] = value
        else:
            self._stack[-1].append(value)

    # Faults, and how reading gets in step again.

    def _fault(self, message: str, at: int) -> None:
        """Give the value up. `at` is where what fits it ends."""
        start = max(self._start, 0)
        line = self._buffer.rfind(b"\n", start, at) + 1 or start
        anew = self._stack and at == line and message == UNEXPECTED and self._buffer[at] in _OPENING
        self._message = message
        self._open = len(self._stack)
        self._stack, self._keys, self._expect = [], [], _VALUE
        self._start, self._string, self._comment = -1, 0, b""
        self._at = at
        if anew:  # it is the value before that was never closed
            before = self._buffer.rfind(b"\n", start, line - 1) + 1 or start
            self._line += self._buffer[before : min(line - 1, before + self._maxlen)]
            self._tell()
            return
        self._skipping = True
        self._last = 0
        self._line += self._buffer[line : min(at, line + self._maxlen)]

    def _skip(self) -> bool:
        """Skip a line, or what there is of it."""
        if self._at_line:
            if self._at == len(self._buffer):
                return False
            self._at_line = False
            if self._last != ord(",") and self._buffer[self._at] in _OPENING:
                self._skipping = False
                return True
        end = self._buffer.find(b"\n", self._at)
        part = bytes(self._buffer[self._at : end if end >= 0 else None])
        self._open += sum(map(part.count, (b"[", b"{"))) - sum(map(part.count, (b"]", b"}")))
        stripped = part.rstrip(b" \t\r")
        self._last = stripped[-1] if stripped else self._last
        if self._message:
            self._line += part[: self._maxlen - len(self._line)]
            if end >= 0 or len(self._line) >= self._maxlen:
                self._tell()
        self._at = end + 1 or len(self._buffer)
        if end >= 0:
            self._skipping = self._at_line = self._open > 0
        return end >= 0

    def _tell(self) -> None:
        line = LineSplitter(self._maxlen).feed(bytes(self._line) + b"\n")[0]
        self._found.append((self._message, line))
        self._message = ""
        self._line.clear()


def _text(raw: bytes) -> str | None:
    """What stands between the quotes; None if an escape in it is none."""
    if b"\\" not in raw:
        return raw.decode("utf-8", "backslashreplace")
    pieces: list[str] = []
    at = 0
    for match in _ESCAPE.finditer(raw):
        pieces.append(raw[at : match.start()].decode("utf-8", "backslashreplace"))
        character = chr(int(match[1], 16)) if match[1] else _ESCAPED.get(match[2])
        if character is None:
            return None
        pieces.append(character)
        at = match.end()
    pieces.append(raw[at:].decode("utf-8", "backslashreplace"))
    # Two escapes may be the halves of one character; a half alone is no text.
    joined = "".join(pieces).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return joined.encode("utf-8", "backslashreplace").decode()


def _number(word: bytes) -> Any:
    """The number that a word is, or the word itself."""
    match = _NUMBER.fullmatch(word)
    if match is None:
        return word
    if not match[1] and not match[2] and len(word) <= _LONGEST_INTEGER and int(word) in _INTEGERS:
        return int(word)
    value = float(word)
    infinity = {float("inf"): "Infinity", float("-inf"): "-Infinity"}
    return infinity.get(value, value)
