"""`$NAME` when the configuration is read, `%name%` when a command is started.

    $NAME ${NAME} $(NAME)          a built-in name (upper or lower case), else an environment variable
    ${NAME-text} ${NAME:-text}     `text` if there is none; with `:` also if it is empty
    $$ \\$                          a plain dollar sign

    %name%                         the request's argument of that name, which must be given
    ?name?                         the same, nothing if it is not given
    %% ??                          a plain percent sign or question mark

What a `$NAME` brings in is plain text: a percent sign from the environment starts no argument.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches

from initspawn import late
from initspawn.config.target import Target, here
from initspawn.plan import OPTIONAL, REQUIRED, TEXT

Parts = tuple[tuple[str, str], ...]

ALIASES = {"SANDBOX": "SANDBOX_UID", "COMMAND": "COMMAND_UID", "APINAME": "API_NAME", "SBIN": "SBINDIR"}
LONGEST_LABEL = 63

# Why a name that exists elsewhere is unknown at a place.
_REASONS = {
    "COMMAND_UID": "only a command's `exec` has one",
    "SBOXUSER": "only a sandbox has one",
    "SANDBOX_UID": "only a sandbox has one",
}

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_DOLLAR = re.compile(
    rf"(?P<plain>\\\$|\$\$)|\$(?P<name>{_NAME})|\$\((?P<round>{_NAME})\)"
    rf"|\$\{{(?P<curly>{_NAME})(?:(?P<how>:?-)(?P<default>[^}}]*))?\}}|(?P<lone>\$)"
)
_MARK = re.compile(r"(?P<double>%%|\?\?)|%(?P<required>[^%]+)%|\?(?P<optional>[^?]+)\?")
# What lies between two marks of strftime(3), as in `+%Y-%m-%d`; nobody calls an argument so.
_DATE = re.compile(r"[A-Za-z][-:/., ]")
_EITHER = re.compile(f"{_DOLLAR.pattern}|{_MARK.pattern}")


_PLAIN_DOLLAR = "a plain `$` is written `$$`"


class ExpandFault(Exception):
    """A text cannot be expanded; the message says why."""


class Names:
    """What `$NAME` stands for at one place of one file, and the machine that the file is for."""

    def __init__(
        self, environ: Mapping[str, str], values: Mapping[str, str], target: Target | None = None
    ) -> None:
        self._environ = environ
        self._values = values
        self.target = target or here()

    @property
    def environ(self) -> Mapping[str, str]:
        """The environment that unknown names are looked up in."""
        return self._environ

    def also(self, **values: str) -> Names:
        """The same names and some more."""
        return Names(self._environ, {**self._values, **values}, self.target)

    def get(self, name: str) -> str | None:
        """The value of a name, or None. `UUID` is a fresh one each time.

        In a plan made ahead, what only the running machine knows is a mark (see `initspawn.late`).
        """
        upper = ALIASES.get(name.upper(), name.upper())
        if upper in self._values:
            return self._values[upper]
        if upper in late.VALUES:
            return late.mark(upper) if self.target.late else late.VALUES[upper](self._environ)
        return self._environ.get(name)

    def known(self) -> list[str]:
        """All names, for hints."""
        return [*self._values, *late.VALUES, *self._environ]


def builtin_names(
    environ: Mapping[str, str], *, api: str, user: int, group: int, target: Target | None = None
) -> Names:
    """The names of one file; a sandbox adds SANDBOX_UID and SBOXUSER, a command COMMAND_UID."""
    target = target or here()
    return Names(
        environ,
        {
            "API_NAME": api,
            "SBINDIR": _sbindir(target),
            "UID": str(user),
            "GID": str(group),
        },
        target,
    )


def expand(text: str, names: Names) -> str:
    """The text with every `$NAME` replaced. Raises ExpandFault for an unknown name."""
    return _DOLLAR.sub(lambda match: _value(match, names), text)


def template(text: str, names: Names) -> Parts:
    """An argument's parts, at least one. Raises ExpandFault."""
    parts: list[tuple[str, str]] = []
    plain = ""
    at = 0
    while match := _EITHER.search(text, at):
        plain += text[at : match.start()]
        at = match.end()
        label = match["required"] or match["optional"]
        if label is None:
            plain += match["double"][0] if match["double"] else _value(match, names)
            continue
        if match["required"] and _DATE.fullmatch(label):
            raise ExpandFault(f"`%{label}%` is the argument named `{label}`; a plain `%` is written `%%`")
        if len(label) > LONGEST_LABEL:
            mark = text[match.start()]
            reason = f"the name of an argument may have {LONGEST_LABEL} characters at most"
            raise ExpandFault(f"{reason}; a plain `{mark}` is written `{mark}{mark}`")
        if plain:
            parts.append((TEXT, plain))
        parts.append((REQUIRED if match["required"] else OPTIONAL, label))
        plain = ""
    plain += text[at:]
    if plain or not parts:
        parts.append((TEXT, plain))
    return tuple(parts)


def _value(match: re.Match[str], names: Names) -> str:
    """What one `$` form stands for."""
    if match["plain"]:
        return "$"
    if match["lone"] and match.string.startswith("${@", match.start()):
        raise ExpandFault("`${@key}` is not known: write the value itself, in YAML perhaps as an alias")
    if match["lone"]:
        raise ExpandFault(f"a `$` without a name; {_PLAIN_DOLLAR}")
    name = match["name"] or match["round"] or match["curly"]
    value = names.get(name)
    if match["how"] and (value is None or (not value and match["how"] == ":-")):
        return expand(match["default"], names)
    known = ALIASES.get(name.upper(), name.upper())
    if value is None and known in _REASONS:
        raise ExpandFault(f"`${name}` means nothing here: {_REASONS[known]}")
    if value is None:
        close = get_close_matches(name.upper(), names.known(), 1)
        hint = f"; did you mean `${close[0]}`?" if close else ""
        raise ExpandFault(f"`${name}` is neither built in nor in the environment{hint}; {_PLAIN_DOLLAR}")
    if "\0" in value and not late.is_mark(value):
        raise ExpandFault(f"`${name}` holds a NUL character")
    return value


def _sbindir(target: Target) -> str:
    """Where the system's own tools are: /sbin where that is a real directory of its own."""
    tree = target.tree
    return "/sbin" if tree.exists("/sbin/mkfs") and tree.readlink("/sbin/mkfs") is None else "/usr/sbin"
