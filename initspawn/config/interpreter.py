"""The Python that runs programs of our own beside the supervisor: ours, or that of an image."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Iterable
from typing import NamedTuple

from initspawn.config.python import literal, python_mounts, system_mounts
from initspawn.errors import InitspawnError
from initspawn.tree import Tree

_PYTHON = "/usr/bin/python3"  # as in units/ and rootfs-overlay/
# Where an image may have packages; {} is its Python, such as python3.11.
_PLACES = (
    "/usr/lib/initspawn", "/usr/local/lib/{}/dist-packages", "/usr/lib/python3/dist-packages",
    "/usr/local/lib/{}/site-packages", "/usr/lib/{}/site-packages", "/usr/lib64/{}/site-packages",
)  # fmt: skip
_STANDARD = ("{}/lib/{}", "{}/lib64/{}")  # where below its prefix it has its standard library
_ANY_VERSION = {"abi3.so", "so"}  # what every Python loads, see importlib.machinery.EXTENSION_SUFFIXES


class Need(NamedTuple):
    """What such a program imports: `packages` it cannot do without, and `perhaps` some that may be missing.
    `who` it is, and the `extra` of initspawn that installs them. `compiled`: parts of the packages that are
    for one Python and one processor. `standard`: what a Python may have been built or installed without.
    """

    who: str
    packages: tuple[str, ...]
    extra: str
    perhaps: tuple[str, ...] = ()
    compiled: tuple[str, ...] = ()
    standard: tuple[str, ...] = ()


# tests/unit/config/test_interpreter.py tries what the gateway cannot start without.
GATEWAY = Need(
    "the gateway",
    (
        "initspawn", "uvicorn", "starlette", "websockets", "msgspec",
        "h11", "click", "anyio", "typing_extensions",
    ),
    "gateway",
    compiled=("msgspec/_core",),
    standard=(
        "_ssl", "asyncio", "concurrent", "email", "html", "http", "json", "logging", "multiprocessing",
        "urllib",
    ),
)  # fmt: skip
# What adds such a part to an image; the rest is in all of the standard library.
_REMEDIES = {"_ssl": "Buildroot: BR2_PACKAGE_PYTHON3_SSL=y; Yocto: python3-modules; Debian: python3"}
_WHOLE = "Yocto: python3-modules; Debian: python3"


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
        places = [] if spec is None else spec.submodule_search_locations or [spec.origin or ""]
        if not places:
            if name in need.perhaps:
                lacks.append(name)
                continue
            raise InitspawnError(f"{need.who} needs `{name}`: install initspawn[{need.extra}]")
        libraries[os.path.dirname(os.path.realpath(places[0]))] = None  # a link leads nowhere in a box
    for name in need.standard:
        if importlib.util.find_spec(name) is None:
            raise InitspawnError(f"{need.who} needs `{name}`, and {sys.executable} is without")
    return Interpreter(sys.executable, tuple(libraries), python_mounts(_shown(list(libraries))), tuple(lacks))


def of_image(tree: Tree, need: Need = GATEWAY) -> Interpreter:
    """That of an image. Raises InitspawnError that names what it has not got."""
    places = library_places(tree)
    if not places:
        raise InitspawnError(f"{need.who} needs {_PYTHON}, and the image at {tree.root} has none")
    libraries: dict[str, None] = {}
    lacks: list[str] = []
    for name in (*need.packages, *need.perhaps):
        found = [place for place in places if _has(tree, place, name)]
        if not found and name in need.perhaps:
            lacks.append(name)
            continue
        if not found:
            raise InitspawnError(
                f"{need.who} needs `{name}`; the image at {tree.root} has it in none of {', '.join(places)}"
            )
        libraries[tree.real(found[0])] = None
    _check_standard(tree, need)
    _check_compiled(tree, need, list(libraries))
    return Interpreter(_PYTHON, tuple(libraries), system_mounts(tree, _shown(list(libraries))), tuple(lacks))


def _has(tree: Tree, place: str, name: str) -> bool:
    """Whether a module can be imported from there; an image may have byte code only (Buildroot's default)."""
    files = (f"{name}/__init__.py", f"{name}/__init__.pyc", f"{name}.py", f"{name}.pyc")
    return any(tree.exists(f"{place}/{file}") for file in files)


def _check_standard(tree: Tree, need: Need) -> None:
    """Refuse a Python without parts of the standard library. Raises InitspawnError."""
    for name in without(tree, need.standard):
        raise InitspawnError(
            f"{need.who} needs `{name}`, and the Python of the image at {tree.root} is without "
            f"({', '.join(_standard_places(tree))}): {_REMEDIES.get(name, _WHOLE)}"
        )


def without(tree: Tree, modules: Iterable[str]) -> list[str]:
    """Those of some modules of the standard library that the Python of an image has not got."""
    places = _standard_places(tree)
    files = [name for name in modules if not any(_has_standard(tree, place, name) for place in places)]
    return [name for name in files if not _built_in(tree, name)]


def _has_standard(tree: Tree, place: str, name: str) -> bool:
    return _has(tree, place, name) or bool(_extensions(tree, place, name))


def _check_compiled(tree: Tree, need: Need, libraries: list[str]) -> None:
    """Refuse packages of another Python, processor or C library. Raises InitspawnError."""
    loads = _ANY_VERSION.copy()  # and no other is known where all of Python is one program
    for place in _standard_places(tree):
        loads |= {file.partition(".")[2] for file in _listed(tree, f"{place}/lib-dynload")}
    for part in need.compiled:
        package, _, name = part.partition("/")
        found = next(f"{place}/{package}" for place in libraries if _has(tree, place, package))
        files = [file for file in _listed(tree, found) if file.partition(".")[0] == name]
        kind = min(loads - _ANY_VERSION, default="so")
        if any(file.partition(".")[2] in loads or kind == "so" for file in files):
            continue
        raise InitspawnError(
            f"{need.who} needs `{package}` for the Python, processor and C library of the image at "
            f"{tree.root}: {found} has {', '.join(files) or f'no {name}'}, and wanted is {name}.{kind}"
        )


def _standard_places(tree: Tree) -> list[str]:
    """The directories where the image's Python looks for its standard library."""
    program = tree.real(_PYTHON)
    prefix, version = os.path.dirname(os.path.dirname(program)), os.path.basename(program)
    return [place.format(prefix, version) for place in _STANDARD]


def _extensions(tree: Tree, standard: str, name: str) -> list[str]:
    """The files of a module that is a shared object."""
    files = _listed(tree, f"{standard}/lib-dynload")
    return [file for file in files if file.partition(".")[0] == name and file.endswith(".so")]


def _listed(tree: Tree, directory: str) -> list[str]:
    try:
        return sorted(file for file in os.listdir(tree.place(directory)) if file.endswith(".so"))
    except OSError:
        return []


def _built_in(tree: Tree, name: str) -> bool:
    """Whether it is part of the interpreter itself: then its first function is a symbol there, or the names
    of its types (`_ssl._SSLContext`) are. Its own name is in every Python, in sys.stdlib_module_names.
    """
    program = tree.real(_PYTHON)
    files = [program]
    for folder in ("lib", "lib64"):
        library = os.path.join(os.path.dirname(os.path.dirname(program)), folder)
        try:
            names = os.listdir(tree.place(library))
        except OSError:
            continue
        files += [f"{library}/{file}" for file in names if file.startswith("libpython3")]
    marks = f"\0PyInit_{name}\0".encode(), f"\0{name}._".encode()
    return any(mark in content for content in map(_content, map(tree.place, files)) for mark in marks)


def _content(place: str) -> bytes:
    try:
        with open(place, "rb") as file:
            return file.read()
    except OSError:
        return b""


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
