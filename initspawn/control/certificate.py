"""The gateway's certificate and key: read here, handed over, and read again when the files change.

The gateway may open neither. It is handed copies in memory, sealed, over the socket that local clients come
over too, and says whether they can be used; the supervisor has no TLS of its own. Until then, and when they
cannot, the pair before stays in use, and is what a restarted gateway gets.
"""

from __future__ import annotations

import _socket
import fcntl
import os
import stat
import struct

from initspawn.errors import InitspawnError
from initspawn.limits import TLS_CHECK_SECONDS, TLS_FILE_BYTES
from initspawn.say import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from initspawn.supervisor.reactor import Reactor

MESSAGE = b"tls"  # `tls N` with two descriptors; answered by `tls N` and perhaps the reason why not
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE

Files = tuple[str, str]
Pair = tuple[bytes, bytes]


class CertificateError(InitspawnError):
    """A file of the pair cannot be used; with what to do."""


def read_pair(files: Files) -> Pair:
    """The contents of a certificate and its key. Raises CertificateError."""
    certificate, key = files
    return _read(certificate, secret=False), _read(key, secret=True)


def _read(path: str, *, secret: bool) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise CertificateError(f"{path}: {error.strerror}") from None
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise CertificateError(f"{path} is no file")
        writable = stat.S_IWGRP | stat.S_IWOTH
        if found.st_uid not in (0, os.geteuid()) or found.st_mode & writable:
            who = "root or you" if os.geteuid() else "root"
            raise CertificateError(f"{path} can be changed by others: {who} must own it; chmod go-w {path}")
        if secret and found.st_mode & stat.S_IROTH:
            raise CertificateError(f"{path} can be read by others: make a new key, and chmod o-rwx {path}")
        data = file.read(TLS_FILE_BYTES + 1)
    if len(data) > TLS_FILE_BYTES:
        raise CertificateError(f"{path} is larger than {TLS_FILE_BYTES} bytes")
    if secret and b"ENCRYPTED" in data:
        plain = f"openssl pkey -in {path} -out KEY"
        raise CertificateError(f"{path} needs a passphrase, and there is nobody to ask: {plain}")
    return data


class Certificate:
    """The pair of a running supervisor. `handover` leads to the gateway. Raises CertificateError."""

    def __init__(self, files: Files, handover: _socket.socket, reactor: Reactor) -> None:
        self._files = files
        self._handover = handover
        self._reactor = reactor
        self._number = 0  # of the last pair
        self._seen = self._loaded = self._signature()
        self._used = read_pair(files)  # `serve` has tried it
        self._offered: Pair | None = None  # the next one, until the gateway has tried it
        self.problem = ""
        reactor.after(TLS_CHECK_SECONDS, self._check)

    def about(self) -> dict[str, Any]:
        """What `info` says."""
        said = {"certificate": self._files[0], "replaced": self._number}
        return {**said, "problem": self.problem} if self.problem else said

    def introduce(self) -> None:
        """A gateway is about to be started: it gets the pair in use."""
        self._hand_over(self._used, 0)
        if self._offered is not None:
            self._hand_over(self._offered, self._number)

    def answered(self, message: bytes) -> None:
        """The gateway, which is not trusted, says whether it could use a pair."""
        number, _, reason = message.decode("ascii", "replace").partition(" ")
        if self._offered is None or number != str(self._number):
            if reason and number == "0":
                self._complain(f"cannot be used: {_plain(reason)}")
            return
        if reason:
            self._complain(f"the one before stays in use: {_plain(reason)}")
        else:
            self._used, self.problem = self._offered, ""
        self._offered = None

    def _check(self) -> None:
        """Look for a change; it counts when nothing has changed since, so both files are written."""
        self._reactor.after(TLS_CHECK_SECONDS, self._check)
        found = self._signature()
        if found == self._seen != self._loaded:
            self._loaded = found
            self._offer()
        self._seen = found

    def _offer(self) -> None:
        try:
            self._offered = read_pair(self._files)
        except CertificateError as error:
            self._complain(f"the one before stays in use: {error}")
            return
        self._number += 1
        self._hand_over(self._offered, self._number)

    def _complain(self, text: str) -> None:
        self.problem = text
        say(f"certificate {self._files[0]}: {text}")

    def _signature(self) -> tuple[tuple[int, ...], ...]:
        """What tells one state of the files from another; links are followed."""
        return tuple(_state(path) for path in self._files)

    def _hand_over(self, pair: Pair, number: int) -> None:
        descriptors: list[int] = []
        try:
            for data in pair:
                descriptors.append(_sealed(data))
            rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("2i", *descriptors))
            self._handover.sendmsg([b"%b %d" % (MESSAGE, number)], [rights], _socket.MSG_DONTWAIT)
        except OSError as error:  # its queue is full: it does not read
            self._complain(f"it could not be handed to the gateway: {error.strerror}")
        finally:
            for fd in descriptors:
                os.close(fd)


def _state(path: str) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError as error:
        return (error.errno or 0,)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _sealed(data: bytes) -> int:
    """A file in memory with this content, which nobody can change."""
    fd = os.memfd_create("initspawn-tls", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.write(fd, data)
        os.fchmod(fd, 0o444)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except OSError:
        os.close(fd)
        raise
    return fd


def _plain(text: str) -> str:
    """Text of the gateway for a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
