"""Whose groups are those of supervisors that are no more: numbers alone do not say."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from initspawn.linux import cgroup, process
from initspawn.supervisor import leftovers

ME, BEGAN = str(os.getpid()), process.began()
MINE = f"initspawn-{ME}-{BEGAN}"
STRANGERS = f"initspawn-{ME}-{BEGAN - 1}"  # a number that is now ours
NOBODYS = f"initspawn-4194305-{BEGAN}"  # a number that the kernel never gives


class Base:
    """A directory of supervisors' groups; `members` are the processes in it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.ended: list[str] = []

    def put(self, *names: str, members: str = "") -> None:
        for name in names:
            (self.place / name).mkdir()
        (self.place / "cgroup.procs").write_text(members)

    def end(self) -> list[str]:
        """The groups that are ended."""
        leftovers.end(str(self.place))
        return sorted(self.ended)


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Base:
    made = Base(tmp_path)

    class Groups:
        root = ""

        def close(self) -> None:
            made.ended.append(Path(self.root).name)

    monkeypatch.setattr(leftovers, "Groups", Groups)
    return made


def test_what_has_no_owner_or_only_its_number(base: Base, capsys: pytest.CaptureFixture[str]) -> None:
    left = [NOBODYS, STRANGERS, f"{STRANGERS}.supervisor"]
    base.put(*left, MINE, f"{MINE}.supervisor", members=f"{ME}\n1\n")
    assert base.end() == sorted(left)
    assert capsys.readouterr().err.count(f"initspawn: ended what a killed supervisor ({ME}) had left\n") == 2


def test_what_is_called_otherwise_is_somebody_elses(base: Base) -> None:
    others = ["initspawn", f"initspawn-{ME}", "initspawn-x-1", "initspawn-1-x", "x-4194305-1", f"{NOBODYS}x"]
    base.put(*others)
    assert base.end() == []


@pytest.mark.parametrize("own", [False, True])
def test_one_of_another_pid_namespace_lives(base: Base, monkeypatch: pytest.MonkeyPatch, own: bool) -> None:
    """From above it has another number, and is in the group above its own, or beside that."""
    monkeypatch.setattr(leftovers, "_numbers", lambda pid: [pid, "7"])
    base.put(f"initspawn-7-{BEGAN}", f"initspawn-8-{BEGAN}", members="" if own else f"1\n{ME}\n")
    if own:
        base.put(f"initspawn-7-{BEGAN}.supervisor")
        (base.place / f"initspawn-7-{BEGAN}.supervisor" / "cgroup.procs").write_text(f"{ME}\n")
    assert base.end() == [f"initspawn-8-{BEGAN}"]


def test_the_numbers_of_a_process() -> None:
    assert leftovers._numbers(ME)[0] == ME
    assert leftovers._numbers("4194305") == []


@pytest.mark.parametrize("where", ["above", "below"])
def test_whoever_cannot_be_seen_may_be_the_owner_or_its_task(base: Base, where: str) -> None:
    base.put(NOBODYS, members="0\n" if where == "above" else "")
    if where == "below":
        (base.place / NOBODYS / "cgroup.procs").write_text("5\n0\n")
    assert base.end() == []


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EPERM, errno.EMFILE])
@pytest.mark.parametrize("where", ["here", "another pid namespace"])
def test_whose_beginning_is_hidden_lives(
    base: Base, monkeypatch: pytest.MonkeyPatch, number: int, where: str
) -> None:
    """By hidepid=2, for one; only a number that nobody has is nobody's."""

    def hidden(*_: str) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(process, "began", hidden)
    if where != "here":
        monkeypatch.setattr(leftovers, "_numbers", lambda _: [])
        base.put(NOBODYS, members=f"{ME}\n")
        assert base.end() == []
        return
    huge = f"initspawn-{'9' * 30}-1"
    base.put(MINE, f"{MINE}.supervisor", NOBODYS, huge)
    assert base.end() == sorted([NOBODYS, huge])


def test_nobody_is_ended_where_nobody_can_be_looked_at(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: str) -> str:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    base.put(NOBODYS)
    monkeypatch.setattr(cgroup, "read", fails)
    assert base.end() == []


def test_no_hierarchy_no_leftovers() -> None:
    leftovers.end(None)
