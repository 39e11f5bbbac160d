"""What each step of a child's way to its exec does, and in which order they come. Boot module.

Two processes take them. The reaper is cloned into the new namespaces, where it is PID 1, builds the
sandbox, clones the command, gives up every right, and waits. The command gives up what it must not have.
All of this can be done before anybody asks for a start: then the command waits to be let go, loads its
filter, and executes.
"""

from __future__ import annotations

import _signal
import _socket
import ctypes
import errno
import os
import struct

from initspawn.linux import capabilities, mount, namespaces, prctl, process, scheduling, seccomp
from initspawn.sandbox.mounts import Builder
from initspawn.sandbox.program import Program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from initspawn.plan import Sandbox
    from initspawn.sandbox.measure import Baseline

READY = b"r"
GO = b"g"
_SIGSET = 8  # bytes of the kernel's sigset_t


class Recipe:
    """What the steps work on: the sandbox, who we are, and the program they write.

    `extra`: how many descriptors the command gets beside 0, 1 and 2; the handshake has the next number,
    and behind it comes the cgroup the command is born in, if there is one.
    """

    def __init__(
        self, sandbox: Sandbox, baseline: Baseline, extra: int = 0, *, grouped: bool = False
    ) -> None:
        self.sandbox = sandbox
        self.baseline = baseline
        self.handshake = 3 + extra
        self.cgroup = self.handshake + 1 if grouped else -1
        self.program = Program(self.handshake + 1 + grouped)
        self.proc = -1

    @property
    def privileged(self) -> bool:
        """Whether the supervisor is root, and so changes users for real."""
        return self.sandbox.groups is not None

    @property
    def maps_first(self) -> bool:
        """Whether a user namespace is made before, and owns, all others."""
        return self.sandbox.id_map is not None and self.sandbox.id_map.first

    @property
    def maps_last(self) -> bool:
        """Whether a user namespace is made when everything else is done."""
        return self.sandbox.id_map is not None and not self.sandbox.id_map.first


class Step:
    """One rung: its name, what it adds to the program, and whether a sandbox needs it."""

    __slots__ = ("add", "name", "needed")

    def __init__(
        self, name: str, add: Callable[[Recipe], None], needed: Callable[[Recipe], bool] = lambda _: True
    ) -> None:
        self.name = name
        self.add = add
        self.needed = needed


# What each step does. All numbers and bytes are fixed here, before any child exists.


def _prctl(recipe: Recipe, option: int, value: int, note: str, extra: int = 0) -> None:
    recipe.program.call("prctl", option, value, extra, 0, 0, note=note)


def _own_session(recipe: Recipe) -> None:
    recipe.program.call("setsid")  # away from the supervisor's terminal: its Ctrl-C is not for us


def _identity_map(recipe: Recipe) -> None:
    ids = recipe.sandbox.id_map
    assert ids is not None
    program = recipe.program
    # We may have changed user, or the supervisor may be hidden: our /proc/self must be ours (proc(5)).
    _prctl(recipe, prctl.PR_SET_DUMPABLE, 1, "our /proc/self is ours")
    where = recipe.proc if recipe.proc >= 0 else mount.AT_FDCWD
    prefix = b"" if recipe.proc >= 0 else b"/proc/"
    for name, text in (
        (b"setgroups", "deny"),  # the kernel demands it of the unprivileged (user_namespaces(7))
        (b"uid_map", f"{ids.inside_uid} {ids.outside_uid} 1"),
        (b"gid_map", f"{ids.inside_gid} {ids.outside_gid} 1"),
    ):
        path = prefix + b"self/" + name
        fd = program.open("openat", where, path, os.O_WRONLY | os.O_CLOEXEC, note=path.decode())
        program.call("write", fd, text.encode(), len(text), expect=len(text), note=text)
        program.close(fd)
    if recipe.privileged:  # it waits for its exec, and others may run as the same user meanwhile
        _prctl(recipe, prctl.PR_SET_DUMPABLE, 0, "and nobody else's")


def _oom_score(recipe: Recipe) -> None:
    # Here, where the host's /proc is still seen; the command inherits it.
    program = recipe.program
    _prctl(recipe, prctl.PR_SET_DUMPABLE, 1, "our /proc/self is ours")  # the next step ends that
    flags = os.O_WRONLY | os.O_CLOEXEC
    fd = program.open("openat", mount.AT_FDCWD, b"/proc/self/oom_score_adj", flags, note="oom_score_adj")
    wanted = recipe.sandbox.scheduling
    assert wanted is not None
    text = str(wanted.oom_score_adj)
    program.call("write", fd, text.encode(), len(text), expect=len(text), note=text)
    program.close(fd)


