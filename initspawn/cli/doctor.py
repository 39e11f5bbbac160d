"""`initspawn doctor`: what this kernel and this user can do, found out by trying."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from functools import partial
from importlib.util import find_spec
from typing import Any

from initspawn import __version__
from initspawn.cli import installed, probes
from initspawn.cli.exits import OK, REFUSED
from initspawn.cli.installed import GOOD, LIMITED, MISSING, Finding
from initspawn.cli.output import show_json, write_line
from initspawn.cli.probes import NOBODY, reason_not
from initspawn.cli.trial import launch_plain
from initspawn.linux import capabilities, cgroup
from initspawn.linux.numbers import TABLES
from initspawn.plan import NAMESPACES, Api, Sandbox
from initspawn.supervisor.groups import Groups

HELP = "say what this kernel and this user can do, and what to do about the rest"
EXAMPLES = """\
examples:
  initspawn doctor
  initspawn doctor --json

Everything is tried for real and undone. Exit code 0: plain sandboxes can be launched; 125: they cannot.
"""
TRIAL = "a plain sandbox"
_OLDEST_PYTHON = (3, 11)
_NAMESPACE_USES = {
    "user": "no sandbox for ordinary users, no `shares: {users: disable}`",
    "pid": "no sandbox with a `namespace` section, but with `shares: {pid: enable}`",
    "mnt": "no sandbox with a `namespace` section",
    "ipc": "no `shares: {ipc: disable}`",
    "uts": "no `shares: {uts: disable}`, no `hostname`",
    "net": "no `shares: {net: disable}`",
    "cgroup": "no `shares: {cgroups: disable}`",
}
# A setting of /proc/sys, what it must not be, and the remedy.
_USER_NAMESPACE_SETTINGS = (
    ("user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=15000"),
    ("kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
    (
        "kernel/apparmor_restrict_unprivileged_userns", "1",
        "an AppArmor profile with `userns,` for initspawn, or "
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
    ),
)  # fmt: skip


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `doctor`."""
    parser.epilog = EXAMPLES
    parser.add_argument("--json", action="store_true", help="one JSON object")


def main(arguments: argparse.Namespace) -> int:
    """Examine and print. Returns 0 if plain sandboxes can be launched, else 125."""
    findings = examine()
    healthy = all(finding.state == GOOD for finding in findings if finding.name == TRIAL)
    if arguments.json:
        show_json({"ok": healthy, "findings": [vars(finding) for finding in findings]}, indent=2)
    else:
        _show(findings)
        verdict = "plain sandboxes can be launched" if healthy else "plain sandboxes cannot be launched"
        write_line(f"\n{verdict} by user {os.geteuid()}", sys.stdout)
    return OK if healthy else REFUSED


def _show(findings: list[Finding]) -> None:
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        write_line(f"{finding.state:8} {finding.name:{width}}  {finding.found}", sys.stdout)
        for label, text in (("meaning", finding.meaning), ("remedy", finding.remedy)):
            if text:
                write_line(f"{'':8} {'':{width}}  {label}: {text}", sys.stdout)


def examine() -> list[Finding]:
    """Everything, in the order it is printed. Leaves nothing behind."""
    return [
        _kernel(),
        _python(),
        *(_namespace(name) for name in NAMESPACES),
        _user_namespaces(),
        *_calls(),
        _tracing(),
        *_seccomp(),
        _cgroups(),
        _limits(),
        _capabilities(),
        _landlock(),
        _links(),
        installed.bwrap(),
        installed.nftables(),
        installed.packages(),
        _trial(),
    ]


def _kernel() -> Finding:
    machine = os.uname().machine
    found = f"Linux {os.uname().release} {machine}"
    known = machine in TABLES
    return Finding(
        "kernel", GOOD if known else MISSING, found, "no system call can be made: its numbers are not known",
        f"run on one of {', '.join(TABLES)}",
    )  # fmt: skip


def _python() -> Finding:
    good = sys.version_info >= _OLDEST_PYTHON
    found = f"{platform.python_version()} at {sys.executable}, initspawn {__version__}"
    wanted = ".".join(map(str, _OLDEST_PYTHON))
    return Finding("Python", GOOD if good else MISSING, found, "too old", f"Python {wanted} or newer")


