"""The sandbox's file tree: entries of `mounts` become the plan's mount operations."""

from __future__ import annotations

import os
import posixpath
from typing import NamedTuple

from initspawn.config.expand import ExpandFault, Names, expand
from initspawn.config.identity import Person
from initspawn.config.inside import Unsettled, View
from initspawn.config.schema import MountEntry, Root
from initspawn.config.spot import Spot, shown
from initspawn.config.target import Target
from initspawn.execfd import OutputFault, output_of
from initspawn.late import RUNTIME, is_late
from initspawn.linux.squashfs import open_image
from initspawn.plan import Mount
from initspawn.sources import SourceFault, find

_BIND = {"ro": True, "read": True, "rw": False, "write": False}
_FRESH = {
    "anonymous": "dir", "dir": "dir", "tmpfs": "tmpfs", "procfs": "proc", "devfs": "dev", "dev": "dev",
    "mqueue": "mqueue", "lock": "lock",
}  # fmt: skip
_SOURCED = ("bind", "overlay")  # what shows files of the host
MODES = (*_BIND, "overlay", *_FRESH, "symlink", "execfd")


# File systems that show a namespace: an ordinary user may mount them only for one of its own.
_SHOWN = {"proc": "pid", "mqueue": "ipc"}


class Builder(NamedTuple):
    """Who the tree is built by and for. `refused`: the file is refused, so nothing is run or made."""

    supervisor: Person
    command: Person
    namespaces: tuple[str, ...]
    autocreate: bool
    refused: bool = False


def build_root(root: Root, names: Names, builder: Builder, spot: Spot) -> Mount | None:
    """What is `/`, as the first of all mounts; None with the reason noted."""
    if (root.directory is None) == (root.image is None):
        spot.refuse("is one thing, a directory or an image", "write either `directory` or `image`")
        return None
    if root.image is not None:
        return _image(root.image, root.overlay, names, builder, spot)
    assert root.directory is not None
    spot = spot["directory"]
    source = _expanded(root.directory, names, spot)
    if source is None:
        return None
    mount = _bind("/", source, "overlay" if root.overlay else "ro", names.target, builder, spot)
    if mount is not None and not mount.late and not names.target.tree.is_directory(mount.source):
        spot.refuse(f"{shown(source)} is no directory", "a squashfs is named as `image`")
    return mount


def _image(path: str, overlay: bool, names: Names, builder: Builder, spot: Spot) -> Mount | None:
    """The same of a squashfs image."""
    if overlay:
        spot["overlay"].refuse(
            "does not go with an image", "mount it (`mount -o loop,ro`), and name that `directory`"
        )
    spot = spot["image"]
    user = builder.supervisor.user
    if user != 0:
        hint = "run initspawn as root, or unpack it (unsquashfs) and name that `directory`"
        spot.refuse("the kernel lets only root mount an image", hint)
        return None
    source = _expanded(path, names, spot)
    if source is not None and not is_late(source):
        source = _path(source, spot)
    if source is None:
        return None
    machine = names.target
    if not _is_late_source(source, machine, False) and not machine.tree.exists(source):
        spot.refuse(f"{shown(source)} does not exist", "mksquashfs makes one")
        return None
    mount = _bind("/", source, "ro", machine, builder._replace(autocreate=False), spot)
    if mount is None:
        return None
    if not mount.late:
        owners = {0, user, *([os.stat(machine.tree.root).st_uid] if machine.tree.root else [])}
        try:
            os.close(open_image(machine.tree.place(mount.source), owners))
        except OSError as error:
            spot.refuse(f"{shown(source)}: {error.strerror}")
            return None
    return mount.replace(operation="image")


def _expanded(text: str, names: Names, spot: Spot) -> str | None:
    try:
        return expand(text, names)
    except ExpandFault as fault:
        spot.refuse(str(fault))
        return None


def build_mounts(
    entries: list[MountEntry], names: Names, builder: Builder, spot: Spot, root: tuple[Mount, ...] = ()
) -> tuple[Mount, ...]:
    """The operations, in order, after the one that `build_root` made. What is wrong is noted at `spot`."""
    mounts = [*root]
    for index, entry in enumerate(entries):
        mount = _mount(entry, names, builder, spot[index])
        if mount is None:
            continue
        needed = _SHOWN.get(mount.operation)
        if needed and builder.supervisor.user != 0 and needed not in builder.namespaces:
            spot[index]["mode"].refuse(f"an ordinary user needs an own {needed} namespace for this")
        try:
            _check_place(mount, View(True, mounts, names.target.tree), spot[index]["target"])
        except Unsettled:
            pass  # the launch will say
        mounts.append(mount)
    return tuple(mounts)


