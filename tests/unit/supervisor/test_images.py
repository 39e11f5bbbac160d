"""Images as roots: each file is judged and attached once, and a bad one costs its own sandboxes alone."""

from __future__ import annotations

import errno
import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from initspawn.errors import LaunchRefused
from initspawn.linux import loop
from initspawn.linux.squashfs import open_image
from initspawn.plan import Api, Mount, Plan, Sandbox
from initspawn.sandbox.launcher import Launcher
from initspawn.supervisor.core import Supervisor
from initspawn.supervisor.images import Images
from initspawn.supervisor.reactor import Reactor

pytestmark = pytest.mark.not_emulated("openat2(2)")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """What begins as a squashfs does, in a file of ours."""
    path = tmp_path.resolve() / "box.squashfs"
    path.write_bytes(b"hsqs" + bytes(92))
    path.chmod(0o644)
    return path


@pytest.fixture
def attached(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bytes, str]]:
    """What was attached, the file's first bytes and its name: no device is made."""
    made: list[tuple[bytes, str]] = []

    def attach(fd: int, name: str) -> tuple[int, str]:
        made.append((os.pread(fd, 4, 0), name))
        return os.open("/dev/null", os.O_RDONLY), f"/dev/loop{len(made)}"

    monkeypatch.setattr(loop, "attach", attach)
    return made


def box(uid: str, path: object, kind: str = "image") -> Sandbox:
    root = Mount(operation=kind, target="/", source=str(path), read_only=True)
    more = Mount(operation="proc", target="/proc")
    return Sandbox(uid=uid, user=0, group=0, mounts=(root, more), new_root=True)


def plan(*sandboxes: Sandbox) -> Plan:
    return Plan(apis=(Api(uid="api", api="api", sandboxes=sandboxes),), user=0, group=0)


def test_each_is_attached_once_and_the_rest_stays(image: Path, attached: list[tuple[bytes, str]]) -> None:
    given = plan(
        box("a", image), box("b", image), box("c", "/usr", "bind"), Sandbox(uid="d", user=0, group=0)
    )
    images = Images()
    fitted = images.fit(given)
    assert attached == [(b"hsqs", str(image))]
    (made,) = fitted.apis
    assert [one.mounts[0].device for one in made.sandboxes[:3]] == ["/dev/loop1", "/dev/loop1", ""]
    assert made.sandboxes[0].mounts[1:] == given.apis[0].sandboxes[0].mounts[1:]
    assert made.sandboxes[2:] == given.apis[0].sandboxes[2:]
    for sandbox in made.sandboxes:
        images.check(sandbox)
    images.close()
    images.close()


def test_devices_are_given_back(image: Path, attached: list[tuple[bytes, str]]) -> None:
    before = os.listdir("/proc/self/fd")
    images = Images()
    images.fit(plan(box("a", image)))
    assert len(attached) == 1
    assert len(os.listdir("/proc/self/fd")) == len(before) + 1
    images.close()
    assert os.listdir("/proc/self/fd") == before


def no_process() -> int:
    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def no_spare(_: Launcher) -> None:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


