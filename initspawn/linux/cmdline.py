"""The running kernel's command line (Documentation/admin-guide/kernel-parameters.rst). Boot module."""

from __future__ import annotations

_PATH = "/proc/cmdline"
_read: list[str] = []


def read() -> str:
    """All of it; empty where it is hidden. It never changes, so it is read once: later there may be no
    descriptor for it.
    """
    if not _read:
        try:
            with open(_PATH, encoding="utf-8", errors="surrogateescape") as file:
                _read.append(file.read())
        except OSError:
            return ""
    return _read[0]


def split(line: str) -> list[str]:
    """The words of a command line in their order. Spaces within `"` separate nothing."""
    pieces = line.split('"')
    pieces[1::2] = ["".join("\0" if part.isspace() else part for part in piece) for piece in pieces[1::2]]
    return [word.replace("\0", " ") for word in "".join(pieces).split()]


def words(line: str) -> frozenset[str]:
    """The words of a command line, `NAME=VALUE` also as `NAME`."""
    found = split(line)
    return frozenset([*found, *(word.partition("=")[0] for word in found)])


def option(name: str) -> str:
    """What the kernel's says of initspawn.NAME, the last time it does; else nothing."""
    mark = f"initspawn.{name}="
    found = [word.removeprefix(mark) for word in split(read()) if word.startswith(mark)]
    return found[-1] if found else ""
