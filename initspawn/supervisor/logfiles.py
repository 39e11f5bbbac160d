"""The files of the `log` encoder: opened before the command starts, written while it runs. Boot module."""

from __future__ import annotations

import errno
import os
import select

from initspawn.encoders.base import STDERR, STDOUT
from initspawn.errors import LaunchRefused
from initspawn.linux import mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_OWN = {STDOUT: 1, STDERR: 2}
_MODE = 0o640
# What can be written to a pipe that is ready without waiting (PIPE_BUF in pipe(7)).
_AT_ONCE = 4096


class LogFiles:
    """The two files of one task. A stream without a path goes to our own stdout or stderr."""

    def __init__(self, paths: Mapping[str, str], user: int) -> None:
        """Opens them for appending. A file that is there must be ours, root's or `user`'s, whom the command
        runs as, and have no other name: whoever may write the directory could have put it there. Raises
        LaunchRefused.
        """
        self._files: dict[str, int] = {}
        for stream, path in paths.items():
            if not path:
                continue
            if not path.startswith("/"):  # it was known only when the supervisor started
                self.close()
                raise LaunchRefused("log", errno.EINVAL, f"{path!a} is no full path")
            try:
                self._files[stream] = fd = mount.open_to_append(path, _MODE)
                found = os.fstat(fd)
            except OSError as error:
                self.close()
                hint = "a part of it is a symbolic link, which is not followed"
                detail = f"{path}: {hint}" if error.errno == errno.ELOOP else path
                raise LaunchRefused("log", error.errno or 0, detail) from error
            if found.st_uid not in (0, os.geteuid(), user) or found.st_nlink > 1:
                self.close()
                reason = "it has a second name" if found.st_nlink > 1 else f"user {found.st_uid} owns it"
                raise LaunchRefused("log", errno.EPERM, f"{path}: {reason}")

    def write(self, stream: str, data: bytes) -> str:
        """Append to a stream's file. Returns why that failed, or nothing."""
        fd = self._files.get(stream)
        try:
            if fd is None:
                return _write_if_ready(_OWN[stream], data)
            while data:
                data = data[os.write(fd, data) :]
        except OSError as error:
            return error.strerror or str(error)
        return ""

    def close(self) -> None:
        """Give the files back."""
        while self._files:
            os.close(self._files.popitem()[1])


def _write_if_ready(fd: int, data: bytes) -> str:
    """Write to our own output, which may be a terminal that somebody has stopped: nobody waits for it."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    while data:
        if not any(events & select.POLLOUT for _, events in poll.poll(0)):
            return "initspawn's own output does not take it"
        data = data[os.write(fd, data[:_AT_ONCE]) :]
    return ""