@pytest.mark.parametrize(
    ("where", "name", "failing"), [(os, "fork", no_process), (Launcher, "renew_spare", no_spare)]
)
def test_a_supervisor_that_cannot_begin_keeps_no_device(
    where: Any, name: str, failing: Callable[..., object], image: Path, attached: list[tuple[bytes, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    reactor = Reactor()
    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(where, name, failing)
    with pytest.raises(OSError, match=r"temporarily|Too many"):
        Supervisor(plan(box("a", image)), reactor)
    monkeypatch.undo()
    assert len(attached) == 1
    gc.collect()
    assert os.listdir("/proc/self/fd") == before
    reactor.close()


def test_a_plan_without_images_is_what_it_was() -> None:
    given = plan(box("c", "/usr", "bind"))
    assert Images().fit(given) is given


def test_a_bad_one_costs_its_own_sandboxes(
    image: Path, attached: list[tuple[bytes, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    bad = image.with_name("none")
    images = Images()
    fitted = images.fit(plan(box("a", bad), box("b", image), box("c", bad)))
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"initspawn: no sandbox gets the image {bad} as its root: {bad}: " in said
    first, second, third = fitted.apis[0].sandboxes
    images.check(second)
    for sandbox in (first, third):
        with pytest.raises(LaunchRefused, match=f"start refused at 'image': {bad}: .*No such file"):
            images.check(sandbox)
    images.close()


def test_where_no_device_can_be_had(
    image: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def attach(fd: int, name: str) -> tuple[int, str]:
        raise OSError(errno.ENXIO, os.strerror(errno.ENXIO), loop.CONTROL)

    monkeypatch.setattr(loop, "attach", attach)
    images = Images()
    fitted = images.fit(plan(box("a", image)))
    assert "/dev/loop-control: No such device or address" in capsys.readouterr().err
    with pytest.raises(LaunchRefused, match="loop-control"):
        images.check(fitted.apis[0].sandboxes[0])


def test_another_plan_keeps_what_it_needs_and_gives_the_rest_back(
    image: Path, attached: list[tuple[bytes, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    before = os.listdir("/proc/self/fd")
    images, bad = Images(), image.with_name("none")
    old = images.fit(plan(box("a", image), box("b", bad)))
    assert "No such file" in images.fault(old)
    new = images.fit(plan(box("c", image)))
    assert len(attached) == 1
    assert images.fault(new) == ""
    images.keep(new.sandboxes())
    images.check(old.apis[0].sandboxes[1])  # nobody asks any more
    assert len(os.listdir("/proc/self/fd")) == len(before) + 1
    images.keep([])
    assert os.listdir("/proc/self/fd") == before


def test_one_that_was_bad_is_looked_at_again(image: Path, attached: list[tuple[bytes, str]]) -> None:
    images, late = Images(), image.with_name("late")
    images.fit(plan(box("a", late)))
    image.rename(late)
    assert images.fault(images.fit(plan(box("a", late)))) == ""
    images.close()


def test_a_sandbox_that_was_made_without_its_image_is_refused_for_good(
    image: Path, attached: list[tuple[bytes, str]]
) -> None:
    """Also when another one has got it since, by a plan that was refused or taken."""
    images, late = Images(), image.with_name("late")
    old = images.fit(plan(box("a", late)))
    image.rename(late)
    new = images.fit(plan(box("b", late), box("c", late), box("d", image)))
    assert str(image) in images.fault(new)
    assert len(attached) == 1
    for kept in (old.sandboxes(), [*old.sandboxes(), *new.sandboxes()[:2]]):
        images.keep(kept)
        images.check(new.apis[0].sandboxes[0])
        with pytest.raises(LaunchRefused, match="No such file"):
            images.check(old.apis[0].sandboxes[0])
    images.close()


def test_what_is_no_image(image: Path) -> None:
    ours = (os.geteuid(),)
    os.close(open_image(str(image), ours))
    with pytest.raises(PermissionError, match="belongs to user"):
        open_image(str(image), (12345,))
    for mode in (0o664, 0o646):
        image.chmod(mode)
        with pytest.raises(PermissionError, match="chmod go-w"):
            open_image(str(image), ours)
    image.chmod(0o600)
    image.write_bytes(b"hsq")
    with pytest.raises(OSError, match="no squashfs image"):
        open_image(str(image), ours)
    link = image.with_name("link")
    link.symlink_to(image)
    with pytest.raises(OSError, match="openat2") as caught:
        open_image(str(link), ours)
    assert caught.value.errno == errno.ELOOP
    pipe = image.with_name("pipe")
    os.mkfifo(pipe)
    for path in (pipe, image.parent):  # and does not wait for somebody at the other end
        with pytest.raises(OSError, match="no regular file"):
            open_image(str(path), ours)
