"""What a command held at its exec really has, read from /proc, against what the plan says. Boot module.

Both sides are dictionaries with the same keys; `compare` says each difference. The measurement is kept
in the task's record. Sources: proc(5), namespaces(7), capabilities(7).
"""

from __future__ import annotations

import os
import stat

from initspawn.linux import capabilities, cgroup, landlock, lsm, mount, scheduling
from initspawn.plan import NAMESPACES
from initspawn.sandbox.mounted import AS_PLANNED, MountCheck
from initspawn.sandbox.recipe import labelled
from initspawn.sandbox.streams import identity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from initspawn.plan import Sandbox
    from initspawn.sandbox.launch import Start

_LINES = (b"Umask", b"Uid", b"Gid", b"Groups", b"NoNewPrivs", b"Seccomp", b"Seccomp_filters")
_CAPABILITY_SETS = (b"CapInh", b"CapPrm", b"CapEff", b"CapBnd", b"CapAmb")
_SIGNAL_SETS = (b"SigBlk", b"SigIgn", b"SigCgt")
# The lines of /proc/PID/status that are read, as they are found there: no other value holds a newline.
_STATUS = [(name, b"\n" + name + b":\t") for name in (*_LINES, *_CAPABILITY_SETS, *_SIGNAL_SETS)]
# The lines of /proc/PID/limits in the kernel's order of RLIMIT_* (fs/proc/base.c).
_LIMIT_WORDS = slice(26, 66)
_KNOWN_LIMITS = 64
# execve(2): bytes of a script's first line, and how many scripts can be each other's interpreters.
_FIRST_LINE, _INTERPRETERS = 256, 6


