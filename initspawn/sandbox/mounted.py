"""Whether the mounts a process sees are those of its plan. Boot module."""

from __future__ import annotations

import os

from initspawn.linux import mount
from initspawn.sandbox.mounts import DEVICES, proc_covers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from initspawn.plan import Mount, Sandbox

    # Mount point to (file system, options, whether it propagates to others).
    Mounts = dict[str, tuple[str, frozenset[str], bool]]

AS_PLANNED = "as planned"
_NO_MOUNTS = ("dir", "symlink", "lock")  # operations that mount nothing
_KINDS = {
    "tmpfs": "tmpfs", "proc": "proc", "dev": "tmpfs", "mqueue": "mqueue", "overlay": "overlay",
    "image": "squashfs",
}  # fmt: skip


class MountCheck:
    """Compares what the processes of one sandbox see with its plan."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self._binds = [entry for entry in _on_top(sandbox.mounts) if entry.operation == "bind"]
        self._good: list[bytes] = []  # what was compared last, and was as planned

    def compare(self, mountinfo: bytes, root: int) -> str:
        """AS_PLANNED, or what is wrong with the mounts a process sees: its mountinfo, and its root
        directory as a descriptor. Raises OSError.
        """
        if "mnt" not in self.sandbox.namespaces:
            return AS_PLANNED
        # The first four words are numbers of the mount and what it shows of its file system: they differ from
        # one start to the next, and nothing here looks at them.
        lines = [line.split(b" ", 4)[-1] for line in mountinfo.split(b"\n")]
        if lines != self._good:
            problem = _check(self.sandbox, _parsed(mountinfo), _covered(mountinfo))
            if problem:
                return problem
            self._good = lines
        for entry in self._binds:
            if not _same_file(root, entry):
                return f"bind on {entry.target}: not {entry.source}"
        for entry in self.sandbox.mounts[:1]:
            if entry.operation == "image" and os.fstat(root).st_dev != os.stat(entry.device).st_rdev:
                return f"image on {entry.target}: not {entry.source} on {entry.device}"
        return AS_PLANNED


def _check(sandbox: Sandbox, found: Mounts, covered: set[str]) -> str:
    """What is wrong with some mounts, whatever files they show; empty if nothing is. `covered`: see there."""
    for entry in _on_top(sandbox.mounts):
        problem = _check_mount(sandbox, entry, found)
        if problem:
            return f"{entry.operation} on {entry.target}: {problem}"
    return _check_rest(sandbox, found, covered) if sandbox.new_root else ""


def _on_top(mounts: tuple[Mount, ...]) -> list[Mount]:
    """The mounts that no later one covers."""
    visible: list[Mount] = []
    for entry in mounts:
        below = f"{entry.target.rstrip('/')}/"
        if entry.operation not in _NO_MOUNTS:
            visible = [above for above in visible if not f"{above.target}/".startswith(below)]
        visible.append(entry)
    return visible


def _parsed(mountinfo: bytes) -> Mounts:
    """The mounts a process sees; the topmost where several are stacked."""
    found = {}
    for line in mountinfo.split(b"\n"):
        words = line.split(b" ")
        if len(words) > 9:
            dash = words.index(b"-", 6)
            point = mount.unescaped(words[4])
            options = frozenset(words[5].decode().split(","))
            shared = any(tag.startswith(b"shared:") for tag in words[6:dash])
            found[os.fsdecode(point)] = (os.fsdecode(words[dash + 1]), options, shared)
    return found


def _covered(mountinfo: bytes) -> set[str]:
    """Where mounts are that no path leads to: another one lies over a directory on the way, as a fresh /dev
    over that of a bound root, and what was mounted in that.
    """
    mounts: dict[bytes, tuple[bytes, bytes]] = {}  # number to its parent's, and mount point
    for line in mountinfo.split(b"\n"):
        words = line.split(b" ")
        if len(words) > 9:
            mounts[words[0]] = words[1], mount.unescaped(words[4]).rstrip(b"/")
    found: dict[bytes, bool] = {}  # by number; a mount is covered only by what is not covered itself
    for number, (_, point) in sorted(mounts.items(), key=lambda one: len(one[1][1])):
        ancestors: set[bytes] = set()
        at = number
        while at in mounts and at not in ancestors:
            ancestors.add(at)
            at = mounts[at][0]
        found[number] = any(
            not found[other] and other not in ancestors and point.startswith(over + b"/")
            for other, (_, over) in mounts.items()
            if other in found
        )
    topmost = {point: number for number, (_, point) in mounts.items()}  # the last one, as in `_parsed`
    return {os.fsdecode(point) for point, number in topmost.items() if found[number]}


def _check_mount(sandbox: Sandbox, entry: Mount, found: Mounts) -> str:
    if entry.operation in _NO_MOUNTS:
        return ""
    kind, options, shared = found.get(entry.target.rstrip("/") or "/", ("", frozenset(), False))
    if not kind:
        return "not mounted"
    if kind != _KINDS.get(entry.operation, kind):
        return f"a {kind}"
    if "nodev" not in options:
        return "devices work"
    if (sandbox.no_new_privileges or entry.operation == "image") and "nosuid" not in options:
        return "set-user-ID programs work"
    if (entry.read_only or entry.operation == "file") and "ro" not in options:
        return "writable"
    if shared:
        return "it propagates to the outside"
    if entry.operation == "proc" and sandbox.user == 0:
        for name in proc_covers():
            if "ro" not in found.get(f"{entry.target}/{name}", ("", frozenset(), False))[1]:
                return f"{name} is writable"
    return ""


def _same_file(root: int, entry: Mount) -> bool:
    fd = mount.open_in_root(root, entry.target, os.O_PATH)
    try:
        source = mount.open_without_links(entry.source)
        try:
            return os.path.samestat(os.fstat(fd), os.fstat(source))
        finally:
            os.close(source)
    finally:
        os.close(fd)


def _may_be(below: str, entry: Mount | None) -> bool:
    """Whether something may be mounted there: on the planned mount itself, or at this path below it.
    `entry`: None for a root of our own.
    """
    if not below:
        return True
    if entry is None:
        return False
    if entry.operation == "dev":
        return below == "pts" or below in DEVICES
    if entry.operation == "proc":
        return below in proc_covers()
    return entry.operation == "bind"


def _check_rest(sandbox: Sandbox, found: Mounts, covered: set[str]) -> str:
    """Nothing is mounted but the new root, the planned mounts, and what lay below bound sources."""
    mounts = [entry for entry in sandbox.mounts if entry.operation not in _NO_MOUNTS]
    planned = {entry.target.rstrip("/"): entry for entry in mounts}
    for point, (_, options, shared) in found.items():
        above = point.rstrip("/")
        while above and above not in planned:
            above = above.rpartition("/")[0]
        entry = planned.get(above)
        if shared:
            return f"{point} propagates to the outside"
        if point == "/" and not sandbox.writable_root and "ro" not in options:
            return "/ is writable"
        if point not in covered and not _may_be(point.rstrip("/")[len(above) + 1 :], entry):
            return f"{point} is mounted, and not in the plan"
        if entry is not None and entry.operation == "bind" and entry.read_only and "ro" not in options:
            return f"{point} is writable"
    return ""
