"""Encoder plug-ins: found when the file is read, never loaded here, run in a host of their own.

A plug-in is a Python file, or a module that an installed package names as an entry point of the group
`initspawn.encoders`. Which encoders it has is read from its text: a literal dictionary `ENCODERS`.
"""

from __future__ import annotations

import ast
import os
import resource
from collections.abc import Iterator
from importlib import metadata
from typing import Any, NamedTuple

from initspawn.config.expand import ExpandFault, Names, expand
from initspawn.config.interpreter import Need, library_places, of_image, ours
from initspawn.config.python import DENIED, literal, python_mounts, system_mounts
from initspawn.config.schema import Plugin
from initspawn.config.spot import Spot, shown
from initspawn.plan import HOSTS
from initspawn.tree import Tree

GROUP = "initspawn.encoders"
# A number that no user has, and not the gateway's: whoever runs as the same user could look into the hosts.
HOST_USER = "64998"
BUILTINS = "builtins"  # what the encoders of our own are called where a plug-in is named
# No core files, 64 descriptors, 1 GiB of address space.
HOST_LIMITS = (
    (resource.RLIMIT_CORE, 0, 0), (resource.RLIMIT_NOFILE, 64, 64), (resource.RLIMIT_AS, 1 << 30, 1 << 30),
)  # fmt: skip
_NEED = Need("an encoder plug-in", ("initspawn",), "gateway")
_HOST = "initspawn/encoders/host.py"
_GUIDE = "docs/encoder-plugins.md"
_COMPILED = (".so", ".ctlso")
_LONGEST = 1 << 20
_ATTRIBUTE = "ENCODERS"


class Found(NamedTuple):
    """Where a plug-in is: a file, or a module in the directory `library`; and which encoders it has."""

    uid: str
    where: str
    library: str
    file: str
    names: tuple[str, ...]


class Hosts:
    """The hosts that a plan's commands need, each once."""

    def __init__(self) -> None:
        self._uids: dict[tuple[Found, str], str] = {}

    @property
    def used(self) -> bool:
        """Whether any command needs one."""
        return bool(self._uids)

    def uid(self, found: Found, name: str) -> str:
        """The name of the host for one encoder of a plug-in."""
        return self._uids.setdefault((found, name), f"{HOSTS}-{len(self._uids)}")

    def config(self, *, user: int, tree: Tree) -> dict[str, Any] | None:
        """The configuration of the hidden API that holds them, with the Python of a machine; None if there
        are none. Raises InitspawnError.
        """
        if not self._uids:
            return None
        sandboxes = [_sandbox(uid, found, name, user, tree) for (found, name), uid in self._uids.items()]
        return {"metadata": {"uid": HOSTS, "api": HOSTS}, "sandboxes": sandboxes}


def _sandbox(uid: str, found: Found, name: str, user: int, tree: Tree) -> dict[str, Any]:
    """Python, the host's file and the plug-in, read-only, and nothing else."""
    python = of_image(tree, _NEED) if tree.root else ours(_NEED)
    program = os.path.join(python.libraries[0], _HOST)
    arguments = ["-I", "-S", "-B", program, found.where, name, *([found.library] if found.library else [])]
    needed = [program, found.library or found.file]
    sandbox: dict[str, Any] = {
        "uid": uid,
        "namespace": {
            "shares": {"all": "disable"},
            "mounts": [
                {"target": "/tmp", "mode": "tmpfs"},
                *(system_mounts(tree, needed) if tree.root else python_mounts(needed)),
                {"target": "/proc", "mode": "procfs"},
                {"target": "/dev", "mode": "devfs"},
            ],
        },
        "seccomp": {
            "default": "SCMP_ACT_ALLOW",
            "locked": True,
            "rules": [{"syscall": call, "action": "SCMP_ACT_ERRNO", "errno": 1} for call in DENIED],
        },
        "commands": {
            "uid": uid,
            "exec": {"cmdpath": python.path, "args": [literal(item) for item in arguments]},
            "encoder": "line",
        },
    }
    if user == 0:
        sandbox["acls"] = {"user": HOST_USER, "group": HOST_USER}
    return sandbox


class Plugins(NamedTuple):
    """The plug-ins of one file, by their names in lower case, None for one that was refused; and the hosts
    of the whole plan.
    """

    found: dict[str, Found | None]
    hosts: Hosts


