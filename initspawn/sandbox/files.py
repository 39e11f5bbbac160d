"""A file whose content is in the plan: in memory, and mounted read-only over its target. Boot module."""

from __future__ import annotations

import os

from initspawn.linux import mount
from initspawn.linux.mount import MOUNT_ATTR_NODEV, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY
from initspawn.sandbox.overlay import stage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from initspawn.plan import Mount
    from initspawn.sandbox.mounts import Builder

_NAME = b"execfd"  # as mountinfo shows it; unlinked it could not be mounted


def written(build: Builder, entry: Mount) -> int:
    """The detached mount of a file with an entry's content. It is in a file system of its own: nothing is
    written into what is bound below its target, nor into a root, which may be read-only.
    """
    program, place = build.program, stage()
    memory = build.filesystem("tmpfs", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, mode="0700")
    at = mount.MOVE_MOUNT_F_EMPTY_PATH  # before Linux 6.15 nothing is copied from a detached one
    program.call("move_mount", memory, b"", mount.AT_FDCWD, place, at, note=f"of {entry.target}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    fd = program.open("openat", memory, _NAME, flags, 0o444, note=entry.target)
    size = len(entry.data)
    program.call("write", fd, entry.data, size, expect=size, note=f"{size} bytes")
    program.close(fd)
    attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
    copy = build.copy(_NAME.decode(), at=memory, attributes=attributes, recursive=False)
    program.call("umount2", place, mount.MNT_DETACH, note=f"of {entry.target}")
    program.close(memory)
    return copy
