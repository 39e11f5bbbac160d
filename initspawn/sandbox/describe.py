"""A sandbox in words: each step, what ends it, what it leaves open. Boot module; pure.

Sentences say what the step gives or takes, from the plan's own values, so that what is printed cannot
differ from what is done.
"""

from __future__ import annotations

import resource

from initspawn.linux import capabilities, landlock, scheduling, seccomp
from initspawn.plan import NAMESPACES
from initspawn.sandbox import ladder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from initspawn.plan import Command, Mount, Sandbox
    from initspawn.sandbox.measure import Baseline

CGROUP = "cgroup"
MEASUREMENT = "measurement"
LOCK = "lock"
LIMIT_NAMES = {
    getattr(resource, name): name.removeprefix("RLIMIT_").lower()
    for name in dir(resource)
    if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE"  # the old name of NOFILE
}
_ALL_CAPABILITIES = (1 << len(capabilities.NAMES)) - 1

# What is read from the kernel at the command's exec and compared with the plan: the measurement's keys.
MEASURED = {
    "user": "real, effective, saved and file system user",
    "group": "real, effective, saved and file system group",
    "groups": "further groups",
    "identity": "who it is in its own user namespace: both maps, and that setgroups is denied",
    "capabilities": "inheritable, permitted, effective, bounding and ambient set",
    "no-new-privileges": "whether it can gain privileges by an exec",
    "seccomp": "mode and number of filters",
    "umask": "which permissions new files do not get",
    "signals": "blocked, ignored and caught signals",
    "session": "process group and session",
    "terminal": "its controlling terminal and who is in the foreground there, or that it has none",
    "namespaces": "which are its own",
    "cgroup": "its group",
    "limits": "all resource limits",
    "scheduling": "nice value and policy; io class and out-of-memory score where the plan sets them",
    "label": "the security label, where the plan sets one",
    "cgroup-limits": "that its group's limits are in force",
    "environment": "all variables",
    "program": "the file it executes, through the interpreters of scripts",
    "arguments": "its argv",
    "directory": "its working directory",
    "descriptors": "which are open, and that they are the right files",
    "mounts": "each planned mount, its options and propagation, and that there is no other",
}
_SHARED = {
    "user": "the host's users: its user number means the same inside and outside",
    "pid": "the host's processes: it sees them and may signal those of its own user",
    "mnt": "the host's mounts: it sees the file tree as the host has it",
    "ipc": "the host's System V IPC and POSIX message queues",
    "uts": "the host's name, which it can read and not change without SYS_ADMIN",
    "net": "the host's network: it can connect wherever the host can, and reaches abstract unix sockets",
    "cgroup": "the host's view of cgroups: it reads its group's full path",
}
# The limits without which something is without bounds, and what.
_UNLIMITED = {
    "memory": ("as", "memory.max"),
    "processor time": ("cpu", "cpu.max"),
    "number of processes": ("nproc", "pids.max"),
}
_OWN = {
    "user": "users", "pid": "process numbers", "mnt": "mounts", "ipc": "IPC", "uts": "host name",
    "net": "network", "cgroup": "cgroup view",
}  # fmt: skip


def steps(sandbox: Sandbox, baseline: Baseline, *, terminal: bool = False) -> list[tuple[str, str]]:
    """(name, sentence) of every step from the clone to the first instruction, in order."""
    before = [] if "pid" in sandbox.namespaces and sandbox.cgroup is None else [CGROUP]
    after = [MEASUREMENT, *([LOCK] if any(entry.operation == "lock" for entry in sandbox.mounts) else [])]
    between = ladder.names(sandbox, baseline, terminal=terminal)
    said = [(name, _SENTENCES[name](sandbox)) for name in (*before, *between, *after)]
    return [(name, _ON_A_TERMINAL.get(name, text) if terminal else text) for name, text in said]


def mounts(sandbox: Sandbox) -> list[str]:
    """One text for each mount operation, in order."""
    return [_MOUNTS[entry.operation](entry) for entry in sandbox.mounts]


