"""Who may import what: imports only go down, and each third-party name has its place.

Every import of a file counts, also those inside functions and under `if TYPE_CHECKING:`. One thing is
free there: the standard library under `if TYPE_CHECKING:`, because it is never loaded.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]

# What the boot floors may take from the standard library: built in, or needed for system calls.
HANDFUL = frozenset(
    ("__future__", "_collections", "_operator",
     "_signal", "binascii", "_socket", "ctypes", "errno", "fcntl", "gc", "heapq", "marshal", "mmap", "os",
     "posix", "resource", "select", "stat", "struct", "sys", "time")
)
ANY = frozenset(sys.stdlib_module_names)


class Rule(NamedTuple):
    """What the files of one package (or one file) may import."""

    own: str = ""  # packages and modules of initspawn, without that name, separated by spaces
    third: str = ""
    stdlib: frozenset[str] = HANDFUL


RECORDS = "record errors plan planfile event limits say"
AHEAD = "tree sources late execfd"  # what a plan made ahead needs when it is used
FLOOR_0 = f"linux {RECORDS}"
FLOOR_1 = f"{FLOOR_0} sandbox encoders"
FLOOR_2 = f"{FLOOR_1} supervisor"
FLOOR_3 = f"{FLOOR_2} verbs broker"
FLOOR_4 = f"{FLOOR_3} control"
WIRE = "errors limits event record control.wire"
CONFIG = f"config {RECORDS} {AHEAD} linux encoders.table"

# The longest name that fits a file decides.
RULES = {
    "": Rule(),
    **{name: Rule(RECORDS) for name in RECORDS.split()},
    **{name: Rule(f"{RECORDS} {AHEAD} linux") for name in AHEAD.split()},
    "execfd": Rule(RECORDS, stdlib=ANY),
    "linux": Rule("linux"),
    "sandbox": Rule(f"{FLOOR_0} sandbox"),
    # Loaded for an argument that is no text: only requests bring those, and requests come as JSON.
    "sandbox.bind": Rule(f"{FLOOR_0} sandbox", stdlib=HANDFUL | {"json"}),
    "encoders": Rule("encoders event limits record"),
    # Loaded with the first json encoder, and for raw output in base64.
    "encoders.values": Rule("encoders event limits record", stdlib=HANDFUL | {"re"}),
    # The plug-in host: a program of its own, of which nothing else is in its sandbox.
    "encoders.host": Rule(stdlib=ANY),
    # The watcher of devices: another one.
    "watcher": Rule(third="pyudev", stdlib=ANY),
    # Built in as well: characters that arrive in pieces.
    "encoders.stream": Rule("encoders event limits record", stdlib=HANDFUL | {"_codecs"}),
    "supervisor": Rule(FLOOR_2),
    # What a plug-in is told is JSON, and only tasks with one load it.
    "supervisor.plugin": Rule(FLOOR_2, stdlib=HANDFUL | {"json"}),
    "verbs": Rule(f"{FLOOR_2} verbs"),
    # SHA-256 by its C name before and since Python 3.12: hashlib would load OpenSSL.
    "verbs.access": Rule(f"{FLOOR_2} verbs", stdlib=HANDFUL | {"_sha256", "_sha2"}),
    # Loaded for an imported API only.
    "verbs.wsapi": Rule(f"{FLOOR_2} verbs", stdlib=HANDFUL | {"json"}),
    # Loaded for who has mistyped a verb.
    "verbs.nearest": Rule(f"{FLOOR_2} verbs", stdlib=HANDFUL | {"difflib"}),
    "broker": Rule(f"{FLOOR_2} broker", stdlib=ANY),
    "control": Rule(FLOOR_4, stdlib=ANY),
    "control.wire": Rule(WIRE, stdlib=HANDFUL | {"json"}),
    "control.client": Rule(WIRE, stdlib=HANDFUL | {"json", "collections"}),  # json loads collections
    "boot": Rule(f"{FLOOR_4} {AHEAD} boot", stdlib=ANY),
    "gateway": Rule(
        "gateway errors event limits record control.wire control.client",
        "websockets uvicorn h11 starlette msgspec",
        ANY,
    ),
    # Encoder options are checked where they are defined: `encoders.table` is the one file above the
    # records that a configuration needs.
    "config": Rule(CONFIG, "yaml msgspec", ANY),
    # What starts by itself is held against its arguments by the same function that will fill them in.
    "config.autostart": Rule(f"{CONFIG} sandbox.bind", "yaml msgspec", ANY),
    "config.seccomp": Rule(CONFIG, "yaml msgspec pyseccomp", ANY),
    "__main__": Rule("cli"),
    "cli": Rule(f"{FLOOR_4} {AHEAD} boot gateway config cli", stdlib=ANY),
    "cli.doctor": Rule(f"{FLOOR_4} {AHEAD} boot gateway config cli", "prctl", ANY),
}


def module_name(path: Path) -> str:
    """The dotted name below initspawn; "" is initspawn/__init__.py itself."""
    parts = path.relative_to(ROOT / "initspawn").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted((ROOT / "initspawn").rglob("*.py"))}


def rule_of(module: str) -> Rule:
    fits = [name for name in RULES if not name or module == name or module.startswith(f"{name}.")]
    return RULES[max(fits, key=len)]


def imports(tree: ast.AST, guarded: bool = False) -> Iterator[tuple[int, str, bool]]:
    """Each import as (line, dotted name, whether under `if TYPE_CHECKING:`)."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, guarded) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{start}.{alias.name}", guarded) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("__import__", "import_module")):
            yield (node.lineno, f"{ast.unparse(node)} (hidden)", guarded)
            yield from imports(node, guarded)
        elif isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            yield from imports(ast.Module(node.body, []), True)
            yield from imports(ast.Module(node.orelse, []), guarded)
        else:
            yield from imports(node, guarded)


