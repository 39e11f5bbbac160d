"""The calls that build a file tree, and which paths are trusted on the way."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initspawn.linux import mount
from initspawn.linux.numbers import table
from initspawn.plan import Mount, Sandbox
from initspawn.sandbox import mounts
from initspawn.sandbox.mounts import Builder
from initspawn.sandbox.program import Program

NAMES = {number: name for name, number in table().items()}
FIRST = 4  # the first free descriptor, as for a command without further ones
RDONLY, NOSUID, NODEV, NOEXEC = (
    mount.MOUNT_ATTR_RDONLY,
    mount.MOUNT_ATTR_NOSUID,
    mount.MOUNT_ATTR_NODEV,
    mount.MOUNT_ATTR_NOEXEC,
)


def sandbox(*entries: Mount, **fields: Any) -> Sandbox:
    values = {"user": 1000, "group": 1000, "groups": None, "new_root": True, "namespaces": ("mnt",)}
    return Sandbox(uid="s", mounts=entries, **(values | fields))


def built(*entries: Mount, **fields: Any) -> list[tuple[Any, ...]]:
    """The calls of these mounts, as (name, arguments): what is around all mounts is checked and cut out."""
    program = Program(FIRST)
    Builder(program, sandbox(*entries, **fields)).build()
    calls = [(NAMES[call[0]], *call[1:6]) for call in program.calls]
    if fields.get("new_root", True):
        root = ["fsopen", "fsconfig", "fsconfig", "fsmount", "close", "move_mount"]
        end = ["fchdir", "pivot_root", "umount2", "chdir", "mount_setattr", "close"]
    else:
        root, end = ["openat"], ["close"]
    names = [call[0] for call in calls]
    sources = ("openat2", "open_tree", "close", "mount_setattr")
    start = next(at for at, name in enumerate(names) if at and name not in sources)
    assert names[0] == "mount"
    assert names[start : start + len(root)] == root
    assert names[-len(end) :] == end
    return calls[1:start] + calls[start + len(root) : -len(end)]


def short(calls: list[tuple[Any, ...]]) -> list[str]:
    """Each call as its name and its paths."""
    return [
        " ".join([name, *(os.fsdecode(item) for item in arguments if _is_path(item))])
        for name, *arguments in calls
    ]


def _is_path(item: Any) -> bool:
    return isinstance(item, bytes) and item != b"" and item.isascii() and b"\0" not in item


# Around all mounts.


def test_an_empty_new_root() -> None:
    program = Program(FIRST)
    Builder(program, sandbox()).build()
    stage = next(path for path in ("/tmp", "/run", "/dev", "/mnt") if os.path.isdir(path))
    assert short([(NAMES[call[0]], *call[1:6]) for call in program.calls]) == [
        "mount none /",
        "fsopen tmpfs",
        "fsconfig mode 0755",
        "fsconfig",
        "fsmount",
        "close",
        f"move_mount {stage}",
        "fchdir",
        "pivot_root . .",
        "umount2 .",
        "chdir /",
        "mount_setattr",  # read-only, the root alone
        "close",
    ]
    assert struct.unpack("=4Q", program.calls[11][4])[0] == mount.MOUNT_ATTR_RDONLY
    assert program.calls[11][3] == mount.AT_EMPTY_PATH
    assert program.calls[0][4] == mount.MS_REC | mount.MS_SLAVE
    assert program.calls[4][3] == NOSUID | NODEV
    assert program.calls[9][2] == mount.MNT_DETACH


def test_a_new_root_that_stays_writable() -> None:
    program = Program(FIRST)
    Builder(program, sandbox(writable_root=True)).build()
    assert "mount_setattr" not in [NAMES[call[0]] for call in program.calls]


def test_the_hosts_tree_is_kept() -> None:
    program = Program(FIRST)
    Builder(program, sandbox(new_root=False)).build()
    assert short([(NAMES[call[0]], *call[1:6]) for call in program.calls]) == [
        "mount none /",
        "openat /",
        "close",
    ]


# One mount each.


def test_a_directory_is_bound(tmp_path: Path) -> None:
    calls = built(Mount(operation="bind", source=str(tmp_path), target="/a/b", read_only=True))
    assert short(calls) == [
        f"openat2 {tmp_path}",
        "open_tree",
        "close",
        "mount_setattr",
        "mkdirat a",
        "mkdirat a/b",
        "move_mount a/b",
        "close",
    ]
    # A link that was planted in the source since the plan was made is an error.
    assert struct.unpack("=3Q", calls[0][3])[2] == mount.RESOLVE_NO_SYMLINKS
    assert calls[1][3] & mount.AT_RECURSIVE
    assert calls[3][3] == mount.AT_EMPTY_PATH | mount.AT_RECURSIVE
    assert struct.unpack("=4Q", calls[3][4])[:2] == (RDONLY | NODEV | NOSUID, 0)


@pytest.mark.parametrize(
    ("read_only", "no_new_privileges", "attributes"),
    [
        (False, True, NODEV | NOSUID),
        (True, True, NODEV | NOSUID | RDONLY),
        (False, False, NODEV),
        (True, False, NODEV | RDONLY),
    ],
)
def test_what_a_bind_allows(read_only: bool, no_new_privileges: bool, attributes: int) -> None:
    entry = Mount(operation="bind", source="/", target="/a", read_only=read_only)
    calls = built(entry, no_new_privileges=no_new_privileges)
    (found,) = (call[4] for call in calls if call[0] == "mount_setattr")
    assert struct.unpack("=4Q", found)[0] == attributes


def test_a_file_is_bound_on_a_file(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    calls = built(Mount(operation="bind", source=str(tmp_path / "f"), target="/f"))
    assert short(calls)[4:6] == ["mknodat f", "move_mount f"]


def test_tmpfs() -> None:
    calls = built(Mount(operation="tmpfs", target="/tmp"))
    assert short(calls) == [
        "fsopen tmpfs",
        "fsconfig mode 1777",
        "fsconfig",
        "fsmount",
        "close",
        "mkdirat tmp",
        "move_mount tmp",
        "close",
    ]
    assert calls[3][3] == NOSUID | NODEV


@pytest.mark.parametrize("kind", ["proc", "mqueue"])
def test_kernel_file_systems(kind: str) -> None:
    calls = built(Mount(operation=kind, target="/k"))
    assert short(calls) == [
        f"fsopen {kind}",
        "fsconfig",
        "fsmount",
        "close",
        "mkdirat k",
        "move_mount k",
        "close",
    ]
    assert calls[2][3] == NOSUID | NODEV | NOEXEC


def test_root_may_not_change_the_machine_by_proc() -> None:
    calls = built(Mount(operation="proc", target="/proc"), user=0)
    covers = [name for name in mounts.PROC_COVERS if os.path.exists(f"/proc/{name}")]
    assert "sys" in covers
    for name in covers:
        at = short(calls).index(f"open_tree {name}")
        assert short(calls)[at : at + 4] == [
            f"open_tree {name}",
            "mount_setattr",
            f"move_mount {name}",
            "close",
        ]
        assert struct.unpack("=4Q", calls[at + 1][4])[0] == RDONLY


def test_dev() -> None:
    calls = built(Mount(operation="dev", target="/dev"))
    lines = short(calls)
    for name in mounts.DEVICES:
        at = lines.index(f"mknodat {name}")
        assert lines[at : at + 3] == [f"mknodat {name}", f"move_mount {name}", "close"]
    assert sum(line.startswith("open_tree /dev/") for line in lines) == len(mounts.DEVICES)
    assert "fsconfig newinstance" in lines
    assert "symlinkat pts/ptmx ptmx" in lines
    # Everything in it is made by its own descriptor: nothing can lead elsewhere on the way.
    (fresh,) = {call[1] for call in calls if call[0] == "mknodat"}
    assert {call[2] for call in calls if call[0] == "symlinkat"} == {fresh}
    assert [call[3] == fresh for call in calls if call[0] == "move_mount"] == [False, *[True] * 7]


@pytest.mark.parametrize("name", ["fd", "stdin", "ptmx"])
def test_the_links_of_dev_are_links(name: str) -> None:
    lines = short(
        built(Mount(operation="dev", target="/dev"), Mount(operation="dir", target=f"/dev/{name}/d"))
    )
    assert lines[-3:] == [f"openat2 /dev/{name}", "mkdirat d", "close"]
    lines = short(built(Mount(operation="dev", target="/dev"), Mount(operation="dir", target="/dev/own")))
    assert lines[-1] == "mkdirat dev/own"


def test_symlink() -> None:
    assert short(built(Mount(operation="symlink", target="/a/bin", source="../usr/bin"))) == [
        "mkdirat a",
        "symlinkat ../usr/bin a/bin",
    ]


def test_a_directory_is_the_commands_own() -> None:
    entry = Mount(operation="dir", target="/d")
    calls = built(entry, user=7, group=8, groups=())
    assert short(calls) == ["mkdirat d", "fchownat d"]
    assert calls[1][3:5] == (7, 8)
    assert short(built(entry, groups=None)) == ["mkdirat d"]


def test_a_file_never_exists_writable() -> None:
    """It is made in a file system of its own, before the root is there."""
    calls = built(Mount(operation="file", target="/etc/passwd", data=b"x:y"))
    told = short(calls)
    assert told[:7] == [
        "openat execfd",
        "write x:y",
        "close",
        "open_tree execfd",
        "mount_setattr",
        "umount2 /tmp",
        "close",
    ]
    assert told[-4:] == ["mkdirat etc", "mknodat etc/passwd", "move_mount etc/passwd", "close"]
    assert calls[0][3] & os.O_EXCL
    assert struct.unpack("=4Q", calls[4][4])[0] == RDONLY | NOSUID | NODEV


def test_a_lock_must_be_there() -> None:
    assert short(built(Mount(operation="lock", target="/l"))) == ["openat2 /l", "close"]


# Whose links may wait on the way.


def bind(target: str) -> Mount:
    return Mount(operation="bind", source="/", target=target)


def test_below_a_bound_directory_no_path_is_trusted() -> None:
    calls = built(bind("/a"), Mount(operation="tmpfs", target="/a/b/c"))
    lines = short(calls)[short(calls).index("fsopen tmpfs") :]
    assert lines[5:] == [
        "openat2 /a",  # make b in it
        "mkdirat b",
        "close",
        "openat2 /a/b",
        "mkdirat c",
        "close",
        "openat2 /a/b/c",
        "move_mount",
        "close",
        "close",
    ]
    ways = [struct.unpack("=3Q", call[3])[2] for call in calls if call[0] == "openat2" and call[2] != b"/"]
    assert ways == [mount.RESOLVE_IN_ROOT | mount.RESOLVE_NO_MAGICLINKS] * 3


def test_a_target_behind_a_symlink_is_resolved() -> None:
    lines = short(
        built(Mount(operation="symlink", target="/l", source="/x"), Mount(operation="dir", target="/l/d"))
    )
    assert lines == ["symlinkat /x l", "openat2 /l", "mkdirat d", "close"]


def test_on_the_hosts_tree_every_path_is_resolved() -> None:
    lines = short(built(Mount(operation="proc", target="/proc"), new_root=False))
    assert lines[4:] == [
        "openat2 /",
        "mkdirat proc",
        "close",
        "openat2 /proc",
        "move_mount",
        "close",
        "close",
    ]


def test_a_tmpfs_inside_a_bound_directory_is_not_trusted() -> None:
    """The way to it leads through somebody else's directory."""
    lines = short(
        built(bind("/a"), Mount(operation="tmpfs", target="/a/t"), Mount(operation="dir", target="/a/t/d"))
    )
    assert lines[-3:] == ["openat2 /a/t", "mkdirat d", "close"]


