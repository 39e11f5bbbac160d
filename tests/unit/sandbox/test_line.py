"""Who is built now, and who waits."""

from __future__ import annotations

import errno
import itertools
import os
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initspawn.limits import BUILDS, BUILDS_EACH
from initspawn.sandbox.line import Line
from initspawn.sandbox.program import SPAWNER


class Start:
    """What the line looks at; `failed`: what was noted of it."""

    def __init__(self, sandbox: object, ceiling: int, *, urgent: bool) -> None:
        self.sandbox, self.ceiling, self.urgent, self.step = sandbox, ceiling, urgent, "spawner"
        self.failed: list[tuple[int, int, int]] = []


class World:
    """A line, the packets that it sent, and what it wants to do later."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.due: list[Callable[[], None]] = []
        self.error: OSError | None = None
        self.line = Line(self._send, lambda _, then: self.due.append(then))
        self.reader, self.writer = os.pipe()

    def _send(self, packet: bytes, descriptors: list[int]) -> None:
        if self.error is not None:
            raise self.error
        assert all(os.fstat(fd) for fd in descriptors)
        self.sent.append(packet)

    def hand(self, sandbox: object, name: str, *, ceiling: int = sys.maxsize, urgent: bool = False) -> Any:
        start: Any = Start(sandbox, ceiling, urgent=urgent)
        slot: Any = SimpleNamespace(fail=lambda *how: start.failed.append(how))
        self.line.hand(start, slot, name.encode(), [self.writer])
        return start

    def turn(self) -> list[str]:
        """What is sent now that was not before."""
        before = len(self.sent)
        due, self.due = self.due, []
        for then in due:
            then()
        return [packet.decode() for packet in self.sent[before:]]

    def close(self) -> None:
        """Nobody has a copy of the descriptors any more."""
        self.line.close()
        os.close(self.writer)
        assert os.read(self.reader, 1) == b""
        os.close(self.reader)


@pytest.fixture
def world() -> Any:
    made = World()
    yield made
    made.close()


def test_a_sandbox_that_hangs_keeps_no_other_waiting(world: World) -> None:
    """So many of it are built at once; others pass by those of it that wait."""
    hung, good = object(), object()
    first = [world.hand(hung, f"h{number}") for number in range(BUILDS_EACH + 2)]
    assert len(world.sent) == BUILDS_EACH
    world.turn()
    world.hand(good, "g")
    assert world.turn() == ["g"]
    assert world.line.waits(first[-1])
    assert not world.line.waits(first[0])
    world.line.leave(first[0])
    assert world.turn() == [f"h{BUILDS_EACH}"]


def test_of_all_so_many_are_built_at_once_and_the_rest_in_order(world: World) -> None:
    starts = [world.hand(object(), str(number)) for number in range(BUILDS)]
    late = [world.hand(object(), f"late{number}") for number in range(3)]
    assert len(world.sent) == BUILDS
    assert world.turn() == []
    for start, name in zip(starts, ("late0", "late1", "late2"), strict=False):
        world.line.leave(start)
        if name == "late0":  # nor does one that comes now pass by
            late.append(world.hand(object(), "late3"))
        assert world.turn() == [name]


def test_what_is_our_own_waits_for_nobody(world: World) -> None:
    for number in range(BUILDS):
        world.hand(object(), str(number))
    world.hand(object(), "own", urgent=True)
    assert world.sent[-1] == b"own"


def test_nobody_is_begun_with_who_is_not_wanted_any_more(world: World) -> None:
    box = object()
    starts = [world.hand(box, str(number)) for number in range(BUILDS_EACH + 2)]
    unwanted = starts[BUILDS_EACH]
    world.line.leave(unwanted)
    world.line.leave(unwanted)
    assert not world.line.waits(unwanted)
    world.line.leave(starts[0])
    assert world.turn() == [str(BUILDS_EACH + 1)]


def test_who_waits_is_told_whether_it_goes_on(world: World) -> None:
    """A start that others hold up has its own time still; one whose sandbox hangs has not."""
    hung, others = object(), [object() for _ in range(BUILDS)]
    stuck = [world.hand(hung, "h") for _ in range(BUILDS_EACH + 1)]
    busy = [world.hand(box, "o") for box in others]
    world.turn()
    waits = world.hand(object(), "w")
    world.line.leave(busy[0], built=True)
    assert world.line.moves(waits)
    assert not world.line.moves(waits)
    assert not world.line.moves(stuck[-1])
    world.line.leave(busy[1], built=False)
    assert not world.line.moves(waits)
    world.line.leave(stuck[0], built=True)
    assert world.line.moves(stuck[-1])
    assert not world.line.moves(stuck[1])  # it does not wait


def test_who_cannot_be_begun_fails_and_the_next_one_is_tried(world: World) -> None:
    box = object()
    starts = [world.hand(box, str(number)) for number in range(BUILDS_EACH + 2)]
    world.error = OSError(errno.EMFILE, "no")
    world.line.leave(starts[0])
    assert world.turn() == []
    assert [start.failed for start in starts[BUILDS_EACH:]] == [[(SPAWNER, 0, errno.EMFILE)]] * 2
    with pytest.raises(OSError, match="no"):
        world.hand(box, "at once")


def test_no_copy_is_of_a_descriptor_that_is_for_others(world: World) -> None:
    box = object()
    for number in range(BUILDS_EACH):
        world.hand(box, str(number))
    with pytest.raises(OSError, match="Too many open files"):
        world.hand(box, "one more", ceiling=world.writer)
    world.line.leave(world.hand(object(), "other"))
    assert world.turn() == []


@given(st.lists(st.tuples(st.sampled_from("+-ux"), st.integers(0, 5)), max_size=200))
def test_nobody_is_forgotten(what: list[tuple[str, int]]) -> None:
    """Never too many; each is begun once, if somebody wants it still; who may be begun is."""
    world, boxes = World(), [object() for _ in range(6)]
    starts: list[Any] = []
    names = map(str, itertools.count())
    for event, number in what:
        if event in "+u":
            starts += [world.hand(boxes[number], next(names)) for _ in range(20)]
        elif starts:
            some = starts[number :: 7 if event == "-" else 3]
            for one in some:
                world.line.leave(one, built=event == "-")
                starts.remove(one)
        world.turn()
        begun = [one for one in starts if not world.line.waits(one)]
        counts = [sum(one.sandbox is box for one in begun) for box in boxes]
        assert len(begun) <= BUILDS
        assert max(counts) <= BUILDS_EACH
        for one in starts:
            if world.line.waits(one):
                assert len(begun) == BUILDS or counts[boxes.index(one.sandbox)] == BUILDS_EACH
    assert len(set(world.sent)) == len(world.sent)
    world.close()
