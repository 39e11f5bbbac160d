"""The log encoder's files: what is opened, what is refused, what a failing write becomes."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest

from initspawn.encoders.log import Log
from initspawn.errors import LaunchRefused
from initspawn.supervisor import logfiles
from initspawn.supervisor.logfiles import LogFiles

USER = os.geteuid()
pytestmark = pytest.mark.not_emulated("openat2(2)")


@contextmanager
def opened(*paths: Path | str, user: int = USER) -> Iterator[LogFiles]:
    files = LogFiles(dict(zip(("stdout", "stderr"), map(str, paths), strict=False)), user)
    try:
        yield files
    finally:
        files.close()


def refused(path: Path | str) -> LaunchRefused:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(LaunchRefused) as caught, opened(path):
        pass
    assert os.listdir("/proc/self/fd") == before
    assert caught.value.step == "log"
    assert str(path) in caught.value.detail
    return caught.value


def test_files_are_appended_to(tmp_path: Path) -> None:
    out, err = tmp_path / "out", tmp_path / "err"
    out.write_bytes(b"before\n")
    with opened(out, err) as files:
        assert files.write("stdout", b"a\n") == files.write("stderr", b"\xff\0") == ""
        out.write_bytes(b"")  # rotated by copying: appending goes on at the new end
        assert files.write("stdout", b"b\n") == ""
    assert out.read_bytes() == b"b\n"
    assert err.read_bytes() == b"\xff\0"
    assert not err.stat().st_mode & 0o027


def test_both_streams_may_have_one_file(tmp_path: Path) -> None:
    with opened(tmp_path / "both", tmp_path / "both") as files:
        files.write("stdout", b"O\n")
        files.write("stderr", b"E\n")
    assert (tmp_path / "both").read_bytes() == b"O\nE\n"


def test_links_are_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (tmp_path / "last").symlink_to(victim / "file")
    (tmp_path / "dangling").symlink_to(victim / "new")
    (tmp_path / "middle").symlink_to(victim)
    for path in ("last", "dangling", "middle/file"):
        found = refused(tmp_path / path)
        assert found.errno == errno.ELOOP
        assert "symbolic link" in found.detail
    assert not list(victim.iterdir())


def test_a_second_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    os.link(tmp_path / "secret", tmp_path / "log")
    assert "second name" in refused(tmp_path / "log").detail
    assert (tmp_path / "secret").read_bytes() == b"secret"


@pytest.mark.root
def test_a_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"")
    os.chown(tmp_path / "log", 12345, 12345)
    assert "user 12345 owns it" in refused(tmp_path / "log").detail
    with opened(tmp_path / "log", user=12345) as files:
        assert files.write("stdout", b"x") == ""


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert refused(tmp_path / "fifo").errno == errno.ENXIO
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert refused(tmp_path / "fifo").errno == errno.EINVAL
    finally:
        os.close(reader)
    assert refused(tmp_path).errno == errno.EISDIR
    assert refused("/dev/zero").errno == errno.EINVAL
    assert refused(tmp_path / "missing" / "log").errno == errno.ENOENT
    with opened("/dev/null") as files:
        assert files.write("stdout", b"x") == ""


def test_a_path_is_never_relative_to_where_we_run() -> None:
    assert "no full path" in refused("log").detail


def test_the_first_file_is_closed_when_the_second_cannot_be_opened(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(LaunchRefused), opened(tmp_path / "out", tmp_path / "missing" / "err"):
        pass
    assert os.listdir("/proc/self/fd") == before


def test_a_full_disk_is_told_once() -> None:
    log = Log()
    full = mock.patch.object(logfiles.os, "write", side_effect=OSError(28, "full"))
    with opened("/dev/null") as files, full:
        log.write = files.write
        assert log.feed("stdout", b"x") == [{"log-error": "stdout: full"}]
        assert log.feed("stdout", b"x") == []
    assert log.finish() == []


def test_our_own_output_is_not_waited_for() -> None:
    read, write = os.pipe()
    try:
        with opened() as files, mock.patch.dict(logfiles._OWN, {"stdout": write}):
            assert files.write("stdout", b"x" * 5000) == ""
            assert os.read(read, 10000) == b"x" * 5000
            reason = files.write("stdout", b"x" * (1 << 20))
            assert reason == "initspawn's own output does not take it"
    finally:
        os.close(read)
        os.close(write)
