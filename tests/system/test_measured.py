"""What a command gets is exactly what its sandbox says: seen by itself, and at the same time from outside.

The expectations are written down here once more, from the plan and from what this process has; nothing
of the package's own measurement is used.
"""

from __future__ import annotations

import json
import os
import resource
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from initspawn.linux.capabilities import NUMBERS
from initspawn.linux.prctl import PR_SET_DUMPABLE, prctl
from initspawn.plan import NAMESPACES, Mount, Sandbox, Scheduling
from tests.support.probes import cgroup_mount
from tests.system import boxes
from tests.system.conftest import everybody, root, root_and_a_user
from tests.system.harness import PYTHON, Person, bench, descriptors

# Run inside: everything /proc and the kernel say, in one line of JSON; then it waits to be looked at.
PROBE = """
import json, os, signal, socket
def text(name):
    with open("/proc/self/" + name) as file: return file.read()
def fds():
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try: found[name] = os.readlink("/proc/self/fd/" + name)
        except FileNotFoundError: pass
    return found
print(json.dumps({
    "fds": fds(), "status": text("status"), "mountinfo": text("mountinfo"), "environ": text("environ"),
    "limits": text("limits"), "cgroup": text("cgroup"), "stat": text("stat"),
    "oom_score_adj": text("oom_score_adj"), "dev": text("net/dev"),
    "ns": {name: os.readlink("/proc/self/ns/" + name) for name in os.listdir("/proc/self/ns")},
    "root": sorted(os.listdir("/")), "ids": [*os.getresuid(), *os.getresgid()], "groups": os.getgroups(),
    "uname": list(os.uname()), "cwd": os.getcwd(), "umask": os.umask(0), "pids": [os.getpid(), os.getppid()],
    "processes": sorted(int(name) for name in os.listdir("/proc") if name.isdigit()),
}), flush=True)
signal.pause()
"""
NS_NAMES = {"pid": ("pid", "pid_for_children")}
PYTHON_IGNORES = 1 << 12 | 1 << 24  # SIGPIPE and SIGXFSZ: the interpreter's own doing
PYTHON_CATCHES = 1 << 1  # SIGINT
CAPS = 1 << NUMBERS["NET_BIND_SERVICE"] | 1 << NUMBERS["NET_RAW"]
OWN_PROC = (Mount(operation="proc", target="/proc"),)
LIMITS = (
    (resource.RLIMIT_NOFILE, 64, 128),
    (resource.RLIMIT_CORE, 0, 0),
    (resource.RLIMIT_AS, 1 << 33, 1 << 34),
)

KINDS: dict[str, Callable[[Person], Sandbox]] = {
    "plain": boxes.sandbox,
    "host tree": lambda who: boxes.sandbox(who, "pid", "mnt", mounts=OWN_PROC),
    "full": boxes.full,
    "writable root": lambda who: boxes.full(who, writable_root=True),
    "net": lambda who: boxes.sandbox(who, "net"),
    "users": lambda who: boxes.sandbox(who, "user"),
    "users as root": lambda who: boxes.sandbox(who, "user", id_map=boxes.id_map(who, 0)),
    "cgroup": lambda who: boxes.sandbox(who, "cgroup"),
    "capabilities": lambda who: boxes.sandbox(who, "user", capabilities=CAPS),
    "filters": lambda who: boxes.sandbox(who, filters=(boxes.bpf({"ptrace": boxes.ERRNO | 1}),)),
    "habits": lambda who: boxes.sandbox(who, umask=0o137, directory="/usr", limits=LIMITS),
}
ROOT_KINDS: dict[str, Callable[[Person], Sandbox]] = {
    "groups": lambda who: boxes.sandbox(who, groups=(4, 54321, 27)),
    "capabilities without users": lambda who: boxes.sandbox(who, capabilities=CAPS),
    "full without users": lambda who: boxes.full(
        who, namespaces=tuple(name for name in NAMESPACES if name != "user"), id_map=None
    ),
    "user 0": lambda who: boxes.full(
        who, user=0, group=0, groups=(0,), capabilities=CAPS, id_map=None, hostname=None,
        namespaces=tuple(name for name in NAMESPACES if name not in ("user", "uts")),
    ),
    "may gain privileges": lambda who: boxes.sandbox(who, no_new_privileges=False),
}  # fmt: skip


