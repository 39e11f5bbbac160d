"""The named seccomp profiles with the real kernel: ordinary programs run, and what is refused fails."""

from __future__ import annotations

import json
import os

import pytest

from tests.system import boxes
from tests.system.conftest import root_and_a_user
from tests.system.harness import PYTHON, Person

pytestmark = pytest.mark.needs("userns", "seccomp")

# Whatever ordinary programs do: files, threads, processes, sockets, time, terminals.
ORDINARY = """
import asyncio, multiprocessing, os, pty, signal, socket, subprocess, tempfile, threading, time
with tempfile.TemporaryDirectory() as place:
    path = os.path.join(place, "file")
    with open(path, "w") as file: file.write("text"); os.fsync(file.fileno())
    os.chmod(path, 0o600); os.utime(path); os.rename(path, path + "2"); os.symlink("x", path)
    assert os.listdir(place)
thread = threading.Thread(target=time.sleep, args=(0.001,)); thread.start(); thread.join()
assert subprocess.run(["/bin/sh", "-c", "echo $((1+1)) | cat"], capture_output=True).stdout == b"2\\n"
process = multiprocessing.get_context("fork").Process(target=print); process.start(); process.join()
assert process.exitcode == 0
a, b = socket.socketpair(); a.send(b"x"); assert b.recv(1) == b"x"
server = socket.create_server(("127.0.0.1", 0)); client = socket.create_connection(server.getsockname())
assert asyncio.run(asyncio.sleep(0, "slept")) == "slept"
master, slave = pty.openpty(); os.ttyname(slave)
signal.setitimer(signal.ITIMER_REAL, 0)
fd = os.memfd_create("x"); os.posix_fallocate(fd, 0, 4096); os.sched_getaffinity(0); os.getrandom(8)
print("all done")
"""


@pytest.mark.guest_too
@root_and_a_user
def test_ordinary_programs_run_under_the_default_profile(who: Person) -> None:
    found = who.run(boxes.profiled(who), PYTHON, "-I", "-S", "-c", ORDINARY)
    assert (found.status, found.err, found.out.strip()) == ({"exit": 0}, "", "all done")
    for argv in (
        ("/bin/ls", "-lR", "/dev"),
        ("/bin/sh", "-c", "date; id; ps >/dev/null || :; sort /dev/null"),
    ):
        found = who.run(boxes.profiled(who), *argv)
        assert (found.status, found.err) == ({"exit": 0}, "")


INTERPRETERS = {
    "bash": ("/bin/bash", "-c", "echo $(echo done | tr a-z a-z)"),
    "node": ("/usr/bin/node", "-e", "setTimeout(() => console.log('done'), 1)"),
    "lua": ("/usr/bin/lua5.4", "-e", "print('done')"),
    "tcl": ("/usr/bin/tclsh",),
}


@pytest.mark.parametrize(
    "interpreter", [pytest.param(name, marks=pytest.mark.needs(name)) for name in INTERPRETERS]
)
@root_and_a_user
def test_interpreters_run_under_the_default_profile(who: Person, interpreter: str) -> None:
    found = who.run(boxes.profiled(who), *INTERPRETERS[interpreter])
    assert (found.status, found.out) == ({"exit": 0}, "" if interpreter == "tcl" else "done"), found.err


