"""A directory of the host under a layer in memory that takes what is written. Boot module."""

from __future__ import annotations

import os
import stat

from initspawn.linux import mount
from initspawn.linux.mount import MOUNT_ATTR_NODEV, MOUNT_ATTR_NOSUID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from initspawn.plan import Mount
    from initspawn.sandbox.mounts import Builder

_STAGES = ("/tmp", "/run", "/dev", "/mnt")


def stage() -> bytes:
    """Where something is mounted until it has its place: any directory will do, nobody else sees it."""
    return next(path for path in _STAGES if os.path.isdir(path)).encode()


def layered(build: Builder, entry: Mount, attributes: int) -> int:
    """The detached overlay of a mount's source; what is mounted below that is not in it. Raises OSError."""
    program, sandbox, place = build.program, build.sandbox, stage()
    lower = build.open_source(entry.source)
    layer = build.filesystem("tmpfs", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, mode="0700")
    at = mount.MOVE_MOUNT_F_EMPTY_PATH  # overlayfs takes no detached one
    program.call("move_mount", layer, b"", mount.AT_FDCWD, place, at, note="the layer")
    for name in (b"upper", b"index"):
        program.call("mkdirat", layer, name, 0o700, note=name.decode())
    like = os.stat(entry.source)
    if sandbox.groups is not None:
        program.call("fchownat", layer, b"upper", like.st_uid, like.st_gid, 0, note=entry.source)
    program.call("fchmodat", layer, b"upper", stat.S_IMODE(like.st_mode), note=entry.source)
    # In a user namespace what overlayfs remembers is kept in attributes that users may write.
    first = sandbox.id_map is not None and sandbox.id_map.first
    made = build.filesystem(
        "overlay", attributes, lowerdir=f"/proc/self/fd/{lower}", upperdir=f"{place.decode()}/upper",
        workdir=f"{place.decode()}/index", **({"userxattr": None} if first else {}),
    )  # fmt: skip
    program.call("umount2", place, mount.MNT_DETACH, note="the layer")
    program.close(layer)
    program.close(lower)
    return made