def _reaper(recipe: Recipe) -> None:
    name = ctypes.create_string_buffer(b"initspawn-reap")
    _prctl(recipe, prctl.PR_SET_NAME, recipe.program.keep(name), "initspawn-reap")
    _prctl(recipe, prctl.PR_SET_CHILD_SUBREAPER, 1, "orphans come to the reaper")
    _prctl(recipe, prctl.PR_SET_PDEATHSIG, _signal.SIGKILL, "dies with the supervisor")
    # A copy of the supervisor's memory: nobody in the sandbox may look into it, as /proc/1 or by ptrace.
    _prctl(recipe, prctl.PR_SET_DUMPABLE, 0, "not dumpable")


def _traceable(recipe: Recipe) -> None:
    # Root may hold anybody at its exec; an ordinary supervisor only who lets it.
    if not recipe.privileged:
        _prctl(recipe, prctl.PR_SET_DUMPABLE, 1, "dumpable")
    recipe.program.call("write", recipe.handshake, READY, 1, expect=1, note="ready")


def _session(recipe: Recipe) -> None:
    recipe.program.call("setsid")
    if recipe.privileged:  # an ordinary user's few keys would not do for all tasks: see the spawner
        recipe.program.call("keyctl", process.KEYCTL_JOIN_SESSION_KEYRING, None, ignore=errno.ENOSYS)


def _signals(recipe: Recipe) -> None:
    # exec resets handlers, but what is ignored stays ignored: Python's SIGPIPE, and nohup's SIGHUP.
    program = recipe.program
    for bit in range(64):
        if recipe.baseline.ignored >> bit & 1:
            program.call("rt_sigaction", bit + 1, bytes(32), None, _SIGSET, note=f"default for {bit + 1}")
    program.call("rt_sigprocmask", _signal.SIG_SETMASK, bytes(_SIGSET), None, _SIGSET, note="none blocked")


def _limits(recipe: Recipe) -> None:
    for which, soft, hard in recipe.sandbox.limits:
        value = struct.pack("=2q", soft, hard)  # -1 is RLIM_INFINITY
        recipe.program.call("prlimit64", 0, which, value, None, note=f"{which} {soft}:{hard}")


def _scheduling(recipe: Recipe) -> None:
    program, wanted = recipe.program, recipe.sandbox.scheduling
    assert wanted is not None
    if wanted.nice is not None:
        program.call("setpriority", scheduling.PRIO_PROCESS, 0, wanted.nice, note=str(wanted.nice))
    if wanted.policy is not None:
        parameters = struct.pack("=i", 0)  # struct sched_param: a priority, which these policies have not
        program.call("sched_setscheduler", 0, wanted.policy, parameters, note=str(wanted.policy))
    if wanted.io is not None:
        note = "class {}, {}".format(*scheduling.io_parts(wanted.io))
        program.call("ioprio_set", scheduling.IOPRIO_WHO_PROCESS, 0, wanted.io, note=note)


def _proc(recipe: Recipe) -> None:
    # The host's /proc shows us too, and the sandbox may have none.
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    recipe.proc = recipe.program.open("openat", mount.AT_FDCWD, b"/proc", flags, note="/proc")


def _cgroup_namespace(recipe: Recipe) -> None:
    # Not with the clone: the namespace's root is the cgroup of whoever makes it.
    recipe.program.call("unshare", process.CLONE_NEWCGROUP, note="cgroup")


def _mounts(recipe: Recipe) -> None:
    recipe.program.call("umask", 0o022)
    Builder(recipe.program, recipe.sandbox).build()


def _hostname(recipe: Recipe) -> None:
    name = (recipe.sandbox.hostname or "").encode()
    recipe.program.call("sethostname", name, len(name), note=name.decode())


def _loopback(recipe: Recipe) -> None:
    program = recipe.program
    kind = _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC
    sock = program.open("socket", _socket.AF_INET, kind, 0)
    program.call("ioctl", sock, namespaces.SIOCSIFFLAGS, namespaces.LOOPBACK_UP, note="lo up")
    program.close(sock)


def _umask(recipe: Recipe) -> None:
    recipe.program.call("umask", recipe.sandbox.umask, note=f"{recipe.sandbox.umask:03o}")


def _groups(recipe: Recipe) -> None:
    groups = recipe.sandbox.groups or ()
    packed = struct.pack(f"={len(groups)}I", *groups)
    recipe.program.call("setgroups", len(groups), packed, note=" ".join(map(str, groups)))


def _group(recipe: Recipe) -> None:
    recipe.program.call("setresgid", *[recipe.sandbox.group] * 3, note=str(recipe.sandbox.group))


def _user(recipe: Recipe) -> None:
    # The next steps need the rights; exec clears the flag again.
    _prctl(recipe, prctl.PR_SET_KEEPCAPS, 1, "keep capabilities")
    recipe.program.call("setresuid", *[recipe.sandbox.user] * 3, note=str(recipe.sandbox.user))