def _namespace(name: str) -> Finding:
    reason = reason_not(partial(probes.make_namespace, name))
    remedy = "a kernel with all kinds of namespaces, and a container or seccomp policy that allows them"
    found = reason or "can be made"
    return Finding(f"{name} namespace", MISSING if reason else GOOD, found, _NAMESPACE_USES[name], remedy)


def _user_namespaces() -> Finding:
    root = os.geteuid() == 0
    reason = reason_not(partial(probes.make_namespace, "user"), user=NOBODY if root else None)
    read = [(path, _setting(path), bad, remedy) for path, bad, remedy in _USER_NAMESPACE_SETTINGS]
    values = ", ".join(f"{path.replace('/', '.')}={value}" for path, value, _, _ in read if value)
    remedies = [remedy for _, value, bad, remedy in read if value == bad]
    meaning = "only root can launch sandboxes" if root else "no sandbox with a `namespace` section"
    return Finding(
        "user namespaces for ordinary users",
        GOOD if not reason else LIMITED if root else MISSING,
        f"{reason or 'can be made'} ({values or 'no settings'})",
        meaning,
        "; ".join(remedies) or "run as root, or see what the container or the kernel forbids",
    )


def _calls() -> list[Finding]:
    tried = (
        ("mount API", probes.use_mount_calls, "open_tree, mount_setattr, fsopen work",
         "no mounts in sandboxes", "Linux 5.12, and a container policy that allows mounting"),
        ("openat2", probes.open_below_root, "works", "no mounts behind links in sandboxes", "Linux 5.6"),
        ("clone3", probes.use_clone3, "works", "nothing can be launched",
         "Linux 5.3, and a container policy that does not hide it"),
        ("close_range", probes.use_close_range, "works", "nothing can be launched", "Linux 5.9"),
        ("pidfd", probes.use_pidfd, "works", "nothing can be launched", "Linux 5.3"),
    )  # fmt: skip
    findings = []
    for name, probe, good, meaning, remedy in tried:
        reason = reason_not(probe)
        findings.append(Finding(name, MISSING if reason else GOOD, reason or good, meaning, remedy))
    return findings


def _tracing() -> Finding:
    reason = reason_not(probes.trace_a_grandchild)
    scope = _setting("kernel/yama/ptrace_scope")
    return Finding(
        "ptrace of descendants",
        MISSING if reason else GOOD,
        f"{reason or 'works'} ({f'kernel.yama.ptrace_scope={scope}' if scope else 'no Yama'})",
        "nothing can be launched: a command is measured before it runs",
        "sysctl kernel.yama.ptrace_scope=1, or CAP_SYS_PTRACE where it is 2",
    )


def _seccomp() -> list[Finding]:
    reason = reason_not(probes.load_filter)
    kernel = Finding(
        "seccomp filters", MISSING if reason else GOOD, reason or "can be loaded",
        "no sandbox with a `seccomp` section", "a kernel with CONFIG_SECCOMP_FILTER",
    )  # fmt: skip
    version = installed.libseccomp()
    usable = bool(version) and find_spec("pyseccomp") is not None
    found = (version if usable else f"{version}, but no pyseccomp") if version else "not found"
    compiler = Finding(
        "libseccomp", GOOD if usable else LIMITED, found,
        "configurations with `seccomp` cannot be compiled here; compiled plans run",
        "install libseccomp 2.5 and pyseccomp",
    )  # fmt: skip
    return [kernel, compiler]


