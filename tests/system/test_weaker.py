"""What weaker configurations do not stop: each row of the table in docs/sandbox.md, tried for real.

`python -m tests.system.test_weaker` writes the table anew.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.system import boxes
from tests.system.conftest import root_and_a_user
from tests.system.harness import PYTHON, Person

DOCS = Path(__file__).resolve().parents[2] / "docs" / "sandbox.md"
BEGIN, END = "<!-- weaker: begin -->\n", "<!-- weaker: end -->\n"

# The same attempt as "writes where its user may": what came of it outside tells which it was.
LAYER = "writes over the machine's files, seen by itself alone"

# What is tried, as the table calls it: a Python expression that is true if it works, or raises OSError.
ATTEMPTS = {
    "sees the machine's processes": "comm(facts['victim']) == facts['comm']",
    "signals processes of the same user": "os.kill(facts['victim'], 0) is None",
    "reads their environment": "b'SECRET' in open('/proc/%d/environ' % facts['victim'], 'rb').read()",
    "reads the machine's files": "open(facts['file']).read() == 'secret'",
    "writes where its user may": "write(facts['open'] + '/written')",
    LAYER: "write(facts['open'] + '/written')",
    "writes into a directory bound `rw`": "write('/data/written')",
    "talks to the machine's TCP ports": "connect(socket.AF_INET, ('127.0.0.1', facts['port']))",
    "talks to abstract unix sockets": "connect(socket.AF_UNIX, facts['abstract'])",
    "reaches System V memory": "call('shmget', facts['shm'], 0, 0) >= 0",
    "knows the machine's name": "os.uname().nodename == facts['name']",
    "knows its cgroup's path": "cgroup() != '/'",
    "makes a user namespace": "call('unshare', 0x10000000) == 0",
    "mounts": "call('mount', b'none', b'/tmp', b'tmpfs', 0, None) == 0",
    "uses io_uring": "raw(425, 1, ctypes.create_string_buffer(120)) >= 0",
    "uses key rings": "raw(250 if INTEL else 219, 0, -3, 1) >= 0",
    "has its addresses laid out alike": "raw(135 if INTEL else 92, 0x40000) >= 0",
    "traces its children": "traced()",
    "makes calls by foreign numbers": "INTEL and apart(x32) + apart(i386) > 0",
    "becomes root by a set-user-ID program": "suid()",
}
SCRIPT = """
import ctypes, errno, json, mmap, os, signal, socket, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
facts, attempts = json.loads(sys.argv[1]), json.loads(sys.argv[2])
INTEL = os.uname().machine == "x86_64"
def comm(pid):
    with open("/proc/%d/cmdline" % pid) as file: return file.read()
def write(path):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666); os.close(fd); return True
def connect(family, address):
    with socket.socket(family) as made: made.settimeout(5); made.connect(address)
    return True
def call(name, *arguments):
    result = getattr(libc, name)(*arguments)
    if result < 0: raise OSError(ctypes.get_errno(), name)
    return result
def raw(*arguments): return call("syscall", *arguments)
def cgroup():
    with open("/proc/self/cgroup") as file:
        return next(line[3:].strip() for line in file if line.startswith("0::"))
def traced():
    pid = os.fork()
    if not pid: signal.pause()
    try: return call("ptrace", 0x4206, pid, None, None) == 0
    finally: os.kill(pid, 9); os.waitpid(pid, 0)
def apart(getpid):  # the first may end the process
    pid = os.fork()
    if not pid: os._exit(0 if getpid() > 0 else 1)
    return os.waitpid(pid, 0)[1] == 0
def x32(): return raw(0x40000000 | 39)
def i386():
    page = mmap.mmap(-1, 4096, prot=7); page.write(bytes.fromhex("b814000000cd80c3"))  # getpid of i386
    return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
def suid(): return subprocess.run([facts["suid"], "-u"], capture_output=True).stdout == b"0\\n"
# Each in a process of its own: an attempt may end it, or change what comes after.
found = []
for name, expression in attempts.items():
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        try: worked = eval(expression)
        except OSError: worked = False
        os._exit(0 if worked else 1)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status == 0: found.append(name)
