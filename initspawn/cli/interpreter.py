"""The Python that runs the gateway: ours, or that of an image that a plan is made for."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from typing import NamedTuple

from initspawn.config.python import literal, python_mounts, system_mounts
from initspawn.errors import InitspawnError
from initspawn.tree import Tree

_PACKAGES = ("initspawn", "uvicorn", "starlette", "websockets", "msgspec")
_PYTHON = "/usr/bin/python3"  # as in units/ and rootfs-overlay/
# Where an image may have packages; {} is its Python, such as python3.11.
_PLACES = (
    "/usr/lib/initspawn", "/usr/local/lib/{}/dist-packages", "/usr/lib/python3/dist-packages",
    "/usr/local/lib/{}/site-packages", "/usr/lib/{}/site-packages",
)  # fmt: skip


class Interpreter(NamedTuple):
    """`path` of the program, the directories with the packages that it imports, ours first, and the mounts
    that show both to a sandbox. Paths are those of the machine it is on.
    """

    path: str
    libraries: tuple[str, ...]
    mounts: list[dict[str, str]]


def ours() -> Interpreter:
    """The one we run in. Raises InitspawnError if it has not got what the gateway needs."""
    libraries: dict[str, None] = {}
    for name in _PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            raise InitspawnError(f"the gateway needs `{name}`: install initspawn[gateway]")
        libraries[os.path.dirname(os.path.abspath(spec.submodule_search_locations[0]))] = None
    return Interpreter(sys.executable, tuple(libraries), python_mounts(_shown(list(libraries))))


def of_image(tree: Tree) -> Interpreter:
    """That of an image. Raises InitspawnError that names what it has not got."""
    program = tree.real(_PYTHON)
    version = re.fullmatch(r"python3\.\d+", os.path.basename(program))
    if version is None or not os.path.isfile(tree.place(program)):
        raise InitspawnError(f"the gateway needs {_PYTHON}, and the image at {tree.root} has none")
    places = [place.format(version[0]) for place in _PLACES]
    libraries: dict[str, None] = {}
    for name in _PACKAGES:
        found = [place for place in places if tree.exists(f"{place}/{name}/__init__.py")]
        if not found:
            raise InitspawnError(
                f"the gateway needs `{name}`; the image at {tree.root} has it in none of {', '.join(places)}"
            )
        libraries[tree.real(found[0])] = None
    return Interpreter(_PYTHON, tuple(libraries), system_mounts(tree, _shown(list(libraries))))


def _shown(libraries: list[str]) -> list[str]:
    """Of our own directory the package only: it may be a checkout with much else in it."""
    own, *others = libraries
    return [*others, os.path.join(own, "initspawn")]


def search_path(found: Interpreter) -> str:
    """PYTHONPATH for it, as a configuration writes it."""
    return literal(os.pathsep.join(found.libraries))
