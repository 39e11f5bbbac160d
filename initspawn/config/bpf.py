"""Ready-made seccomp filters: whether bytes are a program that the kernel will load.

The rules are those of classic BPF for system calls: bpf_check_classic of the kernel's net/core/filter.c and
seccomp_check_filter of its kernel/seccomp.c.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Collection

from initspawn.config.spot import shown
from initspawn.linux.seccomp import INSTRUCTION, MAX_INSTRUCTIONS
from initspawn.tree import HERE, Tree

# struct sock_filter in this machine's byte order: operation, jump if true, jump if false, operand.
_LAYOUT = struct.Struct("=HBBI")

# Operations by their number, with linux/bpf_common.h's names put together.
_LOAD_DATA = 0x20  # LD|W|ABS: a word of struct seccomp_data
_JUMP = 0x05
_RETURNS = {0x06: "RET|K", 0x16: "RET|A"}
_CONDITIONS = {
    0x15: "JEQ|K", 0x1D: "JEQ|X", 0x25: "JGT|K", 0x2D: "JGT|X",
    0x35: "JGE|K", 0x3D: "JGE|X", 0x45: "JSET|K", 0x4D: "JSET|X",
}  # fmt: skip
_STORES = {0x02: "ST", 0x03: "STX"}
_FETCHES = {0x60: "LD|MEM", 0x61: "LDX|MEM"}
_SHIFTS = {0x64: "LSH|K", 0x74: "RSH|K"}
_DIVIDE = 0x34  # DIV|K
_PLAIN = {
    0x00: "LD|IMM", 0x01: "LDX|IMM", 0x80: "LD|LEN", 0x81: "LDX|LEN", 0x07: "TAX", 0x87: "TXA",
    0x04: "ADD|K", 0x0C: "ADD|X", 0x14: "SUB|K", 0x1C: "SUB|X", 0x24: "MUL|K", 0x2C: "MUL|X",
    0x3C: "DIV|X", 0x44: "OR|K", 0x4C: "OR|X", 0x54: "AND|K", 0x5C: "AND|X", 0x6C: "LSH|X",
    0x7C: "RSH|X", 0x84: "NEG", 0xA4: "XOR|K", 0xAC: "XOR|X",
}  # fmt: skip

_DATA_BYTES = 64  # struct seccomp_data: nr, arch, instruction_pointer, args[6]
_MEMORY_WORDS = 16  # BPF_MEMWORDS


_HINT = "write a file such as seccomp_export_bpf(3) makes"


class FilterFault(Exception):
    """A file is no filter, or not to be trusted; the message says why."""


def read(path: str, trusted: Collection[int], tree: Tree = HERE) -> bytes:
    """The program in a file of a machine. Raises FilterFault.

    `trusted`: the users it may belong to. Whoever else could write it could take the filter away.
    """
    if not path.startswith("/"):
        raise FilterFault(f"{shown(path)} is not absolute: begin it with `/`")
    try:
        # Not blocking: a FIFO without a writer would be waited for.
        fd = os.open(tree.place(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            found = os.fstat(fd)
            program = file.read(MAX_INSTRUCTIONS * INSTRUCTION + 1) if stat.S_ISREG(found.st_mode) else b""
    except OSError as error:
        raise FilterFault(f"{shown(path)} cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(found.st_mode):
        raise FilterFault(f"{shown(path)} is no plain file")
    if not tree.trusts(found, trusted):
        raise FilterFault(f"{shown(path)} could have been written by others: say `chmod o-w`, `chown root`")
    reason = fault(program)
    if reason:
        raise FilterFault(f"{shown(path)} {reason}: {_HINT}")
    return program


def fault(program: bytes) -> str:
    """Why the kernel would refuse the program; empty if it would not."""
    count, rest = divmod(len(program), INSTRUCTION)
    if not program:
        return "is empty"
    if count > MAX_INSTRUCTIONS or (count == MAX_INSTRUCTIONS and rest):
        return f"has more than {MAX_INSTRUCTIONS} instructions"
    if rest:
        return f"is no BPF program: its {len(program)} bytes are no multiple of {INSTRUCTION}"
    code: list[tuple[int, int, int, int]] = list(_LAYOUT.iter_unpack(program))
    for index, (operation, true, false, operand) in enumerate(code):
        reason = _instruction(operation, true, false, operand, count - index - 1)
        if reason:
            return f"instruction {index} {reason}"
    return _unset_memory(code) if code[-1][0] in _RETURNS else "does not end with a return"


def _instruction(operation: int, true: int, false: int, operand: int, behind: int) -> str:
    """What is wrong with one instruction that `behind` others follow."""
    if operation == _JUMP:
        return "" if operand < behind else "jumps behind the end"
    if operation in _CONDITIONS:
        return "" if max(true, false) < behind else "jumps behind the end"
    if operation == _LOAD_DATA:
        good = operand % 4 == 0 and operand < _DATA_BYTES
        return "" if good else f"loads from {operand}, which is no word of the system call's data"
    if operation in _STORES or operation in _FETCHES:
        return "" if operand < _MEMORY_WORDS else f"uses word {operand} of a memory of {_MEMORY_WORDS}"
    if operation in _SHIFTS:
        return "" if operand < 32 else f"shifts by {operand} bits"
    if operation == _DIVIDE:
        return "" if operand else "divides by zero"
    known = operation in _PLAIN or operation in _RETURNS
    return "" if known else f"has operation {operation:#x}, which a system call filter may not have"


def _unset_memory(code: list[tuple[int, int, int, int]]) -> str:
    """Which instruction reads a word of memory that not every way to it has written (all jumps lead on)."""
    every = (1 << _MEMORY_WORDS) - 1
    reached = [every] * len(code)
    written = 0
    for index, (operation, true, false, operand) in enumerate(code):
        written &= reached[index]
        if operation in _STORES:
            written |= 1 << operand
        elif operation in _FETCHES and not written >> operand & 1:
            return f"instruction {index} reads word {operand} of the memory, which may not be written yet"
        elif operation == _JUMP:
            reached[index + 1 + operand] &= written
            written = every
        elif operation in _CONDITIONS:
            reached[index + 1 + true] &= written
            reached[index + 1 + false] &= written
            written = every
    return ""