def look(sandbox: Sandbox) -> dict[str, Any]:
    """In the supervisor's process: run the probe; what it says, what is seen from here, what we are."""
    here = _outside("self")
    with bench(sandbox) as made:
        run = made.start(PYTHON, "-I", "-S", "-c", PROBE)
        made.until(lambda: run.lines["stdout"] or run.ended, "the probe")
        assert run.lines["stdout"], run.result()
        outside = _outside(str(run.pid))
        assert run.task is not None
        group = run.task.start.cgroup
        inside = json.loads(run.lines["stdout"][0])
        assert run.stop().end().status == {"signal": "Terminated"}
        return {"inside": inside, "outside": outside, "here": here, "reaper": run.reaper, "group": group,
                "pid": run.pid}  # fmt: skip


def _outside(pid: str) -> dict[str, Any]:
    place = Path("/proc") / pid
    names = ("status", "mountinfo", "limits", "cgroup", "stat", "oom_score_adj")
    seen = {name: (place / name).read_text() for name in names}
    return {
        **seen,
        "environ": (place / "environ").read_bytes().decode(),
        "cmdline": (place / "cmdline").read_bytes().decode(),
        "ns": {name: os.readlink(place / "ns" / name) for name in os.listdir(place / "ns")},
        "cwd": os.readlink(place / "cwd"),
        "fds": {str(fd): what for fd, what in descriptors(pid).items()},
    }


def fields(status: str) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in status.splitlines())


def cgroup_of(text: str) -> str:
    return next(line[3:] for line in text.splitlines() if line.startswith("0::"))


@everybody
@pytest.mark.needs("userns", "seccomp")
@pytest.mark.parametrize("kind", KINDS)
def test_a_command_has_exactly_what_its_sandbox_says(who: Person, kind: str) -> None:
    check(who, KINDS[kind](who))


@pytest.mark.guest_too
@root
@pytest.mark.needs("userns", "seccomp")
@pytest.mark.parametrize("kind", ROOT_KINDS)
def test_what_only_root_can_give(who: Person, kind: str) -> None:
    check(who, ROOT_KINDS[kind](who))


def check(who: Person, box: Sandbox) -> None:
    seen = who.call(look, box)
    inside, outside, here = seen["inside"], seen["outside"], seen["here"]
    _identity(who, box, inside, outside, here)
    _privileges(who, box, inside, outside, here)
    _processes(box, seen)
    _surroundings(box, inside, outside, here)
    _namespaces(box, inside, outside, here)
    _cgroup(box, seen)
    _mounts(who, box, inside, outside, here)


def _identity(who: Person, box: Sandbox, inside: Any, outside: Any, here: Any) -> None:
    uid, gid = (box.id_map.inside_uid, box.id_map.inside_gid) if box.id_map else (box.user, box.group)
    within, without, mine = fields(inside["status"]), fields(outside["status"]), fields(here["status"])
    assert inside["ids"] == [uid] * 3 + [gid] * 3
    assert within["Uid"].split() == [str(uid)] * 4
    assert within["Gid"].split() == [str(gid)] * 4
    assert without["Uid"].split() == [str(box.user)] * 4
    assert without["Gid"].split() == [str(box.group)] * 4
    groups = sorted(box.groups) if box.groups is not None else sorted(map(int, mine["Groups"].split()))
    assert sorted(map(int, without["Groups"].split())) == groups
    if box.id_map is None:
        assert sorted(inside["groups"]) == groups
    else:
        assert set(inside["groups"]) <= {gid, 65534}  # all others have no number inside


def _privileges(who: Person, box: Sandbox, inside: Any, outside: Any, here: Any) -> None:
    mine = fields(here["status"])
    mask = box.capabilities
    bounding = mask if who.root or box.id_map else int(mine["CapBnd"], 16)
    wanted = {"CapInh": mask, "CapPrm": mask, "CapEff": mask, "CapBnd": bounding, "CapAmb": mask}
    for side in (inside, outside):
        status = fields(side["status"])
        assert {name: int(status[name], 16) for name in wanted} == wanted
        assert status["NoNewPrivs"] == ("1" if box.no_new_privileges else "0")
        assert status["Seccomp"] == ("2" if box.filters else mine["Seccomp"])
        assert int(status["Seccomp_filters"]) == int(mine["Seccomp_filters"]) + len(box.filters)
        assert int(status["SigBlk"], 16) == 0
        assert int(status["SigIgn"], 16) == PYTHON_IGNORES
        assert int(status["SigCgt"], 16) == PYTHON_CATCHES
        assert status["TracerPid"] == "0"


