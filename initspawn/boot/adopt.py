"""The unit's process: has the supervisor taken over that runs since before systemd, or becomes one.

Boot module.

Only a unit's main process may say who is main in its place (NotifyAccess=main), so it is this process that
says it, when supervisor and tasks are in the unit's group already; then it ends.
"""

from __future__ import annotations

import _socket
import errno
import os
import struct
import sys
import time

from initspawn.boot.adoption import PACKET, SOCKET, own_group
from initspawn.boot.early import RUN_DIR, be_unit, take_lock
from initspawn.boot.notify import notify

_PATIENCE_SECONDS = 30.0


def main() -> int:
    """Returns the exit code: 0, or 111 with a line on stderr. Does not return as a supervisor."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    try:
        sock, lock = _find()
        if sock is None:
            return be_unit(address, os.environ.get("WATCHDOG_USEC", ""), lock)
        watchdog = os.environ.get("WATCHDOG_USEC", "")
        packet = f"group {own_group()}\nnotify {address}\nwatchdog {watchdog}"
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("2i", 1, 2))]
        try:
            sock.settimeout(_PATIENCE_SECONDS)  # the boot waits for us: one that hangs must not stop it
            sock.sendmsg([packet.encode()], rights)
            kind, _, text = sock.recv(PACKET).decode().partition(" ")
        finally:
            sock.close()
        if kind != "pid":
            print(
                f"initspawn: the early supervisor stays as it is: {text or 'it has ended'}", file=sys.stderr
            )
            return 111
        notify(address, f"MAINPID={text}\nREADY=1", wait=True)
    except OSError as error:
        reason = error.strerror or "the early supervisor does not answer"
        print(f"initspawn: {error.filename or 'adopt'}: {reason}", file=sys.stderr)
        return 111
    return 0


def _find() -> tuple[_socket.socket | None, int]:
    """A connection to the supervisor; or none, and the lock that says there is no other (`take_lock`). One
    that lives and does not answer yet is waited for. Raises OSError.
    """
    end = time.monotonic() + _PATIENCE_SECONDS
    while True:
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
        try:
            sock.connect(os.path.join(RUN_DIR, SOCKET))
            return sock, -1
        except (FileNotFoundError, ConnectionRefusedError):
            sock.close()
        try:
            return None, take_lock()
        except BlockingIOError:
            if time.monotonic() > end:
                raise TimeoutError(
                    errno.ETIMEDOUT, "a supervisor runs, but is not to be reached", RUN_DIR
                ) from None
        time.sleep(0.05)