def _check_place(mount: Mount, before: View, spot: Spot) -> None:
    """Note why a mount cannot be put on its target, given those before it. Raises Unsettled."""
    if mount.operation in _SOURCED and mount.late:
        raise Unsettled
    is_file, is_directory = before.is_file(mount.target), before.is_directory(mount.target)
    covering = before.read_only(mount.target)
    if mount.operation == "symlink" and covering == "/":
        spot.refuse("cannot be made over a root that is read-only", "write `root: {overlay: true}`")
    elif mount.operation == "lock":
        if not is_file:
            spot.refuse("there is no file to lock", "mount it first")
    elif mount.operation == "symlink":
        if is_file or is_directory or before.is_link(mount.target):
            spot.refuse("is there already, and a symlink is not laid over anything")
    elif mount.operation == "overlay" and not before.tree.is_directory(mount.source):
        spot.refuse("an overlay lies over a directory", "name one as `source`")
    elif is_file or is_directory:
        wants_directory = mount.operation != "file"
        if mount.operation == "bind":
            wants_directory = before.tree.is_directory(mount.source)
        if wants_directory != is_directory:
            spot.refuse("a directory cannot be mounted on a file, nor a file on a directory")
    elif covering:
        spot.refuse(f"does not exist, and cannot be made in {covering}, which is read-only")


def _mount(entry: MountEntry, names: Names, builder: Builder, spot: Spot) -> Mount | None:
    target = _path(entry.target, spot["target"])
    if target == "/":
        spot["target"].refuse("`/` is the new root itself", "name directories below it")
        target = None
    source = None
    if entry.source is not None:
        source = _expanded(entry.source, names, spot["source"])
        if source is None:
            return None
    if entry.mode is None:
        spot.refuse("`mode` is missing", f"write {', '.join(MODES)}")
        return None
    if target is None:
        return None
    if entry.mode in _BIND or entry.mode == "overlay":
        place = spot["target"] if source is None else spot["source"]
        return _bind(target, target if source is None else source, entry.mode, names.target, builder, place)
    if entry.mode == "symlink":
        return _symlink(target, source, spot)
    if entry.mode == "execfd":
        return _file(target, source, names.target, builder, spot)
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


def _file(
    target: str, source: str | None, machine: Target, builder: Builder, spot: Spot
) -> Mount | None:
    if not source:
        spot.refuse("`execfd` needs a `source`: the shell line whose output becomes the file")
        return None
    if machine.late:
        return Mount(operation="file", target=target, source=source, late="line")
    if builder.refused:
        return None
    try:
        data = output_of(source)
    except OutputFault as fault:
        spot["source"].refuse(str(fault))
        return None
    return Mount(operation="file", target=target, data=data)


def _bind(
    target: str, source: str, mode: str, machine: Target, builder: Builder, place: Spot
) -> Mount | None:
    path = source if is_late(source) else _path(source, place)
    if path is None:
        return None
    kind = "overlay" if mode == "overlay" else "bind"
    mount = Mount(operation=kind, target=target, source=path, read_only=_BIND.get(mode, False))
    if _is_late_source(path, machine, builder.autocreate):
        return mount.replace(late="create" if builder.autocreate else "find")
    if builder.refused and builder.autocreate and not machine.tree.exists(path):
        return None
    try:
        found = find(
            path, machine.tree, create=builder.autocreate, supervisor=builder.supervisor.user,
            owner=builder.command,
        )  # fmt: skip
    except SourceFault as fault:
        place.refuse(fault.message, fault.hint)
        return None
    return mount.replace(source=found)


def _is_late_source(path: str, machine: Target, autocreate: bool) -> bool:
    """Whether a source can be looked for only when the supervisor starts."""
    if not machine.late:
        return False
    if is_late(path) or any(f"{path}/".startswith(f"{top}/") for top in RUNTIME):
        return True
    return autocreate and not machine.tree.exists(path)
