"""What a service tells systemd: sd_notify(3), one datagram to the socket that it is given. Boot module."""

from __future__ import annotations

import _socket


def notify(address: str, text: str, *, wait: bool) -> None:
    """Send lines such as READY=1 to the socket at `address`: a path, or with `@` an abstract name. `wait`
    until there is room for them.

    Nothing happens without an address. Raises OSError.
    """
    if not address:
        return
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        sock.connect("\0" + address[1:] if address.startswith("@") else address)
        sock.send(text.encode(), 0 if wait else _socket.MSG_DONTWAIT)
    finally:
        sock.close()
