"""A request's arguments become argv items. Boot module; pure.

Each template is exactly one item, whatever the values hold; nothing is parsed again, no shell sees it.
"""

from __future__ import annotations

from initspawn.errors import RequestError
from initspawn.limits import ARGUMENT_BYTES
from initspawn.plan import OPTIONAL, TEXT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from initspawn.plan import Command


_END_OF_OPTIONS = ((TEXT, "--"),)
_NAMES, _NAME = 8, 32  # how many given arguments a message tells, and how many characters of each


def bind(command: Command, arguments: Any) -> tuple[str, ...]:
    """The complete argv of one run, argv[0] first.

    `arguments` is the request's `args`: an object, or anything else, which then names nothing. Raises
    RequestError(invalid-request) for a missing argument, NUL, an item longer than the kernel takes, or a
    value that would begin its item with `-` where the command does not allow it. Values that no template
    names are not used.
    """
    values = arguments if isinstance(arguments, dict) else {}
    argv = [command.path]
    options = not command.dash  # until a `--` of the template's own: what follows it is no option (getopt(3))
    for template in command.arguments:
        argv.append(_fill(template, values, options=options))
        options = options and template != _END_OF_OPTIONS
    for item in argv:
        if "\0" in item:
            raise RequestError("invalid-request", "an argument holds a NUL character")
        if len(item.encode("utf-8", "surrogateescape")) >= ARGUMENT_BYTES:
            raise RequestError("invalid-request", f"an argument is longer than {ARGUMENT_BYTES - 1} bytes")
    return tuple(argv)


def _fill(template: tuple[tuple[str, str], ...], values: dict[str, Any], *, options: bool) -> str:
    item = ""
    for kind, text in template:
        if kind == TEXT:
            item += text
            continue
        value = values.get(text)
        if value is None:
            if kind == OPTIONAL:
                continue
            missing = f"argument `{text}` is missing{_hint(text)}{_given(values)}"
            raise RequestError("invalid-request", missing)
        filled = as_text(text, value)
        # Only a value that begins its item could be read as an option (`-rf`, `--output=`).
        if options and filled.startswith("-") and not item:
            raise RequestError("invalid-request", f"argument `{text}` may not begin with '-'")
        item += filled
    return item


def _hint(name: str) -> str:
    """For what is hardly meant as a name, such as that in `50% of 80%`."""
    plain = name.translate({ord(mark): None for mark in "_-."}).isalnum()
    return "" if plain else " (in a configuration, `%%` is a plain percent sign)"


def _given(values: dict[str, Any]) -> str:
    """What was given instead, as far as it can be read at a glance."""
    names = [ascii(name[:_NAME]) for name, value in values.items() if value is not None]
    return f"; given: {', '.join(names[:_NAMES])}{', ...' * (len(names) > _NAMES)}" if names else ""


def as_text(name: str, value: Any) -> str:
    """A value of a request as text: text as it is, all else as JSON. Raises RequestError with its name."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise RequestError("invalid-request", f"argument `{name}` is not valid Unicode") from None
        return value
    from json import dumps  # only requests bring such values, and requests come as JSON

    separators = (", ", ": ")
    try:
        text = dumps(value, ensure_ascii=False, allow_nan=False, separators=separators)
        text.encode()
    except (ValueError, RecursionError):
        raise RequestError("invalid-request", f"argument `{name}` cannot be written as text") from None
    return text
