"""Overlays: what is written is seen by its task, by no other, and is nowhere afterwards."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from initspawn.plan import Mount, Sandbox
from tests.system import boxes
from tests.system.conftest import everybody, root, root_and_a_user
from tests.system.harness import Person, bench

pytestmark = pytest.mark.needs("userns")

# Before 6.6 a layer in memory takes no attributes of users', in which overlayfs notes what is removed.
LINUX = tuple(int(number) for number in os.uname().release.split("-")[0].split(".")[:2])


@pytest.fixture
def lower(who: Person) -> Path:
    """A directory of the command's user, with a file, a link and a directory."""
    place = who.home / "lower"
    (place / "directory").mkdir(parents=True)
    (place / "file").write_text("old\n")
    (place / "link").symlink_to("/etc/hostname")
    (place / "directory" / "inner").write_text("inner\n")
    for path in (place, *place.rglob("*")):
        os.chown(path, who.command_uid, who.command_gid, follow_symlinks=False)
    place.chmod(0o750)
    return place


def box(who: Person, source: Path, **values: Any) -> Sandbox:
    mounts = (*boxes.tree(who), Mount(operation="overlay", target="/over", source=str(source)))
    return boxes.full(who, **{"mounts": mounts, **values})


def state(place: Path) -> dict[str, tuple[int, str]]:
    return {
        str(path.relative_to(place)): (path.lstat().st_ctime_ns, path.read_text() if path.is_file() else "")
        for path in sorted(place.rglob("*"))
        if not path.is_symlink()
    }


@everybody
def test_what_is_written_vanishes(who: Person, lower: Path) -> None:
    before = state(lower)
    may_remove = who.root or LINUX >= (6, 6)
    anew = "rm -r directory; mkdir directory" if may_remove else "rm directory/inner"
    line = f"""
cd /over; cat file; stat -c '%a %u' .
echo new > file; {anew}; echo x > directory/mine; mv link other
cat file; ls directory . | tr '\\n' ' '
"""
    for _ in range(2):
        result = who.run(box(who, lower), "/bin/sh", "-c", line)
        assert (result.step, result.err) == ("", ""), result
        lines = result.out.split("\n")
        assert lines[:3] == ["old", f"750 {who.command_uid}", "new"]
        assert lines[3].split() == [".:", "directory", "file", "other", "directory:", "mine"]
        assert result.measurement["mounts"] == "as planned"
    removal = who.run(box(who, lower), "/bin/rm", "-r", "/over/directory")
    assert removal.status == {"exit": 0 if may_remove else 1}
    assert state(lower) == before


@root_and_a_user
def test_two_tasks_share_no_layer(who: Person, lower: Path) -> None:
    assert who.call(_two, box(who, lower)) == "file-of-one"


def _two(sandbox: Sandbox) -> str:
    with bench(sandbox) as made:
        line = "cd /over; : > $0; while [ ! -e /data/go ]; do sleep 0.02; done; echo *-of-*"
        names = ("file-of-one", "file-of-two")
        runs = [made.start("/bin/sh", "-c", line, name).begin() for name in names]
        written = [Path(f"/proc/{run.pid}/root/over/{name}") for run, name in zip(runs, names, strict=True)]
        made.until(lambda: all(path.exists() for path in written), "both files")
        home = next(entry.source for entry in sandbox.mounts if entry.target == "/data")
        Path(home, "go").touch()
        outs = [run.end().out for run in runs]
        assert outs[1] == "file-of-two"
        return outs[0]


@root_and_a_user
def test_it_is_mounted_like_all_others(who: Person, lower: Path) -> None:
    result = who.run(box(who, lower), "/bin/grep", " /over ", "/proc/self/mountinfo")
    words = result.out.split(" ")
    assert {"nosuid", "nodev"} <= set(words[5].split(","))
    assert words[6:8] == ["-", "overlay"]  # no tag: it propagates nowhere


@root
def test_who_may_not_write_below_may_not_write_above(who: Person, lower: Path) -> None:
    os.chown(lower, 0, 0)
    lower.chmod(0o755)
    result = who.run(box(who, lower), "/bin/sh", "-c", ": > /over/new")
    assert "Permission denied" in result.err


@root_and_a_user
def test_a_planted_link_is_no_way(who: Person, lower: Path) -> None:
    lower.rename(who.home / "moved")
    lower.symlink_to("/etc")
    result = who.run(box(who, lower), "/bin/ls", "/over")
    assert (result.step, result.errno, result.out) == ("mounts", 40, "")


@root_and_a_user
def test_starts_see_what_the_directory_is_now(who: Person, lower: Path) -> None:
    assert who.call(_renewed, box(who, lower), lower) == ["old", "newer"]


def _renewed(sandbox: Sandbox, place: Path) -> list[str]:
    with bench(sandbox) as made:
        first = made.run("/bin/cat", "/over/file").out
        made.until(lambda: made.supervisor.reserve.ready, "the reserve")
        place.rename(place.with_name("gone"))
        place.mkdir()
        (place / "file").write_text("newer\n")
        return [first, made.run("/bin/cat", "/over/file").out]
