"""The sandbox's file tree, built inside its new mount namespace. Boot module.

A new root is an empty tmpfs, or what the plan begins with as a mount on `/`; the other mounts fill it in
their order. Targets that could lie behind a symbolic link are opened with openat2(RESOLVE_IN_ROOT) and
mounted on by descriptor, so that no link in a bound directory can lead a mount out of the new root.
Nothing mounted here is seen outside; what the host mounts later below a bound source comes in
(mount_namespaces(7): slave mounts).
"""

from __future__ import annotations

import errno
import os
import stat
import struct

from initspawn.linux import mount
from initspawn.linux.mount import (
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
)
from initspawn.sandbox.files import written
from initspawn.sandbox.overlay import layered, stage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from initspawn.plan import Mount, Sandbox
    from initspawn.sandbox.program import Argument, Program

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
DEV_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
)
# Files of /proc that user 0 could change the machine with, without any capability.
PROC_COVERS = ("sys", "sysrq-trigger", "irq", "bus", "fs")
_TREE = mount.OPEN_TREE_CLONE | mount.OPEN_TREE_CLOEXEC
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class Builder:
    """Emits the calls that build one sandbox's tree into `program`."""

    def __init__(self, program: Program, sandbox: Sandbox) -> None:
        self.program = program
        self.sandbox = sandbox
        self.root = -1
        self.sources: list[int] = []  # copies of what comes from the host, in the order of their use
        # Paths of the new root that are known to be directories of its own tmpfs, and paths behind
        # which somebody else's links may wait.
        self._own: set[str] = {""}
        self._foreign: set[str] = set()

    def build(self) -> None:
        """The whole tree, up to and including the change of root."""
        program, sandbox = self.program, self.sandbox
        program.call("mount", b"none", b"/", None, mount.MS_REC | mount.MS_SLAVE, note="everything is slave")
        # Before the new root is mounted: it hides what was below the directory it is staged on.
        for entry in sandbox.mounts:
            if entry.operation == "bind":
                self.sources.append(self.copy_source(entry.source, _bind_attributes(sandbox, entry)))
            elif entry.operation == "overlay":
                self.sources.append(layered(self, entry, _bind_attributes(sandbox, entry)))
            elif entry.operation == "file":
                self.sources.append(written(self, entry))
            elif entry.operation == "dev":
                for name in DEVICES:
                    self.sources.append(
                        self.copy(f"/dev/{name}", attributes=MOUNT_ATTR_NOSUID, recursive=False)
                    )
        entries = sandbox.mounts
        if sandbox.new_root:
            if entries and entries[0].operation == "image":
                self.root, entries = self._image(entries[0]), entries[1:]
                self._own.clear()
            elif entries and entries[0].target == "/":
                self.root, entries = self.sources.pop(0), entries[1:]
                self._own.clear()  # links may wait anywhere in it
            else:
                self.root = self.filesystem("tmpfs", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, mode="0755")
            at = mount.MOVE_MOUNT_F_EMPTY_PATH
            program.call("move_mount", self.root, b"", mount.AT_FDCWD, stage(), at, note="the new root")
        else:
            self.root = program.open("openat", mount.AT_FDCWD, b"/", _DIRECTORY, note="/")
            self._own.clear()
        for entry in entries:
            _OPERATIONS[entry.operation](self, entry)
        if sandbox.new_root:
            program.call("fchdir", self.root, note="the new root")
            # pivot_root(2): the same directory twice stacks the old root on it, to be taken off at once.
            program.call("pivot_root", b".", b".")
            program.call("umount2", b".", mount.MNT_DETACH, note="the old root")
            program.call("chdir", b"/")
            if not sandbox.writable_root:
                self._set(self.root, MOUNT_ATTR_RDONLY, 0, "/")
        program.close(self.root)

    def filesystem(self, kind: str, attributes: int, **options: str | None) -> int:
        """A new, detached file system: fsopen(2), fsconfig(2), fsmount(2)."""
        program = self.program
        context = program.open("fsopen", kind.encode(), mount.FSOPEN_CLOEXEC, note=kind)
        for name, value in options.items():
            what = mount.FSCONFIG_SET_FLAG if value is None else mount.FSCONFIG_SET_STRING
            text = None if value is None else value.encode()
            program.call("fsconfig", context, what, name.encode(), text, 0, note=f"{name}={value}")
        program.call("fsconfig", context, mount.FSCONFIG_CMD_CREATE, None, None, 0, note=kind)
        made = program.open("fsmount", context, mount.FSMOUNT_CLOEXEC, attributes, note=kind)
        program.close(context)
        return made

    def _image(self, entry: Mount) -> int:
        """The squashfs on the block device that an image's file is attached to."""
        attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
        return self.filesystem("squashfs", attributes, source=entry.device, ro=None)

    def copy(
        self, path: str, *, at: int = mount.AT_FDCWD, attributes: int = 0, recursive: bool = True
    ) -> int:
        """A detached copy of the mounts at a path: open_tree(2), mount_setattr(2)."""
        below = mount.AT_RECURSIVE if recursive else 0
        tree = self.program.open("open_tree", at, os.fsencode(path), _TREE | below, note=path)
        self._set(tree, attributes, below, path)
        return tree

    def copy_source(self, path: str, attributes: int) -> int:
        """The same of a path of the host: a symbolic link that somebody planted in it since the plan was
        made is an error, not a way.
        """
        program = self.program
        found = self.open_source(path)
        flags = _TREE | mount.AT_RECURSIVE | mount.AT_EMPTY_PATH
        tree = program.open("open_tree", found, b"", flags, note=path)
        program.close(found)
        self._set(tree, attributes, mount.AT_RECURSIVE, path)
        return tree

    def open_source(self, path: str) -> int:
        """A path of the host that was resolved when the plan was made; a link in it is an error."""
        how = struct.pack("=3Q", os.O_PATH | os.O_CLOEXEC, 0, mount.RESOLVE_NO_SYMLINKS)
        return self.program.open("openat2", mount.AT_FDCWD, os.fsencode(path), how, len(how), note=path)

    def _set(self, tree: int, attributes: int, below: int, path: str) -> None:
        if attributes:
            value = struct.pack("=4Q", attributes, 0, 0, 0)  # struct mount_attr: set, clear, propagation, ns
            flags = mount.AT_EMPTY_PATH | below
            self.program.call("mount_setattr", tree, b"", flags, value, len(value), note=path)

    def attach(self, tree: int, path: str, *, directory: bool, keep: bool = False) -> None:
        """Mount a detached tree on `path`, made if it is missing; `tree` stays open if told to."""
        self.place(path, directory=directory)
        if self.safe(path):
            self.attach_in(self.root, tree, path.lstrip("/"), f"on {path}", keep=keep)
            return
        program = self.program
        target = self.resolve(path, os.O_PATH)
        flags = mount.MOVE_MOUNT_F_EMPTY_PATH | mount.MOVE_MOUNT_T_EMPTY_PATH
        program.call("move_mount", tree, b"", target, b"", flags, note=f"on {path}")
        program.close(target)
        if not keep:
            program.close(tree)

    def attach_in(self, directory: int, tree: int, name: str, note: str, *, keep: bool = False) -> None:
        """Mount a detached tree on what `name` is in a directory of ours."""
        flags = mount.MOVE_MOUNT_F_EMPTY_PATH
        self.program.call("move_mount", tree, b"", directory, os.fsencode(name) or b".", flags, note=note)
        if not keep:
            self.program.close(tree)

    def place(self, path: str, *, directory: bool) -> None:
        """See that `path` exists, with its parents, as a directory or an empty file."""
        if path in self._own or path in self._foreign:
            return
        self._make(path, ("mkdirat", 0o755) if directory else ("mknodat", stat.S_IFREG | 0o644))
        if directory and self.safe(path):
            self._own.add(path)

    def symlink(self, text: str, path: str) -> None:
        """Make a symbolic link, whatever it points to."""
        self._make(path, ("symlinkat", os.fsencode(text)), ignore=0)
        self._foreign.add(path)

    def foreign(self, path: str) -> None:
        """From now on what lies below `path` is not ours: its links are not trusted."""
        self._foreign.add(path.rstrip("/"))
        self._own = {own for own in self._own if not f"{own}/".startswith(f"{path}/")}

    def own(self, path: str) -> None:
        """From now on `path` is an empty file system of our own, if no link can be on the way to it."""
        if not self.safe(path):
            return
        self._foreign = {far for far in self._foreign if not f"{far}/".startswith(f"{path}/")}
        self._own = {own for own in self._own if not own.startswith(f"{path}/")} | {path}

    def safe(self, path: str) -> bool:
        """Whether no component above the last could be anybody's symbolic link."""
        return _parent(path) in self._own

    def _make(self, path: str, how: tuple[str, Argument], *, ignore: int = errno.EEXIST) -> None:
        parent = _parent(path)
        if parent:
            self.place(parent, directory=True)
        name, value = how
        link = name == "symlinkat"
        if self.safe(path):
            where: tuple[Argument, ...] = (self.root, _relative(path))
            self._emit(name, where, value, link, ignore, path)
        else:
            above = self.resolve(parent or "/", _DIRECTORY)
            # On a read-only bind the target must exist, and then need not be made.
            leaf = os.path.basename(path).encode()
            self._emit(name, (above, leaf), value, link, ignore, path)
            self.program.close(above)

    def _emit(
        self, name: str, where: tuple[Argument, ...], value: Argument, link: bool, ignore: int, path: str
    ) -> None:
        arguments = (value, *where) if link else (*where, value)
        self.program.call(name, *arguments, note=path, ignore=ignore)

    def resolve(self, path: str, flags: int) -> int:
        """A descriptor on `path` of the new root: openat2(2), no link or `..` leads out of it."""
        how = struct.pack(
            "=3Q", flags | os.O_CLOEXEC, 0, mount.RESOLVE_IN_ROOT | mount.RESOLVE_NO_MAGICLINKS
        )
        return self.program.open("openat2", self.root, os.fsencode(path), how, len(how), note=path)


