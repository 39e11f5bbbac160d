"""Plain records: what crosses floors. Boot module: imports nothing.

`dataclasses` costs more start-up time than all of ctypes, so records are made here in thirty lines.
A record is a bag of typed values with defaults; it has no behaviour beyond comparing, printing, and
turning into (and back from) values that `marshal` can store.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ClassVar, Self, dataclass_transform
else:

    def dataclass_transform(**_: object):  # type: ignore[no-untyped-def]
        """At run time a record needs no mark; type checkers read the one above."""
        return lambda cls: cls


@dataclass_transform(kw_only_default=True)
class Record:
    """Base of all records: fields are the annotated names, in order, keyword-only.

    A subclass that holds other records names them in `_nested` (field name to record class); the
    field then holds one record, a tuple of records, or None.
    """

    _fields: ClassVar[tuple[str, ...]] = ()
    _nested: ClassVar[dict[str, type[Record]]] = {}

    def __init_subclass__(cls) -> None:
        own = tuple(name for name in vars(cls).get("__annotations__", ()) if name[0] != "_")
        cls._fields = cls._fields + own

    def __init__(self, **values: Any) -> None:
        for name in self._fields:
            if name in values:
                setattr(self, name, values.pop(name))
            elif not hasattr(type(self), name):
                raise TypeError(f"{type(self).__name__}: {name} is missing")
        if values:
            raise TypeError(f"{type(self).__name__} has no {', '.join(values)}")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and all(
            getattr(self, name) == getattr(other, name) for name in self._fields
        )

    __hash__ = None  # type: ignore[assignment]  # values may be lists and dicts

    def __repr__(self) -> str:
        inner = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._fields)
        return f"{type(self).__name__}({inner})"

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return type(self)(**({name: getattr(self, name) for name in self._fields} | changes))

    def to_plain(self) -> dict[str, Any]:
        """Dicts, tuples and scalars only: what marshal and JSON can hold."""
        return {name: _plain(getattr(self, name), Record.to_plain) for name in self._fields}

    def to_brief(self) -> dict[str, Any]:
        """The same without the fields that have their default; `from_plain` reads both."""
        kept = self.__dict__.items()  # what was given; defaults are the class's
        return {
            name: _plain(value, Record.to_brief)
            for name, value in kept
            if not (hasattr(type(self), name) and _same(value, getattr(type(self), name)))
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Self:
        """The record that `to_plain` was called on. Raises TypeError for other shapes."""
        values = dict(plain)
        for name, kind in cls._nested.items():
            value = values.get(name)
            if isinstance(value, dict):
                values[name] = kind.from_plain(value)
            elif isinstance(value, (tuple, list)):
                values[name] = tuple(kind.from_plain(item) for item in value)
        return cls(**values)


def _plain(value: Any, plain: Callable[[Any], dict[str, Any]]) -> Any:
    if isinstance(value, Record):
        return plain(value)
    if isinstance(value, tuple):
        return tuple(_plain(item, plain) for item in value)
    return value


def _same(value: Any, default: Any) -> bool:
    return type(value) is type(default) and bool(value == default)
