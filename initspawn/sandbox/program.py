"""A child's work as data: a list of system calls, put together before the clone. Boot module.

A forked Python pays for every page it touches, and it touches many as soon as it thinks. So all
thinking is done in the supervisor, once per sandbox: the child only walks a list. Descriptor numbers
are known beforehand because the kernel always gives the lowest free one; a call that returns another
number than was foreseen counts as failed.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct

from initspawn.linux.libc import libc
from initspawn.linux.numbers import table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Argument = int | bytes | None
    Call = tuple[int, Argument, Argument, Argument, Argument, Argument, int, int]

NUMBERS = table()
_BLOCK = 512  # bytes: the unit of ru_inblock and ru_oublock
ANY = -1  # every result but an error
_INT = ctypes.sizeof(ctypes.c_int)
SPAWNER, PLACING, REAPER, COMMAND, FILTERS = 1, 2, 3, 4, 5  # who failed, or at what

raw = libc["syscall"]  # syscall(2) as it is, for children; always six arguments
raw.restype = ctypes.c_long
raw.argtypes = [ctypes.c_long] + [ctypes.c_void_p] * 5


class Program:
    """System calls in order, each with the step it belongs to and a word on what it is for.

    `first_free` is the lowest descriptor number that is free when the program starts.
    """

    def __init__(self, first_free: int = 0) -> None:
        self.calls: list[Call] = []
        self.notes: list[tuple[str, str]] = []
        self.step = ""
        self._open: set[int] = set(range(first_free))
        self._kept: list[Any] = []

    def call(
        self, name: str, *arguments: Argument, note: str = "", expect: int = ANY, ignore: int = 0
    ) -> None:
        """Append one call. `expect`: the only good result; `ignore`: an errno that is no failure."""
        filled = (*arguments, *(0,) * (5 - len(arguments)))
        self.calls.append((NUMBERS[name], *filled, expect, ignore))  # type: ignore[arg-type]
        self.notes.append((self.step, f"{name} {note}".rstrip()))

    def open(self, name: str, *arguments: Argument, note: str = "") -> int:
        """Append a call that makes a descriptor; returns the number it will have."""
        fd = 0
        while fd in self._open:
            fd += 1
        self._open.add(fd)
        self.call(name, *arguments, note=note, expect=fd)
        return fd

    def close(self, fd: int) -> None:
        """Append close(2): the number is free again."""
        self._open.discard(fd)
        self.call("close", fd)

    def keep(self, value: Any) -> int:
        """Keep a ctypes object alive with the program; returns its address."""
        self._kept.append(value)
        return ctypes.addressof(value)

    def follow(self) -> Program:
        """An empty program for who has been through this one: it finds the same descriptors open."""
        program = Program()
        program._open = set(self._open)
        return program

    def extend(self, other: Program) -> None:
        """Append another program's calls."""
        self.calls += other.calls
        self.notes += other.notes
        self._kept.append(other)