def _user_namespace(recipe: Recipe) -> None:
    recipe.program.call("unshare", process.CLONE_NEWUSER, note="user")
    _identity_map(recipe)


def _held_now(recipe: Recipe) -> int:
    """The capabilities a child has before it gives any up."""
    if recipe.sandbox.id_map is not None:
        return (1 << recipe.baseline.last_capability + 1) - 1
    return recipe.baseline.permitted


def _capset(recipe: Recipe, mask: int, inheritable: int) -> None:
    header, data = capabilities.capset_arguments(mask, mask, inheritable)
    recipe.program.call("capset", header, data, note=" ".join(capabilities.names(mask)) or "none")


def _bounding_set(recipe: Recipe) -> None:
    _capset(recipe, _held_now(recipe), 0)  # a change of user took them out of the effective set
    for number in range(recipe.baseline.last_capability + 1):
        if not recipe.sandbox.capabilities >> number & 1:
            _prctl(recipe, prctl.PR_CAPBSET_DROP, number, f"drop {capabilities.names(1 << number)[0]}")


def _capabilities(recipe: Recipe) -> None:
    mask = recipe.sandbox.capabilities
    _capset(recipe, mask, mask)
    _prctl(recipe, prctl.PR_CAP_AMBIENT, prctl.PR_CAP_AMBIENT_CLEAR_ALL, "none ambient")
    for number in range(mask.bit_length()):
        if mask >> number & 1:
            note = f"ambient {capabilities.names(1 << number)[0]}"
            _prctl(recipe, prctl.PR_CAP_AMBIENT, prctl.PR_CAP_AMBIENT_RAISE, note, number)


def _directory(recipe: Recipe) -> None:
    recipe.program.call("chdir", os.fsencode(recipe.sandbox.directory), note=recipe.sandbox.directory)


def _no_new_privileges(recipe: Recipe) -> None:
    _prctl(recipe, prctl.PR_SET_NO_NEW_PRIVS, 1, "no new privileges")


def _parent_death(recipe: Recipe) -> None:
    _prctl(recipe, prctl.PR_SET_PDEATHSIG, _signal.SIGKILL, "dies with its reaper")


def _held(recipe: Recipe) -> None:
    go = ctypes.create_string_buffer(1)
    recipe.program.call("read", recipe.handshake, recipe.program.keep(go), 1, expect=1, note="go")


def _seccomp(recipe: Recipe) -> None:
    for number, bpf in enumerate(recipe.sandbox.filters):
        loaded = recipe.program.keep(seccomp.program(bpf))
        note = f"filter {number + 1}, {len(bpf) // seccomp.INSTRUCTION} instructions"
        _prctl(recipe, prctl.PR_SET_SECCOMP, seccomp.MODE_FILTER, note, loaded)


def _has(name: str) -> Callable[[Recipe], bool]:
    return lambda recipe: name in recipe.sandbox.namespaces


def _privileged(recipe: Recipe) -> bool:
    return recipe.privileged


def _maps_last(recipe: Recipe) -> bool:
    return recipe.maps_last


def _scores(recipe: Recipe) -> bool:
    wanted = recipe.sandbox.scheduling
    return wanted is not None and wanted.oom_score_adj is not None


# Before these come the descriptors, whose numbers differ from one start to the next.
REAPER_STEPS = (
    Step("own session", _own_session),
    Step("identity map", _identity_map, lambda recipe: recipe.maps_first),
    Step("oom score", _oom_score, _scores),
    Step("reaper", _reaper),
    Step("proc", _proc, _maps_last),
    Step("mounts", _mounts, _has("mnt")),
    Step("host name", _hostname, lambda recipe: recipe.sandbox.hostname is not None),
    Step("loopback", _loopback, _has("net")),
)
COMMAND_STEPS = (
    Step("traceable", _traceable),
    Step("session", _session),
    Step("signals", _signals),
    Step("limits", _limits, lambda recipe: bool(recipe.sandbox.limits)),
    Step("scheduling", _scheduling, lambda recipe: recipe.sandbox.scheduling is not None),
    Step("cgroup namespace", _cgroup_namespace, _has("cgroup")),
    Step("umask", _umask),
    Step("groups", _groups, _privileged),
    Step("group", _group, _privileged),
    Step("user", _user, _privileged),
    Step("user namespace", _user_namespace, _maps_last),
    Step("bounding set", _bounding_set, lambda recipe: recipe.privileged or recipe.maps_first),
    Step("capabilities", _capabilities),
    Step("directory", _directory),
    Step("no new privileges", _no_new_privileges, lambda recipe: recipe.sandbox.no_new_privileges),
    Step("parent death signal", _parent_death),  # this late: a change of user clears it
    Step("held", _held),
)
# When it has been let go: nothing but this stands between it and the exec.
FILTER_STEPS = (Step("seccomp", _seccomp, lambda recipe: bool(recipe.sandbox.filters)),)
