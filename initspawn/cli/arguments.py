"""`name=value` and JSON on a command line become the arguments of a request."""

from __future__ import annotations

import json

from initspawn.cli.exits import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FORMS = "NAME=VALUE for text, NAME:=JSON for anything else, or one JSON value for all"


def parse_arguments(words: list[str]) -> Any:
    """The request's arguments: None without words, one JSON value, or an object from its members.

    Raises UsageError.
    """
    if not words:
        return None
    if len(words) == 1 and is_json(words[0]):
        return _json(words[0])
    members: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        value: Any = text
        if equals and name.endswith(":"):
            name = name[:-1]
            value = _json(text, f"`{name}`: ", f" (for text write {name}={text})")
        if not equals or not name:
            raise UsageError(f"{word!r} is no argument: write {FORMS}")
        if name in members:
            raise UsageError(f"argument `{name}` is given twice")
        members[name] = value
    return members


def is_json(word: str) -> bool:
    """Whether a word stands for itself as JSON rather than for a named argument."""
    if word.lstrip().startswith(("{", "[", '"')):
        return True
    try:
        json.loads(word)
    except (ValueError, RecursionError):
        return False
    return True


def _json(text: str, where: str = "", hint: str = "") -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}{text!r} is not JSON: {error}{hint}") from None