TRIES = """
import ctypes, errno, json, os, socket, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
def attempt(function):
    try: return str(function())
    except OSError as error: return errno.errorcode[error.errno]
    except RuntimeError as error: return str(error)
def thread():
    made = threading.Thread(target=lambda: None); made.start(); made.join()
    return "thread"
def fork():
    pid = os.fork()
    if pid == 0: os._exit(0)
    os.waitpid(pid, 0)
    return "forked"
def sock(family):
    def make():
        socket.socket(family, socket.SOCK_DGRAM if family != 40 else socket.SOCK_STREAM).close()
        return "socket"
    return make
def spawned():
    os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
    return "spawned"
def raw(number, *arguments):
    def call():
        result = libc.syscall(number, *arguments)
        if result < 0: raise OSError(ctypes.get_errno(), "")
        return "made"
    return call
x = os.uname().machine == "x86_64"
print(json.dumps({
    "fork": attempt(fork), "thread": attempt(thread), "spawn": attempt(spawned), "unix": attempt(sock(1)),
    "inet": attempt(sock(2)), "inet6": attempt(sock(10)), "netlink": attempt(sock(16)),
    "alg": attempt(sock(38)), "unshare": attempt(raw(272 if x else 97, 0x10000000)),
    "clone3": attempt(raw(435, None, 0)), "io_uring": attempt(raw(425, 1, None)),
    "keyctl": attempt(raw(250 if x else 219, 0, -3, 0)),
    "newer": attempt(raw(480)), "personality": attempt(raw(135 if x else 92, 0x40000)),
}))
"""
ANSWERS = {
    "default": {
        "fork": "forked", "spawn": "spawned", "thread": "thread", "unix": "socket", "inet": "socket",
        "alg": "EPERM", "clone3": "ENOSYS", "io_uring": "EPERM", "keyctl": "EPERM", "unshare": "EPERM",
        "newer": "ENOSYS", "personality": "EPERM",
    },
    "no-new-process": {
        "fork": "EPERM", "spawn": "EPERM", "thread": "thread", "unix": "socket", "inet": "socket",
        "clone3": "ENOSYS",
    },
    "no-network": {
        "fork": "forked", "spawn": "spawned", "thread": "thread", "unix": "socket", "inet": "EAFNOSUPPORT",
        "inet6": "EAFNOSUPPORT", "netlink": "EAFNOSUPPORT", "alg": "EAFNOSUPPORT", "io_uring": "ENOSYS",
    },
}  # fmt: skip


@pytest.mark.guest_too
@pytest.mark.parametrize("profile", ANSWERS)
@root_and_a_user
def test_what_each_profile_refuses(who: Person, profile: str) -> None:
    found = who.run(boxes.profiled(who, profile), PYTHON, "-I", "-S", "-c", TRIES)
    assert (found.status, found.err) == ({"exit": 0}, "")
    said = json.loads(found.out)
    assert {key: said[key] for key in ANSWERS[profile]} == ANSWERS[profile]
    assert tuple(found.measurement["seccomp"]) == (2, 1)


@root_and_a_user
def test_a_capability_brings_its_calls(who: Person) -> None:
    box = boxes.profiled(who, caps=[{"cap": "SYS_ADMIN", "mode": "set"}])
    said = json.loads(who.run(box, PYTHON, "-I", "-S", "-c", TRIES).out)
    assert said["unshare"] == "made"
    assert said["keyctl"] == "EPERM"


# 32-bit code in a 64-bit process: `int $0x80` makes the i386 call of that number.
FOREIGN = """
import ctypes, mmap
code = bytes.fromhex("b814000000" "cd80" "c3")  # getpid of i386
page = mmap.mmap(-1, 4096, prot=7); page.write(code)
call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
print(call() > 0)
"""
X32 = "import ctypes; print(ctypes.CDLL(None).syscall(0x40000000 | 39) > 0)"


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the foreign calls here are those of x86-64")
@pytest.mark.parametrize("script", [FOREIGN, X32], ids=["i386", "x32"])
@root_and_a_user
def test_foreign_calls_end_the_process_under_every_filter(who: Person, script: str) -> None:
    argv = (PYTHON, "-I", "-S", "-c", script)
    # A kernel built without i386 has no such way in; then nothing is shown here.
    assert who.run(boxes.full(who, filters=()), *argv).status in (
        {"exit": 0},
        {"signal": "Segmentation fault"},
    )
    for filters in ("default", "no-network", "no-new-process", {"default": "allow"}):
        assert who.run(boxes.profiled(who, filters), *argv).status == {"signal": "Bad system call"}


@root_and_a_user
def test_actions_as_the_kernel_carries_them_out(who: Person) -> None:
    """With no tracer a call of SCMP_ACT_TRACE is not there; killing a thread spares the others."""
    script = "import os, sys; os.mkdir(sys.argv[1])"
    ends = {
        "errno(ENOSPC)": ("No space left on device", {"exit": 1}),
        "trace(7)": ("Function not implemented", {"exit": 1}),
        "trap": ("", {"signal": "Bad system call"}),
        "kill_process": ("", {"signal": "Bad system call"}),
        "kill_thread": ("", {"signal": "Bad system call"}),
        "log": ("", {"exit": 0}),
    }
    for action, (said, status) in ends.items():
        rules = {"syscall": ["mkdir", "mkdirat"], "action": action}
        for seccomp in ({"profile": "default", "rules": rules}, {"default": "allow", "rules": rules}):
            found = who.run(boxes.profiled(who, seccomp), PYTHON, "-I", "-S", "-c", script, "/tmp/made")
            assert (found.status, said in found.err) == (status, True), (action, found)
