"""What a path leads to inside a sandbox, worked out from its mounts on the host."""

from __future__ import annotations

from collections.abc import Sequence

from initspawn.late import is_late
from initspawn.plan import Mount
from initspawn.tree import HERE, Tree, follow

_FULL = ("proc", "dev")  # file systems that are not empty when the command starts


class Unsettled(Exception):
    """What is at a path will be known only when the supervisor starts."""


class View:
    """The file tree that commands of one sandbox see: the host's own, or one that mounts fill.

    `tree`: the host's files. Every question about a path raises Unsettled where the plan is made ahead
    and the answer depends on the running machine.
    """

    def __init__(self, new_root: bool, mounts: Sequence[Mount], tree: Tree = HERE) -> None:
        self.new_root = new_root
        self.tree = tree
        self._mounts = mounts

    @property
    def of_image(self) -> bool:
        """Whether the root is an image, into which nobody looks before it is mounted."""
        return bool(self._mounts) and self._mounts[0].operation == "image"

    def host_path(self, path: str) -> str | None:
        """The host's path of what commands see at `path`, links followed as inside; None: nothing."""
        if not self.new_root:
            return path if self.tree.exists(path) else None
        inside = follow(path, self._link)
        found = None if inside is None else self._provider(inside)
        return found if found is not None and self.tree.exists(found) else None

    def is_directory(self, path: str) -> bool:
        """Whether commands see a directory at `path`."""
        if not self.new_root:
            return self.tree.is_directory(path)
        inside = follow(path, self._link)
        if inside is None:
            return False
        provider = self._provider(inside)
        if provider is not None:
            return self.tree.is_directory(provider)
        return any(_makes_directory(mount, inside) for mount in self._mounts)

    def is_file(self, path: str) -> bool:
        """Whether commands see something at `path` that is no directory."""
        if any(mount.operation == "file" and mount.target == path for mount in self._mounts):
            return not self.is_directory(path)
        host = self.host_path(path)
        return host is not None and not self.tree.is_directory(host)

    def is_link(self, path: str) -> bool:
        """Whether a symbolic link, leading anywhere or nowhere, is at `path`."""
        return self._link(path) is not None

    def read_only(self, path: str) -> str | None:
        """The target of the read-only bind that `path` lies in, None if it lies in none."""
        inside = follow(path, self._link) or path
        for mount in reversed(self._mounts):
            if mount.operation not in ("dir", "symlink", "lock") and _covers(mount, inside):
                return mount.target if mount.operation == "bind" and mount.read_only else None
        return None

    def real(self, path: str) -> str | None:
        """The path without symbolic links, as commands see it; None if they lead nowhere."""
        return follow(path, self._link) if self.new_root else self.tree.real(path)

    def targets(self) -> str:
        """The mounts' targets, for messages."""
        return ", ".join(dict.fromkeys(mount.target for mount in self._mounts)) or "none"

    def _link(self, inside: str) -> str | None:
        """The text of the symbolic link at a path, None if there is none."""
        for mount in reversed(self._mounts):
            if mount.operation == "symlink" and mount.target == inside:
                if is_late(mount.source):
                    raise Unsettled
                return mount.source
            if mount.operation != "dir" and _covers(mount, inside):
                break
        host = self._provider(inside)
        return None if host is None else self.tree.readlink(host)

    def _provider(self, inside: str) -> str | None:
        """The host's path of a path without links; None if no bind provides it."""
        for mount in reversed(self._mounts):
            # A `dir` is made only where nothing is, a link only where it is written: neither covers.
            if mount.operation in ("dir", "symlink", "lock") or not _covers(mount, inside):
                continue
            if mount.operation == "image":  # nobody has looked into it
                raise Unsettled
            if mount.operation in ("bind", "overlay"):
                if mount.late:
                    raise Unsettled
                return (mount.source.rstrip("/") + inside[len(mount.target.rstrip("/")) :]) or "/"
            return None
        return None


def _covers(mount: Mount, inside: str) -> bool:
    return inside == mount.target or inside.startswith(mount.target.rstrip("/") + "/")


def _makes_directory(mount: Mount, inside: str) -> bool:
    """Whether a mount makes a directory at a path: its target, one above it, or one that it brings."""
    if mount.target == inside:
        return mount.operation in ("tmpfs", "dir", "mqueue", *_FULL)
    if _covers(mount, inside):
        return mount.operation in _FULL
    return mount.operation != "lock" and mount.target.startswith(inside.rstrip("/") + "/")
