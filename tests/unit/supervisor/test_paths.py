"""Waiting for a file to come or to go."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from initspawn.linux import inotify
from initspawn.supervisor import paths
from initspawn.supervisor.paths import Paths
from initspawn.supervisor.reactor import Reactor

Follow = Callable[..., int]


class Following:
    """A loop that follows paths; `calls` counts what it is told."""

    def __init__(self) -> None:
        self.reactor = Reactor()
        self.calls = 0
        self.paths = Paths(self.reactor, self._count)

    def _count(self) -> None:
        self.calls += 1

    def turn(self, seconds: float = 0.3) -> int:
        """Run for so long, or until told something; how often that was."""
        end, before = self.reactor.clock() + seconds, self.calls
        while self.reactor.clock() < end and self.calls == before:
            self.reactor.turn(0.05)
        return self.calls - before


@pytest.fixture
def following() -> Iterator[Following]:
    before = os.listdir("/proc/self/fd")
    made = Following()
    yield made
    made.paths.close()
    made.reactor.close()
    assert len(os.listdir("/proc/self/fd")) == len(before)


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, bind, lambda path: os.mkfifo(path)])
def test_what_comes_is_told_once(following: Following, tmp_path: Path, make: Callable[[Path], None]) -> None:
    following.paths.follow(str(tmp_path / "x"))
    assert following.turn(0.1) == 0
    make(tmp_path / "x")
    assert following.turn() == 1
    (tmp_path / "y").touch()
    assert following.turn(0.1) == 0, "nobody has asked again"


def test_what_goes_is_told(following: Following, tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    following.paths.follow(str(tmp_path / "x"))
    (tmp_path / "x").unlink()
    assert following.turn() == 1


def test_a_directory_on_the_way_comes_first(following: Following, tmp_path: Path) -> None:
    following.paths.follow(str(tmp_path / "a" / "b" / "x"))
    (tmp_path / "a").mkdir()
    assert following.turn() == 1
    following.paths.follow(str(tmp_path / "a" / "b" / "x"))
    (tmp_path / "a" / "b").mkdir()
    (tmp_path / "a" / "b" / "x").touch()
    assert following.turn() == 1


def test_a_directory_on_the_way_goes(following: Following, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    following.paths.follow(str(tmp_path / "a" / "x"))
    (tmp_path / "a").rmdir()
    assert following.turn() == 1


def test_what_came_while_the_watch_was_made_is_not_missed(
    following: Following, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = []
    watch = inotify.watch

    def late(directory: str, events: int) -> int:
        watched.append(directory)
        if len(watched) == 1:
            (tmp_path / "a").mkdir()
        return watch(directory, events)

    monkeypatch.setattr(paths.inotify, "watch", late)
    following.paths.follow(str(tmp_path / "a" / "x"))
    monkeypatch.undo()
    assert watched == [str(tmp_path), str(tmp_path / "a")]


def test_many_changes_are_one_call(following: Following, tmp_path: Path) -> None:
    following.paths.follow(str(tmp_path / "x"))
    for number in range(2000):
        (tmp_path / str(number)).touch()
    assert following.turn() == 1


def test_links_are_followed(following: Following, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    following.paths.follow(str(tmp_path / "link" / "x"))
    (tmp_path / "real" / "x").touch()
    assert following.turn() == 1


@pytest.mark.parametrize("path", ["/proc/nothing", "/sys/class/net/nothing"])
def test_where_the_kernel_tells_nothing_time_does(
    following: Following, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(paths, "_POLL", 0.1)
    following.paths.follow(path)
    assert following.turn(0.05) == 0
    assert following.turn(1.0) == 1


def test_without_watches_time_does(
    following: Following, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def none_left(directory: str, events: int) -> int:
        raise OSError(28, "no watch is left")

    monkeypatch.setattr(paths.inotify, "watch", none_left)
    monkeypatch.setattr(paths, "_POLL", 0.1)
    following.paths.follow(str(tmp_path / "x"))
    assert following.turn(1.0) == 1
