"""The gateway's own sandbox: a configuration like any other, made here instead of in a file.

It sees the Python it runs with, its package, one socket of the supervisor, and nothing else: no network but
the listening socket it inherits, no other process, no writable file, no capability.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import sysconfig
from collections.abc import Sequence
from typing import Any

from initspawn.boot.supervise import GATEWAY
from initspawn.errors import InitspawnError

INSIDE = "/run/initspawn"  # where the gateway finds its door
PAGE = "/page"  # where it finds the user's own page
# A number that no user has: whoever runs as the same user as the gateway could look into it.
USER = "64999"
# What a server of sockets has no use for, and an attacker has.
DENIED = (
    "add_key", "bpf", "delete_module", "finit_module", "init_module", "io_uring_enter",
    "io_uring_register", "io_uring_setup", "kexec_file_load", "kexec_load", "keyctl", "mount",
    "move_mount", "open_by_handle_at", "open_tree", "perf_event_open", "personality", "pivot_root",
    "request_key", "setns", "swapoff", "swapon", "umount2", "unshare", "userfaultfd",
)  # fmt: skip
_PACKAGES = ("initspawn", "uvicorn", "starlette", "websockets", "msgspec")
_STANDARD = ("stdlib", "platstdlib")
_SYSTEM = ("/usr", "/bin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache")


def gateway_config(
    run_dir: str, *, user: str | None, open_door: bool, hosts: Sequence[str] = (), page: str | None = None
) -> dict[str, Any]:
    """The configuration of the hidden API that runs the gateway. `user`: who it becomes, when root;
    `hosts`: the names it believes in `Host`, by default those of this machine; `page`: the directory of
    the user's own page, of which it gets a read-only bind.
    """
    libraries = _libraries()
    # Not -I: where the libraries are comes by PYTHONPATH, and the environment is ours anyway.
    arguments = ["-s", "-P", "-B", "-m", "initspawn.gateway", "--listen-fd", "3", "--handover-fd", "4"]
    arguments += ["--control", f"{INSIDE}/door"]
    if open_door:
        arguments.append("--no-auth")
    arguments += [f"--allow-host={name}" for name in hosts]
    if page is not None:
        arguments.append(f"--page={PAGE}")
    sandbox: dict[str, Any] = {
        "uid": GATEWAY,
        "envs": {"name": "PYTHONPATH", "value": _literal(os.pathsep.join(libraries))},
        "namespace": {
            "shares": {"all": "disable"},
            # /tmp first: the interpreter, a checkout or the run directory may lie below it.
            "mounts": [
                {"target": "/tmp", "mode": "tmpfs"},
                *_python_mounts(libraries),
                *_other_mounts(run_dir, page),
            ],
        },
        "seccomp": {
            "default": "SCMP_ACT_ALLOW",
            "locked": True,
            "rules": [{"syscall": name, "action": "SCMP_ACT_ERRNO", "errno": 1} for name in DENIED],
        },
        "commands": {
            "uid": GATEWAY,
            "exec": {"cmdpath": sys.executable, "args": [_literal(item) for item in arguments]},
            "encoder": {"output": "line", "opts": {"maxlen": 4096}},
        },
    }
    if user is not None:
        sandbox["acls"] = {"user": user} | ({"group": user} if user.isdecimal() else {})
    return {"metadata": {"uid": GATEWAY, "api": GATEWAY}, "sandboxes": sandbox}


def _libraries() -> list[str]:
    """The directories that hold initspawn and what its gateway imports. Raises InitspawnError."""
    found: dict[str, None] = {}
    for name in _PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            raise InitspawnError(f"the gateway needs `{name}`: install initspawn[gateway]")
        found[os.path.dirname(os.path.abspath(spec.submodule_search_locations[0]))] = None
    return list(found)


def _python_mounts(libraries: list[str]) -> list[dict[str, str]]:
    """The interpreter, its libraries and our package, each where it is, read-only."""
    own, *others = libraries
    python = os.path.dirname(os.path.realpath(sys.executable))
    # Of our own directory the package only: it may be a checkout with much else in it.
    wanted = [sys.base_prefix, sys.prefix, python, *others, os.path.join(own, "initspawn")]
    wanted += [path for name, path in sysconfig.get_paths().items() if name in _STANDARD]
    mounts: list[dict[str, str]] = []
    for path in _SYSTEM:
        if os.path.islink(path):
            mounts.append({"target": path, "source": _literal(os.readlink(path)), "mode": "symlink"})
        elif os.path.exists(path):
            mounts.append({"target": path, "mode": "ro"})
    bound = [mount["target"] for mount in mounts if mount["mode"] == "ro"]
    for path in sorted({os.path.abspath(path) for path in wanted}, key=len):
        if not any(path == above or path.startswith(f"{above}/") for above in bound):
            bound.append(path)
            mounts.append({"target": path, "source": _literal(path), "mode": "ro"})
    return mounts


def _other_mounts(run_dir: str, page: str | None) -> list[dict[str, str]]:
    own = [] if page is None else [{"target": PAGE, "source": _literal(page), "mode": "ro"}]
    return [
        *own,
        {"target": INSIDE, "source": _literal(os.path.join(run_dir, GATEWAY)), "mode": "ro"},
        {"target": "/proc", "mode": "procfs"},
        {"target": "/dev", "mode": "devfs"},
    ]


def _literal(text: str) -> str:
    """Text that the expansion of `$NAME` leaves as it is."""
    return text.replace("$", "$$")
