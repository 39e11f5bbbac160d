"""The Python that runs programs of our own beside the supervisor: ours, or that of an image."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from typing import NamedTuple

from initspawn.config.python import literal, python_mounts, system_mounts
from initspawn.errors import InitspawnError
from initspawn.tree import Tree

_PYTHON = "/usr/bin/python3"  # as in units/ and rootfs-overlay/
# Where an image may have packages; {} is its Python, such as python3.11.
_PLACES = (
    "/usr/lib/initspawn", "/usr/local/lib/{}/dist-packages", "/usr/lib/python3/dist-packages",
    "/usr/local/lib/{}/site-packages", "/usr/lib/{}/site-packages",
)  # fmt: skip


class Need(NamedTuple):
    """What such a program imports: `packages` it cannot do without, and `perhaps` some that may be missing.
    `who` it is, and the `extra` of initspawn that installs them.
    """

    who: str
    packages: tuple[str, ...]
    extra: str
    perhaps: tuple[str, ...] = ()


GATEWAY = Need("the gateway", ("initspawn", "uvicorn", "starlette", "websockets", "msgspec"), "gateway")


class Interpreter(NamedTuple):
    """`path` of the program, the directories with the packages that it imports, ours first, and the mounts
    that show both to a sandbox. Paths are those of the machine it is on. `lacks`: what may be missing and is.
    """

    path: str
    libraries: tuple[str, ...]
    mounts: list[dict[str, str]]
    lacks: tuple[str, ...] = ()


def ours(need: Need = GATEWAY) -> Interpreter:
    """The one we run in. Raises InitspawnError if it has not got what is needed."""
    libraries: dict[str, None] = {}
    lacks: list[str] = []
    for name in (*need.packages, *need.perhaps):
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            if name in need.perhaps:
                lacks.append(name)
                continue
            raise InitspawnError(f"{need.who} needs `{name}`: install initspawn[{need.extra}]")
        libraries[os.path.dirname(os.path.abspath(spec.submodule_search_locations[0]))] = None
    return Interpreter(sys.executable, tuple(libraries), python_mounts(_shown(list(libraries))), tuple(lacks))


def of_image(tree: Tree, need: Need = GATEWAY) -> Interpreter:
    """That of an image. Raises InitspawnError that names what it has not got."""
    places = library_places(tree)
    if not places:
        raise InitspawnError(f"{need.who} needs {_PYTHON}, and the image at {tree.root} has none")
    libraries: dict[str, None] = {}
    lacks: list[str] = []
    for name in (*need.packages, *need.perhaps):
        found = [place for place in places if tree.exists(f"{place}/{name}/__init__.py")]
        if not found and name in need.perhaps:
            lacks.append(name)
            continue
        if not found:
            raise InitspawnError(
                f"{need.who} needs `{name}`; the image at {tree.root} has it in none of {', '.join(places)}"
            )
        libraries[tree.real(found[0])] = None
    return Interpreter(_PYTHON, tuple(libraries), system_mounts(tree, _shown(list(libraries))), tuple(lacks))


def library_places(tree: Tree) -> list[str]:
    """Where an image may have packages; nowhere without a Python. Raises InitspawnError."""
    program = tree.real(_PYTHON)
    version = re.fullmatch(r"python3\.\d+", os.path.basename(program))
    if version is None or not os.path.isfile(tree.place(program)):
        return []
    return [place.format(version[0]) for place in _PLACES]


def _shown(libraries: list[str]) -> list[str]:
    """Of our own directory the package only: it may be a checkout with much else in it."""
    own, *others = libraries
    return [*others, os.path.join(own, "initspawn")]


def search_path(found: Interpreter) -> str:
    """PYTHONPATH for it, as a configuration writes it."""
    return literal(os.pathsep.join(found.libraries))