def proc_covers() -> list[str]:
    """What is made read-only in a user 0's /proc, as far as this kernel was built with it."""
    return [name for name in PROC_COVERS if os.path.exists(f"/proc/{name}")]


def _relative(path: str) -> bytes:
    return os.fsencode(path.lstrip("/")) or b"."


def _parent(path: str) -> str:
    return os.path.dirname(path).rstrip("/")


def _bind_attributes(sandbox: Sandbox, entry: Mount) -> int:
    attributes = MOUNT_ATTR_NODEV
    if sandbox.no_new_privileges:
        attributes |= MOUNT_ATTR_NOSUID
    return attributes | (MOUNT_ATTR_RDONLY if entry.read_only else 0)


def _bind(build: Builder, entry: Mount) -> None:  # an overlay's source is a directory, too
    build.attach(build.sources.pop(0), entry.target, directory=os.path.isdir(entry.source))
    build.foreign(entry.target)


def _tmpfs(build: Builder, entry: Mount) -> None:
    fresh = build.filesystem("tmpfs", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, mode="1777")
    build.attach(fresh, entry.target, directory=True)
    build.own(entry.target)


def _proc(build: Builder, entry: Mount) -> None:
    attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
    fresh = build.filesystem("proc", attributes)
    build.attach(fresh, entry.target, directory=True, keep=True)
    if build.sandbox.user == 0:
        for name in proc_covers():
            cover = build.copy(name, at=fresh, attributes=MOUNT_ATTR_RDONLY)
            build.attach_in(fresh, cover, name, f"read-only on {entry.target}/{name}")
    build.program.close(fresh)
    build.foreign(entry.target)


