"""A process that has no descriptor left: this one, for a while. And a file that takes nothing."""

from __future__ import annotations

import errno
import io
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager


class Deaf(io.StringIO):
    """A file on a full disk."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def full(free: int = 0) -> Iterator[list[int]]:
    """No number below our limit is free, but for so many; what takes their place may be closed meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    top = max(map(int, os.listdir("/proc/self/fd"))) + 12
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (top, hard))
    try:
        try:
            while True:
                taken.append(os.eventfd(0))
        except OSError:
            pass
        for _ in range(free):
            os.close(taken.pop())
        yield taken
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in taken:
            os.close(fd)
