"""The sandbox's file tree: entries of `mounts` become the plan's mount operations."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator
from typing import NamedTuple

from initspawn.config.execfd import OutputFault, output_of
from initspawn.config.expand import ExpandFault, Names, expand
from initspawn.config.identity import Person
from initspawn.config.inside import View
from initspawn.config.schema import MountEntry
from initspawn.config.spot import Spot, shown
from initspawn.plan import Mount

_BIND = {"ro": True, "read": True, "rw": False, "write": False}
_FRESH = {
    "anonymous": "dir", "dir": "dir", "tmpfs": "tmpfs", "procfs": "proc", "devfs": "dev", "dev": "dev",
    "mqueue": "mqueue", "lock": "lock",
}  # fmt: skip
MODES = (*_BIND, *_FRESH, "symlink", "execfd")


# File systems that show a namespace: an ordinary user may mount them only for one of its own.
_SHOWN = {"proc": "pid", "mqueue": "ipc"}


class Builder(NamedTuple):
    """Who the tree is built by and for. `refused`: the file is refused, so nothing is run or made."""

    supervisor: Person
    command: Person
    namespaces: tuple[str, ...]
    autocreate: bool
    refused: bool = False


def build_mounts(entries: list[MountEntry], names: Names, builder: Builder, spot: Spot) -> tuple[Mount, ...]:
    """The operations, in order. What is wrong is noted at `spot`."""
    mounts: list[Mount] = []
    for index, entry in enumerate(entries):
        mount = _mount(entry, names, builder, spot[index])
        if mount is None:
            continue
        needed = _SHOWN.get(mount.operation)
        if needed and builder.supervisor.user != 0 and needed not in builder.namespaces:
            spot[index]["mode"].refuse(f"an ordinary user needs an own {needed} namespace for this")
        _check_place(mount, View(True, mounts), spot[index]["target"])
        mounts.append(mount)
    return tuple(mounts)


def _check_place(mount: Mount, before: View, spot: Spot) -> None:
    """Note why a mount cannot be put on its target, given those before it."""
    is_file, is_directory = before.is_file(mount.target), before.is_directory(mount.target)
    if mount.operation == "lock":
        if not is_file:
            spot.refuse("there is no file to lock", "mount it first")
    elif mount.operation == "symlink":
        if is_file or is_directory or before.is_link(mount.target):
            spot.refuse("is there already, and a symlink is not laid over anything")
    elif is_file or is_directory:
        wants_directory = mount.operation != "file"
        if mount.operation == "bind":
            wants_directory = os.path.isdir(mount.source)
        if wants_directory != is_directory:
            spot.refuse("a directory cannot be mounted on a file, nor a file on a directory")
    else:
        covering = before.read_only(mount.target)
        if covering:
            spot.refuse(f"does not exist, and cannot be made in {covering}, which is read-only")


def _mount(entry: MountEntry, names: Names, builder: Builder, spot: Spot) -> Mount | None:
    target = _path(entry.target, spot["target"])
    if target == "/":
        spot["target"].refuse("`/` is the new root itself", "name directories below it")
        target = None
    source = None
    if entry.source is not None:
        try:
            source = expand(entry.source, names)
        except ExpandFault as fault:
            spot["source"].refuse(str(fault))
            return None
    if entry.mode is None:
        spot.refuse("`mode` is missing", f"write {', '.join(MODES)}")
        return None
    if target is None:
        return None
    if entry.mode in _BIND:
        return _bind(target, source, entry.mode, builder, spot)
    if entry.mode == "symlink":
        return _symlink(target, source, spot)
    if entry.mode == "execfd":
        return _file(target, source, builder, spot)
    if source is not None:
        spot["source"].refuse(f"`{entry.mode}` takes no source", "remove it")
        return None
    return Mount(operation=_FRESH[entry.mode], target=target)


def _path(text: str, spot: Spot) -> str | None:
    """An absolute path in its shortest form, or None with the reason noted."""
    if not text.startswith("/"):
        spot.refuse(f"{shown(text)} is not absolute", "begin it with `/`")
    elif ".." in text.split("/"):
        spot.refuse("`..` is not allowed in a path", "write the path it leads to")
    else:
        return "/" + posixpath.normpath(text).lstrip("/")
    return None


def _symlink(target: str, source: str | None, spot: Spot) -> Mount | None:
    if not source:
        spot.refuse("a symlink needs a `source`: what it points to")
        return None
    return Mount(operation="symlink", target=target, source=source)


def _file(target: str, source: str | None, builder: Builder, spot: Spot) -> Mount | None:
    if not source:
        spot.refuse("`execfd` needs a `source`: the shell line whose output becomes the file")
        return None
    if builder.refused:
        return None
    try:
        data = output_of(source)
    except OutputFault as fault:
        spot["source"].refuse(str(fault))
        return None
    return Mount(operation="file", target=target, data=data)


def _bind(target: str, source: str | None, mode: str, builder: Builder, spot: Spot) -> Mount | None:
    place = spot["target"] if source is None else spot["source"]
    path = _path(target if source is None else source, place)
    if path is None or not _is_safe(path, builder, place):
        return None
    if not os.path.exists(path):
        if not builder.autocreate:
            place.refuse(f"{shown(path)} does not exist", "make it, or say `opts: {autocreate: true}`")
            return None
        if builder.refused or not _create(path, builder, place):
            return None
    # Resolved now: a link that somebody plants on the way later is refused at the start.
    source = os.path.realpath(path)
    return Mount(operation="bind", target=target, source=source, read_only=_BIND[mode])


def _create(path: str, builder: Builder, spot: Spot) -> bool:
    """Make a directory and its missing parents, for the command's user."""
    made = []
    try:
        for step in _steps(path):
            if not os.path.lexists(step):
                os.mkdir(step, 0o755)
                made.append(step)
                os.chmod(step, 0o755)  # whatever our umask is
        # Inside out: nobody else can touch what is still below a directory of ours.
        for step in reversed(made):
            if builder.supervisor.user == 0:
                os.chown(step, builder.command.user, builder.command.group, follow_symlinks=False)
    except OSError as error:
        spot.refuse(f"{shown(path)} cannot be made: {error.strerror}")
        return False
    return True


def _is_safe(path: str, builder: Builder, spot: Spot) -> bool:
    """Below a directory where everybody may write, nothing of a stranger's is taken for a source.

    Whoever makes /var/tmp/NAME first would otherwise choose what the command sees there.
    """
    trusted = {0, builder.supervisor.user, builder.command.user}
    for start in dict.fromkeys((path, os.path.realpath(path))):
        open_to_all = False
        for step in _steps(start):
            try:
                found = os.lstat(step)
            except OSError:
                break  # nothing there: the caller says so
            if open_to_all and found.st_uid not in trusted:
                spot.refuse(
                    f"{shown(step)} belongs to user {found.st_uid}, in a directory where everybody may write",
                    "use a directory that only root or the command's user can make",
                )
                return False
            if stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_IWOTH:
                open_to_all = True
    return True


def _steps(path: str) -> Iterator[str]:
    """/a, /a/b, /a/b/c for /a/b/c."""
    names = path.strip("/").split("/")
    return ("/" + "/".join(names[: count + 1]) for count in range(len(names)))
