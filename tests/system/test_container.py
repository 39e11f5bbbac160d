"""The container that docs/boot.md makes of a tree with nothing but util-linux, as it is written there."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.leftovers import WORKER
from tests.support.probes import cgroup_mount
from tests.system.server import PATIENCE, children, wait_for

pytestmark = pytest.mark.root  # mounts in a mount namespace of its own
ROOT = Path(__file__).parents[2]
# This machine's programs with ours over them, in a mount namespace of their own; then what is documented.
SETUP = """
set -eu
mkdir {place}/tree {place}/own
mount -t tmpfs tmpfs {place}/tree
mount -t tmpfs tmpfs {place}/own
mkdir -p {place}/own/lib/initspawn
cp -a {root}/initspawn {place}/own/lib/initspawn
cp -a {root}/rootfs-overlay/usr/. {place}/own
cd {place}/tree
mkdir -p proc dev sys run tmp usr etc/initspawn var/lib/initspawn
for name in bin sbin lib lib64; do ln -s usr/$name $name; done
cp {place}/plan etc/initspawn/boot.plan
mount -t overlay -o lowerdir={place}/own:/usr overlay usr
echo $$ >{group}/cgroup.procs
exec sh {place}/container {place}/tree
"""
CONFIG = """
metadata: {uid: t, api: t}
sandboxes:
  uid: s
  acls: {user: 0}
  commands:
    uid: up
    exec: {cmdpath: /bin/sh, args: ["-c", "echo up >/run/said; exec sleep 60"]}
    autostart: {}
"""


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group for the container, which sees no other; emptied afterwards."""
    mount = cgroup_mount()
    assert mount is not None
    made = mount / f"initspawn-test-{WORKER}-{os.getpid()}-container"
    made.mkdir()
    yield made
    wait_for(lambda: "populated 0" in (made / "cgroup.events").read_text(), "the end of its processes")
    for path, _, _ in os.walk(made, topdown=False):
        os.rmdir(path)


def first_process(maker: int) -> int | None:
    """The child that is in a pid namespace of its own, once there is one."""
    ours = os.readlink("/proc/self/ns/pid")
    for pid in children(maker):
        with suppress(OSError):  # a program of the set-up, which has ended
            if os.readlink(f"/proc/{pid}/ns/pid") != ours:
                return pid
    return None


@contextmanager
def started(place: Path, group: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """`unshare`, and the PID 1 of the container, whose command has begun."""
    place.mkdir()
    (block,) = re.findall(r"^```sh\n(exec unshare .*?)^```", (ROOT / "docs/boot.md").read_text(), re.M | re.S)
    (place / "container").write_text(block)
    (place / "t.yaml").write_text(CONFIG)
    (place / "setup").write_text(SETUP.format(place=place, root=ROOT, group=group))
    files = [str(place / "t.yaml"), "-o", str(place / "plan")]
    subprocess.run([sys.executable, "-m", "initspawn", "compile", *files], check=True, capture_output=True)
    with (
        (place / "said").open("wb") as said,
        subprocess.Popen(
            ["unshare", "--mount", "sh", str(place / "setup")],
            stdin=subprocess.DEVNULL, stdout=said, stderr=said,
        ) as process,
    ):  # fmt: skip
        try:
            init = wait_for(lambda: first_process(process.pid), "its PID 1")
            wait_for(Path(f"/proc/{init}/root/run/said").exists, "its command")
            yield process, init
        finally:
            if process.poll() is None:
                process.kill()


def test_it_runs_and_leaves_nothing_when_it_ends_orderly(tmp_path: Path, group: Path) -> None:
    with started(tmp_path / "first", group) as (process, init):
        assert os.readlink(f"/proc/{init}/ns/cgroup") != os.readlink("/proc/self/ns/cgroup")
        assert (group / "initspawn").is_dir()
        os.kill(init, signal.SIGTERM)
        assert process.wait(PATIENCE) == -signal.SIGINT  # reboot(2): it has been switched off
    assert not [path for path in group.iterdir() if path.is_dir()]


def test_what_a_killed_one_leaves_hinders_nobody(tmp_path: Path, group: Path) -> None:
    for name in ("first", "second"):
        with started(tmp_path / name, group) as (process, _):
            process.kill()
            process.wait(PATIENCE)
        wait_for(lambda: "populated 0" in (group / "cgroup.events").read_text(), "the end of its processes")
        assert (group / "initspawn").is_dir()
    text = (ROOT / "docs/boot.md").read_text()
    (clean,) = re.findall(r"`(find /sys/fs/cgroup/initspawn [^`]*)`", text)
    subprocess.run(["sh", "-c", clean.replace("/sys/fs/cgroup", str(group))], check=True)
    assert not [path for path in group.iterdir() if path.is_dir()]
