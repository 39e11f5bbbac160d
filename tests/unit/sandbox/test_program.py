"""A child's work as a list of calls: foreseen descriptor numbers, and a stop at the first failure."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initspawn.linux.numbers import table
from initspawn.sandbox.program import ANY, COMMAND, REAPER, Ledger, Program, Slot, run

AT_FDCWD = -100


@pytest.fixture
def slot() -> Slot:
    """Where a program's failure is told."""
    return Ledger(1).take()


@pytest.fixture
def first_free() -> Iterator[int]:
    """The lowest free descriptor of this process, closed again with all that were opened behind it."""
    fd = os.open("/", os.O_PATH)
    os.close(fd)
    yield fd
    os.closerange(fd, fd + 10)


def numbers(program: Program, *names: str) -> bool:
    return [call[0] for call in program.calls] == [table()[name] for name in names]


# Putting one together.


def test_a_call_has_five_arguments_and_what_is_good() -> None:
    program = Program()
    program.call("umask", 0o22)
    program.call("write", 1, b"x", 1, expect=1, ignore=errno.EPIPE)
    assert program.calls == [
        (table()["umask"], 0o22, 0, 0, 0, 0, ANY, 0),
        (table()["write"], 1, b"x", 1, 0, 0, 1, errno.EPIPE),
    ]


def test_notes_name_the_step_and_the_call() -> None:
    program = Program()
    program.step = "umask"
    program.call("umask", 0o22, note="022")
    program.step = "session"
    program.call("setsid")
    assert program.notes == [("umask", "umask 022"), ("session", "setsid")]


def test_an_unknown_call() -> None:
    with pytest.raises(KeyError):
        Program().call("launch_missiles")


def test_the_lowest_free_number_is_foreseen() -> None:
    program = Program(4)
    assert [program.open("openat", AT_FDCWD, b"/") for _ in range(3)] == [4, 5, 6]
    program.close(5)
    assert program.open("openat", AT_FDCWD, b"/") == 5
    assert program.open("openat", AT_FDCWD, b"/") == 7
    assert [call[6] for call in program.calls] == [4, 5, 6, ANY, 5, 7]
    assert numbers(program, "openat", "openat", "openat", "close", "openat", "openat")


@given(st.integers(0, 5), st.lists(st.none() | st.integers(0, 9), max_size=40))
def test_numbers_as_the_kernel_gives_them(first: int, choices: list[int | None]) -> None:
    """Opens (None) and closes in any order."""
    program, taken = Program(first), set(range(first))
    for close in choices:
        if close is None:
            fd = program.open("openat")
            assert fd == min(set(range(len(taken) + 1)) - taken)
            taken.add(fd)
        elif close in taken and close >= first:
            program.close(close)
            taken.discard(close)


def test_extend() -> None:
    one, other = Program(), Program()
    one.call("umask", 1)
    other.step = "b"
    other.call("umask", 2, note="2")
    one.extend(other)
    assert [call[1] for call in one.calls] == [1, 2]
    assert one.notes == [("", "umask"), ("b", "umask 2")]


def test_what_is_kept_lives_as_long_as_the_program() -> None:
    program = Program()
    address = program.keep(ctypes.create_string_buffer(b"kept"))
    assert ctypes.string_at(address) == b"kept"


# Carrying it out, here: the calls are harmless.


