"""The configuration as JSON Schema (draft 2020-12), for editors: made from `schema` and `keys`.

It accepts every shape that `check` accepts: other spellings of keys, one object for a list, numbers
written as text, words in any case, keys of the author's own. What takes more than the shape to tell (whether
a user exists, whether a name is taken) only `initspawn check` says.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from msgspec import NODEFAULT, inspect

from initspawn.config.keys import KEYS
from initspawn.config.part import Part
from initspawn.config.schema import Config, EncoderOpts

DRAFT = "https://json-schema.org/draft/2020-12/schema"
_OWN_KEYS = r"^(x-|\$)"
_NUMBER = r"^[-+]?(0[xX][0-9a-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+|0[dD][0-9_]+|[0-9][0-9_]*)$"
_LINK = re.compile(r"\[([^][]*)\]\([^)]*\)")

Json = dict[str, Any]

# Keys that are of a class only where another key is absent.
_DEPENDING: dict[str, tuple[str, type[Part], str]] = {"Encoder": ("opts", EncoderOpts, "plugin")}


def json_schema() -> Json:
    """The whole schema, a definition for each object of the file."""
    definitions: dict[str, Json] = {}
    root = _part(_struct(Config), definitions)
    return {
        "$schema": DRAFT,
        "title": "initspawn configuration",
        **root,
        "$defs": dict(sorted(definitions.items())),
    }


def plain_default(part: type[Part], name: str) -> Any:
    """The default of a key where it is a plain value that a file could say; else None."""
    for field in _struct(part).fields:
        if field.name == name and isinstance(field.default, (str, bool, int, float)):
            return field.default
    return None


def required_keys(part: type[Part]) -> set[str]:
    """The keys that every such object needs."""
    return {field.name for field in _struct(part).fields if field.required}


def _struct(part: type[Part]) -> inspect.StructType:
    kind = inspect.type_info(part)
    assert isinstance(kind, inspect.StructType)
    return kind


def _part(kind: inspect.StructType, definitions: dict[str, Json]) -> Json:
    """One object of the file; those within it are added to `definitions`."""
    part: Any = kind.cls
    properties: dict[str, Json] = {}
    rules: list[Json] = []
    for field in kind.fields:
        properties[field.name] = _key(part, field, definitions)
        spellings = [field.name, *(other for other, name in part.aliases.items() if name == field.name)]
        for other in spellings[1:]:
            properties[other] = {"$ref": f"#/$defs/{part.__name__}/properties/{field.name}"}
            if part is Config:  # the root is no definition
                properties[other]["$ref"] = f"#/properties/{field.name}"
            properties[other]["description"] = f"The same as `{field.name}`."
            rules.append({"not": {"required": [field.name, other]}})
        if field.required:
            rules.append({"anyOf": [{"required": [name]} for name in spellings]})
    if part.__name__ in _DEPENDING:
        name, kept, other = _DEPENDING[part.__name__]
        properties[name]["type"] = "object"
        value = _struct_value(_struct(kept), definitions)
        rules.append({"if": {"not": {"required": [other]}}, "then": {"properties": {name: value}}})
    return {
        "description": part.__doc__,
        "type": "object",
        "properties": properties,
        "patternProperties": {_OWN_KEYS: True},
        "additionalProperties": False,
        **({"allOf": rules} if rules else {}),
    }


def _key(part: Any, field: inspect.Field, definitions: dict[str, Json]) -> Json:
    key = KEYS[part.__name__][field.name]
    made: Json = {"description": _LINK.sub(r"\1", key.sentence), **_value(field.type, definitions)}
    if field.default is not NODEFAULT and isinstance(field.default, (str, bool, int, float)):
        made["default"] = field.default
    return made | {"examples": [key.example]}


def _value(kind: inspect.Type, definitions: dict[str, Json]) -> Json:
    return _MAKERS[type(kind)](kind, definitions)


def _struct_value(kind: Any, definitions: dict[str, Json]) -> Json:
    name = kind.cls.__name__
    if name not in definitions:
        definitions[name] = {}  # it is being made
        definitions[name] = _part(kind, definitions)
    return {"$ref": f"#/$defs/{name}"}


def _list(kind: Any, definitions: dict[str, Json]) -> Json:
    item = _value(kind.item_type, definitions)
    return {"anyOf": [item, {"type": "array", "items": item}]}


def _dict(kind: Any, definitions: dict[str, Json]) -> Json:
    names = _value(kind.key_type, definitions)
    values = _value(kind.value_type, definitions)
    return {
        "type": "object",
        "propertyNames": names,
        "patternProperties": {_OWN_KEYS: True},
        "additionalProperties": values,
    }


def _text(kind: Any, _: dict[str, Json]) -> Json:
    bounds = {"minLength": kind.min_length, "maxLength": kind.max_length}
    return {"type": "string", **{name: value for name, value in bounds.items() if value is not None}}


def _integer(kind: Any, _: dict[str, Json]) -> Json:
    bounds = {"minimum": kind.ge, "maximum": kind.le}
    number = {"type": "integer", **{name: value for name, value in bounds.items() if value is not None}}
    return {"anyOf": [number, {"type": "string", "pattern": _NUMBER}]}


def _real(kind: Any, _: dict[str, Json]) -> Json:
    number = {"type": "number", "minimum": kind.ge, "maximum": kind.le}
    return {"anyOf": [number, {"type": "string", "pattern": _NUMBER}]}


def _word(kind: Any, _: dict[str, Json]) -> Json:
    words = [str(word) for word in kind.values]
    any_case = ("".join(f"[{c.upper()}{c}]" if c.isalpha() else re.escape(c) for c in word) for word in words)
    return {"anyOf": [{"enum": words}, {"type": "string", "pattern": f"^({'|'.join(any_case)})$"}]}


def _union(kind: Any, definitions: dict[str, Json]) -> Json:
    choices = [one for one in kind.types if not isinstance(one, inspect.NoneType)]
    made = [_value(one, definitions) for one in choices]
    return made[0] if len(made) == 1 else {"anyOf": made}


_MAKERS: dict[type[inspect.Type], Callable[[Any, dict[str, Json]], Json]] = {
    inspect.StructType: _struct_value,
    inspect.ListType: _list,
    inspect.DictType: _dict,
    inspect.StrType: _text,
    inspect.IntType: _integer,
    inspect.FloatType: _real,
    inspect.BoolType: lambda *_: {"type": "boolean"},
    inspect.LiteralType: _word,
    inspect.UnionType: _union,
    inspect.AnyType: lambda *_: {},
}
