"""The command line of bubblewrap that comes closest to a sandbox, and what it leaves out. Boot module."""

from __future__ import annotations

from initspawn.linux import capabilities, scheduling
from initspawn.record import Record
from initspawn.sandbox.bwrap import options
from initspawn.sandbox.describe import LIMIT_NAMES, limits_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from initspawn.plan import Sandbox

_POLICIES = {number: f"--{name}" for name, number in scheduling.POLICIES.items()}  # of chrt(1)
_FIRST_FD = 3  # the POSIX shell opens 3 to 9 itself, more only in bash


class Equivalent(Record):
    """`argv` with its programs; `files`, descriptors to be opened on what (a shell's `3<NAME`);
    `differences`, sentences on what it does not do as the sandbox does.
    """

    argv: tuple[str, ...]
    files: tuple[tuple[int, str, bytes], ...] = ()
    differences: tuple[str, ...] = ()


def equivalent(sandbox: Sandbox, argv: tuple[str, ...]) -> Equivalent:
    """What to type to run `argv` nearly as the sandbox would; never fails."""
    files: list[tuple[int, str, bytes]] = []
    before, inside = _identity(sandbox)
    words = [*_limits(sandbox), *_scheduling(sandbox), *before, sandbox.bwrap or "bwrap"]
    words += options(sandbox, files, _FIRST_FD, every_capability=bool(inside))
    words += ["--", *inside, *argv]
    return Equivalent(argv=tuple(words), files=tuple(files), differences=tuple(_differences(sandbox)))


def _limits(sandbox: Sandbox) -> list[str]:
    def number(value: int) -> str:
        return "unlimited" if value < 0 else str(value)

    known = [limit for limit in sandbox.limits if limit[0] in LIMIT_NAMES]
    options = [f"--{LIMIT_NAMES[which]}={number(soft)}:{number(hard)}" for which, soft, hard in known]
    return ["prlimit", *options, "--"] if options else []


def _scheduling(sandbox: Sandbox) -> list[str]:
    plan, words = sandbox.scheduling, []
    if plan is None:
        return []
    if plan.nice is not None:
        words += ["nice", f"--adjustment={plan.nice}"]  # from an ordinary shell, whose own is 0
    if plan.policy is not None:
        words += ["chrt", _POLICIES[plan.policy], "0"]
    if plan.io is not None:
        io_class, level = scheduling.io_parts(plan.io)
        words += ["ionice", "--class", str(io_class), *(["--classdata", str(level)] if io_class != 3 else [])]
    if plan.oom_score_adj is not None:
        words += ["choom", f"--adjust={plan.oom_score_adj}", "--"]
    return words


def _identity(sandbox: Sandbox) -> tuple[list[str], list[str]]:
    """What changes the user: (setpriv before bwrap, setpriv inside)."""
    if sandbox.groups is None:
        return [], []
    groups = ["--clear-groups"]
    if sandbox.groups:
        groups = [f"--groups={','.join(map(str, sandbox.groups))}"]
    change = ["setpriv", f"--reuid={sandbox.user}", f"--regid={sandbox.group}", *groups]
    if sandbox.id_map is not None:
        return [*change, "--"], []
    if sandbox.user == 0:
        return [], []
    # Without users of its own, only root can make the namespaces: the change of user comes inside.
    names = capabilities.names(sandbox.capabilities)
    sets = ",".join(["-all", *(f"+{name.lower()}" for name in names)])
    every = [f"--{which}={sets}" for which in ("inh-caps", "ambient-caps", "bounding-set")]
    return [], [*change, *every, "--no-new-privs", "--"]


def _differences(sandbox: Sandbox) -> list[str]:
    found = ["nothing is measured: a policy that does not take effect is not noticed"]
    if "mnt" not in sandbox.namespaces:
        found.append("bwrap always makes a mount namespace; this sandbox has none")
    if sandbox.id_map is not None and not sandbox.id_map.first:
        found.append("bwrap's other namespaces belong to its user namespace; here they belong to the host")
    if sandbox.id_map is None and sandbox.groups is not None:
        inside = "" if sandbox.user == 0 else ", and setpriv must exist inside"
        found.append(f"bwrap must be run as root{inside}")
    if sandbox.umask != 0o022:
        found.append(f"bwrap takes its umask from the shell: run `umask {sandbox.umask:03o}` first")
    if not sandbox.no_new_privileges:
        found.append("bwrap always sets no-new-privileges: setuid programs do not work in it")
    if any(entry.operation == "overlay" for entry in sandbox.mounts):
        found.append("overlays need bubblewrap 0.11")
    if any(entry.operation == "image" for entry in sandbox.mounts):
        found.append("bwrap mounts no images: mount it first, where the line binds the image's own file")
    if sandbox.label is not None:
        found.append("the security label is not set: only with SELinux, `--exec-label` would")
    if sandbox.landlock is not None:
        found.append("bwrap has no Landlock rules")
    if "pid" not in sandbox.namespaces:
        found.append("bwrap makes no cgroup, and without a pid namespace what a command leaves runs on")
    if sandbox.cgroup:
        found.append(f"bwrap limits nothing: {limits_text(sandbox)} are left out")
    found.append("time limit, output limits, and the clean descriptors and signals are not bwrap's work")
    return found
