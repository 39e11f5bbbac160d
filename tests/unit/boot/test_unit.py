"""One supervisor for one run directory, and what it tells systemd never makes it wait."""

from __future__ import annotations

import gc
import os
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from initspawn.boot import adopt, early
from initspawn.boot.notify import notify
from initspawn.supervisor import moving
from initspawn.supervisor.reactor import Reactor


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "run"
    for module in (adopt, early):
        monkeypatch.setattr(module, "RUN_DIR", str(place))
    return place


def test_a_run_directory_has_one_supervisor(run_dir: Path) -> None:
    first = early.take_lock()
    assert first >= 0
    with pytest.raises(BlockingIOError):
        early.take_lock()


def test_one_whose_predecessor_was_killed_waits_for_its_end(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fd = early.take_lock()
    threading.Timer(0.2, os.close, [fd]).start()
    assert early._lock() >= 0
    monkeypatch.setattr(early, "_LOCK_TRIES", 1)
    with pytest.raises(BlockingIOError):
        early._lock()


def test_without_room_in_run_there_is_no_lock_and_commands_run(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir.write_text("in the way of the directory")
    assert early.take_lock() == -1
    assert str(run_dir) in capsys.readouterr().err


def test_a_unit_becomes_the_supervisor_where_there_is_none(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    become: list[tuple[Any, ...]] = []
    monkeypatch.setattr(adopt, "be_unit", lambda *given: become.append(given) or 0)
    monkeypatch.setenv("NOTIFY_SOCKET", "")
    assert adopt.main() == 0
    ((_, _, lock),) = become
    assert lock >= 0


def test_a_unit_waits_for_one_that_lives_and_gives_up_in_time(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(adopt, "be_unit", lambda *_: pytest.fail("a second supervisor"))
    monkeypatch.setattr(adopt, "_PATIENCE_SECONDS", 0.2)
    early.take_lock()
    assert adopt.main() == 111
    assert "a supervisor runs, but is not to be reached" in capsys.readouterr().err


def test_a_unit_finds_one_whose_socket_comes_later(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    early.take_lock()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:

        def late() -> None:
            time.sleep(0.3)
            listener.bind(str(run_dir / "adopt"))
            listener.listen()

        thread = threading.Thread(target=late)
        thread.start()
        found, lock = adopt._find()
        thread.join()
    assert found is not None
    assert lock == -1
    found.close()


def flood(path: str) -> None:
    for _ in range(100_000):
        notify(path, "WATCHDOG=1", wait=False)


def test_who_does_not_listen_keeps_nobody(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(path)
        with pytest.raises(BlockingIOError):
            flood(path)
        assert receiver.recv(100) == b"WATCHDOG=1"
    notify("", "READY=1", wait=True)  # outside of a unit


def test_a_task_that_cannot_be_moved_does_not_stay_frozen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, written = tmp_path / "old", []
    old.mkdir()
    (old / "cgroup.procs").write_text("1\n")

    def write(group: str, name: str, text: str) -> None:
        written.append((name, text))
        if name == "cgroup.procs":
            raise OSError(16, "busy", group)

    monkeypatch.setattr(moving.cgroup, "write", write)
    with pytest.raises(OSError, match="busy"):
        moving._carry_frozen(str(old), str(tmp_path))
    assert written == [("cgroup.freeze", "1"), ("cgroup.procs", "1"), ("cgroup.freeze", "0")]


def test_a_supervisor_that_hangs_does_not_stop_the_boot(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(adopt, "_PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(adopt, "own_group", lambda: "/sys/fs/cgroup/unit")
    run_dir.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(run_dir / "adopt"))
        listener.listen()  # and that is all
        assert adopt.main() == 111
    assert "the early supervisor does not answer" in capsys.readouterr().err


def test_a_unit_is_ready_without_its_doors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full /run keeps the doors shut, not the boot waiting; and from now on garbage is looked for."""
    path = str(tmp_path / "notify")
    unit = early.Early.__new__(early.Early)
    unit._barrier, unit._began_as = None, (path, "20000")
    reactor = Reactor()
    unit.supervisor = SimpleNamespace(reactor=reactor, closing=False)  # type: ignore[assignment]
    monkeypatch.setattr(early.Early, "_try_doors", lambda _: None)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(path)
        receiver.settimeout(5)
        gc.disable()
        try:
            unit._open()
            assert gc.isenabled()
        finally:
            gc.enable()
        said = [receiver.recv(100), receiver.recv(100)]
        assert said == [b"WATCHDOG=1", b"READY=1"]
        reactor.turn(5.0)
        assert receiver.recv(100) == b"WATCHDOG=1", "nor killed by its watchdog"
    reactor.close()
