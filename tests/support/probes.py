"""What this machine lets tests do. Each probe tries it for real and answers "" or what is missing."""

from __future__ import annotations

import functools
import importlib.util
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from initspawn.linux import landlock

NOBODY = 65534
SO_PEERPIDFD = 77  # include/uapi/asm-generic/socket.h
LANDLOCK = 6  # the ABI that knows all that a configuration can ask for


def _works(*argv: str, user: int | None = None) -> str:
    """Run a command; "" or why it did not work."""
    groups = {} if user is None else {"user": user, "group": user, "extra_groups": []}
    try:
        result = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False, **groups)  # type: ignore[call-overload]
    except OSError as error:
        return str(error)
    return "" if result.returncode == 0 else f"{argv[0]}: {result.stderr.strip() or result.returncode}"


def _root() -> str:
    if os.geteuid() != 0:
        return "the tests do not run as root"
    return _works("unshare", "--mount", "--pid", "--fork", "--net", "mount", "--make-rprivate", "/")


def _userns() -> str:
    user = NOBODY if os.geteuid() == 0 else None
    return _works("unshare", "--user", "--map-root-user", "--mount", "true", user=user)


def _bwrap() -> str:
    return _works("bwrap", "--ro-bind", "/", "/", "--unshare-all", "true")


def _seccomp() -> str:
    return "" if Path("/proc/sys/kernel/seccomp/actions_avail").exists() else "the kernel has no seccomp"


def _prctl() -> str:
    return "" if importlib.util.find_spec("prctl") else "python-prctl is not installed"


def _cgroup() -> str:
    mount = cgroup_mount()
    if mount is None:
        return "no cgroup v2 tree is mounted"
    trial = mount / f"initspawn-probe-{os.getpid()}"
    try:
        trial.mkdir()
    except OSError as error:
        return str(error)
    missing = "" if (trial / "cgroup.kill").exists() else "the kernel has no cgroup.kill"
    trial.rmdir()
    return missing


def _python() -> str:
    """For ordinary users: they must be able to execute the interpreter that runs the tests."""
    user = NOBODY if os.geteuid() == 0 else None
    return _works(os.path.realpath(sys.executable), "-I", "-S", "-c", "", user=user)


def _bash() -> str:
    return _works("/bin/bash", "-c", "true")


def _node() -> str:
    return _works("node", "--version")


def _lua() -> str:
    return _works("lua5.4", "-v")


def _tcl() -> str:
    return _works("sh", "-c", "echo exit | tclsh")


def _chromium() -> str:
    return _works("chromium", "--version")


def _openssl() -> str:
    return _works("openssl", "version")


def _curl() -> str:
    return _works("curl", "--version")


def _landlock() -> str:
    found = landlock.version()
    return "" if found >= LANDLOCK else f"the kernel has Landlock ABI {found}, not {LANDLOCK}"


def _peerpidfd() -> str:
    one, other = socket.socketpair()
    with one, other:
        try:
            os.close(one.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD))
        except OSError as error:
            return f"SO_PEERPIDFD, of Linux 6.5: {error.strerror}"
    return ""


PROBES: dict[str, Callable[[], str]] = {
    "root": _root,
    "userns": _userns,
    "bwrap": _bwrap,
    "seccomp": _seccomp,
    "prctl": _prctl,
    "cgroup": _cgroup,
    "python": _python,
    "bash": _bash,
    "node": _node,
    "lua": _lua,
    "tcl": _tcl,
    "chromium": _chromium,
    "landlock": _landlock,
    "openssl": _openssl,
    "curl": _curl,
    "peerpidfd": _peerpidfd,
}


@functools.cache
def missing(name: str) -> str:
    """What is missing for that capability; "" if nothing is. Raises KeyError for an unknown name."""
    return PROBES[name]()


@functools.cache
def cgroup_mount() -> Path | None:
    """Where the cgroup v2 tree is mounted."""
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        fields, _, kind = line.partition(" - ")
        if kind.startswith("cgroup2 "):
            return Path(fields.split()[4])
    return None
