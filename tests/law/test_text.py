"""What the text of the repository must and must not hold."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "initspawn").rglob("*.py"))

FUNCTION_LINES = 60
FILE_LINES = 350
# Longer ones, each with its reason: "file" or "file:function". The test fails when one is no longer long.
LONGER: dict[str, str] = {}

# Written in pieces, so that this file does not mention them.
FORBIDDEN = {
    "a path of the machine it was made on": r"(?<![\w.~-])/(?:wo{0}rk|ro{0}ot/\.)\b",
    "a package registry's host": r"\b(?:pypi{0}\.org|python{0}hosted|deb\.deb{0}ian|registry\.npm{0}js)\b",
    "a mark for later": r"\b(?:TO{0}DO|FIX{0}ME)\b",
}
PATTERNS = {what: re.compile(pattern.replace("{0}", "(?:)")) for what, pattern in FORBIDDEN.items()}


def files() -> list[Path]:
    """Every text file of the repository; of the source tree where there is no git."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    result = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode == 0:
        found = [ROOT / name for name in result.stdout.split("\0") if name]
    else:
        places = [place for place in ROOT.iterdir() if not place.name.startswith(".")]
        found = [path for place in places for path in (place.rglob("*") if place.is_dir() else [place])]
    return [path for path in found if path.is_file() and b"\0" not in path.read_bytes()]


def test_nothing_forbidden_is_mentioned() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {what}"
        for path in files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for what, pattern in PATTERNS.items()
        if pattern.search(line)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("text", "forbidden"),
    [
        ("see /wo" + "rk/x", True),
        ("in /wo" + "rk", True),
        ("/ro" + "ot/.cache", True),
        ("https://pypi" + ".org/simple", True),
        ("# FIX" + "ME later", True),
        ("a/workspace, .github/workflows, /workers", False),
        ("/root/file", False),
        ("the framework's work", False),
    ],
)
def test_the_patterns_see(text: str, forbidden: bool) -> None:
    assert any(pattern.search(text) for pattern in PATTERNS.values()) == forbidden


def definitions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_public_has_a_docstring(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    missing = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.name}"
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    if tree.body and not ast.get_docstring(tree):
        missing.append(f"{path.relative_to(ROOT)}:1: the file itself")
    assert not missing, "\n".join(missing)


def test_functions_and_files_are_short() -> None:
    long = set()
    for path in SOURCES:
        text, name = path.read_text(encoding="utf-8"), str(path.relative_to(ROOT))
        if len(text.splitlines()) > FILE_LINES:
            long.add(name)
        for node in definitions(ast.parse(text)):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES and not isinstance(node, ast.ClassDef):
                long.add(f"{name}:{node.name}")
    assert long - LONGER.keys() == set(), f"more than {FUNCTION_LINES} lines (files: {FILE_LINES})"
    assert LONGER.keys() - long == set(), "no longer long: take it out of the table"
