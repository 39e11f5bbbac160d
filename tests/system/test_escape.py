"""What a command tries in order to get out, or at something that is not its own."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from initspawn.linux.capabilities import NUMBERS, last_cap
from initspawn.linux.libc import syscall
from initspawn.plan import NAMESPACES, Mount, Sandbox
from initspawn.sandbox.mounts import Builder
from tests.support.pace import IN_GUEST
from tests.system import boxes
from tests.system.conftest import everybody, root
from tests.system.harness import MS_BIND, MS_SHARED, PYTHON, Person, Result, alive, bench, own_mounts

pytestmark = pytest.mark.needs("userns")

# Each attempt is told as the name of its error, or what it got.
ATTEMPTS = """
import ctypes, errno, json, os, signal, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
found = {}
def attempt(name, function):
    try: result = function()
    except OSError as error: result = errno.errorcode[error.errno]
    else: result = repr(result)[:60]
    found[name] = result
def call(name, *arguments):
    result = getattr(libc, name)(*arguments)
    if result < 0: raise OSError(ctypes.get_errno(), name)
    return result
def read(path):
    with open(path, "rb") as file: return file.read(1)
def write(path, text=b"0"):
    fd = os.open(path, os.O_WRONLY)
    try: return os.write(fd, text)
    finally: os.close(fd)

for name in ("environ", "maps", "mem", "auxv", "stack", "syscall", "io", "pagemap"):
    attempt("read /proc/1/" + name, lambda: read("/proc/1/" + name))
for name in ("exe", "root", "cwd", "ns/mnt", "ns/pid"):
    attempt("open /proc/1/" + name, lambda: os.open("/proc/1/" + name, os.O_RDONLY))
for name in ("fd", "map_files"):
    attempt("list /proc/1/" + name, lambda: os.listdir("/proc/1/" + name))
attempt("write /proc/1/mem", lambda: write("/proc/1/mem"))
attempt("write /proc/1/oom_score_adj", lambda: write("/proc/1/oom_score_adj", b"1000"))
attempt("seize 1", lambda: call("ptrace", 0x4206, 1, None, None))
attempt("attach 1", lambda: call("ptrace", 16, 1, None, None))
buffer = ctypes.create_string_buffer(8)
vector = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 8)
attempt("vm_readv 1", lambda: call("process_vm_readv", 1, vector, 1, vector, 1, 0))
attempt("limits of 1", lambda: call("prlimit", 1, 7, (ctypes.c_ulong * 2)(1, 1), None))

SYSCTL = "kernel/hostname kernel/core_pattern kernel/printk vm/overcommit_memory fs/suid_dumpable"
for name in SYSCTL.split():
    attempt("write /proc/sys/" + name, lambda: write("/proc/sys/" + name))
for name in ("sysrq-trigger", "irq/default_smp_affinity", "bus/pci/00/00.0", "kcore", "kmsg"):
    attempt("write /proc/" + name, lambda: write("/proc/" + name))

attempt("mount", lambda: call("mount", b"x", b"/tmp", b"tmpfs", 0, None))
attempt("remount /usr", lambda: call("mount", b"none", b"/usr", None, 0x20 | 0x1000, None))
attempt("unmount /etc/passwd", lambda: call("umount2", b"/etc/passwd", 2))
attempt("unmount /proc", lambda: call("umount2", b"/proc", 2))
attempt("unmount the root", lambda: call("umount2", b"/", 2))  # the old one would lie below it
intel = os.uname().machine == "x86_64"
attempt("pivot_root", lambda: call("syscall", 155 if intel else 41, b"/tmp", b"/tmp"))
attempt("copy a tree of mounts", lambda: call("syscall", 428, -100, b"/usr", 1))  # open_tree(2)
attempt("a new file system", lambda: call("syscall", 430, b"tmpfs", 0))  # fsopen(2)
writable = bytes(8) + b"\\1" + bytes(23)  # struct mount_attr: takes MOUNT_ATTR_RDONLY away
attempt("writable mounts", lambda: call("syscall", 442, -100, b"/usr", 0, writable, 32))
attempt("chroot", lambda: call("chroot", b"/tmp"))
for name, flag in (("mnt", 0x20000), ("pid", 0x20000000), ("net", 0x40000000), ("uts", 0x4000000)):
    attempt("unshare " + name, lambda: call("unshare", flag))
