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

from initspawn.linux import mount, namespaces, prctl, process, scheduling, terminal
from initspawn.sandbox import rights
from initspawn.sandbox.mounts import Builder
from initspawn.sandbox.recipe import Recipe, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

READY = b"r"
GO = b"g"
_SIGSET = 8  # bytes of the kernel's sigset_t


# What each step does. All numbers and bytes are fixed here, before any child exists.


def _own_session(recipe: Recipe) -> None:
    recipe.program.call("setsid")  # away from the supervisor's terminal: its Ctrl-C is not for us


def _identity_map(recipe: Recipe) -> None:
    ids = recipe.sandbox.id_map
    assert ids is not None
    program = recipe.program
    # We may have changed user, or the supervisor may be hidden: our /proc/self must be ours (proc(5)).
    recipe.prctl(prctl.PR_SET_DUMPABLE, 1, "our /proc/self is ours")
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
        recipe.prctl(prctl.PR_SET_DUMPABLE, 0, "and nobody else's")


def _oom_score(recipe: Recipe) -> None:
    # Here, where the host's /proc is still seen; the command inherits it.
    program = recipe.program
    recipe.prctl(prctl.PR_SET_DUMPABLE, 1, "our /proc/self is ours")  # the next step ends that
    flags = os.O_WRONLY | os.O_CLOEXEC
    fd = program.open("openat", mount.AT_FDCWD, b"/proc/self/oom_score_adj", flags, note="oom_score_adj")
    wanted = recipe.sandbox.scheduling
    assert wanted is not None
    text = str(wanted.oom_score_adj)
    program.call("write", fd, text.encode(), len(text), expect=len(text), note=text)
    program.close(fd)


def _reaper(recipe: Recipe) -> None:
    name = ctypes.create_string_buffer(b"initspawn-reap")
    recipe.prctl(prctl.PR_SET_NAME, recipe.program.keep(name), "initspawn-reap")
    recipe.prctl(prctl.PR_SET_CHILD_SUBREAPER, 1, "orphans come to the reaper")
    recipe.prctl(prctl.PR_SET_PDEATHSIG, _signal.SIGKILL, "dies with the supervisor")
    if "pid" not in recipe.sandbox.namespaces:  # else its parent has no number there
        # One that died before that sends no signal any more.
        recipe.program.call("getppid", expect=recipe.baseline.supervisor, note="which lives")
    # A copy of the supervisor's memory: nobody in the sandbox may look into it, as /proc/1 or by ptrace.
    recipe.prctl(prctl.PR_SET_DUMPABLE, 0, "not dumpable")


def _traceable(recipe: Recipe) -> None:
    # Root may hold anybody at its exec; an ordinary supervisor only who lets it.
    if not recipe.privileged:
        recipe.prctl(prctl.PR_SET_DUMPABLE, 1, "dumpable")
    recipe.program.call("write", recipe.handshake, READY, 1, expect=1, note="ready")


def _session(recipe: Recipe) -> None:
    recipe.program.call("setsid")
    if recipe.privileged:  # an ordinary user's few keys would not do for all tasks: see the spawner
        recipe.program.call("keyctl", process.KEYCTL_JOIN_SESSION_KEYRING, None, ignore=errno.ENOSYS)


def _terminal(recipe: Recipe) -> None:
    recipe.program.call("ioctl", 0, terminal.TIOCSCTTY, 0, note="standard input")


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


def _user_namespace(recipe: Recipe) -> None:
    recipe.program.call("unshare", process.CLONE_NEWUSER, note="user")
    _identity_map(recipe)


def _directory(recipe: Recipe) -> None:
    recipe.program.call("chdir", os.fsencode(recipe.sandbox.directory), note=recipe.sandbox.directory)


def _parent_death(recipe: Recipe) -> None:
    recipe.prctl(prctl.PR_SET_PDEATHSIG, _signal.SIGKILL, "dies with its reaper")


def _held(recipe: Recipe) -> None:
    go = ctypes.create_string_buffer(1)
    recipe.program.call("read", recipe.handshake, recipe.program.keep(go), 1, expect=1, note="go")


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
    Step("proc", _proc, lambda recipe: recipe.maps_last or recipe.labelled),
    Step("mounts", _mounts, _has("mnt")),
    Step("host name", _hostname, lambda recipe: recipe.sandbox.hostname is not None),
    Step("loopback", _loopback, _has("net")),
)
COMMAND_STEPS = (
    Step("traceable", _traceable),
    Step("session", _session),
    Step("terminal", _terminal, lambda recipe: recipe.terminal),
    Step("signals", _signals),
    Step("limits", _limits, lambda recipe: bool(recipe.sandbox.limits)),
    Step("scheduling", _scheduling, lambda recipe: recipe.sandbox.scheduling is not None),
    Step("cgroup namespace", _cgroup_namespace, _has("cgroup")),
    Step("umask", _umask),
    Step("label", rights.set_label, lambda recipe: recipe.labelled),
    Step("groups", rights.set_groups, _privileged),
    Step("group", rights.set_group, _privileged),
    Step("user", rights.set_user, _privileged),
    Step("user namespace", _user_namespace, _maps_last),
    Step("bounding set", rights.cut_bounding_set, lambda recipe: recipe.privileged or recipe.maps_first),
    Step("capabilities", rights.set_capabilities),
    Step("directory", _directory),
    Step("no new privileges", rights.set_no_new_privileges, lambda recipe: recipe.sandbox.no_new_privileges),
    Step("parent death signal", _parent_death),  # this late: a change of user clears it
    Step("Landlock", rights.apply_landlock, lambda recipe: any(rights.landlock_handles(recipe))),
    Step("held", _held),
)
# When it has been let go: nothing but this stands between it and the exec.
FILTER_STEPS = (Step("seccomp", rights.load_filters, lambda recipe: bool(recipe.sandbox.filters)),)
