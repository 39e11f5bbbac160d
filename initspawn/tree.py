"""A machine's file tree: the one we live in, or one below a directory, such as an image. Boot module."""

from __future__ import annotations

import os
import stat

from initspawn.errors import InitspawnError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection

_MAX_LINKS = 40  # as the kernel


def follow(path: str, link: Callable[[str], str | None]) -> str | None:
    """The absolute path without links and `..`, or None after too many links (path_resolution(7)).

    `link` tells the text of the link at a path that has none before its last name, None if there is no link.
    """
    rest = path.split("/")[::-1]
    done = ""
    links = 0
    while rest:
        name = rest.pop()
        if name in ("", "."):
            continue
        if name == "..":
            done = done.rpartition("/")[0]
            continue
        text = link(f"{done}/{name}")
        if text is None:
            done = f"{done}/{name}"
            continue
        links += 1
        if links > _MAX_LINKS:
            return None
        rest.extend(text.split("/")[::-1])
        if text.startswith("/"):
            done = ""
    return done or "/"


class Tree:
    """Files by the paths that they have on that machine.

    `root`: the directory that is its `/`; empty for our own. Links are followed as if `root` were the
    root directory, so nothing leads out of it. It must not be changed by others meanwhile.
    """

    def __init__(self, root: str = "") -> None:
        self.root = os.path.realpath(root) if root else ""
        if self.root == "/":
            self.root = ""

    def real(self, path: str) -> str:
        """The path without links; names that do not exist stay as they are. Raises InitspawnError."""
        if not self.root:
            return os.path.realpath(path)
        found = follow(path, self._link)
        if found is None:
            raise InitspawnError(f"{path} below {self.root}: too many symbolic links")
        return found

    def _link(self, path: str) -> str | None:
        try:
            return os.readlink(self.root + path)
        except OSError:  # no link, or nothing there
            return None

    def place(self, path: str) -> str:
        """Where we find what that machine has at `path`, every link followed. Raises InitspawnError."""
        return self.root + self.real(path) if self.root else path

    def name(self, place: str) -> str | None:
        """The path that machine has for a file of ours, None if it is not below its root."""
        real = os.path.realpath(place)
        if not self.root:
            return real
        return real[len(self.root) :] if real.startswith(f"{self.root}/") else None

    def owns(self, found: os.stat_result) -> bool:
        """Whether something belongs to whoever unpacked this tree; never so for our own."""
        return bool(self.root) and found.st_uid == os.stat(self.root).st_uid

    def trusts(self, found: os.stat_result, users: Collection[int]) -> bool:
        """Whether nobody but these users, and whoever unpacked the tree, could have written a file."""
        return (found.st_uid in users or self.owns(found)) and not found.st_mode & stat.S_IWOTH

    def exists(self, path: str) -> bool:
        """Whether something is there."""
        return os.path.exists(self.place(path))

    def is_directory(self, path: str) -> bool:
        """Whether a directory is there."""
        return os.path.isdir(self.place(path))

    def readlink(self, path: str) -> str | None:
        """The text of the link at `path`, the way to it followed; None: no link there."""
        try:
            return os.readlink(self._beside(path))
        except OSError:
            return None

    def lstat(self, path: str) -> os.stat_result:
        """Of what is at `path`, a link itself included. Raises OSError."""
        return os.lstat(self._beside(path))

    def is_executable(self, path: str) -> bool:
        """Whether the program there may be executed: here by us, elsewhere by anybody."""
        place = self.place(path)
        if not self.root:
            return os.access(place, os.X_OK)
        return bool(stat.S_IMODE(os.stat(place).st_mode) & 0o111)

    def _beside(self, path: str) -> str:
        directory, name = os.path.split(path)
        return os.path.join(self.place(directory), name) if name else self.place(path)


HERE = Tree()
