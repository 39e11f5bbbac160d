"""What a process has mounted besides what is planned: only what lies below a directory of the host may be."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from initspawn.plan import Mount, Sandbox
from initspawn.sandbox import mounted
from initspawn.sandbox.mounted import AS_PLANNED, MountCheck
from initspawn.sandbox.mounts import DEVICES

pytestmark = pytest.mark.usefixtures("same_files")

MOUNTS = (
    Mount(operation="dir", target="/made"),
    Mount(operation="bind", target="/usr", source="/usr", read_only=True),
    Mount(operation="tmpfs", target="/tmp"),
    Mount(operation="bind", target="/tmp/home", source="/home"),
    Mount(operation="overlay", target="/over", source="/over"),
    Mount(operation="mqueue", target="/mq"),
    Mount(operation="proc", target="/proc"),
    Mount(operation="dev", target="/dev"),
)
ROOTS = {
    "own": (),
    "bound": (Mount(operation="bind", target="/", source="/", read_only=True),),
    "overlay": (Mount(operation="overlay", target="/", source="/"),),
}
KINDS = {"/": "tmpfs", "/tmp": "tmpfs", "/mq": "mqueue", "/proc": "proc", "/dev": "tmpfs", "/over": "overlay"}


@pytest.fixture
def same_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sources are not looked at."""
    monkeypatch.setattr(mounted, "_same_file", lambda root, entry: True)
    monkeypatch.setattr(mounted, "proc_covers", lambda: ["sys", "irq"])


def problem(root: str, user: int, *more: str) -> str:
    """What is wrong where these are mounted besides."""
    entries = (*ROOTS[root], *MOUNTS)
    own = {"namespaces": ("mnt",), "new_root": True, "writable_root": True}
    box = Sandbox(uid="box", user=user, group=user, mounts=entries, **own)
    kinds = {**KINDS, "/": "overlay"} if root == "overlay" else KINDS
    points = [entry.target for entry in entries if entry.operation != "dir"]
    covers = ["/proc/sys", "/proc/irq"] if user == 0 else []
    devices = [f"/dev/{name}" for name in (*DEVICES, "pts")]
    every = dict.fromkeys(("/", *points, *covers, *devices, *more))
    lines = [f"1 1 0:1 / {point} ro,nosuid,nodev - {kinds.get(point, 'ext4')} none ro" for point in every]
    return MountCheck(box).compare("\n".join(lines).encode(), -1)


each_root = pytest.mark.parametrize("root", ROOTS)
each_user = pytest.mark.parametrize("user", [0, 1000])


@each_root
@each_user
@pytest.mark.parametrize("more", [(), ("/usr/lib",), ("/tmp/home/a/b",)])
def test_as_planned(root: str, user: int, more: tuple[str, ...]) -> None:
    assert problem(root, user, *more) == AS_PLANNED


@each_root
@each_user
@pytest.mark.parametrize(
    "more", ["/tmp/x", "/over/x", "/mq/x", "/proc/1", "/proc/sys/fs", "/dev/kmsg", "/dev/pts/0", "/dev/shm"]
)
def test_what_was_not_planned(root: str, user: int, more: str) -> None:
    assert problem(root, user, more) == f"{more} is mounted, and not in the plan"


@pytest.mark.parametrize("more", ["/else", "/made", "/made/x"])
@pytest.mark.parametrize(("root", "fine"), [("own", False), ("bound", True), ("overlay", False)])
def test_below_the_root(root: str, more: str, *, fine: bool) -> None:
    assert problem(root, 0, more) == (AS_PLANNED if fine else f"{more} is mounted, and not in the plan")


def tree(*mounts: tuple[int, int, str]) -> bytes:
    """A mountinfo of these: number, parent's number, mount point."""
    lines = [f"{number} {parent} 0:1 / {point} ro - ext4 none ro" for number, parent, point in mounts]
    return "\n".join(lines).encode()


HOST = ((10, 1, "/"), (11, 10, "/dev"), (12, 11, "/dev/shm"))


