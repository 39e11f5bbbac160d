"""The C library as ctypes sees it, and system calls it does not wrap. Boot module.

`PyDLL` keeps the interpreter lock across calls: the program has one thread, and a `clone3` child must
come back holding the lock its parent held.
"""

from __future__ import annotations

import ctypes
import errno
import os

from initspawn.linux.numbers import table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Pointer = int | bytes | ctypes.Array[Any] | None

libc = ctypes.PyDLL(None, use_errno=True)

_syscall = libc.syscall
_syscall.restype = ctypes.c_long
# Six register-wide arguments, always all of them: nothing depends on how variadic integers are passed.
_syscall.argtypes = [ctypes.c_long] + [ctypes.c_void_p] * 6


def oserror(name: str, target: str | None = None) -> OSError:
    """The OSError of the C library call that has just failed."""
    number = ctypes.get_errno()
    return OSError(number, f"{name}: {os.strerror(number)}", target)


def missing(error: BaseException) -> int:
    """The errno of an error that says that there are no descriptors or no memory left, 0 for others."""
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    number = error.errno if isinstance(error, OSError) else 0
    return number if number in (errno.EMFILE, errno.ENFILE, errno.ENOMEM) else 0


def syscall(
    name: str,
    a: Pointer = 0,
    b: Pointer = 0,
    c: Pointer = 0,
    d: Pointer = 0,
    e: Pointer = 0,
    *,
    target: str | None = None,
) -> int:
    """syscall(2). Raises OSError that names the call and `target`, a path it was about."""
    result: int = _syscall(table()[name], a, b, c, d, e, 0)
    if result < 0:
        raise oserror(name, target)
    return result


def function(name: str, *argtypes: Any) -> Any:
    """A C library function that returns int and sets errno; its argument types said once, here."""
    found = getattr(libc, name)
    found.restype = ctypes.c_int
    found.argtypes = argtypes
    return found
