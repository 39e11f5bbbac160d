"""A /dev/null that is missing, or is something else, before any other init."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from initspawn.boot import mounts
from initspawn.linux.mount import is_null, make_null, open_null

PROGRAM = """
import os, sys
from initspawn.boot import mounts
mounts.TABLE = ()
print(mounts.mount_missing(), file=sys.stderr)
open("/dev/null", "w").write("kept?")
print(open("/dev/null").read(), oct(os.stat("/dev/null").st_mode), file=sys.stderr)
print(open("/dev/stdin").read(), os.readlink("/dev/fd"), file=sys.stderr)
"""
OWN = """
import os
from initspawn.boot import early
from initspawn.linux.mount import open_null
early.open_null = lambda: open_null({path!r})
early._own_descriptors()
os.write(3, os.readlink("/proc/self/fd/0").encode())
"""


@pytest.mark.needs("root")
@pytest.mark.parametrize("before", [":", "echo x >/dev/null", "ln -s nowhere /dev/null"])
def test_it_is_made_anew(before: str) -> None:
    program = f'mount -t tmpfs dev /dev; {before}; umask 077; exec "$0" -c "$1"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", program, sys.executable, PROGRAM],
        input="said",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.splitlines() == ["[]", " 0o20666", "said /proc/self/fd"]


def test_what_cannot_be_replaced_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise IsADirectoryError(21, "Is a directory", "/dev/null")

    monkeypatch.setattr(mounts, "TABLE", ())
    monkeypatch.setattr(mounts, "syscall", lambda *_, **__: 0)
    monkeypatch.setattr(mounts, "make_null", refuse)
    monkeypatch.setattr(mounts, "LINKS", ())
    assert mounts.mount_missing() == ["/dev/null: Is a directory"]
    monkeypatch.setattr(mounts, "_is_mounted", lambda _: False)
    assert mounts.mount_missing() == []  # on a disk it is left as it is


def test_the_device_itself_is_left_alone() -> None:
    before = os.stat("/dev/null")
    make_null()
    assert os.stat("/dev/null").st_ctime_ns == before.st_ctime_ns
    fd = open_null()
    assert is_null(os.fstat(fd))
    os.close(fd)


@pytest.mark.parametrize("kind", ["nothing", "file", "directory"])
def test_a_stage_without_it_goes_on_with_what_is_open(tmp_path: Path, kind: str) -> None:
    """No traceback, and no file that would pass on what is written to it."""
    place = tmp_path / "null"
    if kind == "file":
        place.write_text("x")
    elif kind == "directory":
        place.mkdir()
    stdin = tmp_path / "stdin"
    stdin.touch()
    told = tmp_path / "told"
    with stdin.open() as given:
        program = f'exec "$0" -c "$1" 3>{told}'
        arguments = ["sh", "-c", program, sys.executable, OWN.format(path=str(place))]
        subprocess.run(arguments, stdin=given, capture_output=True, check=True)
    assert told.read_text() == str(stdin)
    assert kind != "file" or stat.S_ISREG(place.stat().st_mode)


@pytest.mark.needs("root")
@pytest.mark.parametrize("keep", [True, False])
def test_without_the_kernels_log_only_the_output_of_a_container_is_kept(tmp_path: Path, keep: bool) -> None:
    said, told = tmp_path / "said", tmp_path / "told"
    program = 'mount -t tmpfs dev /dev; mknod -m 666 /dev/null c 1 3; exec "$0" -c "$1" 2>"$2" 3>"$3"'
    own = (
        "import os\nfrom initspawn.boot import early\n"
        f"early._own_descriptors(keep={keep})\n"
        "os.write(3, os.readlink('/proc/self/fd/2').encode())"
    )
    arguments = ["unshare", "--mount", "sh", "-c", program, sys.executable, own, str(said), str(told)]
    subprocess.run(arguments, stdout=subprocess.DEVNULL, check=True)
    assert told.read_text() == (str(said) if keep else "/dev/null")