for name in ("mnt", "pid", "net", "user"):
    attempt("setns " + name, lambda: call("setns", os.open("/proc/self/ns/" + name, os.O_RDONLY), 0))
attempt("mknod", lambda: os.mknod("/data/node", 0o20666, os.makedev(1, 5)))
attempt("mknod block", lambda: os.mknod("/tmp/node", 0o60666, os.makedev(8, 0)))
attempt("setuid 0", lambda: os.setuid(0))
attempt("setgroups", lambda: os.setgroups([0]))
attempt("sethostname", lambda: socket.sethostname("other"))
attempt("reboot", lambda: call("reboot", 0))
attempt("settime", lambda: call("settimeofday", (ctypes.c_long * 2)(1, 1), None))
attempt("module", lambda: call("syscall", 175 if intel else 105, buffer, 8, b""))
attempt("write /usr", lambda: os.mkdir("/usr/new"))
attempt("write /etc/passwd", lambda: write("/etc/passwd"))
attempt("device", lambda: read("/data/device"))
attempt("above the root", lambda: os.path.samefile("/..", "/"))
attempt("write /proc/self/exe", lambda: write("/proc/self/exe"))
attempt("write /sys/fs/cgroup", lambda: write("/sys/fs/cgroup/cgroup.procs"))
attempt("mount cgroup2", lambda: call("mount", b"none", b"/tmp", b"cgroup2", 0, None))
attempt("mount cgroup", lambda: call("mount", b"none", b"/tmp", b"cgroup", 0, b"memory"))
for name in ("tty", "console", "mem", "kmsg", "sda", "vda", "kvm"):
    attempt("open /dev/" + name, lambda: os.open("/dev/" + name, os.O_RDWR))
for fd in (0, 1, 2):
    attempt("TIOCSTI to %d" % fd, lambda: call("ioctl", fd, 0x5412, b"x"))
    attempt("TIOCLINUX to %d" % fd, lambda: call("ioctl", fd, 0x541C, b"\\x02"))
