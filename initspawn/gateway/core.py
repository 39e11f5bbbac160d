"""The `websockets` frame core (sans-I/O) with two of AFB's own rules."""

from __future__ import annotations

from websockets.datastructures import Headers
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from initspawn.gateway.admission import choose_subprotocol


class FrameCore(ServerProtocol):
    """See the module."""

    def process_subprotocol(self, headers: Headers) -> Subprotocol | None:
        """AFB clients may separate names by spaces alone, and write them in capitals."""
        chosen = choose_subprotocol(list(headers.raw_items()))
        return Subprotocol(chosen) if chosen else None

    def fail(self, code: int, reason: str = "") -> None:
        """RFC 6455 section 7.1.7; the parser's explanation is for developers of the parser."""
        super().fail(code)
