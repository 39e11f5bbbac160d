"""Hold a file's plain data against the schema and find everything that is wrong.

Scalars are read strictly: text only from text, true and false only from themselves, whole numbers
from whole numbers (`3`, `3.0`) and from text that is one (`"3"`, `"0x1f"`). Keys that begin with `x-`
or `$` are the author's own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from msgspec import inspect

from initspawn.config.later import later, meant, misplaced
from initspawn.config.part import Part
from initspawn.config.schema import Config
from initspawn.config.spot import Spot, nearest, shown

_OWN_KEYS = ("x-", "$")
_NUMBER = re.compile(r"[-+]?[0-9][0-9a-zA-Z_]{0,39}")
_WITH_UNIT = re.compile(r"[0-9.]+ *[a-zA-Z]{1,8}")  # such as 5m, 10 s or 4kB
_BASES = {"0x": 16, "0o": 8, "0b": 2, "0d": 10}


class _Refused:
    """Stands for a value that was refused."""


REFUSED = _Refused()


def check(data: Any, spot: Spot) -> Config | None:
    """The typed configuration; what is wrong is noted at `spot` and left out.

    A refused value of a key that need not be given counts as not given, a refused element is not in its
    list, so that the rest can still be looked at. None if nothing is left.
    """
    found = _read(_type_of(Config), data, spot)
    return found if isinstance(found, Config) else None


def check_part(part: type[Part], data: Any, spot: Spot) -> Any:
    """One object of the file, of that class of the schema; None if nothing is left of it."""
    found = _read(_type_of(part), data, spot)
    return None if found is REFUSED else found


@cache
def _type_of(part: type[Part]) -> inspect.Type:
    return inspect.type_info(part)


def _read(kind: inspect.Type, value: Any, spot: Spot) -> Any:
    """The value as its type wants it, or REFUSED with the reason noted."""
    return _READERS[type(kind)](kind, value, spot)


def _part(kind: inspect.StructType, value: Any, spot: Spot) -> Any:
    part: Any = kind.cls
    spot = spot.coded(part.code)
    if not isinstance(value, dict):
        return _wrong("an object", value, spot, _glued(value, part) or part.form)
    given = _by_key(part, kind, value, spot)
    found: dict[str, Any] = {}
    for field in kind.fields:
        if field.name in given:
            read = _read(field.type, given[field.name], spot[field.name])
            if read is not REFUSED:
                found[field.name] = read
        elif field.required:
            spot.refuse(f"`{field.name}` is missing", f"every {part.noun} needs it")
    complete = all(field.name in found for field in kind.fields if field.required)
    return part(**found) if complete else REFUSED


def _is_own(key: Any) -> bool:
    return isinstance(key, str) and key.startswith(_OWN_KEYS)


def _by_key(
    part: type[Part], kind: inspect.StructType, value: Mapping[Any, Any], spot: Spot
) -> dict[str, Any]:
    """The values by their proper keys; unknown, unbuilt and doubled keys are noted and left out."""
    fields = {field.name for field in kind.fields}
    given: dict[str, Any] = {}
    for key, item in value.items():
        if _is_own(key):
            continue
        name = part.aliases.get(key, key) if isinstance(key, str) else key
        if not isinstance(name, str):
            spot.refuse(f"key {shown(key)} is no text")
        elif name in given:
            spot[key].refuse(f"`{key}` and `{_other(part, key, value)}` are the same key: keep one")
        elif name in fields:
            given[name] = item
            if name != key:
                spot.report.written((*spot.path, name), (*spot.path, key))
        elif name in later(part):
            spot[key].refuse(f"`{key}` is known but not built yet: {later(part)[name]}")
        elif name in misplaced(part):
            spot[key].refuse(f"`{key}` is no key of a {part.noun}", misplaced(part)[name])
        else:
            hint = meant(part, key) or _glued(key, part) or _elsewhere(key)
            hint = hint or nearest(key, fields | part.aliases.keys())
            spot[key].refuse(f"unknown key in {part.noun}", hint)
    return given


def _elsewhere(key: str) -> str:
    """A hint for a key that other objects have; empty if none has, or too many."""
    homes = _homes().get(key, [])
    return f"it is a key of {' or '.join(homes)}" if 0 < len(homes) < 4 else ""


@cache
def _homes() -> Mapping[str, list[str]]:
    """What the objects are called that have a key, in the schema's order."""
    homes: dict[str, list[str]] = {}
    for part in Part.__subclasses__():
        for key in (*part.__struct_fields__, *part.aliases):
            homes.setdefault(key, []).append(part.noun)
    return homes


