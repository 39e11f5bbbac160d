"""A directory of the machine as the sandbox's root: read-only, or under a layer that vanishes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from initspawn.plan import Sandbox
from tests.system import boxes
from tests.system.conftest import root_and_a_user
from tests.system.harness import Person

pytestmark = pytest.mark.needs("userns")


@pytest.fixture
def image(who: Person) -> Path:
    """A small root directory of the command's user; its programs come by a mount."""
    place = who.home / "image"
    for name in ("usr", "proc", "dev", "tmp", "etc", "data"):
        (place / name).mkdir(parents=True)
    for mount in boxes.programs():
        if mount.operation == "symlink":
            (place / mount.target[1:]).symlink_to(mount.source)
        else:
            (place / mount.target[1:]).mkdir(parents=True, exist_ok=True)
    (place / "etc" / "issue").write_text("from the image\n")
    for path in (place, *place.rglob("*")):
        os.chown(path, who.command_uid, who.command_gid, follow_symlinks=False)
    return place


def box(who: Person, image: Path, *more: dict[str, Any], **root: Any) -> Sandbox:
    binds = [mount for mount in boxes.view() if mount["mode"] != "symlink"]
    namespace = {
        "shares": {"all": "disable"}, "root": {"directory": str(image), **root}, "mounts": [*binds, *more],
    }  # fmt: skip
    return boxes.compiled(who, {"namespace": namespace})


LINE = "cat /etc/issue; echo x > /etc/issue; echo y > /new; : > /tmp/z && echo tmp; cat /etc/issue; ls /new"


@root_and_a_user
def test_a_root_is_read_only(who: Person, image: Path) -> None:
    result = who.run(box(who, image), "/bin/sh", "-c", LINE)
    assert result.out.split("\n") == ["from the image", "tmp", "from the image"], result
    assert result.err.count("Read-only file system") == 2
    assert result.measurement["mounts"] == "as planned"
    assert not (image / "new").exists()


@root_and_a_user
def test_files_are_mounted_over_a_read_only_root(who: Person, image: Path) -> None:
    more = [
        {"target": "/etc/issue", "mode": "execfd", "source": "echo made"},
        {"target": "/data", "mode": "tmpfs"},
        {"target": "/data/a/b", "mode": "execfd", "source": "echo too"},
    ]
    line = "cat /etc/issue /data/a/b; echo x > /data/a/b; echo x > /etc/issue; ls -a /data /tmp"
    result = who.run(box(who, image, *more), "/bin/sh", "-c", line)
    assert result.out.split() == ["made", "too", "/data:", ".", "..", "a", "/tmp:", ".", ".."], result
    assert result.err.count("Read-only file system") == 2, result
    assert result.measurement["mounts"] == "as planned"
    assert (image / "etc" / "issue").read_text() == "from the image\n"


@root_and_a_user
def test_what_is_written_over_a_root_vanishes(who: Person, image: Path) -> None:
    sandbox = box(who, image, {"target": "/etc/made", "mode": "execfd", "source": "echo made"}, overlay=True)
    for _ in range(2):
        result = who.run(sandbox, "/bin/sh", "-c", f"{LINE}; cat /etc/made")
        assert result.out.split("\n") == ["from the image", "tmp", "x", "/new", "made"], result
        assert result.measurement["mounts"] == "as planned"
    assert (image / "etc" / "issue").read_text() == "from the image\n"
    assert not (image / "new").exists()


@root_and_a_user
@pytest.mark.parametrize("overlay", [False, True])
def test_a_link_in_the_image_leads_no_mount_out(who: Person, image: Path, overlay: bool) -> None:
    outside = who.home / "outside"
    outside.mkdir()
    sandbox = box(who, image, {"target": "/data", "mode": "tmpfs"}, overlay=overlay)
    (image / "data").rmdir()
    (image / "data").symlink_to(outside)
    result = who.run(sandbox, "/bin/sh", "-c", ": > /data/file; echo ran")
    assert result.step in ("mounts", "measurement"), result
    assert list(outside.iterdir()) == []


@pytest.mark.needs("bwrap")
@root_and_a_user
def test_bubblewrap_begins_with_it_too(who: Person, image: Path) -> None:
    sandbox = box(who, image).replace(bwrap="/usr/bin/bwrap")
    result = who.run(sandbox, "/bin/sh", "-c", LINE)
    assert result.out.split("\n") == ["from the image", "tmp", "from the image"], result
    assert result.err.count("Read-only file system") == 2
    assert result.measurement["mounts"] == "as planned"
    assert not (image / "new").exists()


@root_and_a_user
def test_another_directory_of_that_name_is_noticed(who: Person, image: Path) -> None:
    sandbox = box(who, image)
    image.rename(image.with_name("moved"))
    image.symlink_to(image.with_name("moved"))
    assert who.run(sandbox, "/bin/true").refused_at() == ("mounts", "ELOOP")
