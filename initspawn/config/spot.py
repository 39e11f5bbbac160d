"""Where in a configuration file something was said, and the problems found there.

A `Spot` is handed along with every value: it knows the value's place and takes what is wrong with it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from initspawn.errors import Problem

# A value's place: keys and list indexes from the root. Positions count from 1.
Path = tuple[str | int, ...]
Positions = Mapping[Path, tuple[int, int]]

_SHOWN = 60  # characters of a value that a message repeats


class Report:
    """The problems of one file, in the order they were found."""

    def __init__(self, file: str, positions: Positions) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self._positions = positions
        self._around: set[Path] = set()  # every path with a problem in it
        self._written: dict[Path, Path] = {}

    def root(self) -> Spot:
        """The place of the whole file."""
        return Spot(self, ())

    def written(self, path: Path, really: Path) -> None:
        """Say where something is really written: under an alias, or without its list."""
        self._written[path] = really

    def resolve(self, path: Path) -> Path:
        """The path as it is written in the file."""
        return self._written.get(path, path)

    def position(self, path: Path) -> tuple[int, int]:
        """Line and column of a path, or of the nearest one around it; (0, 0) where there is none."""
        for length in range(len(path), -1, -1):
            found = self._positions.get(path[:length])
            if found:
                return found
        return (0, 0)

    def note(self, problem: Problem, path: Path) -> None:
        """Add a problem with the value at a path."""
        self.problems.append(problem)
        self._around.update(path[:length] for length in range(len(path) + 1))

    def is_clean(self, path: Path) -> bool:
        """Whether there is no problem with the value at a path, nor within it."""
        return path not in self._around

    def sorted(self) -> list[Problem]:
        """The problems in file order."""
        return sorted(self.problems, key=lambda problem: (problem.line, problem.column))


class Spot:
    """One value's place in one file. `code` begins what is said about it and about all within."""

    __slots__ = ("code", "path", "report")

    def __init__(self, report: Report, path: Path, code: str = "") -> None:
        self.report = report
        self.path = path
        self.code = code

    def __getitem__(self, key: str | int) -> Spot:
        return Spot(self.report, self.report.resolve((*self.path, key)), self.code)

    def coded(self, code: str) -> Spot:
        """The same place, with a code."""
        return Spot(self.report, self.path, code or self.code)

    @property
    def clean(self) -> bool:
        """Whether nothing was refused here or within."""
        return self.report.is_clean(self.path)

    def refuse(self, message: str, hint: str = "") -> None:
        """Note a problem with the value at this place."""
        line, column = self.report.position(self.path)
        problem = Problem(
            file=self.report.file,
            line=line,
            column=column,
            key=key_text(self.path),
            message=f"{self.code}: {message}" if self.code else message,
            hint=hint,
        )
        self.report.note(problem, self.path)


def key_text(path: Path) -> str:
    """`("sandboxes", 0, "acls")` becomes `sandboxes[0].acls`."""
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            shown = key if key.isprintable() else ascii(key)
            text += f".{shown}" if text else shown
    return text


def nearest(word: str, words: Iterable[str]) -> str:
    """A hint that names the known word most like an unknown one, or all words if they are few."""
    known = sorted(words)
    found = difflib.get_close_matches(word.lower(), known, 1) if len(word) < 100 else []
    if found:
        return f"did you mean `{found[0]}`?"
    return f"known: {', '.join(known)}" if 0 < len(known) <= 16 else ""


def shown(value: object) -> str:
    """A value as a message repeats it: short, printable."""
    text = ascii(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
