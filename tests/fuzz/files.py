"""Files: of the kernel, where a command chooses a name in them, and those that somebody edits."""

from __future__ import annotations

import os
import tempfile
import zlib
from pathlib import Path
from typing import Any
from unittest import mock

from initspawn import planfile
from initspawn.config import bpf
from initspawn.config.compile import compile_raw
from initspawn.config.load_json import read_json
from initspawn.config.load_yaml import read_yaml
from initspawn.config.syntax import SyntaxFault
from initspawn.errors import ConfigError, PlanError
from initspawn.linux import cgroup
from initspawn.sandbox import measure, mounted
from tests.fuzz.target import Target

FIELDS = b"S 7 8 9 0 -1 4194560 0 0 0 0 0 0 0 0 20 5 1 0 9 8 7 18446744073709551615 1 1 0 0 0 0 0 0 17 1 0 3"
STATUS = b"Umask:\t0022\nState:\tS (sleeping)\nUid:\t1\t2\t3\t4\nCapEff:\t00000000000000ff\n"


def _names(data: bytes) -> None:
    """The name that a command gives itself (PR_SET_NAME), as the kernel prints it (fs/proc/array.c)."""
    name = data.replace(b"\0", b"")[:15]
    escaped = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n")
    with tempfile.TemporaryDirectory() as place:
        Path(place, "stat").write_bytes(b"12 (" + name + b") " + FIELDS + b"\n")
        Path(place, "status").write_bytes(b"Name:\t" + escaped + b"\n" + STATUS)
        proc = os.open(place, os.O_RDONLY)
        try:
            words, status = measure._stat(proc), measure._status(proc)
        finally:
            os.close(proc)
    assert words == FIELDS.split()
    assert (status[b"Uid"], status[b"CapEff"]) == (b"1\t2\t3\t4", b"00000000000000ff")


def _octal(text: bytes) -> bytes:
    """As the kernel writes a name into mountinfo (mangle_path)."""
    for character in b"\\", b" ", b"\t", b"\n", b"#":
        text = text.replace(character, b"\\%03o" % character[0])
    return text


def _mounts(data: bytes) -> None:
    """Mount point, kind and source, a NUL between them, chosen by whoever mounts."""
    point, kind, source = [*data.split(b"\0", 2), b"", b""][:3]
    words = b"36 35 98:0 /", _octal(b"/" + point), b"rw,nodev shared:1 -", _octal(kind), _octal(source), b"rw"
    lines = b"1 1 8:1 / / ro - ext4 /dev/sda ro\n" + b" ".join(words) + b"\n"
    found = mounted._parsed(lines)
    assert found[os.fsdecode(b"/" + point)][1:] == (frozenset(("rw", "nodev")), True)
    with mock.patch("initspawn.linux.cgroup.open", mock.mock_open(read_data=lines), create=True):
        if kind == b"cgroup2":
            assert cgroup.mount_point() == os.fsdecode(b"/" + point)
        else:
            assert cgroup.mount_point() is None
        cgroup.old_controllers()


def _plan(data: bytes) -> None:
    """A file that is no plan, or a damaged one. Its checksum is no secret, but then it has to be ours."""
    head = planfile.MAGIC + planfile.fingerprint() + b"\n"
    for raw in (data, planfile.MAGIC + data, head + data):
        if zlib.crc32(raw[len(head) + 4 :]).to_bytes(4, "little") != raw[len(head) :][:4]:
            with mock.patch.object(planfile, "_bytes", lambda _, raw=raw: raw):
                try:
                    planfile.load("plan")
                except PlanError:
                    continue
                raise AssertionError("it was believed")


def _configuration(data: bytes) -> None:
    """JSON and YAML; what is read is compiled, or refused with its place."""
    text = data.decode("utf-8", "replace")
    for reader in (read_json, read_yaml):
        told: Any = None
        try:
            found: Any = reader(text)[0]
            if isinstance(found, dict):
                compile_raw(found, file="f", user=1000, group=1000, environ={"HOME": "/"})
        except SyntaxFault as fault:
            told = [fault]
        except ConfigError as error:
            told = error.problems
        assert told is None or (told and all(problem.message for problem in told))


def _filter(data: bytes) -> None:
    assert isinstance(bpf.fault(data), str)


TARGETS = (
    Target("names", ("sandbox.measure",), _names),
    Target("mounts", ("sandbox.mounted", "linux.cgroup"), _mounts),
    Target("plan", ("planfile",), _plan),
    Target("configuration", ("config.load_json", "config.load_yaml", "config.compile"), _configuration),
    Target("filter", ("config.bpf",), _filter),
)
