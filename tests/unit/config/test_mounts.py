"""The sandbox's file tree: entries, sources, and what is refused."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from initspawn import execfd, sources
from initspawn.config.mounts import MODES
from initspawn.config.schema import MountMode
from initspawn.plan import Api, Mount
from initspawn.tree import HERE

Build = Callable[..., Api]
Problems = Callable[..., list[str]]


@pytest.fixture
def tree(build: Build) -> Callable[..., tuple[Mount, ...]]:
    """tree(entry...): the plan's mounts for these entries, without commands."""

    def tree(*entries: dict[str, Any], **opts: Any) -> tuple[Mount, ...]:
        namespace = {"mounts": list(entries), "opts": opts}
        (sandbox,) = build({"namespace": namespace, "commands": []}).sandboxes
        assert sandbox.new_root
        return sandbox.mounts

    return tree


@pytest.fixture
def refused(problems: Problems) -> Callable[..., str]:
    """refused(entry...): the one problem with these entries."""

    def refused(*entries: dict[str, Any], **opts: Any) -> str:
        namespace = {"mounts": list(entries), "opts": opts}
        (said,) = problems({"namespace": namespace, "commands": []})
        return said

    return refused


def test_every_mode(tree: Callable[..., tuple[Mount, ...]], tmp_path: Path) -> None:
    source = str(tmp_path)
    for mode, read_only in (("ro", True), ("READ", True), ("rw", False), ("write", False)):
        (mount,) = tree({"target": "/x", "source": source, "mode": mode})
        assert mount == Mount(operation="bind", target="/x", source=source, read_only=read_only)
    (mount,) = tree({"target": source, "mode": "ro"})
    assert mount.source == source
    for mode, operation in (
        ("anonymous", "dir"), ("dir", "dir"), ("tmpfs", "tmpfs"), ("procfs", "proc"), ("devfs", "dev"),
        ("dev", "dev"),
    ):  # fmt: skip
        assert tree({"target": "/x", "mode": mode}) == (Mount(operation=operation, target="/x"),)
    assert tree({"target": "/x", "source": "../y", "mode": "symlink"}) == (
        Mount(operation="symlink", target="/x", source="../y"),
    )
    assert tree({"target": "/x", "source": "printf 'a\\nb'", "mode": "execfd"}) == (
        Mount(operation="file", target="/x", data=b"a\nb"),
    )


def test_mqueue_and_lock(build: Build, refused: Callable[..., str]) -> None:
    entries = [
        {"target": "/l", "source": "true", "mode": "execfd"},
        {"target": "/l", "mode": "lock"},
        {"target": "/q", "mode": "mqueue"},
    ]
    namespace = {"mounts": entries, "shares": {"ipc": "disable"}}
    (sandbox,) = build({"namespace": namespace, "commands": []}).sandboxes
    assert [mount.operation for mount in sandbox.mounts] == ["file", "lock", "mqueue"]
    assert "own ipc namespace" in refused({"target": "/q", "mode": "mqueue"})
    assert "no file to lock" in refused({"target": "/l", "mode": "lock"})


def test_an_empty_list_is_an_empty_root(tree: Callable[..., tuple[Mount, ...]]) -> None:
    assert tree() == ()


def test_paths_are_made_plain(tree: Callable[..., tuple[Mount, ...]], tmp_path: Path) -> None:
    (mount,) = tree({"target": "//x/./y/", "source": f"{tmp_path}/", "mode": "ro"})
    assert (mount.target, mount.source) == ("/x/y", str(tmp_path))


def test_a_later_mount_lies_on_top(tree: Callable[..., tuple[Mount, ...]]) -> None:
    assert len(tree({"target": "/x", "mode": "tmpfs"}, {"target": "/x", "mode": "tmpfs"})) == 2


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"mode": "tmpfs"}, "`target` is missing"),
        ({"target": "x", "mode": "tmpfs"}, "not absolute"),
        ({"target": "/x/../y", "mode": "tmpfs"}, "`..`"),
        ({"target": "/", "mode": "tmpfs"}, "the new root itself"),
        ({"target": "//", "mode": "ro", "source": "/usr"}, "the new root itself"),
        ({"target": "/x"}, "`mode` is missing"),
        ({"target": "/x", "mode": "bind"}, "unknown word 'bind'"),
        ({"target": "/x", "mode": "symlink"}, "needs a `source`"),
        ({"target": "/x", "mode": "execfd"}, "needs a `source`"),
        ({"target": "/x", "mode": "tmpfs", "source": "/y"}, "takes no source"),
        ({"target": "/x", "mode": "ro", "source": "/nosuch/file"}, "does not exist"),
        ({"target": "/nosuch/file", "mode": "ro"}, "does not exist"),
        ({"target": "/x", "mode": "ro", "source": "usr"}, "not absolute"),
        ({"target": "/x", "mode": "ro", "source": "/usr/../etc"}, "`..`"),
        ({"target": "/x", "mode": "ro", "source": "$NOSUCH"}, "`$NOSUCH`"),
        ({"target": "/x", "mode": "ro", "flags": 1}, "unknown key in mount"),
        ({"target": "/x\0", "mode": "tmpfs"}, "NUL"),
    ],
)
def test_entries_refused(refused: Callable[..., str], entry: dict[str, Any], said: str) -> None:
    assert said in refused(entry)