def test_run_makes_the_calls(tmp_path: Path, slot: Slot, first_free: int) -> None:
    program = Program(first_free)
    path = os.fsencode(tmp_path / "made")
    fd = program.open("openat", AT_FDCWD, path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    program.call("write", fd, b"hello", 5, expect=5)
    program.close(fd)
    assert run(program.calls, COMMAND, slot)
    assert (tmp_path / "made").read_bytes() == b"hello"
    assert slot.failure() is None
    assert not os.path.exists(f"/proc/self/fd/{fd}")


def test_run_stops_at_the_failing_call_and_tells_it(tmp_path: Path, slot: Slot) -> None:
    program = Program()
    program.call("mkdirat", AT_FDCWD, os.fsencode(tmp_path / "a"), 0o700)
    program.call("mkdirat", AT_FDCWD, os.fsencode(tmp_path / "b/c"), 0o700)
    program.call("mkdirat", AT_FDCWD, os.fsencode(tmp_path / "d"), 0o700)
    assert not run(program.calls, REAPER, slot)
    assert slot.failure() == (REAPER, 1, errno.ENOENT)
    assert os.listdir(tmp_path) == ["a"]


def test_an_ignored_error_is_none(tmp_path: Path, slot: Slot) -> None:
    program = Program()
    path = os.fsencode(tmp_path / "a")
    program.call("mkdirat", AT_FDCWD, path, 0o700)
    program.call("mkdirat", AT_FDCWD, path, 0o700, ignore=errno.EEXIST)
    program.call("mkdirat", AT_FDCWD, path + b"/b", 0o700)
    assert run(program.calls, COMMAND, slot)
    assert (tmp_path / "a/b").is_dir()


def test_another_error_than_the_ignored_one(tmp_path: Path, slot: Slot) -> None:
    program = Program()
    program.call("mkdirat", AT_FDCWD, os.fsencode(tmp_path / "a/b"), 0o700, ignore=errno.EEXIST)
    assert not run(program.calls, COMMAND, slot)
    assert slot.failure() == (COMMAND, 0, errno.ENOENT)


def test_a_number_that_was_not_foreseen_is_a_failure(slot: Slot, first_free: int) -> None:
    program = Program(first_free + 1)
    program.open("openat", AT_FDCWD, b"/", os.O_PATH | os.O_CLOEXEC)
    program.call("umask", 0)
    assert not run(program.calls, COMMAND, slot)
    assert slot.failure() == (COMMAND, 0, 0)


def test_a_short_write_is_a_failure(slot: Slot) -> None:
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        size = 1 << 20
        program = Program()
        program.call("write", writer, bytes(size), size, expect=size)
        assert not run(program.calls, COMMAND, slot)
        assert slot.failure() == (COMMAND, 0, 0)
    finally:
        os.close(reader)
        os.close(writer)


def test_nothing_to_do(slot: Slot) -> None:
    assert run([], COMMAND, slot)
    assert slot.failure() is None


# Where it is told.


def test_slots_are_given_out_once() -> None:
    ledger = Ledger(2)
    first, second = ledger.take(), ledger.take()
    assert {first.index, second.index} == {0, 1}
    with pytest.raises(IndexError):
        ledger.take()
    ledger.give_back(first)
    assert ledger.take().index == first.index


def test_a_slot_is_empty_when_it_is_taken_again() -> None:
    ledger = Ledger(1)
    slot = ledger.take()
    slot.fail(REAPER, 3, errno.EPERM)
    ctypes.c_int.from_address(slot.pid_address).value = 7
    slot.words[4], slot.words[5] = 1, 256
    ledger.give_back(slot)
    slot = ledger.take()
    assert (slot.failure(), slot.pid, slot.status()) == (None, 0, None)
    assert set(slot.usage().values()) == {0.0}


def test_slots_do_not_touch_each_other() -> None:
    ledger = Ledger(3)
    for slot in (slots := [ledger.take() for _ in range(3)]):
        ctypes.memset(slot.words, slot.index + 1, Slot.SIZE)
    assert [bytes(slot.words) for slot in slots] == [bytes([slot.index + 1]) * Slot.SIZE for slot in slots]


@pytest.mark.parametrize("index", [0, 1, 2])
def test_everything_besides_a_slot(index: int) -> None:
    """No byte of the slot, and every byte of the others and of the pids."""
    ledger = Ledger(3)
    slots = [ledger.slot(number) for number in range(3)]
    for address, size in ledger.besides(slots[index]):
        assert not address % mmap.PAGESIZE
        ctypes.memset(address, 255, size)
    expected = [0 if slot.index == index else -1 for slot in slots]
    assert [slot.words[0] for slot in slots] == [slot.words[-1] for slot in slots] == expected
    assert [slot.pid for slot in slots] == [-1] * 3


def test_a_child_finds_its_slot_by_number() -> None:
    ledger = Ledger(2)
    slot = ledger.take()
    ledger.slot(slot.index).fail(COMMAND, 5, errno.EACCES)
    assert slot.failure() == (COMMAND, 5, errno.EACCES)


def test_what_the_kernel_writes() -> None:
    slot = Ledger(1).take()
    ctypes.memmove(slot.status_address, struct.pack("=i", 512), 4)
    ctypes.memmove(slot.usage_address, struct.pack("@13l", 1, 500_000, 2, 250_000, *range(7), 3, 4), 13 * 8)
    assert slot.status() is None  # not before the reaper says so
    slot.words[4] = 1
    assert slot.status() == 512
    assert slot.usage() == {
        "user-seconds": 1.5, "system-seconds": 2.25, "read-bytes": 1536, "written-bytes": 2048,
    }  # fmt: skip


# Arguments in the shared memory.


@given(st.lists(st.binary(max_size=40).filter(lambda item: 0 not in item), min_size=1, max_size=80))
def test_arguments_are_stored_as_execve_wants_them(items: list[bytes]) -> None:
    ledger = Ledger(2)
    ledger.take()
    slot = ledger.take()
    if not slot.store_arguments(tuple(map(os.fsdecode, items))):
        assert len(items) >= 64 or sum(map(len, items)) + len(items) > 4096 - 256 - 64 * 8
        assert slot.words[7] == 0
        return
    assert slot.words[7] == len(items)
    argv = (ctypes.c_char_p * (len(items) + 1)).from_address(slot.argv_address)
    assert list(argv) == [*items, None]
    assert ctypes.string_at(slot.path_address) == items[0]


def test_arguments_do_not_reach_into_the_next_slot() -> None:
    ledger = Ledger(2)
    first, second = ledger.take(), ledger.take()
    second.fail(1, 2, 3)
    room = Slot.SIZE - (first.path_address - ctypes.addressof(first.words))
    assert first.store_arguments(("x" * (room - 1),))
    assert not first.store_arguments(("x" * room,))
    assert second.failure() == (1, 2, 3)