print(json.dumps(found))
"""


class Row(NamedTuple):
    """One line of the table: how it is said, what differs from the full sandbox, what then works; what works
    besides when an ordinary user runs initspawn; whether it is for root only.
    """

    said: str
    keys: dict[str, Any]
    works: tuple[str, ...]
    user: tuple[str, ...] = ()
    root: bool = False


def _shares(**shared: str) -> dict[str, Any]:
    return {"namespace": {"shares": {"all": "disable", **shared}, "mounts": "VIEW"}}


BWRAP = {
    "namespace": {
        "opts": {"bwrap": "/usr/bin/bwrap", "hostname": "box"},
        "shares": {"all": "disable"},
        "mounts": "VIEW",
    }
}
FILES = ("reads the machine's files", "writes where its user may")
FILTERED = (
    "makes a user namespace", "uses io_uring", "uses key rings", "has its addresses laid out alike",
    "traces its children", "makes calls by foreign numbers",
)  # fmt: skip
SHARED = (
    "sees the machine's processes", "signals processes of the same user", "reads their environment", *FILES,
    "talks to the machine's TCP ports", "talks to abstract unix sockets", "reaches System V memory",
    "knows the machine's name", "knows its cgroup's path",
)  # fmt: skip
ROWS = (
    Row("the full sandbox with `seccomp: default`", {}, ()),
    Row("`shares.net: enable`", _shares(net="enable"),
        ("talks to the machine's TCP ports", "talks to abstract unix sockets")),
    Row("`shares.ipc: enable`", _shares(ipc="enable"), ("reaches System V memory",)),
    Row("`shares.uts: enable`", _shares(uts="enable"), ("knows the machine's name",)),
    Row("`shares.cgroups: enable`", _shares(cgroups="enable"), ("knows its cgroup's path",)),
    Row("a bound directory with mode `rw`",
        {"namespace": {"shares": {"all": "disable"}, "mounts": "VIEW AND DATA"}},
        ("writes into a directory bound `rw`",)),
    Row("a directory of the machine in mode `overlay`",
        {"namespace": {"shares": {"all": "disable"}, "mounts": "VIEW AND LAYER"}},
        ("reads the machine's files", LAYER)),
    Row("`root: {directory: /}`",
        {"namespace": {"shares": {"all": "disable"}, "root": {"directory": "/"}, "mounts": "VIEW IN ROOT"}},
        ("reads the machine's files",)),
    Row("`root: {directory: /, overlay: true}`, as root",
        {"namespace": {"shares": {"all": "disable"}, "root": {"directory": "/", "overlay": True},
                       "mounts": "VIEW IN ROOT"}},
        ("reads the machine's files", LAYER), root=True),
    Row("`namespace` without `mounts`", {"namespace": {"shares": {"all": "disable"}}}, FILES),
    Row("the same with `shares.pid: enable`",
        {"namespace": {"shares": {"all": "disable", "pid": "enable"}}},
        (*FILES, "sees the machine's processes", "signals processes of the same user")),
    Row("`caps` with SYS_ADMIN", {"caps": {"cap": "SYS_ADMIN", "mode": "set"}},
        ("makes a user namespace",), user=("mounts",)),
    Row("the same with `shares.users: enable`, as root",
        {"caps": {"cap": "SYS_ADMIN", "mode": "set"}, **_shares(users="enable")},
        ("makes a user namespace", "mounts"), root=True),
    Row("the full sandbox, built by bubblewrap (`opts.bwrap`)", BWRAP, ()),
    Row("the same with SYS_ADMIN in `caps`", {"caps": {"cap": "SYS_ADMIN", "mode": "set"}, **BWRAP},
        ("makes a user namespace",)),
    Row("`caps` with SYS_PTRACE", {"caps": {"cap": "SYS_PTRACE", "mode": "set"}}, ("traces its children",)),
    Row("`seccomp: {profile: default, default: SCMP_ACT_LOG}`",
        {"seccomp": {"profile": "default", "default": "SCMP_ACT_LOG"}},
        tuple(name for name in FILTERED if "foreign" not in name)),
    Row("`seccomp: no-network` alone", {"seccomp": "no-network"},
        tuple(name for name in FILTERED if "foreign" not in name and "io_uring" not in name)),
    Row("no `seccomp`", {"seccomp": None}, FILTERED),
    Row("no `namespace`", {"namespace": None}, SHARED),
    Row("no `namespace`, no `seccomp`", {"namespace": None, "seccomp": None}, (*SHARED, *FILTERED)),
    Row("the same with `allow_setuid: true`",
        {"namespace": None, "seccomp": None, "allow_setuid": True},
        (*SHARED, *FILTERED, "becomes root by a set-user-ID program")),
)  # fmt: skip


def table() -> str:
    """The table of docs/sandbox.md."""
    lines = ["| configuration | what a command then does |", "|---|---|"]
    for row in ROWS:
        ordered = [name for name in ATTEMPTS if name in row.works]
        ordered += [f"{name} (if an ordinary user runs initspawn)" for name in row.user]
        lines.append(f"| {row.said} | {', '.join(ordered) or 'nothing of what is listed below'} |")
    return "\n".join(lines) + "\n"


def test_the_table_is_the_one_that_is_tried() -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert text.partition(BEGIN)[2].partition(END)[0] == table(), "run python -m tests.system.test_weaker"
    for row in ROWS:
        assert {*row.works, *row.user} <= ATTEMPTS.keys()
    assert {name for row in ROWS for name in row.works} == ATTEMPTS.keys()


@pytest.fixture
def facts(who: Person) -> Iterator[dict[str, Any]]:
    """What of the machine there is to be reached: a process, files, sockets, memory, a program."""
    place = Path(tempfile.mkdtemp(prefix="initspawn-weaker-", dir="/var/tmp"))
    place.chmod(0o777)
    (place / "secret").write_text("secret")
    (place / "secret").chmod(0o644)
    program = place / "id"
    shutil.copy("/usr/bin/id", program)
    program.chmod(stat.S_ISUID | 0o755)
    identity = {"user": who.command_uid, "group": who.command_gid, "extra_groups": []}
    libc = ctypes.CDLL(None, use_errno=True)
    key = 0x1717_0000 | os.getpid() & 0xFFFF
    memory = libc.shmget(key, 4096, 0o1666)  # IPC_CREAT, for everybody
    assert memory >= 0
    abstract = f"\0initspawn-weaker-{os.getpid()}"
    victim = subprocess.Popen(
        ["/bin/sleep", "600"], env={"SECRET": "x"}, cwd="/", **(identity if os.geteuid() == 0 else {})  # type: ignore[arg-type]
    )
    try:
        with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
            unix.bind(abstract)
            unix.listen(64)
            tcp.listen(64)
            yield {
                "victim": victim.pid, "comm": "/bin/sleep\0" "600\0", "file": str(place / "secret"),
                "open": str(place), "port": tcp.getsockname()[1], "abstract": abstract, "shm": key,
                "name": os.uname().nodename, "suid": str(program),
            }  # fmt: skip
    finally:
        victim.kill()
        victim.wait()
        libc.shmctl(memory, 0, None)  # IPC_RMID
        shutil.rmtree(place)


# What this kernel may have been built or told to be without.
OPTIONAL = {
    "uses io_uring", "uses key rings", "makes calls by foreign numbers", "makes a user namespace",
    "knows its cgroup's path",  # an ordinary user's supervisor may have none of its own
}  # fmt: skip


@pytest.mark.needs("userns", "seccomp", "bwrap")
@root_and_a_user
def test_each_row_is_true(who: Person, facts: dict[str, Any]) -> None:
    more: dict[str, list[dict[str, Any]]] = {
        "VIEW AND DATA": [{"target": "/data", "source": str(who.home), "mode": "rw"}],
        "VIEW AND LAYER": [{"target": facts["open"], "mode": "overlay"}],
    }
    for number, row in enumerate(reversed(ROWS)):
        if row.root and not who.root:
            continue
        keys = dict(row.keys)
        namespace = keys.get("namespace")
        if namespace and "mounts" in namespace:
            mounts = boxes.view(*more.get(namespace["mounts"], ()))
            if namespace["mounts"] == "VIEW IN ROOT":  # the links are there
                mounts = [mount for mount in mounts if mount["mode"] != "symlink"]
            keys["namespace"] = {**namespace, "mounts": mounts}
        found = _tried(who, _sandbox(who, keys), facts)
        if number == 0:  # with nothing in the way: what the machine has at all
            had = found
            assert ATTEMPTS.keys() - had - OPTIONAL == {"mounts", LAYER, "writes into a directory bound `rw`"}
            missing = OPTIONAL - had
        wanted = {*row.works, *(() if who.root else row.user)}
        assert found == wanted - missing, row.said


def _sandbox(who: Person, keys: dict[str, Any]) -> Any:
    """The full sandbox but for these keys; those that are None are left out."""
    namespace = {
        "opts": {"hostname": "inside"}, "shares": {"all": "disable"}, "mounts": boxes.view(),
    }  # fmt: skip
    given = {"seccomp": "default", "namespace": namespace, **keys}
    if given["namespace"] and given["namespace"].get("shares", {}).get("uts") != "enable":
        given["namespace"] = {"opts": {"hostname": "inside"}, **given["namespace"]}
    return boxes.compiled(who, {key: value for key, value in given.items() if value is not None})


def _tried(who: Person, box: Any, facts: dict[str, Any]) -> set[str]:
    result = who.run(
        box, PYTHON, "-I", "-S", "-c", SCRIPT, json.dumps(facts), json.dumps(ATTEMPTS)
    )
    assert (result.step, result.status, result.err) == ("", {"exit": 0}, ""), result
    found, outside = set(json.loads(result.out)), Path(facts["open"], "written")
    found.discard(LAYER if outside.exists() else "writes where its user may")
    outside.unlink(missing_ok=True)
    return found


def write() -> None:
    """Write the table anew."""
    text = DOCS.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    DOCS.write_text(before + BEGIN + table() + END + rest.partition(END)[2], encoding="utf-8")


if __name__ == "__main__":
    write()