def test_a_mount_needs_a_place(refused: Callable[..., str], tmp_path: Path) -> None:
    usr = {"target": "/usr", "mode": "ro"}
    assert "read-only" in refused(usr, {"target": "/usr/nosuch/x", "mode": "tmpfs"})
    link = {"target": "/l", "source": "nowhere", "mode": "symlink"}
    assert "is there already" in refused(link, link)
    assert "is there already" in refused(usr, {**link, "target": "/usr"})
    assert "on a file" in refused(
        {"target": "/f", "source": "true", "mode": "execfd"}, {"target": "/f", "mode": "tmpfs"}
    )
    (tmp_path / "f").touch()
    assert "on a file" in refused(
        {"target": "/d", "mode": "dir"}, {"target": "/d", "source": str(tmp_path / "f"), "mode": "ro"}
    )


def test_sources_are_expanded_targets_are_not(build: Build, tmp_path: Path) -> None:
    entry = {"target": "/$X", "source": "$X/$SANDBOX_UID", "mode": "ro"}
    (tmp_path / "s").mkdir()
    sandbox = {"namespace": {"mounts": entry}, "commands": []}
    (mount,) = build(sandbox, environ={"X": str(tmp_path)}).sandboxes[0].mounts
    assert (mount.target, mount.source) == ("/$X", f"{tmp_path}/s")


def test_missing_sources_are_made_on_request(tree: Callable[..., tuple[Mount, ...]], tmp_path: Path) -> None:
    source = tmp_path / "a" / "b"
    old = os.umask(0o077)
    try:
        tree({"target": "/x", "source": str(source), "mode": "rw"}, autocreate=True)
    finally:
        os.umask(old)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (source, source.parent)] == [0o755, 0o755]


def test_root_makes_sources_for_the_commands_user(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[str, int, int]] = []
    monkeypatch.setattr(os, "chown", lambda path, user, group, **_: given.append((path, user, group)))
    monkeypatch.setattr("initspawn.sources._judge", lambda *_: None)
    entry = {"target": "/x", "source": str(tmp_path / "a" / "b"), "mode": "rw"}
    namespace = {"mounts": entry, "opts": {"autocreate": True}}
    build({"acls": {"user": 4001, "group": 4002}, "namespace": namespace, "commands": []}, user=0)
    assert given == [(str(tmp_path / "a" / "b"), 4001, 4002), (str(tmp_path / "a"), 4001, 4002)]


def test_a_strangers_source_below_an_open_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_to_all = tmp_path / "open"
    (open_to_all / "mine" / "x").mkdir(parents=True)
    open_to_all.chmod(0o1777)
    owners = {str(open_to_all / "mine"): 4000}
    really = os.lstat

    def lstat(path: str) -> os.stat_result:
        fields = list(really(path))
        fields[4] = owners.get(path, 0)
        return os.stat_result(fields)

    monkeypatch.setattr(os, "lstat", lstat)

    def is_safe(command: int) -> bool:
        path = str(open_to_all / "mine" / "x")
        try:
            return sources.find(path, HERE, create=False, supervisor=0, owner=(command, command)) == path
        except sources.SourceFault as fault:
            return "in a directory where everybody may write" not in fault.message

    assert not is_safe(command=5000)
    assert is_safe(command=4000)
    open_to_all.chmod(0o755)
    assert is_safe(command=5000) or any(path.stat().st_mode & 0o002 for path in tmp_path.parents)


