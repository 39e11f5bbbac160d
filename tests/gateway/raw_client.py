"""A WebSocket client made of a socket and literal bytes, because a proper client refuses to misbehave."""

from __future__ import annotations

import json
import socket
from typing import Any, Self

from tests.gateway.fake_supervisor import PATIENCE

TEXT, BINARY, CLOSE, PING, PONG, CONT = 1, 2, 8, 9, 10, 0
KEY = "MfpIVG082jFTV7SxTNNijQ=="
MASKING_KEY = b"\x37\xfa\x21\x3d"  # always the same: tests have the same names in each worker
ACCEPT = "f5I2h53hBsT5ES3EHhnxAJ2nqsw="


def frame(payload: bytes, opcode: int = TEXT, *, mask: bool = True, fin: bool = True) -> bytes:
    """One frame as RFC 6455 section 5.2 draws it."""
    bit = 0x80 if mask else 0
    head = bytes((opcode | (0x80 if fin else 0),))
    size = len(payload)
    if size < 126:
        head += bytes((bit | size,))
    elif size < 65536:
        head += bytes((bit | 126,)) + size.to_bytes(2, "big")
    else:
        head += bytes((bit | 127,)) + size.to_bytes(8, "big")
    if not mask:
        return head + payload
    pad = (MASKING_KEY * (size // 4 + 1))[:size]
    mixed = int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")
    return head + MASKING_KEY + mixed.to_bytes(size, "big")


class RawClient:
    """A TCP connection to the gateway; `mask` says whether its frames are masked."""

    def __init__(
        self, port: int, *, mask: bool = True, receive_buffer: int = 0, connected: socket.socket | None = None
    ) -> None:
        self.mask = mask
        self.port = port
        self.socket = connected or socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE)
        if connected is None:
            self.socket.connect(("127.0.0.1", port))
        self.buffer = b""
        self.number = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def request(
        self, target: str, *headers: str, method: str = "GET", host: str = "", body: bytes = b""
    ) -> tuple[int, str, bytes]:
        """Send a request, give (status, head, body)."""
        lines = [f"{method} {target} HTTP/1.1", f"Host: {host or f'127.0.0.1:{self.port}'}", *headers]
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body)
        return self.response()

    def response(self) -> tuple[int, str, bytes]:
        while b"\r\n\r\n" not in self.buffer:
            self._more()
        raw, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        head = raw.decode("latin-1")
        length = next(
            (
                int(line.split(":")[1])
                for line in head.split("\r\n")
                if line.lower().startswith("content-length")
            ),
            0,
        )
        return int(head.split()[1]), head, self._take(length)

    def upgrade(
        self, target: str = "/api", *headers: str, host: str = "", offer: str | None = "x-afb-ws-json1"
    ) -> tuple[int, str, bytes]:
        lines = [
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {KEY}",
            *headers,
        ]
        if offer is not None:
            lines.append(f"Sec-WebSocket-Protocol: {offer}")
        return self.request(target, *lines, host=host)

    def open(self, target: str = "/api", *headers: str) -> Self:
        status, head, _ = self.upgrade(target, *headers)
        assert status == 101, head
        return self

    def text(self, text: str | bytes) -> None:
        data = text.encode() if isinstance(text, str) else text
        self.send(frame(data, mask=self.mask))

    def frame(self) -> tuple[int, bytes]:
        """The next frame; every frame of the server is whole and unmasked."""
        first, second = self._take(2)
        assert first & 0xF0 == 0x80, "fragmented or with reserved bits"
        size = second
        if second == 126:
            size = int.from_bytes(self._take(2), "big")
        elif second == 127:
            size = int.from_bytes(self._take(8), "big")
        assert second < 128, "masked"
        return first & 0x0F, self._take(size)

    def raw(self) -> bytes:
        """The payload of the next frame, which is a text."""
        opcode, payload = self.frame()
        assert opcode == TEXT, (opcode, payload)
        return payload

    def message(self) -> Any:
        return json.loads(self.raw())

    def call(self, procedure: str, args: Any = None, *more: Any) -> Any:
        """Call and give the next message."""
        self.number += 1
        self.text(json.dumps([2, str(self.number), procedure, args, *more]))
        return self.message()

    def closed(self) -> tuple[int, str]:
        """Code and reason of the Close frame that is next, and the end of the stream after it."""
        opcode, payload = self.frame()
        assert opcode == CLOSE, (opcode, payload)
        return int.from_bytes(payload[:2], "big"), payload[2:].decode()

    def at_end(self) -> bool:
        """Whether the server has ended the connection (waits for it)."""
        try:
            while self.buffer or (data := self.socket.recv(65536)):
                if self.buffer:
                    return False
                self.buffer += data
        except ConnectionResetError:
            pass
        return True

    def _more(self) -> None:
        data = self.socket.recv(1 << 20)
        if not data:
            raise EOFError
        self.buffer += data

    def _take(self, size: int) -> bytes:
        while len(self.buffer) < size:
            self._more()
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data