def _glued(text: Any, part: type[Part]) -> str:
    """A hint for `key:value`, which YAML takes for one text; empty if it is something else."""
    key, colon, value = text.partition(":") if isinstance(text, str) else ("", "", "")
    known = key in part.__struct_fields__ or key in part.aliases
    return f"write `{key}: {value[:60]}`, with a space" if colon and known else ""


def _other(part: type[Part], key: str, value: Mapping[str, Any]) -> str:
    name = part.aliases.get(key, key)
    return next(word for word in value if word != key and part.aliases.get(word, word) == name)


def _list(kind: inspect.ListType, value: Any, spot: Spot) -> Any:
    if not isinstance(value, list):
        if value is None:
            cls = kind.item_type.cls if isinstance(kind.item_type, inspect.StructType) else None
            form = cls.form if cls is not None and issubclass(cls, Part) else ""
            return _wrong("a value or a list", value, spot, form)
        spot.report.written((*spot.path, 0), spot.path)
        value = [value]
    found: list[Any] = []
    for index, item in enumerate(value):
        place = spot[index]
        read = _read(kind.item_type, item, place)
        if read is REFUSED:
            continue
        if len(found) != index:  # one before it was left out
            spot.report.written((*spot.path, len(found)), place.path)
        found.append(read)
    return found


def _dict(kind: inspect.DictType, value: Any, spot: Spot) -> Any:
    """An object whose keys are the author's to choose: without one of them it would be another."""
    if not isinstance(value, dict):
        name, equals, text = value.partition("=") if isinstance(value, str) else ("", "", "")
        return _wrong("an object", value, spot, f"write {{{name[:60]}: {text[:60]}}}" if equals else "")
    found: dict[Any, Any] = {}
    for key, item in value.items():
        if not _is_own(key):
            name = _read(kind.key_type, key, spot)
            found[name] = _read(kind.value_type, item, spot if name is REFUSED else spot[key])
    return REFUSED if REFUSED in found or REFUSED in found.values() else found


def _text(kind: inspect.StrType, value: Any, spot: Spot) -> Any:
    if not isinstance(value, str):
        hint = "write it in quotes" if isinstance(value, (int, float)) else ""
        return _wrong("text", value, spot, hint)
    if not _is_clean(value, spot):
        return REFUSED
    if kind.min_length is not None and len(value) < kind.min_length:
        return _no("may not be empty", spot)
    if kind.max_length is not None and len(value) > kind.max_length:
        return _no(f"may have at most {kind.max_length} characters", spot)
    return value


def _is_clean(value: str, spot: Spot) -> bool:
    """No NUL, which would end it early in the kernel, and nothing that UTF-8 cannot write."""
    if "\0" in value:
        spot.refuse("holds a NUL character")
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        spot.refuse("is not valid Unicode")
        return False
    return True


def _integer(kind: inspect.IntType, value: Any, spot: Spot) -> Any:
    number = _number(value)
    if number is None:
        united = isinstance(value, str) and _WITH_UNIT.fullmatch(value)
        hint = "write the number alone; times are in seconds" if united else ""
        return _wrong("a whole number", value, spot, hint)
    low, high = kind.ge, kind.le
    if (low is not None and number < low) or (high is not None and number > high):
        wanted = f"from {low} to {high}" if high is not None else f"{low} or more"
        return _no(f"must be {wanted}, not {number}", spot)
    return number