def test_execfd_failures(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    def line(source: str) -> str:
        return refused({"target": "/x", "source": source, "mode": "execfd"})

    assert "status 3 and said 'no good'" in line("echo no good >&2; exit 3")
    assert "status -9" in line("kill -9 $$$$")
    assert "more than" in line("yes")
    monkeypatch.setattr(execfd, "TIMEOUT", 0.2)
    before = time.monotonic()
    assert "within 0.2 seconds" in line("sleep 100 & sleep 100")
    assert "within 0.2 seconds" in line("exec >&- 2>&-; sleep 100")
    assert time.monotonic() - before < 60  # and not for the end of the sleeps


def test_execfd_has_a_clean_environment(tree: Callable[..., tuple[Mount, ...]]) -> None:
    (mount,) = tree({"target": "/x", "source": "env | cut -d= -f1 | sort", "mode": "execfd"})
    assert set(mount.data.split()) <= {b"HOME", b"LANG", b"PATH", b"PWD", b"OLDPWD", b"SHLVL", b"_"}


def test_execfd_knows_the_user(tree: Callable[..., tuple[Mount, ...]], ordinary: int) -> None:
    (mount,) = tree({"target": "/x", "source": "echo $SBOXUSER", "mode": "execfd"})
    assert mount.data == f"{ordinary}\n".encode()


def test_a_missing_mode_is_told_every_mode(problems: Problems) -> None:
    (said,) = problems({"namespace": {"mounts": [{"target": "/tmp"}]}}, exec={"cmdpath": "/bin/true"})
    assert set(get_args(MountMode)) == set(MODES)
    assert all(mode in said for mode in MODES)


def test_an_overlay_lies_over_a_directory(build: Build, problems: Problems, tmp_path: Path) -> None:
    place = tmp_path / "there"
    entry = {"target": "/data", "source": str(place), "mode": "overlay"}
    sandbox = {"namespace": {"mounts": [entry]}, "commands": []}
    (said,) = problems(sandbox)
    assert "does not exist" in said
    place.write_text("")
    (said,) = problems(sandbox)
    assert "sandboxes.namespace.mounts[0].target: an overlay lies over a directory" in said
    place.unlink()
    place.mkdir()
    (made,) = build(sandbox).sandboxes[0].mounts
    assert (made.operation, made.source, made.read_only) == ("overlay", str(place), False)


@pytest.mark.parametrize(
    ("root", "mounts", "said"),
    [
        ({"directory": "usr"}, [], "root.directory: 'usr' is not absolute"),
        ({"directory": "/nowhere"}, [], "root.directory: '/nowhere' does not exist"),
        ({"directory": "/bin/sh"}, [], "is no directory (a squashfs is named as `image`)"),
        (
            {"image": "/x.squashfs", "directory": "/"},
            [],
            "namespace.root: is one thing, a directory or an",
        ),
        ({}, [], "write either `directory` or `image`"),
        ({"directory": "/usr"}, [{"target": "/none", "mode": "tmpfs"}], "cannot be made in /, which is read"),
        ({"directory": "/usr"}, [{"target": "/lib/x", "source": "a", "mode": "symlink"}], "overlay: true}"),
        ({"directory": "/usr"}, [{"target": "/none", "source": ":", "mode": "execfd"}], "cannot be made in"),
        ({"directory": "/usr"}, [{"target": "/lib", "source": ":", "mode": "execfd"}], "nor a file on a dir"),
    ],
)
def test_roots_that_are_refused(
    problems: Problems, root: dict[str, Any], mounts: list[dict[str, Any]], said: str
) -> None:
    found = problems({"namespace": {"root": root, "mounts": mounts}, "commands": []})
    assert any(said in text for text in found), found


def test_files_over_a_read_only_root(build: Build) -> None:
    mounts = [
        {"target": "/lib/os-release", "source": "echo a", "mode": "execfd"},
        {"target": "/share", "mode": "tmpfs"},
        {"target": "/share/x/y", "source": "echo b", "mode": "execfd"},
        {"target": "/share/z", "source": "x", "mode": "symlink"},
    ]
    namespace = {"root": {"directory": "/usr"}, "mounts": mounts}
    made = build({"namespace": namespace, "commands": []}).sandboxes[0]
    assert [mount.data for mount in made.mounts if mount.operation == "file"] == [b"a\n", b"b\n"]


def test_a_root_comes_before_all_mounts(build: Build) -> None:
    namespace: dict[str, Any] = {"root": {"directory": "/usr"}}
    made = build({"namespace": namespace, "commands": []}).sandboxes[0]
    (mount,) = made.mounts
    assert (mount.operation, mount.target, mount.source, mount.read_only) == ("bind", "/", "/usr", True)
    assert made.new_root
    assert not made.writable_root
    namespace = {"root": {"directory": "/usr", "overlay": True}, "mounts": {"target": "/x", "mode": "tmpfs"}}
    made = build({"namespace": namespace, "commands": []}).sandboxes[0]
    assert [mount.operation for mount in made.mounts] == ["overlay", "tmpfs"]
    assert made.writable_root


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """What begins as a squashfs does, and is trusted."""
    path = tmp_path / "box.squashfs"
    path.write_bytes(b"hsqs" + bytes(92))
    path.chmod(0o644)
    return path


@pytest.mark.root
def test_an_image_comes_before_all_mounts(build: Build, image: Path) -> None:
    # Nobody looks into it: a program, a target and a directory are taken to be there.
    mounts = [
        {"target": "/none", "source": "/usr", "mode": "ro"},
        {"target": "/tmp", "mode": "tmpfs"},
        {"target": "/x", "source": ":", "mode": "execfd"},
    ]
    sandbox = {
        "namespace": {"root": {"image": str(image)}, "mounts": mounts},
        "acls": {"user": "root", "chdir": "/there"},
    }
    made = build(sandbox, user=0, exec={"cmdpath": "/bin/nowhere"}).sandboxes[0]
    first = made.mounts[0]
    assert first == Mount(operation="image", target="/", source=str(image), read_only=True)
    assert [mount.operation for mount in made.mounts] == ["image", "bind", "tmpfs", "file"]
    assert made.new_root
    assert not made.writable_root
    root = {"image": "$HOLD"}
    made = build(
        {"namespace": {"root": root}, "acls": {"user": "root"}}, user=0, environ={"HOLD": str(image)}
    ).sandboxes[0]
    assert made.mounts == (first,)


@pytest.mark.root
@pytest.mark.parametrize(
    ("more", "user", "said"),
    [
        ({"root": {"overlay": True}}, 0, "root.overlay: does not go with an image (mount it"),
        ({}, 1000, "root.image: the kernel lets only root mount an image (run initspawn as root"),
        ({"opts": {"bwrap": "/usr/bin/bwrap"}}, 0, "root.image: bubblewrap mounts no images"),
        ({"opts": {"writable_root": True}}, 0, "is for a root that is empty"),
    ],
)
def test_what_does_not_go_with_an_image(
    problems: Problems, image: Path, more: dict[str, Any], user: int, said: str
) -> None:
    root = {"image": str(image), **more.get("root", {})}
    acls = {"user": "root"} if user == 0 else {}
    found = problems({"namespace": {**more, "root": root}, "acls": acls, "commands": []}, user=user)
    assert any(said in text for text in found), found


@pytest.mark.root
def test_files_that_are_no_images(problems: Problems, image: Path, tmp_path: Path) -> None:
    def refused(path: object) -> str:
        box = {"namespace": {"root": {"image": str(path)}}, "acls": {"user": "root"}, "commands": []}
        (said,) = problems(box, user=0)
        return said

    assert "does not exist (mksquashfs makes one)" in refused(tmp_path / "none")
    assert "is not absolute" in refused("box.squashfs")
    assert "no regular file" in refused(tmp_path)
    image.chmod(0o666)
    assert "others may write it: chmod go-w" in refused(image)
    image.chmod(0o644)
    image.write_text("plain")
    assert "root.image: " in refused(image)
    assert "no squashfs image: mksquashfs makes one" in refused(image)


def test_a_writable_root_is_an_empty_one(problems: Problems) -> None:
    namespace = {"root": {"directory": "/usr"}, "opts": {"writable_root": True}}
    (said,) = problems({"namespace": namespace, "commands": []})
    assert "write `root: {overlay: true}`" in said


@pytest.mark.parametrize("by", ["mounts", "root"])
def test_nothing_is_kept_warm_under_an_overlay(build: Build, problems: Problems, by: str) -> None:
    root: dict[str, Any] = {"directory": "/", "overlay": by == "root"}
    mounts = [{"target": "/usr", "mode": "overlay"}] if by == "mounts" else []

    def given(warm: int) -> dict[str, Any]:
        command = {"uid": "c", "exec": {"cmdpath": "/bin/true"}, "warm": warm}
        return {"namespace": {"root": root, "mounts": mounts}, "commands": [command]}

    (said,) = problems(given(2))
    assert "warm: nothing waits in a sandbox with an `overlay`" in said
    assert "show the directory with `ro`" in said
    assert build(given(0)).commands[0].warm == 0
    root["overlay"], mounts[:] = False, []
    assert build(given(2)).commands[0].warm == 2