class Ledger:
    """Memory that the supervisor, its spawners and its children share: the reapers' pids, then one slot per
    task.

    A child behind a seccomp filter may not be able to write to a pipe, but it can always store to
    memory. Only our own code ever has it mapped: the mapping does not survive a command's exec. A child
    keeps its own slot alone: whoever may change its memory until then (ptrace(2)) must reach no other task.
    """

    def __init__(self, slots: int) -> None:
        self._pids = -(-slots * _INT // Slot.SIZE) * Slot.SIZE  # bytes in front of the slots
        self._map = mmap.mmap(-1, self._pids + slots * Slot.SIZE)
        self._free = list(range(slots - 1, -1, -1))

    def besides(self, slot: Slot) -> tuple[tuple[int, int], ...]:
        """(address, bytes) of all that lies before, and behind, a slot."""
        first = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        own = ctypes.addressof(slot.words)
        end = own + Slot.SIZE
        ranges = ((first, own - first), (end, first + len(self._map) - end))
        return tuple((start, size) for start, size in ranges if size)

    def take(self) -> Slot:
        """An empty slot. Raises IndexError when all are in use."""
        slot = self.slot(self._free.pop())
        slot.clear()
        return slot

    def give_back(self, slot: Slot) -> None:
        """The task of this slot is over."""
        self._free.append(slot.index)

    def slot(self, index: int) -> Slot:
        """The slot of that number, as a child finds it."""
        return Slot(self._map, index, self._pids)


class Slot:
    """What one task's processes tell the supervisor.

    words: 0 who failed, 1 the index of its call, 2 errno, 4 the command has ended, 5 its wait status,
    6 nothing of the task is left but its reaper, 7 how many arguments the supervisor has
    stored; from byte 64 on the command's struct rusage, written by the kernel; from byte 256 on its argv as
    execve(2) wants it: pointers, then strings.
    """

    SIZE = max(4096, mmap.PAGESIZE)  # whole pages: what is not its own is unmapped in a child
    _USAGE_AT = 64
    _POINTERS_AT = 256
    _POINTERS = 64
    _STRINGS_AT = _POINTERS_AT + _POINTERS * ctypes.sizeof(ctypes.c_void_p)

    def __init__(self, memory: mmap.mmap, index: int, pids: int) -> None:
        """`pids`: how many bytes of the memory are the reapers' pids, which stand before all slots."""
        self.index = index
        self._memory = memory
        self._start = pids + index * self.SIZE
        self._pid = ctypes.c_int.from_buffer(memory, index * _INT)
        self.words = (ctypes.c_int * (self.SIZE // _INT)).from_buffer(memory, self._start)
        address = ctypes.addressof(self.words)
        self.pid_address = ctypes.addressof(self._pid)
        self.status_address = address + 5 * 4
        self.usage_address = address + self._USAGE_AT
        self.argv_address = address + self._POINTERS_AT
        self.path_address = address + self._STRINGS_AT  # argv[0]

    def clear(self) -> None:
        """Make it as new."""
        self._pid.value = 0
        ctypes.memset(self.words, 0, self._POINTERS_AT)

    def store_arguments(self, argv: tuple[str, ...]) -> bool:
        """Called in the supervisor: put the arguments where the command finds them without touching memory
        of its own, which it would have to copy. False if they are too many or too long for that.
        """
        items = [os.fsencode(item) + b"\0" for item in argv]
        text = b"".join(items)
        if len(items) >= self._POINTERS or len(text) > self.SIZE - self._STRINGS_AT:
            return False
        at, pointers = self.path_address, []
        for item in items:
            pointers.append(at)
            at += len(item)
        start = self._start
        struct.pack_into(f"@{len(items) + 1}P", self._memory, start + self._POINTERS_AT, *pointers, 0)
        self._memory[start + self._STRINGS_AT : start + self._STRINGS_AT + len(text)] = text
        self.words[7] = len(items)
        return True

    def fail(self, who: int, index: int, number: int) -> None:
        """Called in a child: call `index` of its program failed with this errno."""
        words = self.words
        words[1] = index
        words[2] = number
        words[0] = who

    def failure(self) -> tuple[int, int, int] | None:
        """(who, index of the call, errno) if a child's program failed."""
        who = self.words[0]
        return (who, self.words[1], self.words[2]) if who else None

    @property
    def pid(self) -> int:
        """The reaper's pid, stored by the kernel before the reaper runs; 0 if there is none."""
        return self._pid.value

    def status(self) -> int | None:
        """The command's wait status if its reaper saw it end."""
        return self.words[5] if self.words[4] else None

    @property
    def alone(self) -> bool:
        """Whether the reaper has outlived everything of its task, and waits for its end."""
        return bool(self.words[6])

    def usage(self) -> dict[str, float]:
        """What the command and all it waited for used (getrusage(2)). No peak memory: it would count
        what the process was before its exec, a copy of our own.
        """
        words = (ctypes.c_long * 13).from_address(self.usage_address)
        return {
            "user-seconds": words[0] + words[1] / 1e6,
            "system-seconds": words[2] + words[3] / 1e6,
            "read-bytes": words[11] * _BLOCK,
            "written-bytes": words[12] * _BLOCK,
        }


def run(calls: list[Call], who: int, slot: Slot) -> bool:
    """Carry a program out, in a child. False when a call failed; the slot then says which."""
    for index, (number, a, b, c, d, e, expect, ignore) in enumerate(calls):
        result = raw(number, a, b, c, d, e)
        if result < 0 or (expect >= 0 and result != expect):
            error = ctypes.get_errno() if result < 0 else 0
            if not error or error != ignore:
                slot.fail(who, index, error)
                return False
    return True
