"""Read a configuration file into plain data that remembers where everything was written."""

from __future__ import annotations

import os
import stat
from typing import Any, NamedTuple

from initspawn.config.load_json import read_json
from initspawn.config.load_yaml import read_yaml
from initspawn.config.syntax import EMPTY_HINT, MAX_BYTES, SyntaxFault
from initspawn.errors import ConfigError, Problem

_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


class Document(NamedTuple):
    """A file's content: dicts, lists and scalars, with the (line, column) of every key path."""

    file: str
    data: Any
    positions: dict[tuple[str | int, ...], tuple[int, int]]


def load(path: str) -> Document:
    """Read a JSON or YAML file. Raises ConfigError, with all duplicate keys or the first syntax error."""
    try:
        text = _text(_bytes(path))
        reader = read_json if _is_json(path, text) else read_yaml
        data, positions, faults = reader(text)
    except SyntaxFault as fault:
        raise ConfigError([_problem(path, fault)]) from None
    if faults:
        raise ConfigError([_problem(path, fault) for fault in faults])
    return Document(path, data, positions)


def _problem(path: str, fault: SyntaxFault) -> Problem:
    return Problem(
        file=path, line=fault.line, column=fault.column, key="", message=fault.message, hint=fault.hint
    )


def _bytes(path: str) -> bytes:
    """The file's bytes; anything but a plain file of reasonable size is refused."""
    try:
        # Not blocking: a FIFO without a writer would be waited for.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            mode = os.fstat(fd).st_mode
            if not stat.S_ISREG(mode):
                raise SyntaxFault("is a directory" if stat.S_ISDIR(mode) else "is no plain file")
            if mode & stat.S_IWOTH:
                raise SyntaxFault("can be changed by everybody", hint="say `chmod o-w`")
            content = file.read(MAX_BYTES + 1)
    except IsADirectoryError:
        raise SyntaxFault("is a directory") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise SyntaxFault(f"cannot be read: {reason}") from None
    if len(content) > MAX_BYTES:
        raise SyntaxFault(f"is larger than {MAX_BYTES >> 20} MiB")
    return content


def _text(content: bytes) -> str:
    if content.startswith(_UTF16):
        raise SyntaxFault("is UTF-16", hint="save it as UTF-8")
    content = content.removeprefix(_BOM)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SyntaxFault("is not UTF-8 here", line=line, hint="save it as UTF-8") from None
    if not text.strip():
        raise SyntaxFault("is empty", hint=EMPTY_HINT)
    return text


def _is_json(path: str, text: str) -> bool:
    extension = os.path.splitext(path)[1].lower()
    if extension in (".json", ".yaml", ".yml"):
        return extension == ".json"
    return text.lstrip().startswith(("{", "//", "/*"))
