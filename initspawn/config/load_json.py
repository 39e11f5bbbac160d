"""A JSON reader that keeps positions and forgives what people write.

Besides strict JSON it takes single-quoted strings, tabs in strings, a comma after the last element,
`//` and `/* */` comments, and true, false and null in any case. NaN, infinities, lone surrogates and
doubled keys are refused.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import Any

from initspawn.config.syntax import EMPTY_HINT, INTEGERS, MAX_DEPTH, Result, SyntaxFault

_SPACE = re.compile(r"(?:[ \t\r\n]+|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_PLAIN = {
    '"': re.compile(r'[^"\\\x00-\x08\x0a-\x1f]*'),
    "'": re.compile(r"[^'\\\x00-\x08\x0a-\x1f]*"),
}
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_ESCAPED = {
    '"': '"', "'": "'", "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t",
}  # fmt: skip
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?(?![\w.])")
_WORD = re.compile(r"[-+]?\w+")
_WORDS = {"true": True, "false": False, "null": None}
_LONGEST_NUMBER = 40


def read_json(text: str) -> Result:
    """Read one JSON value. Raises SyntaxFault at the first place that is no JSON."""
    reader = _Reader(text)
    if not reader.space():
        raise reader.fault("is empty", reader.at, EMPTY_HINT)
    data = reader.value((), 0)
    reader.space()
    if reader.at < len(text):
        raise reader.fault("nothing may follow the closing bracket", reader.at)
    return data, reader.positions, reader.faults


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.positions: dict[tuple[str | int, ...], tuple[int, int]] = {}
        self.faults: list[SyntaxFault] = []
        self._lines = [0, *(match.end() for match in re.finditer("\n", text))]

    def place(self, at: int) -> tuple[int, int]:
        line = bisect_right(self._lines, at)
        return line, at - self._lines[line - 1] + 1

    def fault(self, message: str, at: int, hint: str = "") -> SyntaxFault:
        line, column = self.place(at)
        return SyntaxFault(message, line=line, column=column, hint=hint)

    def space(self) -> str:
        """Skip white space and comments; the character that follows, empty at the end."""
        match = _SPACE.match(self.text, self.at)
        assert match is not None  # the pattern matches the empty text
        self.at = match.end()
        if self.text.startswith("/*", self.at):
            raise self.fault("this comment is never closed", self.at)
        return self.text[self.at : self.at + 1]

    def value(self, path: tuple[str | int, ...], depth: int) -> Any:
        mark = self.space()
        self.positions.setdefault(path, self.place(self.at))
        if depth > MAX_DEPTH:
            raise self.fault(f"nested deeper than {MAX_DEPTH} levels", self.at)
        if mark == "{":
            return self.object(path, depth)
        if mark == "[":
            return self.array(path, depth)
        if mark in _PLAIN:
            return self.string()
        return self.scalar()

    def object(self, path: tuple[str | int, ...], depth: int) -> dict[str, Any]:
        opened, self.at = self.at, self.at + 1
        found: dict[str, Any] = {}
        while self.space() != "}":
            key_at = self.at
            if self.text[key_at : key_at + 1] not in _PLAIN:
                raise self.expected("a key in quotes", "}", opened)
            key = self.string()
            place = (*path, key)
            if key in found:
                line = self.positions[place][0]
                self.faults.append(self.fault(f"key `{key}` again, it was given in line {line}", key_at))
            self.positions[place] = self.place(key_at)
            if self.space() != ":":
                raise self.expected("`:` after the key", "}", opened)
            self.at += 1
            found[key] = self.value(place, depth + 1)
            self.separator("}", opened)
        self.at += 1
        return found

    def array(self, path: tuple[str | int, ...], depth: int) -> list[Any]:
        opened, self.at = self.at, self.at + 1
        found: list[Any] = []
        while self.space() != "]":
            found.append(self.value((*path, len(found)), depth + 1))
            self.separator("]", opened)
        self.at += 1
        return found

    def separator(self, closing: str, opened: int) -> None:
        mark = self.space()
        if mark == ",":
            self.at += 1
        elif mark != closing:
            raise self.expected(f"`,` or `{closing}`", closing, opened)

    def expected(self, what: str, closing: str, opened: int) -> SyntaxFault:
        if self.at >= len(self.text):
            return self.fault(f"no `{closing}` closes what is opened here", opened)
        return self.fault(f"{what} is expected here", self.at)

    def string(self) -> str:
        """The string that begins here, either kind of quotes."""
        opened, quote = self.at, self.text[self.at]
        self.at += 1
        parts: list[str] = []
        while True:
            plain = _PLAIN[quote].match(self.text, self.at)
            assert plain is not None  # the pattern matches the empty text
            parts.append(plain.group())
            self.at = plain.end()
            mark = self.text[self.at : self.at + 1]
            if mark == quote:
                self.at += 1
                return self.joined(parts, opened)
            if mark != "\\":
                if mark in ("", "\n", "\r"):
                    hint = r"a line break in a text is written \n"
                    raise self.fault("this string is not closed on its line", opened, hint)
                raise self.fault("a control character in a string", self.at, r"write it as \t or \u0000")
            parts.append(self.escape())

    def escape(self) -> str:
        match = _ESCAPE.match(self.text, self.at)
        character = None
        if match is not None:
            character = chr(int(match[1], 16)) if match[1] else _ESCAPED.get(match[2] or "")
        if match is None or character is None:
            raise self.fault("unknown escape in a string", self.at, r"a plain backslash is written \\")
        self.at = match.end()
        return character

    def joined(self, parts: list[str], opened: int) -> str:
        text = "".join(parts)
        try:
            # Two \u escapes may be the halves of one character.
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            raise self.fault("half a surrogate pair in this string", opened) from None

    def scalar(self) -> Any:
        """A number, true, false or null."""
        number = _NUMBER.match(self.text, self.at)
        if number and len(number.group()) <= _LONGEST_NUMBER:
            value = float(number.group()) if number[1] or number[2] else int(number.group())
            if isinstance(value, int) and value not in INTEGERS:
                raise self.fault("this number does not fit in 64 bits", self.at, "write it in quotes")
            if value in (float("inf"), float("-inf")):
                raise self.fault("this number is too large", self.at)
            self.at = number.end()
            return value
        word = _WORD.match(self.text, self.at)
        if word is None:
            what = "the end of the file" if self.at >= len(self.text) else f"`{self.text[self.at]}`"
            raise self.fault(f"a value is expected here, not {what}", min(self.at, len(self.text)))
        if word.group().lower() not in _WORDS:
            raise self.fault(f"`{word.group()[:60]}` is no JSON value", self.at, "write text in quotes")
        self.at = word.end()
        return _WORDS[word.group().lower()]