class Baseline:
    """What a child of this supervisor has if nothing is done to it."""

    def __init__(self) -> None:
        self.supervisor = os.getpid()
        proc = os.open("/proc/self", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            status = _status(proc)
            self.namespaces = _namespaces(proc)
            self.limits = _limits(_read(proc, "limits"))
            self.cgroup = _cgroup(proc)
            self.scheduling = _scheduling(_stat(proc))
        finally:
            os.close(proc)
        self.groups = _numbers(status[b"Groups"])
        self.ignored = int(status[b"SigIgn"], 16)
        self.permitted = int(status[b"CapPrm"], 16)
        self.may_trace = self.permitted & 1 << capabilities.NUMBERS["SYS_PTRACE"]  # and exec is as ever
        self.landlock = landlock.version()
        self.lsm = lsm.labelling()
        self.last_capability = capabilities.last_cap()
        self.bounding = int(status[b"CapBnd"], 16)
        self.seccomp = int(status[b"Seccomp"])
        self.filters = int(status.get(b"Seccomp_filters", b"0"))
        self.no_new_privileges = int(status[b"NoNewPrivs"])
        self.cgroup_mount = (cgroup.mount_point() or "").rstrip("/")
        null = os.stat("/dev/null")
        self._null = identity(null)
        # What the same bytes, or the same sandbox, need not have made anew.
        self._limits: dict[bytes, dict[int, tuple[int, int]]] = {}
        self._mounts: dict[int, MountCheck] = {}  # by id of the sandbox, which it keeps

    def keep(self, sandboxes: set[int]) -> None:
        """Forget what was made for others than these, by id."""
        self._mounts = {key: check for key, check in self._mounts.items() if key in sandboxes}

    def expected(self, start: Start) -> dict[str, Any]:
        """What the plan says the command of `start` has."""
        sandbox = start.sandbox
        mask = sandbox.capabilities
        confined = sandbox.groups is not None or sandbox.id_map is not None
        limits = dict(self.limits)
        for which, soft, hard in sandbox.limits:
            limits[which] = (soft, hard)
        streams = start.streams
        descriptors = (*streams.expected(self._null), *(identity(os.fstat(fd)) for fd in start.extra))
        return {
            "user": self._ids(start, sandbox.user, stat.S_ISUID),
            "group": self._ids(start, sandbox.group, stat.S_ISGID),
            "groups": self.groups if sandbox.groups is None else tuple(sorted(sandbox.groups)),
            "identity": _planned_identity(sandbox),
            "capabilities": (mask, mask, mask, mask if confined else self.bounding, mask),
            "no-new-privileges": int(sandbox.no_new_privileges) or self.no_new_privileges,
            "seccomp": (2 if sandbox.filters else self.seccomp, self.filters + len(sandbox.filters)),
            "umask": sandbox.umask,
            "signals": (0, 0, 0),
            "session": (start.leader[0],) * 2,
            "terminal": (streams.device, start.command_pid if streams.terminal else -1),
            "namespaces": {
                name: "private" if name in sandbox.namespaces else "shared" for name in NAMESPACES
            },
            "cgroup": self.cgroup if start.cgroup is None else start.cgroup.removeprefix(self.cgroup_mount),
            "limits": limits,
            "scheduling": self._scheduling(sandbox),
            "label": sandbox.label if labelled(sandbox, self.lsm) else None,
            "cgroup-limits": {name: cgroup.kept(name, value) for name, value in sandbox.cgroup or ()},
            "environment": start.environment,
            "program": start.argv[0],
            "arguments": start.argv,
            "directory": sandbox.directory,
            "descriptors": dict(enumerate(descriptors)),
            "mounts": AS_PLANNED,
        }

    def _ids(self, start: Start, own: int, bit: int) -> tuple[int, ...]:
        """Real, effective, saved and file system id; the last three a set-id program may change."""
        sandbox = start.sandbox
        if not sandbox.no_new_privileges and sandbox.id_map is None and self.may_trace:
            program = f"/proc/{start.command_pid}/exe"
            file = os.stat(program)
            if file.st_mode & bit and not os.statvfs(program).f_flag & os.ST_NOSUID:
                return (own, *(file.st_uid if bit == stat.S_ISUID else file.st_gid,) * 3)
        return (own,) * 4

    def _scheduling(self, sandbox: Sandbox) -> dict[str, int]:
        """Nice value and policy are always compared, the rest where the plan says something."""
        plan = sandbox.scheduling
        given = {} if plan is None else {name: getattr(plan, name) for name in plan._fields}
        return self.scheduling | {name: value for name, value in given.items() if value is not None}

    def measured(self, start: Start) -> dict[str, Any]:
        """Read all of that from the stopped process. Raises OSError."""
        sandbox = start.sandbox
        proc = os.open(f"/proc/{start.command_pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        root = -1
        try:
            root = os.open("root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=proc)
            status = _status(proc)
            words = _stat(proc)
            namespaces = _namespaces(proc)
            return {
                "user": tuple(map(int, status[b"Uid"].split())),
                "group": tuple(map(int, status[b"Gid"].split())),
                "groups": _numbers(status[b"Groups"]),
                "identity": _id_maps(proc, sandbox),
                "capabilities": tuple(int(status[name], 16) for name in _CAPABILITY_SETS),
                "no-new-privileges": int(status[b"NoNewPrivs"]),
                "seccomp": (int(status[b"Seccomp"]), int(status.get(b"Seccomp_filters", b"0"))),
                "umask": int(status[b"Umask"], 8),
                "signals": tuple(int(status[name], 16) for name in _SIGNAL_SETS),
                "session": (int(words[2]), int(words[3])),
                "terminal": (int(words[4]), int(words[5])),
                "namespaces": {
                    name: "shared" if inode == self.namespaces[name] else "private"
                    for name, inode in namespaces.items()
                },
                "cgroup": _cgroup(proc),
                "limits": self._limits_in(_read(proc, "limits")),
                "scheduling": _scheduling(words) | _asked(proc, start),
                "label": _label(proc) if labelled(sandbox, self.lsm) else None,
                "cgroup-limits": cgroup.in_force(start.limited, dict(sandbox.cgroup or ())),
                "environment": _strings(_read(proc, "environ")),
                "program": _program(proc, start.argv[0], root, sandbox.directory),
                "arguments": _arguments(proc, start.argv, root),
                "directory": _directory(proc, sandbox.directory, root),
                "descriptors": _descriptors(proc),
                "mounts": self._mount_check(sandbox).compare(_read(proc, "mountinfo"), root),
            }
        finally:
            os.close(proc)
            if root >= 0:
                os.close(root)

    def _limits_in(self, text: bytes) -> dict[int, tuple[int, int]]:
        if text not in self._limits:
            if len(self._limits) == _KNOWN_LIMITS:
                self._limits.clear()
            self._limits[text] = _limits(text)
        return self._limits[text]

    def _mount_check(self, sandbox: Sandbox) -> MountCheck:
        if id(sandbox) not in self._mounts:
            self._mounts[id(sandbox)] = MountCheck(sandbox)
        return self._mounts[id(sandbox)]


def compare(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """One text per difference; empty when the command has exactly what the plan says."""
    differences = []
    for name, want in expected.items():
        have = found[name]
        if have != want:
            if isinstance(want, dict):
                keys = [key for key in {**want, **have} if want.get(key) != have.get(key)]
                have, want = ({key: side.get(key) for key in keys} for side in (have, want))
            differences.append(f"{name} is {have!r}, not {want!r}")
    return differences


def _read(proc: int, name: str) -> bytes:
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
    try:
        data = os.read(fd, 16384)
        while more := os.read(fd, 65536):  # a file of records gives as many at once as fit its buffer
            data += more
        return data
    finally:
        os.close(fd)


def _status(proc: int) -> dict[bytes, bytes]:
    text = _read(proc, "status")
    found = {}
    for name, begin in _STATUS:
        at = text.find(begin) + len(begin)
        if at >= len(begin):
            found[name] = text[at : text.index(b"\n", at)]
    return found


def _stat(proc: int) -> list[bytes]:
    """The fields of /proc/PID/stat from the third on: state, ppid, pgrp, session, ..."""
    return _read(proc, "stat").rpartition(b") ")[2].split()


def _scheduling(stat: list[bytes]) -> dict[str, int]:
    return {"nice": int(stat[16]), "policy": int(stat[38])}


def _asked(proc: int, start: Start) -> dict[str, int]:
    """What takes reading more, and is read only for a plan that says something about it."""
    plan = start.sandbox.scheduling
    found = {}
    if plan is not None and plan.oom_score_adj is not None:
        found["oom_score_adj"] = int(_read(proc, "oom_score_adj"))
    if plan is not None and plan.io is not None:
        found["io"] = scheduling.ioprio_get(start.command_pid)
    return found


def _label(proc: int) -> str:
    return os.fsdecode(_read(proc, "attr/current").rstrip(b"\0\n"))


def _numbers(text: bytes) -> tuple[int, ...]:
    return tuple(sorted(map(int, text.split())))


def _namespaces(proc: int) -> dict[str, int]:
    # The link's text is `name:[inode]`.
    return {name: int(os.readlink(f"ns/{name}", dir_fd=proc)[len(name) + 2 : -1]) for name in NAMESPACES}


def _planned_identity(sandbox: Sandbox) -> dict[str, str]:
    ids = sandbox.id_map
    if ids is None:
        return {}
    return {
        "uid_map": f"{ids.inside_uid} {ids.outside_uid} 1",
        "gid_map": f"{ids.inside_gid} {ids.outside_gid} 1",
        "setgroups": "deny",
    }


def _id_maps(proc: int, sandbox: Sandbox) -> dict[str, str]:
    return {name: " ".join(_read(proc, name).decode().split()) for name in _planned_identity(sandbox)}


def _cgroup(proc: int) -> str:
    for line in _read(proc, "cgroup").split(b"\n"):
        if line.startswith(b"0::"):
            return os.fsdecode(line[3:])
    return ""


def _limits(text: bytes) -> dict[int, tuple[int, int]]:
    limits = {}
    for which, line in enumerate(text.split(b"\n")[1:17]):
        soft, hard = line[_LIMIT_WORDS].split()
        limits[which] = (
            -1 if soft == b"unlimited" else int(soft),
            -1 if hard == b"unlimited" else int(hard),
        )
    return limits


def _strings(data: bytes) -> tuple[str, ...]:
    return tuple(os.fsdecode(data).split("\0")[:-1])


def _arguments(proc: int, argv: tuple[str, ...], root: int) -> tuple[str, ...]:
    found = _strings(_read(proc, "cmdline"))
    if found != argv and found[-len(argv) :] == argv and _is_script(root, argv[0]):
        return argv  # behind the interpreter that its first line names (execve(2))
    return found


def _program(proc: int, planned: str, root: int, directory: str) -> str:
    """The path that was planned, if its file is what is executed, or a script for what is."""
    running, path = os.stat("exe", dir_fd=proc), planned
    for _ in range(_INTERPRETERS):
        fd = mount.open_in_root(root, os.path.join(directory, path), os.O_PATH)
        try:
            if os.path.samestat(os.fstat(fd), running):
                return planned
        finally:
            os.close(fd)
        words = _first_line(root, os.path.join(directory, path))[2:].split(None, 1)
        if not words:
            break
        path = os.fsdecode(words[0])
    return os.readlink("exe", dir_fd=proc)


def _is_script(root: int, path: str) -> bool:
    return bool(_first_line(root, path))


def _first_line(root: int, path: str) -> bytes:
    """The line that names a script's interpreter; empty if the file is none."""
    fd = mount.open_file_in_root(root, path)
    try:
        line = os.read(fd, _FIRST_LINE).partition(b"\n")[0]
        return line if line.startswith(b"#!") else b""
    finally:
        os.close(fd)


def _directory(proc: int, planned: str, root: int) -> str:
    fd = root if planned == "/" else mount.open_in_root(root, planned, os.O_PATH)
    try:
        if os.path.samestat(os.fstat(fd), os.stat("cwd", dir_fd=proc)):
            return planned
    finally:
        if fd != root:
            os.close(fd)
    return os.readlink("cwd", dir_fd=proc)


def _descriptors(proc: int) -> dict[int, tuple[int, int, int]]:
    fds = os.open("fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=proc)
    try:
        return {int(name): identity(os.stat(name, dir_fd=fds)) for name in os.listdir(fds)}
    finally:
        os.close(fds)
