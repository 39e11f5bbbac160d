"""An image as the root of a sandbox, mounted on the machine as docs/configuration.md says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from qemu.guest import Guest

CONFIG = """
metadata: {uid: image, api: image}
sandboxes:
  - uid: fixed
    acls: {user: root}
    namespace: &image
      shares: {all: disable}
      root: {directory: /run/image/root}
      mounts: [{target: /usr, mode: ro}, {target: /proc, mode: procfs}, {target: /dev, mode: devfs}]
    commands: &look {uid: look, exec: {cmdpath: /usr/bin/sh, args: [/look]}}
  - uid: layered
    acls: {user: root}
    namespace: {<<: *image, root: {directory: /run/image/root, overlay: true}}
    commands: *look
"""
LOOK = b"cat /etc/issue; echo written >/etc/issue && cat /etc/issue; grep ' / ' /proc/self/mounts"


@pytest.fixture
def mounted(guest: Guest) -> Iterator[Guest]:
    """The guest with a small image on /run/image/root, and the file that shows it to commands."""
    guest.shell("mkdir -p /run/image/root /run/image/tree; cd /run/image/tree; mkdir etc usr proc dev; "
                "ln -s usr/bin usr/lib usr/lib64 .; echo from the image >etc/issue")  # fmt: skip
    guest.write("/run/image/tree/look", LOOK)
    guest.write("/run/image/file.yaml", CONFIG.encode())
    guest.shell("mksquashfs /run/image/tree /run/image/squash -quiet -no-progress >/dev/null; "
                "mount -o loop,ro /run/image/squash /run/image/root")  # fmt: skip
    yield guest
    guest.shell("umount /run/image/root; rm -r /run/image")


def test_an_image_is_the_root(mounted: Guest) -> None:
    done = mounted.run("initspawn", "run", "/run/image/file.yaml", "fixed/look")
    said = done.out.splitlines()
    assert said[0] == "from the image", done
    assert "Read-only file system" in done.err
    assert "written" not in said
    kind, options = said[-1].split()[2:4]
    assert (kind, options.split(",")[0]) == ("squashfs", "ro")


def test_what_is_written_over_an_image_vanishes(mounted: Guest) -> None:
    for _ in range(2):
        done = mounted.run("initspawn", "run", "/run/image/file.yaml", "layered/look")
        said = done.out.splitlines()
        assert said[:2] == ["from the image", "written"], done
        assert said[-1].split()[2] == "overlay"
    assert mounted.read("/run/image/root/etc/issue") == b"from the image\n"


def test_nothing_holds_an_image_when_all_have_ended(mounted: Guest) -> None:
    mounted.run("initspawn", "run", "/run/image/file.yaml", "fixed/look")
    mounted.run("initspawn", "run", "/run/image/file.yaml", "layered/look")
    mounted.shell("umount /run/image/root")
    assert "/run/image" not in mounted.shell("losetup --all")
    mounted.shell("mount -o loop,ro /run/image/squash /run/image/root")
