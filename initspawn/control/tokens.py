"""The file of tokens: read by the supervisor, and again whenever it changes; written by `initspawn token`.

    {"tokens": [{"name": TEXT, "sha256": HEX, "scopes": [TEXT, ...], "expires": SECONDS or null}, ...]}

It holds hashes only, and belongs to its owner alone.
"""

from __future__ import annotations

import json
import os
import stat

from initspawn.errors import InitspawnError
from initspawn.linux.libc import missing
from initspawn.verbs.access import Token

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NAME = "tokens"  # in the state directory
_BYTES = 1 << 20
_LATEST = 2.0**53  # seconds since the epoch: what JSON numbers tell exactly
_KEYS = {"name", "sha256", "scopes", "expires"}


class TokenFileError(InitspawnError):
    """The file is damaged or open to others: none of its tokens counts."""


def read(path: str) -> list[Token]:
    """The tokens of a file, none if there is no file. Raises TokenFileError; OSError where it cannot be told
    for want of room.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return []
    except OSError as error:
        if missing(error):
            raise
        raise TokenFileError(f"{path}: {error.strerror}") from None
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode) or found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o077:
        os.close(fd)
        raise TokenFileError(f"{path}: must be a file of ours, and nobody else's: chmod 600 it")
    with os.fdopen(fd, "rb") as file:
        return parse(path, file.read(_BYTES + 1))


def parse(path: str, data: bytes) -> list[Token]:
    """The tokens of what a file holds. Raises TokenFileError."""
    try:
        if len(data) > _BYTES:
            raise ValueError(f"larger than {_BYTES} bytes")
        content = json.loads(data)
        if not isinstance(content, dict) or content.keys() != {"tokens"}:
            raise ValueError('must be an object with the key "tokens"')
        return [_token(entry) for entry in content["tokens"]]
    except (ValueError, TypeError, RecursionError) as error:
        raise TokenFileError(f"{path}: {error}") from None


def _token(entry: Any) -> Token:
    if not isinstance(entry, dict) or entry.keys() != _KEYS:
        raise ValueError(f"a token needs the keys {', '.join(sorted(_KEYS))}, and no others")
    name, sha256, scopes, expires = (entry[key] for key in ("name", "sha256", "scopes", "expires"))
    if not isinstance(name, str) or not name or not _is_digest(sha256):
        raise ValueError("`name` must be a text, `sha256` 64 hexadecimal digits")
    if not isinstance(scopes, list) or not all(isinstance(scope, str) and scope for scope in scopes):
        raise ValueError("`scopes` must be a list of texts")
    if expires is not None and (isinstance(expires, bool) or not isinstance(expires, (int, float))):
        raise ValueError("`expires` must be seconds since the epoch, or null")
    if expires is not None and not expires <= _LATEST:  # NaN is not either
        raise ValueError(f"`expires` must not be after {_LATEST:.0f}; null is never")
    return Token(name=name, digest=sha256, scopes=frozenset(scopes), expires=expires)


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and not value.strip("0123456789abcdef")


def write(path: str, tokens: list[Token]) -> None:
    """Replace the file as a whole, so that nobody ever reads half of it. Raises OSError."""
    entries = [
        {"name": token.name, "sha256": token.digest, "scopes": sorted(token.scopes), "expires": token.expires}
        for token in tokens
    ]
    fresh = f"{path}.new"
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        json.dump({"tokens": entries}, file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(fd)
    os.replace(fresh, path)
