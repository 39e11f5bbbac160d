"""The gateway's own sandbox: a configuration like any other, made here instead of in a file.

It sees the Python it runs with, its package, one socket of the supervisor, and nothing else: no network but
the listening socket it inherits, no other process, no writable file, no capability.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from initspawn.boot.supervise import GATEWAY
from initspawn.config.interpreter import Interpreter, ours, search_path
from initspawn.config.python import DENIED, literal

INSIDE = "/run/initspawn"  # where the gateway finds its door
ALIAS = "/alias"  # where it finds other directories that are served
PAGE = "/page"  # where it finds the user's own page
# A number that no user has: whoever runs as the same user as the gateway could look into it.
USER = "64999"


def gateway_config(
    run_dir: str, *, user: str | None, open_door: bool, hosts: Sequence[str] = (), page: str | None = None,
    aliases: Sequence[tuple[str, str]] = (), tls: bool = False,
    limits: Mapping[str, int] | None = None, python: Interpreter | None = None,
) -> dict[str, Any]:
    """The configuration of the hidden API that runs the gateway. `user`: who it becomes, when root;
    `hosts`: the names it believes in `Host`, by default those of this machine; `page`: the directory of
    the user's own page, of which it gets a read-only bind; `aliases`: further directories, each with the
    prefix of its addresses; `tls`: it is to speak TLS; `limits`: what one address
    may, by name; `python`: what runs it, by default what runs us. Raises InitspawnError.
    """
    python = python or ours()
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
        "envs": {"name": "PYTHONPATH", "value": search_path(python)},
        "namespace": {
            "shares": {"all": "disable"},
            # /tmp first: the interpreter, a checkout or the run directory may lie below it.
            "mounts": [
                {"target": "/tmp", "mode": "tmpfs"},
                *python.mounts,
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
            "exec": {"cmdpath": python.path, "args": [literal(item) for item in arguments]},
            "encoder": {"output": "line", "opts": {"maxlen": 4096}},
        },
    }
    if user is not None:
        sandbox["acls"] = {"user": user} | ({"group": user} if user.isdecimal() else {})
    return {"metadata": {"uid": GATEWAY, "api": GATEWAY}, "sandboxes": sandbox}


def _other_mounts(run_dir: str, page: str | None) -> list[dict[str, str]]:
    own = [] if page is None else [{"target": PAGE, "source": literal(page), "mode": "ro"}]
    return [
        *own,
        {"target": INSIDE, "source": literal(os.path.join(run_dir, GATEWAY)), "mode": "ro"},
        {"target": "/proc", "mode": "procfs"},
        {"target": "/dev", "mode": "devfs"},
    ]
