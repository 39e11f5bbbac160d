"""The plug-in host: runs one encoder of a plug-in for one task, in a process and a sandbox of its own.

    python3 -I -S -B host.py WHERE NAME [LIBRARY]

WHERE is the plug-in's file, or a module found in the directory LIBRARY; NAME is a key of its `ENCODERS`.
Descriptor 3 is a stream socket to the supervisor. A frame is a u32 little-endian length, one byte that
says what it is, and so many bytes:

    from the supervisor                          from here
    B  {"options": ANY, "task": {...}}           e  an event, JSON
    o  bytes of stdout   e  bytes of stderr      .  the frame is done with, send the next
    E  the end                                   !  why it cannot go on

Each frame is answered by any number of events and one `.`, or by `!`. This file is all of initspawn that the
sandbox holds, so it imports nothing of it. Not part of the supervisor.
"""

from __future__ import annotations

import importlib.util
import json
import socket
import sys
from typing import Any

_HEADER = 5
_REASON = 500  # characters


def main(arguments: list[str]) -> int:
    """Serve until the end has been answered or the supervisor is gone. Returns the exit code."""
    where, name, *library = arguments
    channel = Channel(socket.socket(fileno=3))
    try:
        _serve(channel, where, name, library)
    except EOFError:
        return 0
    except Exception as error:
        channel.send(b"!", f"{type(error).__name__}: {error}"[:_REASON].encode("utf-8", "backslashreplace"))
        raise
    return 0


class Channel:
    """Frames over a socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._file = sock.makefile("rb")

    def receive(self) -> tuple[bytes, bytes]:
        """The next frame: its kind, its body. Raises EOFError."""
        header = self._read(_HEADER)
        return header[4:], self._read(int.from_bytes(header[:4], "little"))

    def _read(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            raise EOFError
        return data

    def send(self, kind: bytes, body: bytes = b"") -> None:
        """Send one frame. Raises OSError."""
        self._socket.sendall(len(body).to_bytes(4, "little") + kind + body)


def _serve(channel: Channel, where: str, name: str, library: list[str]) -> None:
    kind, body = channel.receive()
    said = json.loads(body)
    encoder = _load(where, library).ENCODERS[name](said["options"])
    begin = getattr(encoder, "begin", None)
    events = begin(said["task"]) if begin is not None else None
    while True:
        for event in events or ():
            text = json.dumps(event, ensure_ascii=False, allow_nan=False)
            channel.send(b"e", text.encode("utf-8", "backslashreplace"))
        channel.send(b".")
        if kind == b"E":
            return
        kind, body = channel.receive()
        if kind == b"E":
            events = encoder.finish()
        else:
            events = encoder.feed("stdout" if kind == b"o" else "stderr", body)


def _load(where: str, library: list[str]) -> Any:
    sys.path[:0] = library
    if where.startswith("/"):
        spec = importlib.util.spec_from_file_location("plugin", where)
    else:
        spec = importlib.util.find_spec(where)
    if spec is None or spec.loader is None:
        raise ImportError(f"{where} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
