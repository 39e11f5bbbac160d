"""The gateway's own sandbox: a configuration like any other, made here instead of in a file.

It sees the Python it runs with, its package, one socket of the supervisor, and nothing else: no network but
the listening socket it inherits, no other process, no writable file, no capability.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from initspawn.boot.supervise import GATEWAY
from initspawn.config.python import DENIED, literal, python_mounts
from initspawn.errors import InitspawnError

INSIDE = "/run/initspawn"  # where the gateway finds its door
ALIAS = "/alias"  # where it finds other directories that are served
PAGE = "/page"  # where it finds the user's own page
# A number that no user has: whoever runs as the same user as the gateway could look into it.
USER = "64999"
_PACKAGES = ("initspawn", "uvicorn", "starlette", "websockets", "msgspec")


def gateway_config(
    run_dir: str, *, user: str | None, open_door: bool, hosts: Sequence[str] = (), page: str | None = None,
    aliases: Sequence[tuple[str, str]] = (), tls: bool = False,
    limits: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """The configuration of the hidden API that runs the gateway. `user`: who it becomes, when root;
    `hosts`: the names it believes in `Host`, by default those of this machine; `page`: the directory of
    the user's own page, of which it gets a read-only bind; `aliases`: further directories, each with the
    prefix of its addresses; `tls`: it is to speak TLS; `limits`: what one address
    may, by name.
    """
    libraries = _libraries()
    # Of our own directory the package only: it may be a checkout with much else in it.
    own, *others = libraries
    # Not -I: where the libraries are comes by PYTHONPATH, and the environment is ours anyway.
    arguments = ["-s", "-P", "-B", "-m", "initspawn.gateway", "--listen-fd", "3", "--handover-fd", "4"]
    arguments += ["--control", f"{INSIDE}/door"]
    if open_door:
        arguments.append("--no-auth")
    if tls:
        arguments.append("--tls")
    arguments += [f"--allow-host={name}" for name in hosts]
    arguments += [f"--limit={name}={number}" for name, number in (limits or {}).items()]
    if page is not None:
        arguments.append(f"--page={PAGE}")
    arguments += [f"--alias={prefix}={ALIAS}/{number}" for number, (prefix, _) in enumerate(aliases)]
    sandbox: dict[str, Any] = {
        "uid": GATEWAY,
        "envs": {"name": "PYTHONPATH", "value": literal(os.pathsep.join(libraries))},
        "namespace": {
            "shares": {"all": "disable"},
            # /tmp first: the interpreter, a checkout or the run directory may lie below it.
            "mounts": [
                {"target": "/tmp", "mode": "tmpfs"},
                *python_mounts([*others, os.path.join(own, "initspawn")]),
                *_other_mounts(run_dir, page),
                *(
                    {"target": f"{ALIAS}/{number}", "source": literal(directory), "mode": "ro"}
                    for number, (_, directory) in enumerate(aliases)
                ),
            ],
        },
        "seccomp": {
            "default": "SCMP_ACT_ALLOW",
            "locked": True,
            "rules": [{"syscall": name, "action": "SCMP_ACT_ERRNO", "errno": 1} for name in DENIED],
        },
        "commands": {
            "uid": GATEWAY,
            "exec": {"cmdpath": sys.executable, "args": [literal(item) for item in arguments]},
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


def _other_mounts(run_dir: str, page: str | None) -> list[dict[str, str]]:
    own = [] if page is None else [{"target": PAGE, "source": literal(page), "mode": "ro"}]
    return [
        *own,
        {"target": INSIDE, "source": literal(os.path.join(run_dir, GATEWAY)), "mode": "ro"},
        {"target": "/proc", "mode": "procfs"},
        {"target": "/dev", "mode": "devfs"},
    ]
