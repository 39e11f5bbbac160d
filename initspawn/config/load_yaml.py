"""A YAML reader that keeps positions: the core schema of YAML 1.2, merge keys, bounded aliases.

PyYAML finds the events; what they mean is decided here, because its own schema is YAML 1.1, where
`no` is false and 027 is 23.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

from initspawn.config.syntax import EMPTY_HINT, INTEGERS, MAX_DEPTH, MAX_NODES, Result, SyntaxFault
from initspawn.config.yaml_faults import meaning

_TAG = "tag:yaml.org,2002:"
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+")
_LONGEST_NUMBER = 40
_WORDS: dict[str, bool | None] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip


def read_yaml(text: str) -> Result:
    """Read one YAML document. Raises SyntaxFault at the first place that is no YAML."""
    try:
        reader = _Reader(yaml.parse(text, Loader=yaml.SafeLoader))
        return reader.document(), reader.positions, reader.faults
    except yaml.MarkedYAMLError as error:
        raise meaning(error, text) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise SyntaxFault(f"a control character (U+{error.character:04X})", line=line) from None


class _Node(NamedTuple):
    """A value with the number of values in it."""

    value: Any
    size: int


class _Reader:
    def __init__(self, events: Iterator[yaml.Event]) -> None:
        self.events = events
        self.positions: dict[tuple[str | int, ...], tuple[int, int]] = {}
        self.faults: list[SyntaxFault] = []
        self._anchors: dict[str, _Node] = {}
        self._used = 0

    def document(self) -> Any:
        next(self.events)  # the start of the stream
        first = next(self.events)
        if not isinstance(first, yaml.DocumentStartEvent):
            raise _fault("is empty", first, EMPTY_HINT)
        value = self.node(next(self.events), (), 0).value
        next(self.events)  # the end of the document
        following = next(self.events)
        if not isinstance(following, yaml.StreamEndEvent):
            raise _fault("a second document begins here", following, "one file is one API")
        return value

    def node(self, event: yaml.Event, path: tuple[str | int, ...], depth: int) -> _Node:
        self.positions.setdefault(path, _place(event))
        if depth > MAX_DEPTH:
            raise _fault(f"nested deeper than {MAX_DEPTH} levels", event)
        if isinstance(event, yaml.AliasEvent):
            found = self.alias(event)
        else:
            found = self.fresh(event, path, depth)
            if event.anchor is not None:  # type: ignore[attr-defined]  # types-PyYAML: on NodeEvent only
                self._anchors[event.anchor] = found  # type: ignore[attr-defined]  # as above
        return found

    def alias(self, event: yaml.AliasEvent) -> _Node:
        found = self._anchors.get(event.anchor or "")
        if found is None:
            raise _fault(f"`*{event.anchor}`: no `&{event.anchor}` ends before this", event)
        # Each use costs what it stands for, so aliases of aliases of aliases cannot grow without end.
        self.count(found.size, event)
        return found

    def count(self, size: int, event: yaml.Event) -> None:
        self._used += size
        if self._used > MAX_NODES:
            raise _fault(f"more than {MAX_NODES} values, with aliases written out", event)

    def fresh(self, event: yaml.Event, path: tuple[str | int, ...], depth: int) -> _Node:
        self.count(1, event)
        if isinstance(event, yaml.ScalarEvent):
            return _Node(_scalar(event), 1)
        if isinstance(event, yaml.SequenceStartEvent):
            _check_tag(event, "seq")
            return self.sequence(path, depth)
        assert isinstance(event, yaml.MappingStartEvent)
        _check_tag(event, "map")
        return self.mapping(path, depth)

    def sequence(self, path: tuple[str | int, ...], depth: int) -> _Node:
        items: list[Any] = []
        size = 1
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            item = self.node(event, (*path, len(items)), depth + 1)
            items.append(item.value)
            size += item.size
        return _Node(items, size)

    def mapping(self, path: tuple[str | int, ...], depth: int) -> _Node:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        size = 1
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            merge = isinstance(event, yaml.ScalarEvent) and event.value == "<<" and event.implicit[0]
            key = _key(event)
            place = (*path, key)
            if key in own or (merge and merged):
                line = self.positions[place][0]
                self.faults.append(_fault(f"key `{key}` again, it was given in line {line}", event))
            self.positions[place] = _place(event)
            value = self.node(next(self.events), place, depth + 1)
            size += value.size
            if merge:
                merged = _merged(value.value, event)
            else:
                own[key] = value.value
        return _Node(merged | own, size + len(merged))


def _merged(value: Any, event: yaml.Event) -> dict[str, Any]:
    """What `<<` brings in: of several mappings the first that has a key gives it."""
    result: dict[str, Any] = {}
    for mapping in value if isinstance(value, list) else [value]:
        if not isinstance(mapping, dict):
            raise _fault("`<<` takes a mapping or a list of mappings", event)
        result = mapping | result
    return result


def _key(event: yaml.Event) -> str:
    if not isinstance(event, yaml.ScalarEvent):
        raise _fault("a key must be text", event)
    if not isinstance(_scalar(event), str):
        raise _fault(f"key `{event.value}` is no text", event, "write it in quotes")
    return event.value


def _check_tag(event: Any, kind: str) -> None:
    if event.tag not in (None, "!", _TAG + kind):
        raise _fault(f"tag `{event.tag}` means nothing here", event)


def _scalar(event: yaml.ScalarEvent) -> Any:
    """The value of a scalar by its tag, its quotes or its looks. Raises SyntaxFault."""
    text, tag = event.value, event.tag
    if tag in ("!", _TAG + "str") or (tag is None and not event.implicit[0]):
        return text
    value = _plain(text, event)
    if tag is not None:
        kind = {bool: "bool", int: "int", float: "float", str: "str"}.get(type(value), "null")
        _check_tag(event, kind)
    return value


def _plain(text: str, event: yaml.ScalarEvent) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if _LEADING_ZERO.fullmatch(text):
        hint = f'write "{text}" for the text, without the zeros for the number'
        raise _fault(f"`{text}` is octal to some readers and decimal to others", event, hint)
    if _NOT_FINITE.fullmatch(text):
        raise _fault(f"`{text}` is no number here", event, "text is written in quotes")
    is_integer = _INTEGER.fullmatch(text) is not None
    if not is_integer and not _FLOAT.fullmatch(text):
        return text
    value: int | float = 0
    if len(text) <= _LONGEST_NUMBER:
        value = int(text, 0) if is_integer else float(text)
    if len(text) > _LONGEST_NUMBER or value in (float("inf"), float("-inf")):
        raise _fault("this number is too large", event, "write it in quotes")
    if is_integer and value not in INTEGERS:
        raise _fault("this number does not fit in 64 bits", event, "write it in quotes")
    return value


def _place(event: yaml.Event) -> tuple[int, int]:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark else (0, 0)


def _fault(message: str, event: yaml.Event, hint: str = "") -> SyntaxFault:
    line, column = _place(event)
    return SyntaxFault(message, line=line, column=column, hint=hint)