def allowed(module: str, name: str, guarded: bool) -> bool:
    """Whether that module may import that name."""
    rule = rule_of(module)
    if name.endswith("(hidden)"):
        return module.startswith("cli")  # sub-commands are found by name
    top = name.partition(".")[0]
    if top != "initspawn":
        return top in rule.third.split() or top in rule.stdlib or (guarded and top in ANY)
    if name in ("initspawn.", "initspawn.__version__"):
        return True
    below = name.partition(".")[2]
    return any(below == own or below.startswith(f"{own}.") for own in rule.own.split())


def violations(module: str, source: str, path: str) -> list[str]:
    """What is forbidden in a file's source, each with file, line and name."""
    return [
        f"{path}:{line}: {name} must not be imported here"
        for line, name, guarded in imports(ast.parse(source))
        if not allowed(module, name, guarded)
    ]


@pytest.mark.parametrize("module", SOURCES)
def test_imports_only_go_down(module: str) -> None:
    path = SOURCES[module]
    found = violations(module, path.read_text(encoding="utf-8"), str(path.relative_to(ROOT)))
    assert not found, "\n".join(found)


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = {
        module: {below(name) for _, name, guarded in imports(parsed(path)) if not guarded}
        for module, path in SOURCES.items()
    }
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join([*way, module])
        if module not in done:
            for target in sorted(graph[module] & SOURCES.keys()):
                visit(target, (*way, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def below(name: str) -> str:
    """The module of ours that an imported name belongs to, or something that is none."""
    if not name.startswith("initspawn."):
        return "(not ours)"
    name = name.partition(".")[2]
    return name if name in SOURCES else name.rpartition(".")[0]


@pytest.mark.parametrize(
    ("module", "source", "lines"),
    [
        ("linux.libc", "import os, ctypes\nfrom initspawn.linux import fd", []),
        ("linux.libc", "import json\nimport initspawn.errors", [1, 2]),
        ("linux.libc", "def f():\n    import re", [2]),
        ("linux.libc", "if TYPE_CHECKING:\n    from typing import Any", []),
        ("linux.libc", "if TYPE_CHECKING:\n    from initspawn.plan import Plan\n    import yaml", [2, 3]),
        ("linux.libc", "if TYPE_CHECKING:\n    pass\nelse:\n    import typing", [4]),
        ("sandbox.launch", "from initspawn import plan\nfrom initspawn import encoders", [2]),
        ("encoders.text", "from initspawn.event import Event\nfrom initspawn.errors import X", [2]),
        ("supervisor.task", "from initspawn.verbs import registry", [1]),
        ("verbs.access", "import json\nfrom initspawn.broker import policy", [1, 2]),
        ("control.wire", "import json\nfrom initspawn.control import server\nimport socket", [2, 3]),
        ("control.client", "from initspawn.control.wire import encode\nfrom initspawn.plan import Plan", [2]),
        ("gateway.door", "import asyncio, websockets.frames\nfrom initspawn.control.server import X", [2]),
        ("gateway.door", "from initspawn.supervisor import core\nimport yaml", [1, 2]),
        ("boot.early", "import initspawn.gateway.door\nimport initspawn.config.load\nimport yaml", [1, 2, 3]),
        ("config.load", "import yaml, msgspec\nimport pyseccomp\nimport initspawn.sandbox", [2, 3]),
        ("config.seccomp", "import pyseccomp", []),
        ("cli.doctor", "import prctl\nimport initspawn.config.load", []),
        ("cli.main", "import prctl\nimportlib.import_module(name)", [1]),
        ("event", "__import__('os')\nfrom . import plan", [1, 2]),
        ("eventual", "import initspawn.event", [1]),
    ],
)
def test_the_law_sees(module: str, source: str, lines: list[int]) -> None:
    assert [int(found.split(":")[1]) for found in violations(module, source, "file")] == lines