def _processes(box: Sandbox, seen: Any) -> None:
    inside, outside, pid = seen["inside"], seen["outside"], seen["pid"]
    # Fields of proc(5) stat behind the name: state, ppid, pgrp, session, tty_nr.
    parent, group, session, terminal = map(int, outside["stat"].rpartition(")")[2].split()[1:5])
    assert (parent, group, session, terminal) == (seen["reaper"], pid, pid, 0)
    chain = [int(number) for number in fields(outside["status"])["NSpid"].split()]
    if "pid" in box.namespaces:
        assert chain == [pid, 2]
        assert inside["pids"] == [2, 1]
        assert inside["processes"] == [1, 2]
    else:
        assert chain == [pid]
        assert inside["pids"] == [pid, seen["reaper"]]
    assert {name: what.partition(":")[0] for name, what in outside["fds"].items()} == {
        "0": "/dev/null", "1": "pipe", "2": "pipe",
    }  # fmt: skip
    assert outside["fds"] == inside["fds"]
    assert outside["fds"]["1"] != outside["fds"]["2"]


def _surroundings(box: Sandbox, inside: Any, outside: Any, here: Any) -> None:
    environment = "".join(f"{name}={value}\0" for name, value in box.environment)
    assert inside["environ"] == environment
    assert outside["environ"] == environment
    assert outside["cmdline"] == "\0".join((PYTHON, "-I", "-S", "-c", PROBE, ""))
    assert inside["cwd"] == box.directory
    assert inside["umask"] == box.umask
    limits = here["limits"].splitlines()
    for which, soft, hard in box.limits:
        limits[which + 1] = f"{limits[which + 1][:26]}{soft:<21}{hard:<21}{limits[which + 1][68:]}"
    assert [line.split() for line in inside["limits"].splitlines()] == [line.split() for line in limits]
    assert inside["limits"] == outside["limits"]
    _scheduling(box, inside, here)
    name = box.hostname or socket.gethostname()
    assert inside["uname"] == [os.uname()[0], name, *os.uname()[2:]]


def _scheduling(box: Sandbox, inside: Any, here: Any) -> None:
    planned = box.scheduling or Scheduling()
    # Fields 19 and 41 of proc(5) stat, the third one being the first behind the name.
    fields = [side["stat"].rpartition(")")[2].split() for side in (inside, here)]
    found, mine = ([words[16], words[38]] for words in fields)
    assert found[0] == (mine[0] if planned.nice is None else str(planned.nice))
    assert found[1] == (mine[1] if planned.policy is None else str(planned.policy))
    score = here["oom_score_adj"] if planned.oom_score_adj is None else str(planned.oom_score_adj)
    assert inside["oom_score_adj"].strip() == score.strip()


def _namespaces(box: Sandbox, inside: Any, outside: Any, here: Any) -> None:
    assert inside["ns"] == outside["ns"]
    private = {name for name in here["ns"] if inside["ns"][name] != here["ns"][name]}
    assert private == {each for name in box.namespaces for each in NS_NAMES.get(name, (name,))}
    interfaces = [line.split(":")[0].strip() for line in inside["dev"].splitlines()[2:]]
    if "net" in box.namespaces:
        assert "lo" in interfaces
        # Kernels may add devices that are down and lead nowhere (tunl0, sit0 ...).
        assert not {*interfaces} & {"eth0", "wlan0", *_real_interfaces()}
    else:
        assert sorted(interfaces) == sorted(os.listdir("/sys/class/net"))


def _real_interfaces() -> set[str]:
    return {place.name for place in Path("/sys/class/net").iterdir() if (place / "device").exists()}


def _cgroup(box: Sandbox, seen: Any) -> None:
    group = seen["group"]
    found, seen_inside = cgroup_of(seen["outside"]["cgroup"]), cgroup_of(seen["inside"]["cgroup"])
    if group is None:
        assert found == cgroup_of(seen["here"]["cgroup"])
    else:
        assert f"{cgroup_mount()}{found}" == group
        assert found.endswith("/main")
    assert seen_inside == ("/" if "cgroup" in box.namespaces else found)