def test_a_tmpfs_over_a_bound_directory_is_ours() -> None:
    lines = short(
        built(bind("/a"), Mount(operation="tmpfs", target="/a"), Mount(operation="dir", target="/a/d"))
    )
    assert lines[-1] == "mkdirat a/d"


def test_a_bind_over_our_own_directory_takes_the_trust_away() -> None:
    lines = short(
        built(Mount(operation="dir", target="/a/b"), bind("/a"), Mount(operation="dir", target="/a/b/c"))
    )
    assert [line for line in lines if line.startswith("mkdirat")] == [
        "mkdirat a",
        "mkdirat a/b",
        "mkdirat b",
        "mkdirat c",
    ]
    assert "openat2 /a" in lines
    assert "openat2 /a/b" in lines


def test_a_name_that_only_begins_alike_keeps_its_trust() -> None:
    lines = short(
        built(Mount(operation="dir", target="/ab"), bind("/a"), Mount(operation="dir", target="/ab/c"))
    )
    assert lines[-1] == "mkdirat ab/c"


paths = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3).map(
    lambda names: "/" + "/".join(names)
)
entries = st.builds(
    Mount, operation=st.sampled_from(["bind", "tmpfs", "dir", "proc"]), target=paths, source=st.just("/")
)


@given(st.lists(entries, max_size=6))
def test_a_path_is_used_directly_only_where_all_above_it_is_our_tmpfs(made: list[Mount]) -> None:
    """Against a model that knows, for each path, who provides it."""
    program = Program(FIRST + 2)
    builder = Builder(program, sandbox(*made))
    builder.root = FIRST
    builder.sources = [FIRST + 1] * len(made)
    owner = {"/": "ours"}

    def ours(path: str) -> bool:
        """Whether all directories above a path are of our own tmpfs file systems."""
        above = os.path.dirname(path)
        provider = above
        while provider not in owner:
            provider = os.path.dirname(provider)
        return owner[provider] == "ours" and (above == "/" or ours(above))

    for entry in made:
        before, trusted = len(program.calls), ours(entry.target)
        mounts._OPERATIONS[entry.operation](builder, entry)
        for path in used_directly(program.calls[before:]):
            assert ours(path), f"{path} for {entry}"
        if entry.operation in ("bind", "proc", "tmpfs"):
            for path in [path for path in owner if path.startswith(f"{entry.target}/")]:
                del owner[path]
            owner[entry.target] = "ours" if entry.operation == "tmpfs" and trusted else "theirs"


def used_directly(calls: list[Any]) -> list[str]:
    """The paths that calls use below the new root, by their text."""
    places = {"mkdirat": 1, "mknodat": 1, "fchownat": 1, "move_mount": 3}
    found = []
    for number, *arguments in calls:
        at = places.get(NAMES[number])
        if at is not None and arguments[at - 1] == FIRST:
            found.append("/" + os.fsdecode(arguments[at]))
    return found


@given(st.lists(entries, max_size=6))
def test_every_descriptor_is_closed_again(made: list[Mount]) -> None:
    program = Program(FIRST)
    Builder(program, sandbox(*made)).build()
    assert program.open("openat") == FIRST