@pytest.mark.parametrize(
    ("mounts", "covered"),
    [
        (HOST, set()),
        ((*HOST, (13, 11, "/dev")), {"/dev/shm"}),  # a fresh one over the machine's
        ((*HOST, (13, 11, "/dev"), (14, 13, "/dev/shm")), set()),  # and another in that
        ((*HOST, (13, 12, "/dev/shm/x")), set()),
        ((*HOST, (13, 11, "/dev"), (14, 12, "/dev/shm/x")), {"/dev/shm", "/dev/shm/x"}),
        # What lies over something is covered itself, so it covers nothing.
        ((*HOST, (13, 10, "/"), (14, 13, "/dev/shm")), {"/dev"}),
        ((*HOST, (13, 11, "/devil")), set()),
        (((10, 11, "/"), (11, 10, "/a")), set()),  # parents in a circle: no kernel says so
    ],
)
def test_what_no_path_leads_to(mounts: tuple[tuple[int, int, str], ...], covered: set[str]) -> None:
    assert mounted._covered(tree(*mounts)) == covered


def test_a_directory_device_over_that_of_a_bound_root() -> None:
    entries = (*ROOTS["bound"], Mount(operation="dev", target="/dev"))
    own = {"namespaces": ("mnt",), "new_root": True, "writable_root": True}
    box = Sandbox(uid="box", user=0, group=0, mounts=entries, **own)
    lines = [
        "10 1 0:1 / / ro,nosuid,nodev - ext4 none ro", "11 10 0:1 / /dev ro,nosuid,nodev - devtmpfs none ro",
        "12 11 0:1 / /dev/shm ro,nosuid,nodev - tmpfs none ro",
        "13 11 0:1 / /dev ro,nosuid,nodev - tmpfs none ro",
    ]  # fmt: skip
    assert MountCheck(box).compare("\n".join(lines).encode(), -1) == AS_PLANNED
    seen = [*lines, "14 13 0:1 / /dev/shm ro,nosuid,nodev - tmpfs none ro"]
    assert MountCheck(box).compare("\n".join(seen).encode(), -1) == "/dev/shm is mounted, and not in the plan"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/ ro,nosuid,nodev - squashfs", AS_PLANNED),
        ("/ ro,nosuid,nodev - ext4", "image on /: a ext4"),
        ("/ rw,nosuid,nodev - squashfs", "image on /: writable"),
        ("/ ro,nodev - squashfs", "image on /: set-user-ID programs work"),
        ("/ ro,nosuid - squashfs", "image on /: devices work"),
    ],
)
@pytest.mark.parametrize("privileges", [True, False])
def test_an_image_as_root(line: str, said: str, *, privileges: bool) -> None:
    root = os.open("/", os.O_PATH)
    try:
        assert image_check(privileges).compare(f"1 1 0:1 / {line} none ro".encode(), root).startswith(said)
    finally:
        os.close(root)


def test_another_image_or_something_in_it_is_noticed() -> None:
    line = b"1 1 0:1 / / ro,nosuid,nodev - squashfs none ro"
    proc = os.open("/proc", os.O_PATH)
    try:
        assert image_check(False).compare(line, proc) == "image on /: not /box.squashfs on /dev/image"
    finally:
        os.close(proc)
    below = line + b"\n1 1 0:1 / /x ro,nosuid,nodev - tmpfs none ro"
    assert image_check(False).compare(below, -1) == "/x is mounted, and not in the plan"


@pytest.fixture(autouse=True)
def image_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """/dev/image is the device that the test's own root is on."""
    real_stat = os.stat

    def stat(path: Any, **more: Any) -> Any:
        if path != "/dev/image":
            return real_stat(path, **more)
        return SimpleNamespace(st_rdev=real_stat("/").st_dev)

    monkeypatch.setattr(os, "stat", stat)


def image_check(privileges: bool) -> MountCheck:
    entry = Mount(operation="image", target="/", source="/box.squashfs", read_only=True, device="/dev/image")
    own = {"namespaces": ("mnt",), "new_root": True, "no_new_privileges": not privileges}
    return MountCheck(Sandbox(uid="box", user=0, group=0, mounts=(entry,), **own))
