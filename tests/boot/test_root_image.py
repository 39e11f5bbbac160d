"""An image as the root of a sandbox: mounted on the machine, and by initspawn itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from qemu.guest import Done, Guest

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
OWN = """
metadata: {uid: own, api: own}
sandboxes:
  - uid: box
    acls: {user: root}
    namespace: &image
      shares: {all: disable}
      root: {image: /run/image/own.squash}
      mounts: [{target: /usr, mode: ro}, {target: /proc, mode: procfs}, {target: /dev, mode: devfs}]
    commands:
      - {uid: look, exec: {cmdpath: /usr/bin/sh, args: [/look]}}
      - {uid: wait, exec: {cmdpath: /usr/bin/sh, args: [-c, sleep 600; exit]}}
  - uid: bound
    acls: {user: root}
    namespace: {<<: *image, root: {directory: /}}
    commands: {uid: here, exec: {cmdpath: /usr/bin/echo, args: [here]}}
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


@pytest.fixture
def own(mounted: Guest) -> Guest:
    """The same guest, with the image in a file of its own that initspawn is to mount itself."""
    mounted.shell("cp /run/image/squash /run/image/own.squash")
    mounted.write("/run/image/own.yaml", OWN.encode())
    return mounted


def run(guest: Guest, verb: str = "box/look", what: str = "own.yaml") -> Done:
    return guest.run("initspawn", "run", f"/run/image/{what}", verb)


def attached(guest: Guest) -> bool:
    return "own.squash" in guest.shell("losetup --all")


def test_initspawn_mounts_an_image_itself(own: Guest) -> None:
    before = own.shell("cat /proc/self/mountinfo")
    done = run(own)
    said = done.out.splitlines()
    assert said[0] == "from the image", done
    assert "Read-only file system" in done.err
    assert "written" not in said
    device, _, kind, options = said[-1].split()[:4]
    assert device.startswith("/dev/loop")
    assert kind == "squashfs"
    assert {"ro", "nosuid", "nodev"} <= set(options.split(","))
    assert own.shell("cat /proc/self/mountinfo") == before
    assert not attached(own)


def test_an_image_that_is_none_is_refused(own: Guest) -> None:
    own.check("initspawn", "compile", "/run/image/own.yaml", "-o", "/run/image/own.plan")
    own.shell("{ printf hsqs; head -c 8192 /dev/zero; } >/run/image/own.squash")
    assert "start refused at 'mounts'" in run(own).err  # the kernel reads on behind the first bytes
    own.shell("echo garbage, long enough >/run/image/own.squash")
    assert "root.image: '/run/image/own.squash': no squashfs image" in run(own).err
    done = run(own, what="own.plan")
    assert "start refused at 'image': /run/image/own.squash: no squashfs image" in done.err
    own.shell("rm /run/image/own.squash")
    assert "does not exist" in run(own).err
    assert "start refused at 'image'" in run(own, what="own.plan").err
    assert run(own, "bound/here", "own.plan").out == "here\n"  # the other sandbox does not suffer
    assert not attached(own)


def test_nothing_holds_an_image_whose_supervisor_was_killed(own: Guest) -> None:
    line = "echo $$ >/run/image/pid; exec initspawn run /run/image/own.yaml box/wait"
    running = own.start("sh", "-c", line)
    own.shell("until pgrep -fx 'sleep 600'; do sleep 0.1; done")
    assert attached(own)
    own.shell("kill -9 $(cat /run/image/pid)")
    running.wait()
    own.shell("until ! losetup --all | grep own.squash; do sleep 0.1; done; ! pgrep -fx 'sleep 600'")