def endings(command: Command, sandbox: Sandbox) -> list[tuple[bool, str]]:
    """(certain, sentence): what ends the command and all it started, and how surely."""
    found: list[tuple[bool, str]] = []
    if command.timeout:
        found.append((True, f"its time limit: after {command.timeout:g} s everything is killed"))
    found.append((True, f"stop: it is asked to end, and {command.grace:g} s later everything is killed"))
    if sandbox.cgroup is not None:
        found.append((True, "cgroup.kill: it ends its group, whole"))
    if "pid" in sandbox.namespaces:
        first = "bubblewrap, its PID 1," if sandbox.bwrap else "the reaper, its PID 1,"
        text = f"its pid namespace: the kernel kills every process in it when {first} ends"
        found.append((True, text))
    elif sandbox.cgroup is None:
        found.append((True, "where the supervisor can make cgroups: cgroup.kill ends its group, whole"))
        text = (
            "without them: the reaper adopts and kills what is left; when it is killed itself, "
            "processes that left the session can survive"
        )
        found.append((False, text))
    setuid = not sandbox.no_new_privileges
    text = "the command itself dies with its reaper, and the reaper with the supervisor (parent death signal)"
    found.append((not setuid, text + ("; a setuid program clears that signal" if setuid else "")))
    return found


def gaps(command: Command, sandbox: Sandbox) -> list[str]:
    """What is not confined, one sentence each, the weightiest first."""
    found = []
    if sandbox.user == 0:
        found.append("it runs as root: what its namespaces do not hide, it owns")
    if not sandbox.no_new_privileges:
        found.append("setuid and setcap programs may give it more rights than it has")
    if sandbox.capabilities and sandbox.id_map is None:
        found.append(f"it holds {_capabilities(sandbox.capabilities)} over the host")
    if not sandbox.new_root:
        found.append("no root of its own: it reads and writes every host file that its user may")
    for entry in sandbox.mounts:
        if entry.operation == "bind" and not entry.read_only:
            found.append(f"it may write to the host's {entry.source}, as far as its user may")
    found += [f"it shares {_SHARED[name]}" for name in NAMESPACES if name not in sandbox.namespaces]
    if not sandbox.filters:
        found.append("no seccomp filter: it may make every system call")
    if sandbox.groups is None:
        found.append("it keeps the further groups of the supervisor, which an ordinary user cannot drop")
    if sandbox.groups:
        found.append(f"it may do what members of the groups {_further(sandbox)} may")
    limited = {LIMIT_NAMES.get(which) for which, soft, _ in sandbox.limits if soft >= 0}
    limited |= {name for name, value in sandbox.cgroup or () if not value.startswith("max")}
    if unlimited := [text for text, names in _UNLIMITED.items() if limited.isdisjoint(names)]:
        found.append(f"not limited: {', '.join(unlimited)}")
    if sandbox.cgroup and sandbox.cgroup_optional:
        found.append("where the limits of its cgroup cannot be applied, it runs without them")
    if sandbox.cgroup and not sandbox.new_root and (sandbox.user == 0 or sandbox.groups is None):
        found.append("it may change its own limits: it sees the cgroup tree and is the supervisor's user")
    if not command.timeout:
        found.append("no time limit: it runs until it ends or is stopped")
    return found


def limits_text(sandbox: Sandbox) -> str:
    """The limits of its cgroup, such as `memory.max 67108864, pids.max 64`."""
    return ", ".join(f"{name} {value}".replace("\n", "; ") for name, value in sandbox.cgroup or ())


def _cgroup(sandbox: Sandbox) -> str:
    if sandbox.cgroup is None:
        return "it is born in a cgroup of its own, where the supervisor can make one"
    born = "it is born in a cgroup of its own"
    if not sandbox.cgroup:
        return born
    whose = "all tasks of the sandbox together" if sandbox.cgroup_shared else "it and all it starts together"
    otherwise = ", where that can be done" if sandbox.cgroup_optional else ""
    return f"{born}; for {whose}: {limits_text(sandbox)}{otherwise}"


def _capabilities(mask: int) -> str:
    if mask & _ALL_CAPABILITIES == _ALL_CAPABILITIES:
        return "all capabilities"
    return " ".join(capabilities.names(mask)) or "no capability"


def _named(sandbox: Sandbox, *left_out: str) -> str:
    return ", ".join(_OWN[name] for name in sandbox.namespaces if name not in left_out)


