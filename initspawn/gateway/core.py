"""The `websockets` cores (sans-I/O) with AFB's own rules."""

from __future__ import annotations

from websockets.datastructures import Headers
from websockets.protocol import Protocol, Side
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from initspawn.gateway.admission import choose_subprotocol


class Core(Protocol):
    """The stock frame core, but for its reasons."""

    def fail(self, code: int, reason: str = "") -> None:
        """RFC 6455 section 7.1.7; the parser's explanation is for developers of the parser."""
        super().fail(code)


class BareCore(Core):
    """A server's core for a connection that starts with frames, without a handshake."""

    def __init__(self, max_size: int) -> None:
        super().__init__(Side.SERVER, max_size=max_size)


class UpgradeCore(Core, ServerProtocol):
    """A server's core that starts with the handshake."""

    def process_subprotocol(self, headers: Headers) -> Subprotocol | None:
        """AFB clients may separate names by spaces alone, and write them in capitals."""
        chosen = choose_subprotocol(list(headers.raw_items()))
        return Subprotocol(chosen) if chosen else None