attempt("TIOCSTI to a terminal that is not ours", lambda: call("ioctl", os.openpty()[1], 0x5412, b"x"))
attempt("attach to the supervisor", lambda: call("ptrace", 16, int(sys.argv[1]), None, None))
attempt("pidfd of the supervisor", lambda: call("syscall", 434, int(sys.argv[1]), 0))
attempt("limits of the supervisor", lambda: call("prlimit", int(sys.argv[1]), 7, None, bytes(16)))
attempt("signal the supervisor", lambda: os.kill(int(sys.argv[1]), 0))
attempt("kexec", lambda: call("syscall", 246 if intel else 104, 0, 0, None, 0))
handle = b"\\x08\\0\\0\\0\\x01" + bytes(11)
attempt("handles", lambda: call("open_by_handle_at", os.open("/usr", os.O_RDONLY), handle, 0))
attempt("kill 1", lambda: os.kill(1, signal.SIGKILL))
attempt("after all", lambda: os.getpid())
print(json.dumps(found))
"""
# Not allowed either: no process may enter the user namespace it is in, nor become what has no number.
OK = {"setns user": "EINVAL", "setuid 0": "EINVAL", "above the root": "True", "after all": "2"}
ABSENT = ("ENOENT", "ENOSYS")  # this kernel was built without it

# Attempts at what belongs to the machine or the supervisor: nobody may succeed, whatever it holds inside.
NEVER = (
    "read /proc/1/environ", "read /proc/1/maps", "read /proc/1/mem", "read /proc/1/auxv", "open /proc/1/exe",
    "open /proc/1/root", "open /proc/1/cwd", "write /proc/1/mem", "seize 1", "attach 1",
    "vm_readv 1", "write /proc/sys/kernel/core_pattern", "write /proc/sys/kernel/printk",
    "write /proc/sys/vm/overcommit_memory", "write /proc/sys/fs/suid_dumpable", "write /proc/sysrq-trigger",
    "write /proc/irq/default_smp_affinity", "write /proc/bus/pci/00/00.0", "write /proc/kcore",
    "write /proc/kmsg", "open /proc/1/ns/mnt", "open /proc/1/ns/pid", "mknod", "mknod block", "settime",
    "module", "device", "open /dev/mem", "open /dev/kmsg", "open /dev/kvm", "write /sys/fs/cgroup", "kexec",
    "attach to the supervisor", "pidfd of the supervisor", "limits of the supervisor",
    "signal the supervisor", "handles", "TIOCSTI to 0", "TIOCSTI to 1",
    "TIOCSTI to 2", "TIOCLINUX to 0", "write /proc/self/exe",
)  # fmt: skip
EVERY = (1 << last_cap() + 1) - 1


def denied(answer: str) -> bool:
    # ENOTTY: it has no terminal; ESRCH: there is nobody of that number; ETXTBSY: the program runs.
    return answer in ("EACCES", "EPERM", "EROFS", "ENXIO", "ENOTTY", "ESRCH", "ETXTBSY", *ABSENT)


@pytest.fixture
def device(who: Person) -> None:
    """A device that somebody else made in the bound directory."""
    if who.root:
        os.mknod(who.home / "device", stat.S_IFCHR | 0o666, os.makedev(1, 5))
        os.chmod(who.home / "device", 0o666)
    elif os.geteuid() == 0:
        os.mknod(who.home / "device", stat.S_IFCHR | 0o666, os.makedev(1, 5))


def attempts(who: Person, box: Sandbox) -> dict[str, str]:
    result = who.run(box, PYTHON, "-I", "-S", "-c", ATTEMPTS, str(os.getpid()))
    assert (result.step, result.status, result.err) == ("", {"exit": 0}, ""), result
    found: dict[str, str] = json.loads(result.out)
    return found


def full(who: Person, filtered: str) -> Sandbox:
    """The full sandbox, without a filter or with the profile `default`."""
    return boxes.full(who, filters=boxes.profiled(who).filters if filtered == "default" else ())


either = pytest.mark.parametrize("filtered", ["no filter", "default"])


@pytest.mark.guest_too
@either
@everybody
def test_every_attempt_is_denied(who: Person, device: None, filtered: str) -> None:
    found = attempts(who, full(who, filtered))
    allowed = {name: answer for name, answer in found.items() if not denied(answer)}
    # For one of the same user these are no errors: the signal does not reach PID 1, and its limits are
    # nobody else's.
    for name in () if who.root else ("kill 1", "limits of 1"):
        assert allowed.pop(name) in ("None", "0")
    assert allowed == {name: answer for name, answer in OK.items() if not denied(found[name])}
    assert set(NEVER) <= set(found)


@either
@everybody
def test_a_user_0_of_its_own_gains_nothing_outside(who: Person, device: None, filtered: str) -> None:
    """All capabilities, over a user namespace that owns nothing of the machine."""
    caps = [{"cap": "ALL", "mode": "set"}]
    filters = boxes.profiled(who, caps=caps).filters if filtered == "default" else ()
    box = boxes.full(who, filters=filters, capabilities=EVERY, id_map=boxes.id_map(who, 0))
    found = attempts(who, box)
    assert {name: found[name] for name in NEVER if not denied(found[name])} == {}
    assert found["after all"] == "2"
    if who.root:  # its file tree belongs to the supervisor's users, not to those inside
        for name in ("mount", "remount /usr", "unmount /etc/passwd", "unmount /proc", "pivot_root"):
            assert denied(found[name]), name
        assert denied(found["write /usr"])


@root
def test_the_machines_user_0_without_capabilities_changes_nothing_of_it(who: Person, device: None) -> None:
    box = boxes.full(
        who, filters=(), user=0, group=0, id_map=None,
        namespaces=tuple(name for name in NAMESPACES if name != "user"),
    )  # fmt: skip
    found = attempts(who, box)
    assert {name: found[name] for name in NEVER if not denied(found[name])} == {}
    for name in ("mount", "remount /usr", "unmount /proc", "chroot", "unshare mnt", "write /usr"):
        assert denied(found[name]), name


NESTED = """
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    result = getattr(libc, name)(*arguments)
    print(name, errno.errorcode[ctypes.get_errno()] if result < 0 else "done")