def _born(sandbox: Sandbox) -> str:
    late = ["cgroup", *(["user"] if sandbox.id_map is not None and not sandbox.id_map.first else [])]
    first = " as PID 1" if "pid" in sandbox.namespaces else ""
    return f"a reaper is cloned{first}, with its own: {_named(sandbox, *late)}"


def _identity(sandbox: Sandbox) -> str:
    ids = sandbox.id_map
    if ids is None:
        return "no users of its own"
    return (
        f"user {ids.inside_uid} inside is {ids.outside_uid} outside, group {ids.inside_gid} is "
        f"{ids.outside_gid}; there are no others, and setgroups is denied"
    )


def _limits(sandbox: Sandbox) -> str:
    def number(value: int) -> str:
        return "unlimited" if value < 0 else str(value)

    return "resource limits: " + ", ".join(
        f"{LIMIT_NAMES.get(which, str(which))} {number(soft)}"
        + ("" if soft == hard else f" (up to {number(hard)})")
        for which, soft, hard in sandbox.limits
    )


def _scheduling(sandbox: Sandbox) -> str:
    plan = sandbox.scheduling
    assert plan is not None
    said = [] if plan.nice is None else [f"nice value {plan.nice}"]
    if plan.policy is not None:
        said.append(f"policy {_name(scheduling.POLICIES, plan.policy)}")
    if plan.io is not None:
        io_class, level = scheduling.io_parts(plan.io)
        said.append(f"io {_name(scheduling.IO_CLASSES, io_class)}, level {level}")
    return ", ".join(said) or "as its supervisor"


def _name(names: dict[str, int], number: int) -> str:
    return next((name for name, known in names.items() if known == number), str(number))


def _score(sandbox: Sandbox) -> int | None:
    return sandbox.scheduling.oom_score_adj if sandbox.scheduling else None


def _landlock(sandbox: Sandbox) -> str:
    rules = sandbox.landlock
    assert rules is not None
    said = []
    if rules.fs:
        allowed = [f"{path} ({_access(access, rules.fs)})" for path, access in rules.paths]
        said.append(f"{_access(rules.fs, rules.fs)} only in {', '.join(allowed) or 'no place'}")
    for word, use in (("listens on", landlock.BIND), ("connects to", landlock.CONNECT)):
        if rules.net & use:
            ports = [str(port) for port, access in rules.ports if access & use]
            said.append(f"{word} TCP ports {', '.join(ports) or 'none'}")
    scopes = [name for name, bit in landlock.SCOPES.items() if rules.scopes & bit]
    said += [f"it does not reach others by {name}" for name in scopes]
    return "; ".join(said) + ("; where this kernel knows it" if rules.optional else "")


def _access(mask: int, among: int) -> str:
    return " ".join(name for name, bits in landlock.FS.items() if bits & among and mask & bits)


def _tree(sandbox: Sandbox) -> str:
    if sandbox.new_root:
        count = len(sandbox.mounts)
        begins = bool(sandbox.mounts) and sandbox.mounts[0].target == "/"
        root = f"{sandbox.mounts[0].source} as root," if begins else "an empty root"
        kept = "writable" if sandbox.writable_root else "then read-only"
        return (
            f"{root} filled by {count} mounts, {kept}; the host's tree is taken off, "
            "nothing propagates out"
        )
    covered = ", ".join(entry.target for entry in sandbox.mounts)
    return "the host's tree, from which nothing propagates out" + (f"; fresh on {covered}" if covered else "")


def _filters(sandbox: Sandbox) -> str:
    sizes = [f"{len(bpf) // seccomp.INSTRUCTION} instructions" for bpf in sandbox.filters]
    asks = f"; what the last one notifies, `{sandbox.handler}` answers" if sandbox.handler else ""
    return f"{len(sizes)} filter{'s' if len(sizes) > 1 else ''} ({', '.join(sizes)}), loaded last{asks}"


def _bwrap(sandbox: Sandbox) -> str:
    made = f"{sandbox.bwrap} makes its own: {_named(sandbox)}; {_tree(sandbox)}"
    filters = f"; {_filters(sandbox)}" if sandbox.filters else ""
    return f"{made}; it holds: {_capabilities(sandbox.capabilities)}{filters}"


