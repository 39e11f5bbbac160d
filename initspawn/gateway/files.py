"""The user's own page: the files below one directory, and nothing else.

A path is walked name by name from the directory's descriptor, and no symbolic link is ever followed: nothing
can lead out of it. Names that begin with a dot are not there. Files are read as they are at the moment, so a
page can be worked on while it is served.
"""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from initspawn.gateway.bounds import PAGE_BYTES

INDEX = "index.html"
_CHUNK = 65536
_OTHER = "application/octet-stream"
_TEXT = {
    "css": "text/css", "csv": "text/csv", "htm": "text/html", "html": "text/html", "js": "text/javascript",
    "md": "text/plain", "mjs": "text/javascript", "txt": "text/plain", "xml": "text/xml",
}  # fmt: skip
KINDS = {
    **{suffix: f"{kind}; charset=utf-8" for suffix, kind in _TEXT.items()},
    "avif": "image/avif", "gif": "image/gif", "ico": "image/x-icon", "jpeg": "image/jpeg",
    "jpg": "image/jpeg", "json": "application/json", "map": "application/json", "mp3": "audio/mpeg",
    "mp4": "video/mp4", "ogg": "audio/ogg", "otf": "font/otf", "pdf": "application/pdf", "png": "image/png",
    "svg": "image/svg+xml", "ttf": "font/ttf", "wav": "audio/wav", "webm": "video/webm",
    "webmanifest": "application/manifest+json", "webp": "image/webp", "woff": "font/woff",
    "woff2": "font/woff2",
}  # fmt: skip


class Directory:
    """Everything below a directory, at the addresses that begin with `prefix`. Raises OSError for none."""

    def __init__(self, path: str, prefix: str = "") -> None:
        self._prefix = prefix
        self._root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    async def answer(self, request: Request) -> Response:
        """The endpoint for GET and HEAD: the file, or 301 to a directory's own address.

        404 for what is not there; 403 for what may not be read, is no file or too large.
        """
        path: str = request.scope["path"]
        names = path.removeprefix(self._prefix).split("/")[1:]
        if not names:  # the prefix itself is a directory like any other
            return _elsewhere(request)
        if names[-1] == "":
            names[-1] = INDEX
        try:
            fd = self._open(names)
        except PermissionError:
            return Response(status_code=403)
        except (OSError, ValueError):  # ValueError: a NUL, or what cannot be a file's name
            return Response(status_code=404)
        found = os.fstat(fd)
        if stat.S_ISREG(found.st_mode) and found.st_size <= PAGE_BYTES:
            return _answer(fd, found.st_size, names[-1])
        os.close(fd)
        if stat.S_ISDIR(found.st_mode):
            return _elsewhere(request)
        return Response(status_code=403)

    def _open(self, names: list[str]) -> int:
        """The descriptor of what these names lead to. Raises OSError, ValueError.

        ELOOP and ENOTDIR are what a symbolic link comes to; a pipe does not keep us waiting.
        """
        if any(not name or name.startswith(".") for name in names):
            raise FileNotFoundError
        here = self._root
        for name in names:
            try:
                there = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=here)
            finally:
                if here != self._root:
                    os.close(here)
            here = there
        return here


def _elsewhere(request: Request) -> Response:
    """301 to the same address with a slash behind it."""
    path, query = request.scope["path"], request.url.query
    place = f"{quote(path)}/{'?' if query else ''}{query}"
    return Response(status_code=301, headers={"Location": place})


def _answer(fd: int, size: int, name: str) -> Response:
    kind = KINDS.get(name.rpartition(".")[2].lower() if "." in name else "", _OTHER)
    return _File(fd, size, {"Content-Type": kind, "Content-Length": str(size)})


class _File(StreamingResponse):
    """A file's first `size` bytes, a chunk at a time as the client takes them. Owns the descriptor."""

    def __init__(self, fd: int, size: int, headers: dict[str, str]) -> None:
        super().__init__(_chunks(fd, size), headers=headers)
        self._fd = fd

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            os.close(self._fd)


async def _chunks(fd: int, size: int) -> AsyncIterator[bytes]:
    while size > 0:
        data = os.read(fd, min(size, _CHUNK))
        if not data:  # it became shorter; the client sees that the connection ends too early
            return
        size -= len(data)
        yield data