call("unshare", 0x10000000 | 0x20000)
call("umount2", b"/etc/passwd", 2)
call("umount2", b"/proc", 2)
call("mount", b"none", b"/usr", None, 0x20 | 0x1000, None)
try: os.mkdir("/usr/new")
except OSError as error: print(errno.errorcode[error.errno])
"""


ARGUMENTS = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
reader, writer = os.pipe()
pid = os.fork()
if not pid:
    os.dup2(writer, 1)
    environment = (ctypes.c_char_p * 1)()
    libc.execve(sys.argv[1].encode(), None, environment)  # argv is NULL
    os._exit(9)
os.close(writer)
print(os.read(reader, 100), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.root
@either
@everybody
def test_a_setuid_program_gives_nothing_with_and_without_arguments(who: Person, filtered: str) -> None:
    program = who.home / "id"
    program.write_bytes(Path("/usr/bin/id").read_bytes())
    os.chown(program, 0, 0)
    program.chmod(0o6755)
    box = full(who, filtered)
    assert who.run(box, "/data/id", "-u").out == str(who.command_uid)
    assert who.run(box, "/data/id", "-g").out == str(who.command_gid)
    found = who.run(box, PYTHON, "-I", "-S", "-c", ARGUMENTS, "/data/id")
    assert found.status == {"exit": 0}
    assert f"uid={who.command_uid}" in found.out
    assert "euid" not in found.out


@pytest.mark.guest_too
@everybody
def test_namespaces_made_inside_undo_nothing(who: Person) -> None:
    """A kernel that lets everybody make user namespaces lets a command make one: its mounts stay locked."""
    said = who.run(boxes.full(who, filters=()), PYTHON, "-I", "-S", "-c", NESTED).out.splitlines()
    if said[0] == "unshare done":
        assert said[1:] == ["umount2 EINVAL", "umount2 EINVAL", "mount EPERM", "EROFS"]
    else:
        assert said[1:] == ["umount2 EPERM", "umount2 EPERM", "mount EPERM", "EROFS"]


@root
def test_a_setuid_program_gives_nothing_unless_it_is_allowed(who: Person) -> None:
    program = who.home / "id"
    program.write_bytes(Path("/usr/bin/id").read_bytes())
    os.chown(program, 0, 0)
    program.chmod(0o6755)
    for box, path in (
        (boxes.full(who, filters=()), "/data/id"),
        (boxes.full(who, filters=(), namespaces=("mnt", "pid"), id_map=None, hostname=None), "/data/id"),
        (boxes.sandbox(who), str(program)),
    ):
        assert who.run(box, path, "-u").out == "65534"
        assert who.run(box, path, "-g").out == "65534"
    allowed = boxes.sandbox(who, no_new_privileges=False)
    assert who.run(allowed, str(program), "-u").out == "0"
    # What it then holds is still bounded.
    script = who.home / "sets"
    script.write_bytes(Path("/usr/bin/cat").read_bytes())
    os.chown(script, 0, 0)
    script.chmod(0o4755)
    status = who.run(allowed, str(script), "/proc/self/status").out.splitlines()
    sets = [line.split()[1] for line in status if line.startswith(("CapPrm", "CapEff"))]
    assert sets == ["0" * 16] * 2


@pytest.mark.guest_too
@everybody
def test_two_tasks_share_nothing_fresh(who: Person) -> None:
    assert who.call(_two, boxes.full(who, filters=())) == ["", "", "", "1 2", "ECONNREFUSED"]


LEAVES = """
import os, signal, socket
open("/tmp/mine", "w"); open("/dev/shm/mine", "w")
os.close(os.open("/dev/mqueue/mine", os.O_CREAT | os.O_RDWR))
server = socket.socket(socket.AF_UNIX); server.bind("\\0initspawn-test"); server.listen()
print("left", flush=True); signal.pause()
"""
LOOKS = """
import errno, os, socket
for place in ("/tmp", "/dev/shm", "/dev/mqueue"): print(*os.listdir(place))
print(*sorted(int(name) for name in os.listdir("/proc") if name.isdigit()))
try: socket.socket(socket.AF_UNIX).connect("\\0initspawn-test")
except OSError as error: print(errno.errorcode[error.errno])
else: print("connected")
"""


def _two(box: Sandbox) -> list[str]:
    with bench(box) as made:
        first = made.python(LEAVES).until("left")
        second = made.python(LOOKS).end()
        assert second.err == ""
        first.signal(signal.SIGKILL).end()
    return second.out.split("\n")


# Mounts that come and go.


def own_mounts_shared_at(place: Path) -> None:
    """This process's mounts are nobody else's, and `place` is one that tells its followers."""
    own_mounts()
    syscall("mount", bytes(place), bytes(place), 0, MS_BIND)
    syscall("mount", b"none", bytes(place), 0, MS_SHARED)


@root
@pytest.mark.parametrize("users", [True, False], ids=["own users", "shared users"])
def test_a_later_mount_of_the_host_appears_inside(who: Person, users: bool) -> None:
    values = {} if users else {"id_map": None, "namespaces": tuple(set(NAMESPACES) - {"user"})}
    (who.home / "stick").mkdir()
    result = who.call(_later, boxes.full(who, **values), who.home)
    assert (result.out, result.err) == ("ready\nfile\n", "")


def _later(box: Sandbox, home: Path) -> Result:
    own_mounts_shared_at(home)
    with bench(box) as made:
        reader, writer = os.pipe()
        line = "echo ready; read line <&3; ls /data/stick; read line <&3; echo $(ls /data/stick)"
        run = made.shell(line, descriptors=(reader,)).until("ready")
        syscall("mount", b"none", bytes(home / "stick"), b"tmpfs", 0, b"")
        (home / "stick/file").touch()
        os.write(writer, b"go\n")
        run.until("file")
        syscall("umount2", bytes(home / "stick"), 2)  # MNT_DETACH
        os.write(writer, b"go\n")
        result = run.end()
        os.close(reader)
        os.close(writer)
    return result


@pytest.mark.guest_too
@root
def test_a_mount_made_inside_never_appears_outside(who: Person) -> None:
    own = tuple(name for name in NAMESPACES if name != "user")
    box = boxes.full(
        who, filters=(), id_map=None, namespaces=own, capabilities=1 << NUMBERS["SYS_ADMIN"], user=0, group=0
    )
    (who.home / "stick").mkdir()
    assert who.call(_inside, box, who.home) == ("made", [], False)


def _inside(box: Sandbox, home: Path) -> tuple[str, list[str], bool]:
    own_mounts_shared_at(home)
    with bench(box) as made:
        run = made.shell("mount -t tmpfs none /data/stick && touch /data/stick/file; echo made; sleep 60")
        run.until("made")
        seen = sorted(os.listdir(home / "stick")), os.path.ismount(home / "stick")
        made.until(lambda: os.path.exists(f"/proc/{run.pid}/root/data/stick/file"), "the file inside")
        result = run.signal(signal.SIGKILL).end()
    return result.out, *seen


# Links that lie in wait in a directory the command may write, for the next start.


@pytest.fixture
def outside(who: Person) -> Iterator[Path]:
    """A directory of the host that the sandbox has nothing to do with, not hidden while it is built."""
    with tempfile.TemporaryDirectory(prefix="initspawn-outside-", dir="/var/tmp") as name:
        place = Path(name)
        place.chmod(0o777)
        (place / "file").touch()
        (place / "file").chmod(0o666)
        yield place


Entries = Callable[[str], tuple[Mount, ...]]
LATER: dict[str, Entries] = {
    "tmpfs": lambda path: (Mount(operation="tmpfs", target=path),),
    "dir": lambda path: (Mount(operation="dir", target=path),),
    "file": lambda path: (Mount(operation="file", target=path, data=b"planted"),),
    "symlink": lambda path: (Mount(operation="symlink", target=path, source="/planted"),),
    "bind": lambda path: (boxes.bind("/usr", path),),
    "bind a file": lambda path: (boxes.bind("/usr/bin/env", path),),
    "dev": lambda path: (Mount(operation="dev", target=path),),
    "proc": lambda path: (Mount(operation="proc", target=path),),
    "lock": lambda path: (Mount(operation="lock", target=path),),
}
LINKS: dict[str, Callable[[Path], str]] = {
    "absolute": str,
    "upwards": lambda outside: f"../../../../../../..{outside}",
    "by /proc": lambda outside: f"/proc/self/root{outside}",
    "by the reaper": lambda outside: f"/proc/1/root{outside}",
}
PLACES = {"the link": "/data/link", "below the link": "/data/link/new", "deep below": "/data/link/new/er"}


@everybody
@pytest.mark.parametrize("link", LINKS)
def test_a_planted_link_leads_nowhere_outside(who: Person, outside: Path, link: str) -> None:
    (who.home / "link").symlink_to(LINKS[link](outside))
    plans = [
        boxes.full(who, uid=f"{operation}-{place}", mounts=(*boxes.tree(who), *make(path)))
        for operation, make in LATER.items()
        for place, path in PLACES.items()
    ]
    steps = who.call(_plant, plans)
    assert set(steps) <= {"", "mounts", "lock"}, steps
    assert sorted(os.listdir(outside)) == ["file"]
    assert (outside / "file").read_bytes() == b""
    assert os.readlink(who.home / "link") == LINKS[link](outside)


def _plant(plans: list[Sandbox]) -> list[str]:
    with bench(*plans) as made:
        before = Path("/proc/self/mountinfo").read_text()
        runs = [made.start("/bin/true", sandbox=box) for box in plans]
        steps = [run.end().step for run in runs]
        assert Path("/proc/self/mountinfo").read_text() == before
    return steps


# `make soak` has the many: this is a race.
SWAPS = 60 if hypothesis.settings().max_examples <= 100 or IN_GUEST else 10_000
SWAP = """
import os, sys
home, outside = sys.argv[1:]
os.mkdir(home + "/directory")
os.symlink(outside, home + "/other")
print("swapping", flush=True)
while True:
    for name in ("directory", "other"):
        os.rename(home + "/" + name, home + "/link")
        os.rename(home + "/link", home + "/" + name)