def _further(sandbox: Sandbox) -> str:
    return " ".join(map(str, sandbox.groups or ())) or "none"


_SENTENCES: dict[str, Callable[[Sandbox], str]] = {
    CGROUP: _cgroup,
    ladder.NAMESPACES: _born,
    ladder.DESCRIPTORS: lambda _: "/dev/null, a pipe and a pipe become 0, 1 and 2; all others are closed",
    "own session": lambda _: "the reaper leaves the supervisor's terminal",
    "identity map": _identity,
    "reaper": lambda _: "the reaper dies with the supervisor, adopts orphans, and cannot be looked into",
    "traceable": lambda _: "the command tells the supervisor that it can be held",
    "session": lambda _: "a session and process group of its own, without a terminal",
    "terminal": lambda _: "its standard input is its controlling terminal",
    "signals": lambda _: "no signal is ignored or blocked",
    "limits": _limits,
    "oom score": lambda sandbox: f"out-of-memory score of the reaper and of the command: {_score(sandbox)}",
    "scheduling": _scheduling,
    "proc": lambda _: "the host's /proc is kept open, to write the identity map or the label later",
    "cgroup namespace": lambda _: "its cgroup is the root of those it sees",
    "mounts": _tree,
    "host name": lambda sandbox: f"its host name is {sandbox.hostname}",
    "loopback": lambda _: "the loopback of its own network is up, and there is no other device",
    "umask": lambda sandbox: f"new files are made with umask {sandbox.umask:03o}",
    "label": lambda sandbox: f"its security label is {sandbox.label}, whatever the module makes of that",
    "groups": lambda sandbox: f"further groups: {_further(sandbox)}",
    "group": lambda sandbox: f"its group is {sandbox.group}",
    "user": lambda sandbox: f"its user is {sandbox.user}",
    "user namespace": _identity,
    "bounding set": lambda sandbox: f"it can never hold more than: {_capabilities(sandbox.capabilities)}",
    "capabilities": lambda sandbox: f"it holds: {_capabilities(sandbox.capabilities)}",
    "directory": lambda sandbox: f"it starts in {sandbox.directory}",
    "no new privileges": lambda _: "no program it runs can give it more rights, setuid or not",
    "parent death signal": lambda _: "it is killed when its reaper ends",
    "Landlock": _landlock,
    "held": lambda _: "it waits until the supervisor traces it",
    "seccomp": _filters,
    ladder.BWRAP: _bwrap,
    ladder.EXEC: lambda _: "the program is loaded, and held before its first instruction",
    MEASUREMENT: lambda _: "the supervisor reads what it really has; any difference from the plan refuses it",
    LOCK: lambda _: "the supervisor takes the read locks and holds them as long as it runs",
}

_ON_A_TERMINAL = {
    ladder.DESCRIPTORS: "a terminal made for it becomes 0, 1 and 2; all others are closed",
    "session": "a session and process group of its own, still without a terminal",
}

_MOUNTS: dict[str, Callable[[Mount], str]] = {
    "bind": lambda entry: (
        f"{entry.target}: the host's {entry.source}, {'read-only' if entry.read_only else 'WRITABLE'}"
    ),
    "overlay": lambda entry: (
        f"{entry.target}: the host's {entry.source}; what is written is in memory, gone with the command"
    ),
    "image": lambda entry: f"{entry.target}: what is in the image {entry.source}, read-only",
    "tmpfs": lambda entry: f"{entry.target}: empty memory, gone with the command",
    "proc": lambda entry: f"{entry.target}: its own processes",
    "dev": lambda entry: f"{entry.target}: null, zero, full, random, urandom, tty, own pts and shm",
    "mqueue": lambda entry: f"{entry.target}: its own message queues",
    "dir": lambda entry: f"{entry.target}: an empty directory",
    "symlink": lambda entry: f"{entry.target}: a link to {entry.source}",
    "file": lambda entry: f"{entry.target}: a read-only file of {len(entry.data)} bytes",
    "lock": lambda entry: f"{entry.target}: locked for reading as long as it runs",
}