def _dev(build: Builder, entry: Mount) -> None:
    program = build.program
    attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC
    fresh = build.filesystem("tmpfs", attributes | MOUNT_ATTR_NODEV, mode="0755")
    build.attach(fresh, entry.target, directory=True, keep=True)
    # All by the new file system's own descriptor: no link on the way to it can lead elsewhere.
    for name in DEVICES:
        program.call("mknodat", fresh, name.encode(), stat.S_IFREG | 0o644, note=name)
        build.attach_in(fresh, build.sources.pop(0), name, f"on {entry.target}/{name}")
    for name, mode in (("pts", 0o755), ("shm", 0o1777)):
        program.call("mkdirat", fresh, name.encode(), mode, note=name)
    program.call("fchmodat", fresh, b"shm", 0o1777, note="shm")
    pts = build.filesystem("devpts", attributes, newinstance=None, ptmxmode="0666", mode="0620")
    build.attach_in(fresh, pts, "pts", f"on {entry.target}/pts")
    for name, text in DEV_LINKS:
        program.call("symlinkat", text.encode(), fresh, name.encode(), note=name)
    program.close(fresh)
    build.own(entry.target)
    for name, _ in DEV_LINKS:
        build.foreign(f"{entry.target}/{name}")


def _mqueue(build: Builder, entry: Mount) -> None:
    attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
    build.attach(build.filesystem("mqueue", attributes), entry.target, directory=True)


def _dir(build: Builder, entry: Mount) -> None:
    build.place(entry.target, directory=True)
    sandbox = build.sandbox
    if sandbox.groups is not None and build.safe(entry.target):
        # Privileged, and on our own tmpfs: what the command shall use is the command's.
        path = _relative(entry.target)
        build.program.call(
            "fchownat", build.root, path, sandbox.user, sandbox.group, mount.AT_SYMLINK_NOFOLLOW,
            note=entry.target,
        )  # fmt: skip


def _symlink(build: Builder, entry: Mount) -> None:
    build.symlink(entry.source, entry.target)


def _file(build: Builder, entry: Mount) -> None:
    build.attach(build.sources.pop(0), entry.target, directory=False)


def _lock(build: Builder, entry: Mount) -> None:
    # It must be there; the supervisor takes the lock, and holds it for as long as the task lives.
    build.program.close(build.resolve(entry.target, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY))


_OPERATIONS: dict[str, Callable[[Builder, Mount], None]] = {
    "bind": _bind,
    "overlay": _bind,
    "tmpfs": _tmpfs,
    "proc": _proc,
    "dev": _dev,
    "mqueue": _mqueue,
    "dir": _dir,
    "symlink": _symlink,
    "file": _file,
    "lock": _lock,
}