def _real(kind: inspect.FloatType, value: Any, spot: Spot) -> Any:
    number = value if type(value) is float else _number(value)
    if number is None:
        return _wrong("a number", value, spot)
    if not (kind.ge or 0.0) <= number <= (kind.le or number):
        return _no(f"must be from {kind.ge:g} to {kind.le:g}, not {number:g}", spot)
    return float(number)


def _number(value: Any) -> int | None:
    """The whole number that a value is, or None."""
    if type(value) is int:
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if not isinstance(value, str) or not _NUMBER.fullmatch(value):
        return None
    digits = value.lstrip("+-")
    base = _BASES.get(digits[:2].lower())
    if base:
        digits = digits[2:]
    elif digits.startswith("0") and len(digits) > 1:
        base = 8
    try:
        number = int(digits, base or 10)
    except ValueError:
        return None
    return -number if value.startswith("-") else number


def _truth(kind: inspect.BoolType, value: Any, spot: Spot) -> Any:
    return value if isinstance(value, bool) else _wrong("true or false", value, spot)


def _word(kind: inspect.LiteralType, value: Any, spot: Spot) -> Any:
    words = [str(word) for word in kind.values]
    if not isinstance(value, str):
        return _wrong(f"one of {', '.join(words)}", value, spot)
    if value.lower() not in words:
        return _no(f"unknown word {shown(value)}", spot, nearest(value, words))
    return value.lower()


def _union(kind: inspect.UnionType, value: Any, spot: Spot) -> Any:
    """Optional values, and text next to a number or an object: the value's own type decides."""
    choices = [choice for choice in kind.types if not isinstance(choice, inspect.NoneType)]
    if len(choices) == 1:
        return _read(choices[0], value, spot)
    for choice in choices:
        fits = _NATURAL.get(_bare(choice), ())
        if isinstance(value, fits) and not (isinstance(value, bool) and bool not in fits):
            return _read(choice, value, spot)
    form = next((getattr(choice.cls, "form", "") for choice in choices if isinstance(choice, _STRUCT)), "")
    return _wrong(" or ".join(_NAMES[_bare(choice)] for choice in choices), value, spot, form)


def _bare(kind: inspect.Type) -> type[inspect.Type]:
    return type(kind)


def _any(kind: inspect.AnyType, value: Any, spot: Spot) -> Any:
    return value


def _wrong(wanted: str, value: Any, spot: Spot, hint: str = "") -> _Refused:
    if value is None:
        found, hint = "null", hint or "leave the key out"
    elif isinstance(value, dict):
        found = "an object"
    else:
        found = "a list" if isinstance(value, list) else _as_written(value)
    return _no(f"must be {wanted}, not {found}", spot, hint)


def _as_written(value: Any) -> str:
    """A scalar as files spell it: true and false are not Python's."""
    return str(value).lower() if isinstance(value, bool) else shown(value)


def _no(message: str, spot: Spot, hint: str = "") -> _Refused:
    spot.refuse(message, hint)
    return REFUSED


_STRUCT = inspect.StructType
_READERS: dict[type[inspect.Type], Callable[[Any, Any, Spot], Any]] = {
    inspect.StructType: _part,
    inspect.ListType: _list,
    inspect.DictType: _dict,
    inspect.StrType: _text,
    inspect.IntType: _integer,
    inspect.FloatType: _real,
    inspect.BoolType: _truth,
    inspect.LiteralType: _word,
    inspect.UnionType: _union,
    inspect.AnyType: _any,
}
_NATURAL: dict[type[inspect.Type], tuple[type, ...]] = {
    inspect.StrType: (str,),
    inspect.IntType: (int, float),
    inspect.StructType: (dict,),
    inspect.LiteralType: (str,),
    inspect.BoolType: (bool,),
}
_NAMES: dict[type[inspect.Type], str] = {
    inspect.StrType: "text",
    inspect.IntType: "a whole number",
    inspect.StructType: "an object",
    inspect.LiteralType: "a word",
    inspect.BoolType: "true or false",
}
