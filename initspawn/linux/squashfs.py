"""A squashfs image as a file: opened, and judged before anything of it is believed. Boot module."""

from __future__ import annotations

import errno
import os
import stat

from initspawn.linux import mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

_MAGIC = b"hsqs"  # fs/squashfs/squashfs_fs.h: SQUASHFS_MAGIC, little endian


def open_image(path: str, owners: Collection[int]) -> int:
    """A squashfs image for reading, by a path without symbolic links; never waits, whatever is there.

    `owners`: the users it may belong to, who alone may be able to write it. Raises OSError, whose text says
    what is wrong.
    """
    fd = mount.open_without_links(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "no regular file", path)
        if found.st_uid not in owners:
            raise OSError(errno.EPERM, f"belongs to user {found.st_uid}, not to root or us", path)
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise OSError(errno.EPERM, "others may write it: chmod go-w", path)
        if os.pread(fd, len(_MAGIC), 0) != _MAGIC:
            raise OSError(errno.EINVAL, "no squashfs image: mksquashfs makes one", path)
    except OSError:
        os.close(fd)
        raise
    return fd
