"""The bubblewrap of a sandbox that names one: whether it is there, and what it cannot do."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Collection

from initspawn.config.namespace import Isolation
from initspawn.config.schema import Sandbox
from initspawn.config.seccomp.handler import handler_of
from initspawn.config.spot import Spot, shown
from initspawn.config.target import Target

OLDEST = (0, 8)  # the first one with all options that are used: --chmod, several --add-seccomp-fd
_SECONDS = 5.0
_WITHOUT = {
    "mqueue": "bubblewrap mounts message queues without `nosuid` and `nodev`",
    "overlay": "bubblewrap knows overlays from 0.11 on, and they are not used yet",
}
_INSTALL = f"install the package bubblewrap, {'.'.join(map(str, OLDEST))} or newer; initspawn needs none"


def bubblewrap(
    sandbox: Sandbox, isolation: Isolation, label: str | None, supervisor: int, target: Target, spot: Spot
) -> str:
    """The path in `opts.bwrap`, empty without. What is wrong is noted at the sandbox's `spot`.

    `supervisor`: the user who runs it, to whom it may belong; it may be root's too.
    """
    namespace = sandbox.namespace
    if namespace is None or namespace.opts.bwrap is None:
        return ""
    path = namespace.opts.bwrap
    place = spot["namespace"]["opts"]["bwrap"]
    _check_binary(path, (0, supervisor), target, place)
    own_tree = "leave `opts.bwrap` out: then initspawn builds the sandbox itself"
    if sandbox.allow_setuid:
        spot["allow_setuid"].refuse("bubblewrap always sets no-new-privileges", own_tree)
    if sandbox.landlock is not None:
        spot["landlock"].refuse("Landlock would forbid bubblewrap its mounts", own_tree)
    if label is not None:
        spot["acls"]["label"].refuse("the label would be bubblewrap's, not the command's", own_tree)
    if handler_of(sandbox.seccomp):
        spot["seccomp"]["handler"].refuse("bubblewrap loads its filters without a listener", own_tree)
    for index, mount in enumerate(namespace.mounts or ()):
        if mount.mode in _WITHOUT:
            spot["namespace"]["mounts"][index]["mode"].refuse(_WITHOUT[mount.mode], own_tree)
    if namespace.root is not None and namespace.root.image is not None:
        spot["namespace"]["root"]["image"].refuse("bubblewrap mounts no images", own_tree)
    if namespace.root is not None and namespace.root.overlay:
        spot["namespace"]["root"]["overlay"].refuse(_WITHOUT["overlay"], own_tree)
    for index, command in enumerate(sandbox.commands):
        if command.terminal:
            own = "bubblewrap takes the terminal from its session"
            spot["commands"][index]["terminal"].refuse(own, own_tree)
    if not isolation.own_users:
        hint = "write `shares: {users: disable}`, or leave `opts.bwrap` out"
        place.refuse("as root, bubblewrap drops its rights only in a user namespace", hint)
    return path


def _check_binary(path: str, trusted: Collection[int], target: Target, spot: Spot) -> None:
    if not path.startswith("/"):
        spot.refuse(f"{shown(path)} is not absolute", "write its full path, such as /usr/bin/bwrap")
    elif target.tree.is_directory(path) or not target.tree.exists(path):
        spot.refuse(f"there is no program {shown(path)}", _INSTALL)
    elif not target.tree.is_executable(path):
        spot.refuse(f"{shown(path)} is not executable", "chmod 755, or name another")
    elif not target.tree.trusts(os.stat(target.tree.place(path)), trusted):  # before it is run to ask it
        spot.refuse(f"{shown(path)} could have been written by others", "say `chmod o-w`, `chown root`")
    elif not target.late and (wrong := _wrong_version(path)):
        spot.refuse(f"{shown(path)} {wrong}", _INSTALL)


def _wrong_version(path: str) -> str:
    """Why it will not do; empty if it will."""
    try:
        said = subprocess.run(
            [path, "--version"], stdin=subprocess.DEVNULL, capture_output=True, env={}, cwd="/",
            timeout=_SECONDS, check=False,
        ).stdout  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"cannot be run: {getattr(error, 'strerror', None) or 'it does not end'}"
    found = re.match(rb"bubblewrap (\d{1,4})\.(\d{1,4})", said)
    if found is None:
        return "does not say that it is bubblewrap"
    version = (int(found[1]), int(found[2]))
    return "" if version >= OLDEST else f"is bubblewrap {version[0]}.{version[1]}, which is too old"
