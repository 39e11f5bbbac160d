"""Which files a command line names: a directory stands for the configurations in it."""

from __future__ import annotations

import os
import stat

from initspawn.errors import ConfigError, Problem

EXTENSIONS = (".json", ".yaml", ".yml")


def files_of(paths: list[str]) -> list[str]:
    """The files, in order; those of a directory by name, hidden ones and sub-directories left out.

    What is no directory stays as it is, for the reader to judge. Raises ConfigError with every directory
    that cannot be read, has none, or may be written by everybody: whose files those are nobody knows.
    """
    files: list[str] = []
    problems: list[Problem] = []
    for path in paths:
        if not os.path.isdir(path):
            files.append(path)
            continue
        try:
            open_to_all = os.stat(path).st_mode & stat.S_IWOTH
            found = [name for name in sorted(os.listdir(path)) if _is_configuration(path, name)]
        except OSError as error:
            problems.append(_problem(path, f"cannot be read: {error.strerror}"))
            continue
        if open_to_all:
            problems.append(_problem(path, "everybody may put files into it", _CLOSE))
        elif not found:
            problems.append(_problem(path, "is a directory without any configuration", _HINT))
        files += [os.path.join(path, name) for name in found]
    if problems:
        raise ConfigError(problems)
    return files


_CLOSE = "say `chmod o-w`, or name the files"
_HINT = f"files in it must end in {', '.join(EXTENSIONS)}"


def _is_configuration(directory: str, name: str) -> bool:
    if name.startswith(".") or not name.lower().endswith(EXTENSIONS):
        return False
    return not os.path.isdir(os.path.join(directory, name))


def _problem(path: str, message: str, hint: str = "") -> Problem:
    return Problem(file=path, line=0, key="", message=message, hint=hint)