# Each kind of mount: its file system, and its options in the order of mountinfo.
FRESH = {
    "tmpfs": ("tmpfs", "rw,nosuid,nodev"),
    "proc": ("proc", "rw,nosuid,nodev,noexec"),
    "mqueue": ("mqueue", "rw,nosuid,nodev,noexec"),
    "dev": ("tmpfs", "rw,nosuid,nodev,noexec"),
}
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")


def _mounts(who: Person, box: Sandbox, inside: Any, outside: Any, here: Any) -> None:
    assert inside["mountinfo"] == outside["mountinfo"] or not box.new_root
    found, mine = parsed(inside["mountinfo"]), parsed(here["mountinfo"])
    if "mnt" not in box.namespaces:
        assert found == mine
        return
    assert not [line for line in inside["mountinfo"].splitlines() if "shared:" in line]
    if not box.new_root:
        assert sorted(found) == sorted([*mine, ("/proc", *FRESH["proc"])])
        return
    assert sorted(found) == sorted(expected_mounts(box, mine))
    names = {entry.target.split("/")[1] for entry in box.mounts}
    assert inside["root"] == sorted(names)


ORDER = ("ro", "rw", "nosuid", "nodev", "noexec")  # of the options in mountinfo


def expected_mounts(box: Sandbox, mine: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """Every mount of a new root: place, file system, options."""
    host = {point: (kind, options) for point, kind, options in mine}
    wanted = [("/", "tmpfs", f"{'rw' if box.writable_root else 'ro'},nosuid,nodev")]
    for entry in box.mounts:
        if entry.operation in FRESH:
            wanted.append((entry.target, *FRESH[entry.operation]))
        if entry.operation == "bind":
            wanted += bound(entry, host, nosuid=box.no_new_privileges)
        if entry.operation == "file":
            wanted.append((entry.target, "tmpfs", "ro,nosuid,nodev"))
        if entry.operation == "dev":
            kind, options = host["/dev"] if "/dev" in host else host["/"]
            words = {*options.split(","), "nosuid"}
            options = ",".join(word for word in ORDER if word in words)
            wanted += [(f"/dev/{name}", kind, options) for name in DEVICES]
            wanted.append(("/dev/pts", "devpts", "rw,nosuid,noexec"))
        if entry.operation == "proc" and box.user == 0 and box.id_map is None:
            covers = ("/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs")
            wanted += [(path, "proc", "ro,nosuid,nodev,noexec") for path in covers if os.path.exists(path)]
    return wanted


def bound(entry: Mount, host: dict[str, tuple[str, str]], *, nosuid: bool) -> list[tuple[str, str, str]]:
    """A bound directory and what the host has mounted below it."""
    source = entry.source
    while source not in host:
        source = os.path.dirname(source)
    below = [point for point in host if point.startswith(f"{entry.source}/")]
    wanted = []
    for point, origin in [(entry.target, source)] + [
        (entry.target + place.removeprefix(entry.source), place) for place in below
    ]:
        kind, options = host[origin]
        words = {*options.split(","), "nodev"} | ({"nosuid"} if nosuid else set())
        words = words - {"rw"} | {"ro"} if entry.read_only else words
        wanted.append((point, kind, ",".join(word for word in ORDER if word in words)))
    return wanted


def parsed(mountinfo: str) -> list[tuple[str, str, str]]:
    """Place, file system and options of every mount; how times are kept is the host's matter."""
    found = []
    for line in mountinfo.splitlines():
        words = line.split(" ")
        options = [word for word in words[5].split(",") if "atime" not in word]
        found.append((words[4], words[words.index("-") + 1], ",".join(options)))
    return found


@everybody
@pytest.mark.needs("userns", "seccomp")
def test_the_tools_say_the_same(who: Person) -> None:
    box = boxes.full(who)
    line = "id -u; id -g; id -G; hostname; pwd; umask; ls /; cat /etc/passwd; ulimit -n; ls /proc/self/fd"
    result = who.run(box, "/bin/sh", "-c", line)
    uid, gid = map(str, (who.command_uid, who.command_gid))
    said = result.out.splitlines()
    assert said[:6] == [uid, gid, gid, boxes.HOSTNAME, "/data", "0027"]
    top = sorted({entry.target.split("/")[1] for entry in box.mounts})
    assert said[6 : 6 + len(top)] == top
    rest = said[6 + len(top) :]
    assert rest[:2] == boxes.FILE.decode().splitlines()
    assert rest[2:7] == ["64", "0", "1", "2", "3"]  # 3 is the directory that ls reads
    assert (result.err, result.status) == ("", {"exit": 0})


@everybody
@pytest.mark.needs("userns")
def test_an_own_network_has_a_loopback_that_is_up_and_nothing_else(who: Person) -> None:
    script = """
import fcntl, socket, struct
probe = socket.socket()
request = fcntl.ioctl(probe, 0x8913, struct.pack("16sh22x", b"lo", 0))  # SIOCGIFFLAGS
print(struct.unpack_from("16sh", request)[1] & 1)
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname()).close()
with open("/proc/net/route") as file: print(len(file.readlines()))
try: socket.create_connection(("192.0.2.1", 9), 5)
except OSError as error: print(error.errno == 101)  # ENETUNREACH
"""
    result = who.run(boxes.sandbox(who, "net"), PYTHON, "-I", "-S", "-c", script)
    assert (result.out, result.err) == ("1\n1\nTrue", "")


@everybody
@pytest.mark.needs("userns")
def test_further_descriptors_come_as_3_and_4_and_nothing_else_does(who: Person) -> None:
    found = who.call(_further, boxes.full(who))
    assert found == {"0": "/dev/null", "1": "pipe", "2": "pipe", "3": "pipe", "4": "/dev/zero"}


def _further(box: Sandbox) -> dict[str, str]:
    reader, writer = os.pipe()
    zero = os.open("/dev/zero", os.O_RDONLY)
    strays = [os.dup(reader) for _ in range(20)]
    for fd in strays:
        os.set_inheritable(fd, True)
    try:
        with bench(box) as made:
            run = made.start(PYTHON, "-I", "-S", "-c", PROBE, descriptors=(writer, zero))
            made.until(lambda: run.lines["stdout"] or run.ended, "the probe")
            assert run.lines["stdout"], run.result()
            run.signal(9).end()
            fds = json.loads(run.lines["stdout"][0])["fds"]
        return {name: what.partition(":")[0] for name, what in fds.items()}
    finally:
        for fd in (reader, writer, zero, *strays):
            os.close(fd)


@everybody
@pytest.mark.needs("userns")
def test_a_supervisor_that_is_hidden_from_its_own_user_can_start_commands(who: Person) -> None:
    assert who.call(_hidden, boxes.full(who)).out == "here"


def _hidden(box: Sandbox) -> Any:
    prctl(PR_SET_DUMPABLE, 0)
    with bench(box) as made:
        return made.run("/bin/echo", "here")


@root_and_a_user
@pytest.mark.parametrize("io", [1 << 13 | 2, 2 << 13 | 7, 3 << 13], ids=["realtime", "best-effort", "idle"])
def test_the_tools_say_the_same_of_its_place_among_others(who: Person, io: int) -> None:
    if io >> 13 == 1 and not who.root:
        io = 2 << 13
    box = boxes.sandbox(who, scheduling=Scheduling(nice=7, policy=5, io=io, oom_score_adj=901))
    result = who.run(box, "/bin/sh", "-c", "ionice; nice; chrt -p $$; choom -p $$")
    classes = {1: "realtime: prio 2", 2: f"best-effort: prio {io & 7}", 3: "idle"}
    said = result.out.splitlines()
    assert said[:2] == [classes[io >> 13], "7"], result
    assert "SCHED_IDLE" in said[2]
    assert said[-1].endswith("901")


@everybody
@pytest.mark.parametrize("writable", [False, True])
def test_the_root_itself_is_written_only_where_the_plan_says(who: Person, writable: bool) -> None:
    box = boxes.full(who, writable_root=writable)
    line = "echo x > /home/deep/er/file && cat /home/deep/er/file; mkdir /etc/x"
    result = who.run(box, "/bin/sh", "-c", line)
    assert (result.out == "x") == writable, result
    assert ("Read-only file system" in result.err) == (not writable), result