"""


@everybody
def test_a_link_that_comes_and_goes_leads_nowhere_outside(who: Person, outside: Path) -> None:
    mounts = (*boxes.tree(who), *LATER["tmpfs"]("/data/link/new"), *LATER["dir"]("/data/link/deep/er"))
    steps = who.call(_swap, boxes.full(who, mounts=mounts), who.home, outside)
    assert set(steps) <= {"", "mounts", "measurement"}
    assert sorted(os.listdir(outside)) == ["file"]


def _swap(box: Sandbox, home: Path, outside: Path) -> list[str]:
    with subprocess.Popen(
        [PYTHON, "-I", "-S", "-c", SWAP, str(home), str(outside)], stdout=subprocess.PIPE
    ) as swapper:
        try:
            assert swapper.stdout
            swapper.stdout.readline()
            with bench(box) as made:
                return [made.run("/bin/true").step for _ in range(SWAPS)]
        finally:
            swapper.kill()


@pytest.mark.guest_too
@everybody
def test_a_killed_supervisor_takes_everything_with_it(who: Person) -> None:
    """Nothing runs on unwatched: not a command that hides in sessions of its own, in its namespace."""
    pids = who.call(_orphans, boxes.full(who))
    assert len(pids) == 4
    assert [pid for pid in pids if alive(pid)] == []


def _orphans(box: Sandbox) -> list[int]:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with bench(box) as made:
                run = made.shell("setsid sleep 60 & echo here; exec sleep 60").until("here")
                made.until(lambda: len(_tree(run.reaper)) == 3, "the session")
                spawner = made.supervisor.launcher.spawner_pid
                os.write(writer, json.dumps([spawner, *_tree(run.reaper)]).encode())
                signal.pause()
        finally:
            os._exit(1)
    os.close(writer)
    pids = json.loads(os.read(reader, 4096))
    os.close(reader)
    fds = [os.pidfd_open(pid) for pid in pids]
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    import select

    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    waiting = set(fds)
    while waiting:
        ready = poll.poll(10_000)
        assert ready, "somebody lives on"
        for fd, _ in ready:
            poll.unregister(fd)
            waiting.discard(fd)
    for fd in fds:
        os.close(fd)
    return list(pids)


def _tree(pid: int) -> list[int]:
    found = [pid]
    for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found += _tree(int(word))
    return found


@root
def test_a_path_that_is_trusted_would_lead_outside(who: Person, outside: Path) -> None:
    """The tests above would see it."""
    (who.home / "link").symlink_to(outside)
    who.call(_plant_unprotected, boxes.full(who, mounts=(*boxes.tree(who), *LATER["dir"]("/data/link/new"))))
    assert sorted(os.listdir(outside)) == ["file", "new"]


def _plant_unprotected(box: Sandbox) -> None:
    Builder.safe = lambda self, path: True
    with bench(box) as made:
        made.run("/bin/true")


# Keys of the kernel's key retention service (keyrings(7)): numbers of add_key and keyctl.
ADD_KEY, KEYCTL = (248, 250) if os.uname().machine == "x86_64" else (217, 219)
SESSION = -3  # KEY_SPEC_SESSION_KEYRING
SEARCH = f"""
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
found = libc.syscall({KEYCTL}, 10, {SESSION}, b"user", b"initspawn-test", 0)
print("found" if found >= 0 else errno.errorcode[ctypes.get_errno()])
"""


@everybody
@pytest.mark.parametrize("kind", ["plain", "full"])
def test_the_supervisors_keys_are_not_the_commands(who: Person, kind: str) -> None:
    box = boxes.sandbox(who) if kind == "plain" else boxes.full(who)
    assert who.call(_keys, box) in ("ENOKEY", "ENOSYS", "EKEYREVOKED")


def _keys(box: Sandbox) -> str:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(KEYCTL, 1, None) < 0:  # a new session keyring for this process
        return "ENOSYS"
    assert libc.syscall(ADD_KEY, b"user", b"initspawn-test", b"secret", 6, SESSION) > 0
    with bench(box) as made:
        return made.python(SEARCH).end().out


@root
def test_every_task_of_root_has_a_keyring_of_its_own(who: Person) -> None:
    first, second = who.call(_keyrings, boxes.sandbox(who))
    assert first != second or first == "-1"


def _keyrings(box: Sandbox) -> list[str]:
    script = f"import ctypes; print(ctypes.CDLL(None).syscall({KEYCTL}, 0, {SESSION}, 0), flush=True)"
    with bench(box) as made:
        reader, writer = os.pipe()
        runs = [made.python(f"{script}; open(3).read(1)", descriptors=(reader,)) for _ in range(2)]
        for run in runs:  # both at the same time, or the second could have the first one's number
            made.until(lambda run=run: run.lines["stdout"] or run.ended, "the number")
        os.close(writer)
        os.close(reader)
        return [run.end().out for run in runs]
