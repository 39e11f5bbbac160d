"""The kernel's own opinion of a seccomp filter."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# For each program: a child that loads it and ends. Only a refusal ends it with 1; what the filter does to
# the child afterwards, whatever that is, shows that it was loaded.
_HELPER = """
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]
while size := sys.stdin.buffer.read(4):
    code = sys.stdin.buffer.read(struct.unpack("=I", size)[0])
    program = Program(len(code) // 8, code)
    pid = os.fork()
    if not pid:
        libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
        os._exit(1 if libc.prctl(22, 2, ctypes.byref(program), 0, 0) else 0)  # PR_SET_SECCOMP
    _, status = os.waitpid(pid, 0)
    sys.stdout.buffer.write(b"n" if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 1 else b"y")
    sys.stdout.buffer.flush()
"""


@contextmanager
def kernel() -> Iterator[Callable[[bytes], bool]]:
    """A function that says whether the kernel takes a program of whole instructions."""
    with subprocess.Popen(
        [sys.executable, "-I", "-c", _HELPER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as helper:
        assert helper.stdin is not None  # both are pipes
        assert helper.stdout is not None
        asked, answers = helper.stdin, helper.stdout

        def takes(program: bytes) -> bool:
            asked.write(len(program).to_bytes(4, sys.byteorder) + program)
            answer = answers.read(1)
            assert answer in (b"y", b"n")
            return answer == b"y"

        yield takes
        asked.close()
