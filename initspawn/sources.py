"""The host's side of a bind mount: found, judged, made if wanted, its links resolved. Boot module."""

from __future__ import annotations

import os
import stat

from initspawn.errors import InitspawnError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from initspawn.tree import Tree


class SourceFault(InitspawnError):
    """A source cannot be used: why, and what to do instead."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message} ({hint})" if hint else message)
        self.message = message
        self.hint = hint


def find(path: str, tree: Tree, *, create: bool, supervisor: int, owner: tuple[int, int]) -> str:
    """The path without links. `owner`: the command's user and group. Raises SourceFault.

    `create`: a missing directory is made, with its parents, for `owner` if the supervisor is root.
    """
    _judge(path, tree, {0, supervisor, owner[0]})
    if not tree.exists(path):
        if not create:
            raise SourceFault(f"{path!a} does not exist", "make it, or say `opts: {autocreate: true}`")
        _make(path, owner if supervisor == 0 else None)
    # Resolved now: a link that somebody plants on the way later is refused at the start.
    return tree.real(path)


def _make(path: str, owner: tuple[int, int] | None) -> None:
    made = []
    try:
        for step in _steps(path):
            if not os.path.lexists(step):
                os.mkdir(step, 0o755)
                made.append(step)
                os.chmod(step, 0o755)  # whatever our umask is
        # Inside out: nobody else can touch what is still below a directory of ours.
        for step in reversed(made):
            if owner is not None:
                os.chown(step, *owner, follow_symlinks=False)
    except OSError as error:
        raise SourceFault(f"{path!a} cannot be made: {error.strerror}") from error


def _judge(path: str, tree: Tree, trusted: set[int]) -> None:
    """Below a directory where everybody may write, nothing of a stranger's is taken for a source.

    Whoever makes /var/tmp/NAME first would otherwise choose what the command sees there.
    """
    for start in dict.fromkeys((path, tree.real(path))):
        open_to_all = False
        for step in _steps(start):
            try:
                found = tree.lstat(step)
            except OSError:
                break  # nothing there: the caller says so
            if open_to_all and found.st_uid not in trusted and not tree.owns(found):
                raise SourceFault(
                    f"{step!a} belongs to user {found.st_uid}, "
                    "in a directory where everybody may write",
                    "use a directory that only root or the command's user can make",
                )
            if stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_IWOTH:
                open_to_all = True


def _steps(path: str) -> Iterator[str]:
    """/a, /a/b, /a/b/c for /a/b/c."""
    names = path.strip("/").split("/")
    return ("/" + "/".join(names[: count + 1]) for count in range(len(names)))
