"""Whether a program can be started: it, its script interpreter and its dynamic loader are there."""

from __future__ import annotations

import os
import struct

from initspawn.config.inside import Unsettled, View
from initspawn.config.spot import Spot, shown

_HEAD = 256  # bytes of a script that the kernel looks at (BINPRM_BUF_SIZE)
_MAX_CHAIN = 5  # scripts whose interpreter is a script, and so on; the kernel's limit
_PT_INTERP = 3


def check_program(path: str, view: View, spot: Spot) -> None:
    """Note at `spot` why a program cannot start inside; says nothing if it can, or if nobody knows yet."""
    try:
        _check(path, view, spot)
    except Unsettled:
        pass  # the launch will say


def _check(path: str, view: View, spot: Spot) -> None:
    wanted, what = path, "it"
    for _ in range(_MAX_CHAIN):
        host = view.host_path(wanted)
        if host is None:
            _refuse_missing(path, wanted, view, spot)
            return
        place = view.tree.place(host)
        if not os.path.isfile(place):
            spot.refuse(f"{shown(wanted)} is no file")
            return
        if not view.tree.is_executable(host):
            spot.refuse(f"{shown(wanted)} is not executable", f"{what} needs mode 755, and no noexec mount")
            return
        head = _head(place)
        interpreter = _interpreter(place, head)
        first, end, _ = head.partition(b"\n")
        if end and first.startswith(b"#!") and first.endswith(b"\r"):
            spot.refuse(
                f"the first line of {shown(wanted)} ends with CR LF, and the CR counts as part of it",
                "save the script with LF line ends",
            )
            return
        if interpreter is None:
            return
        wanted, what = interpreter, "the interpreter"
    spot.refuse(f"{shown(path)} is a script of scripts of scripts, too many for the kernel")


def _refuse_missing(path: str, wanted: str, view: View, spot: Spot) -> None:
    needed = "" if path == wanted else f", which {shown(path)} needs to run,"
    if not view.new_root:
        hint = "what follows the program goes into `args`" if " " in path and path == wanted else ""
        spot.refuse(f"{shown(wanted)}{needed} does not exist", hint)
    else:
        spot.refuse(
            f"{shown(wanted)}{needed} is not there inside the sandbox", f"mounted are: {view.targets()}"
        )


def _head(place: str) -> bytes:
    """How a program begins; nothing of one that cannot be read."""
    try:
        with open(place, "rb") as file:
            return file.read(_HEAD)
    except OSError:
        return b""


def _interpreter(place: str, head: bytes) -> str | None:
    """The absolute path of the program that the kernel starts for this one, None if there is none."""
    if head.startswith(b"#!"):
        words = head[2:].split(b"\n", 1)[0].replace(b"\t", b" ").split(b" ")
        words = [word for word in words if word]  # CR is no white space to the kernel
        return os.fsdecode(words[0]) if words and words[0].startswith(b"/") else None
    if not head.startswith(b"\x7fELF"):
        return None
    try:
        with open(place, "rb") as file:
            return _loader(head, file.fileno())
    except (OSError, struct.error, OverflowError):
        return None  # no program we know: the kernel will say


def _loader(head: bytes, fd: int) -> str | None:
    """The dynamic loader that an ELF file names (elf(5)). Raises struct.error for a short file."""
    wide, order = head[4:5] == b"\2", "<" if head[5:6] == b"\1" else ">"
    table, size, count = (
        struct.unpack_from(order + "Q14xHH", head, 32)
        if wide
        else struct.unpack_from(order + "I10xHH", head, 28)
    )
    for index in range(count):
        entry = os.pread(fd, size, table + index * size)
        if struct.unpack_from(order + "I", entry)[0] != _PT_INTERP:
            continue
        at, length = (
            (struct.unpack_from(order + "Q", entry, 8)[0], struct.unpack_from(order + "Q", entry, 32)[0])
            if wide
            else (struct.unpack_from(order + "I", entry, 4)[0], struct.unpack_from(order + "I", entry, 16)[0])
        )
        return os.fsdecode(os.pread(fd, min(length, 4096), at).rstrip(b"\0"))
    return None
