"""Ready filters: what the kernel would refuse is refused when the file is read."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pyseccomp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from initspawn.config.bpf import fault
from initspawn.plan import Api
from tests.support.bpf import kernel
from tests.unit.config.test_seccomp import run

Build = Callable[..., Api]
Problems = Callable[..., list[str]]
Opinion = Callable[[bytes], bool]
not_emulated = pytest.mark.not_emulated("seccomp(2): the emulator has no filters")

RETURN = (0x06, 0, 0, 0x7FFF0000)
LOAD = (0x20, 0, 0, 0)


def code(*instructions: tuple[int, int, int, int]) -> bytes:
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)


ALLOW_ALL = code(LOAD, RETURN)


@pytest.fixture(scope="module")
def kernel_takes() -> Iterator[Opinion]:
    with kernel() as takes:
        yield takes


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "s.bpf"
    path.write_bytes(ALLOW_ALL)
    return path


def test_a_ready_filter_is_kept_as_it_is(build: Build, file: Path) -> None:
    keys = {"rulespath": f"{file.parent}/$SANDBOX_UID.bpf", "foreign": "allow"}
    assert build({"seccomp": keys}).sandboxes[0].filters == (ALLOW_ALL,)
    for more in ({}, {"locked": True}):
        first, own = build({"seccomp": {**keys, "foreign": "refuse", **more}}).sandboxes[0].filters
        assert own == ALLOW_ALL
        read = int(pyseccomp.resolve_syscall(pyseccomp.system_arch(), "read"))
        assert run(first, read) == 0x7FFF0000
        assert run(first, read, arch=0x40000003) == 0x80000000  # i386: the process is ended


def test_what_libseccomp_writes_is_read(build: Build, file: Path) -> None:
    program = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    for name in ("mkdir", "ptrace", "kexec_load"):
        program.add_rule(pyseccomp.ERRNO(errno.EACCES), name, pyseccomp.Arg(1, pyseccomp.GT, 1 << 40))
    with file.open("wb") as out:
        program.export_bpf(out)
    assert build({"seccomp": {"rulespath": str(file)}}).sandboxes[0].filters[1:] == (file.read_bytes(),)


BAD = {
    "is empty": b"",
    "no multiple of 8": ALLOW_ALL[:-1],
    "more than 4096 instructions": code(*[RETURN] * 4097),
    "does not end with a return": code(RETURN, LOAD),
    "instruction 0 jumps behind the end": code((0x05, 0, 0, 1), RETURN),
    "instruction 1 jumps behind the end": code(LOAD, (0x15, 0, 1, 0), RETURN),
    "instruction 1 jumps": code(LOAD, (0x15, 255, 0, 0), RETURN),
    "instruction 0 jumps": code((0x05, 0, 0, 0xFFFFFFFF), RETURN),
    "loads from 2": code((0x20, 0, 0, 2), RETURN),
    "loads from 64": code((0x20, 0, 0, 64), RETURN),
    "operation 0x28": code((0x28, 0, 0, 0), RETURN),
    "operation 0xff": code((0xFF, 0, 0, 0), RETURN),
    "word 16 of a memory": code((0x02, 0, 0, 16), RETURN),
    "reads word 1 of the memory": code((0x02, 0, 0, 0), (0x60, 0, 0, 1), RETURN),
    "instruction 3 reads word 0": code(LOAD, (0x15, 1, 0, 0), (0x02, 0, 0, 0), (0x60, 0, 0, 0), RETURN),
    "divides by zero": code((0x34, 0, 0, 0), RETURN),
    "shifts by 32": code((0x64, 0, 0, 32), RETURN),
}


@pytest.mark.parametrize("said", BAD)
def test_bad_programs(problems: Problems, file: Path, said: str) -> None:
    file.write_bytes(BAD[said])
    (problem,) = problems({"seccomp": {"rulespath": str(file)}})
    assert said in problem
    assert "test: sandboxes.seccomp.rulespath: " in problem


@not_emulated
@pytest.mark.parametrize(
    "program",
    [
        ALLOW_ALL,
        code(*[RETURN] * 4096),
        code((0x05, 0, 0, 1), LOAD, RETURN),
        code(LOAD, (0x15, 1, 0, 0), RETURN, RETURN),
        code((0x02, 0, 0, 15), (0x60, 0, 0, 15), (0x16, 0, 0, 0)),
        code((0x02, 0, 0, 3), (0x05, 0, 0, 0), (0x61, 0, 0, 3), RETURN),
        code((0x80, 0, 0, 0), (0x07, 0, 0, 0), (0xAC, 0, 0, 0), RETURN),
    ],
)
def test_good_programs(kernel_takes: Opinion, program: bytes) -> None:
    assert fault(program) == ""
    assert kernel_takes(program)


@not_emulated
def test_the_kernel_refuses_the_bad_ones_too(kernel_takes: Opinion) -> None:
    whole = {said: program for said, program in BAD.items() if len(program) % 8 == 0}
    assert [said for said, program in whole.items() if kernel_takes(program)] == []


OPERATIONS = st.sampled_from(
    [0x20, 0x05, 0x06, 0x16, 0x15, 0x1D, 0x25, 0x45, 0x60, 0x61, 0x02, 0x03, 0x64, 0x34, 0x00, 0x01, 0x80,
     0x81, 0x07, 0x87, 0x04, 0x3C, 0x6C, 0x84, 0x94, 0xA4, 0xAC, 0x28, 0x30, 0x40, 0xB1]
)  # fmt: skip
SMALL = st.integers(0, 3)
INSTRUCTIONS = st.tuples(OPERATIONS, SMALL, SMALL, st.integers(0, 17) | st.sampled_from([28, 31, 32, 60, 64]))


@not_emulated
@given(st.lists(INSTRUCTIONS, min_size=1, max_size=8).map(lambda rest: code(*rest, RETURN)))
def test_the_kernel_is_of_the_same_opinion(kernel_takes: Opinion, program: bytes) -> None:
    assert (fault(program) == "") == kernel_takes(program)


def test_files_that_are_not_to_be_trusted(problems: Problems, file: Path) -> None:
    keys = {"seccomp": {"rulespath": str(file)}}
    file.chmod(0o666)
    (said,) = problems(keys)
    assert "could have been written by others" in said
    file.chmod(0o644)
    with pytest.MonkeyPatch.context() as patch:
        real = os.fstat
        patch.setattr(os, "fstat", lambda fd: os.stat_result([*real(fd)[:4], 4000111, *real(fd)[5:10]]))
        (said,) = problems(keys)
    assert "could have been written by others" in said


@pytest.mark.parametrize(
    ("seccomp", "said"),
    [
        ({"rulespath": "s.bpf"}, "is not absolute"),
        ({"rulespath": "/nonexistent.bpf"}, "cannot be read: No such file"),
        ({"rulespath": "/dev/null"}, "is no plain file"),
        ({"rulespath": "/dev"}, "cannot be read: Is a directory"),
        ({"rulespath": "$NOWHERE"}, "`$NOWHERE` is neither"),
        ({"rulespath": ""}, "may not be empty"),
    ],
)
def test_paths_refused(problems: Problems, seccomp: dict[str, str], said: str) -> None:
    (problem,) = problems({"seccomp": seccomp})
    assert said in problem


@pytest.mark.parametrize("key", [{"default": "allow"}, {"rules": []}, {"profile": "default"}])
def test_a_ready_filter_is_a_whole_one(problems: Problems, file: Path, key: dict[str, object]) -> None:
    (said,) = problems({"seccomp": {"rulespath": str(file), **key}})
    assert "does not go together with `rulespath`" in said