def find_plugins(plugins: list[Plugin], names: Names, spot: Spot) -> dict[str, Found | None]:
    """The plug-ins of a file. What is wrong is noted at `spot`."""
    found: dict[str, Found | None] = {}
    for index, plugin in enumerate(plugins):
        place = spot[index]
        uid = plugin.uid.lower()
        if uid in found or uid == BUILTINS:
            place["uid"].refuse(f"`{plugin.uid}` is another plug-in already")
        else:
            found[uid] = _find(plugin, names, place) if place.clean else None
    return found


def _find(plugin: Plugin, names: Names, spot: Spot) -> Found | None:
    try:
        directories = [path for path in expand(plugin.spath or "", names).split(":") if path]
        wanted = [expand(item, names) for item in plugin.libs or [plugin.uid]]
    except ExpandFault as fault:
        spot.refuse(str(fault))
        return None
    relative = [path for path in directories if not path.startswith("/")]
    if relative:
        spot["spath"].refuse(f"{shown(relative[0])} is not absolute")
        return None
    for name in wanted:
        if name.endswith(_COMPILED):
            continue
        place = next(_places(name, directories, names.target.tree), None)
        if place is not None:
            names.target.note(place[-1])
            return _look(plugin.uid, *place, names.target.tree, spot)
    missing = spot.coded("PLUGIN_NOT_FOUND")
    if all(name.endswith(_COMPILED) for name in wanted):
        reason = "is compiled code, and such plug-ins are not loaded"
        missing["libs"].refuse(f"{shown(wanted[0])} {reason}", f"write the encoder in Python: {_GUIDE}")
    else:
        listed = ", ".join(map(shown, wanted))
        if all(name.startswith("/") for name in wanted):
            missing["libs"].refuse(f"there is no file {listed} that ends in .py", _GUIDE)
            return None
        where = f"neither a file in {', '.join(directories)} nor an" if directories else "no"
        missing.refuse(f"there is {where} entry point {listed} of {GROUP}", _GUIDE)
    return None


def _places(name: str, directories: list[str], tree: Tree) -> Iterator[tuple[str, str, str]]:
    """(where, library, file) of each place of a machine that has a plug-in of this name."""
    for directory in [""] if name.startswith("/") else directories:
        for path in (name, f"{name}.py"):
            file = os.path.join(directory, path)
            if file.endswith(".py") and os.path.isfile(tree.place(file)):
                yield tree.real(file), "", tree.real(file)
    for entry in _entries(name, tree):
        parts = entry.module.split(".")
        for path in (os.path.join(*parts) + ".py", os.path.join(*parts, "__init__.py")):
            real = tree.name(str(entry.dist.locate_file(path))) if entry.dist else None
            if real and os.path.isfile(tree.place(real)):
                yield entry.module, real[: -len(path) - 1], real


def _entries(name: str, tree: Tree) -> Iterator[metadata.EntryPoint]:
    """What a machine's packages have by this name."""
    if not tree.root:
        yield from metadata.entry_points(group=GROUP, name=name)
        return
    for package in metadata.distributions(path=[tree.place(place) for place in library_places(tree)]):
        yield from package.entry_points.select(group=GROUP, name=name)


def _look(uid: str, where: str, library: str, file: str, tree: Tree, spot: Spot) -> Found | None:
    """The plug-in, with the names of its encoders as its text has them."""
    spot = spot.coded("INVALID_ENCODER")
    try:
        with open(tree.place(file), "rb") as opened:
            text = opened.read(_LONGEST + 1)
        if len(text) > _LONGEST:
            raise ValueError(f"more than {_LONGEST} bytes")
        names = _encoders(ast.parse(text))
    except SyntaxError as error:
        spot.refuse(f"{file}:{error.lineno or 1}: {error.msg}")
        return None
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        spot.refuse(f"{file}: {error}")
        return None
    if not names:
        spot.refuse(f"{file} has no encoders", f'write {_ATTRIBUTE} = {{"name": Class}}: {_GUIDE}')
        return None
    return Found(uid, where, library, file, tuple(names))


def _encoders(tree: ast.Module) -> list[str]:
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id == _ATTRIBUTE:
            value = getattr(node, "value", None)
            if isinstance(value, ast.Dict):
                keys = [key.value for key in value.keys if isinstance(key, ast.Constant)]
                return [key for key in keys if isinstance(key, str)]
    return []