def _cgroups() -> Finding:
    name = "cgroups"
    meaning = "without a pid namespace, what a command leaves behind is ended as well as possible"
    where = cgroup.mount_point()
    if where is None:
        return Finding(name, LIMITED, "no cgroup v2 mounted", meaning, "mount -t cgroup2 none /sys/fs/cgroup")
    try:
        place = where.rstrip("/") + cgroup.own_path()
        with open(f"{place.rstrip('/')}/cgroup.controllers", encoding="ascii") as file:
            controllers = file.read().strip() or "none"
    except OSError as error:
        remedy = "join a group that is visible here"
        return Finding(name, LIMITED, f"{where}: {error.strerror}", meaning, remedy)
    found = f"{place}, controllers: {controllers}"
    try:
        lacking = probes.in_child(probes.make_group)
    except (OSError, probes.ProbeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        remedy = "run as root, or under `systemd-run --user --scope -p Delegate=yes`"
        return Finding(name, LIMITED, f"{found}; no group can be made: {reason}", meaning, remedy)
    if lacking:
        return Finding(name, LIMITED, f"{found}; {lacking[0]}", meaning, "Linux 5.14")
    return Finding(name, GOOD, f"{found}; groups can be made and killed")


def _limits() -> Finding:
    limits = (("cpu.weight", "50"), ("memory.max", "67108864"), ("pids.max", "64"))
    sandbox = Sandbox(uid="limits", user=os.geteuid(), group=os.getegid(), cgroup=limits)
    groups = Groups()
    reason = groups.lacks(Api(uid="doctor", api="doctor", sandboxes=(sandbox,)), sandbox)
    groups.close()
    return Finding(
        "cgroup limits", LIMITED if reason else GOOD, reason or "memory, processes and time can be limited",
        "a sandbox with `cgroups` is refused, unless that says `optional`",
        "run `initspawn doctor` in the unit that initspawn is to run in, to see what is there",
    )  # fmt: skip


def _capabilities() -> Finding:
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        sets = dict(line.split(":\t", 1) for line in file if line.startswith("Cap"))
    held, bounding = int(sets["CapEff"], 16), int(sets["CapBnd"], 16)
    every = (1 << capabilities.last_cap() + 1) - 1
    found = _listed(held, every)
    wrong = _other_opinion(held)
    if wrong:
        return Finding("capabilities", LIMITED, found, f"python-prctl says otherwise: {wrong}", "report this")
    if os.geteuid() != 0:
        return Finding("capabilities", GOOD, f"{found} (an ordinary user needs none)")
    lacking = " ".join(capabilities.names(every & ~bounding))
    return Finding(
        "capabilities",
        LIMITED if lacking or held != every else GOOD,
        f"{found}; not in the bounding set: {lacking}" if lacking else found,
        "sandboxes cannot be given what is missing, and may not be made at all",
        "start initspawn with all capabilities, or as an ordinary user",
    )


def _listed(held: int, every: int) -> str:
    """The capabilities of a mask by name, or those that are missing where these are fewer."""
    lacking = capabilities.names(every & ~held)
    if not lacking:
        return "all"
    names = capabilities.names(held)
    return f"all but {' '.join(lacking)}" if len(lacking) < len(names) else " ".join(names) or "none"


def _other_opinion(held: int) -> str:
    """What python-prctl, an implementation independent of ours, sees differently; empty without it."""
    try:
        import prctl
    except ImportError:
        return ""
    differing = []
    for name in capabilities.NAMES:
        theirs: Any = getattr(prctl.cap_effective, name.lower(), None)
        ours = bool(held >> capabilities.NUMBERS[name] & 1)
        if theirs is not None and capabilities.NUMBERS[name] <= capabilities.last_cap() and theirs != ours:
            differing.append(name)
    return " ".join(differing)


def _landlock() -> Finding:
    try:
        return Finding("Landlock", GOOD, f"ABI {probes.in_child(probes.landlock_version)}")
    except (OSError, probes.ProbeError):
        remedy = "none needed; it is enabled by `lsm=` on the kernel's command line"
        meaning = "no sandbox with `landlock`, but where it is `optional`"
        return Finding("Landlock", LIMITED, "not enabled", meaning, remedy)


def _links() -> Finding:
    value = _setting("fs/protected_symlinks")
    return Finding(
        "protected symlinks", GOOD if value == "1" else LIMITED, f"fs.protected_symlinks={value or '?'}",
        "in /tmp others' links are followed: use no sources there", "sysctl fs.protected_symlinks=1",
    )  # fmt: skip


def _trial() -> Finding:
    reason = reason_not(launch_plain)
    return Finding(
        TRIAL, MISSING if reason else GOOD, reason or "launched, measured and ended",
        "no sandbox can be launched", "see what is missing above",
    )  # fmt: skip


def _setting(path: str) -> str:
    """A value below /proc/sys; empty if this kernel has none of that name."""
    try:
        with open(f"/proc/sys/{path}", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""
