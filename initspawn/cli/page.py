"""Which page of the user's own is served, and whether the gateway can."""

from __future__ import annotations

import os
import re

from initspawn.cli.exits import UsageError
from initspawn.config.page import INDEX, not_a_page
from initspawn.plan import Plan
from initspawn.tree import HERE, Tree

_PREFIX = re.compile(r"(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+")
_OURS = ("api", "app.js", "initspawn", "login", "logout", "style.css")


def page_of(plan: Plan, option: str | None, *, privileged: bool, tree: Tree = HERE) -> str | None:
    """The directory, absolute: of `--page`, else of the one API that brings one. None: the test page. `tree`:
    the machine that has it.

    Raises UsageError for none, for two, and for what the gateway's user (as root) could not read.
    """
    if option is not None:
        reason = not_a_page(tree.place(option))
        if reason:
            raise UsageError(f"--page: {reason}")
        found = tree.real(option)
    else:
        brought = {api.page: api.api for api in plan.apis if api.page is not None}
        if len(brought) > 1:
            names = " and ".join(f"`{name}`" for name in brought.values())
            raise UsageError(f"{names} bring different pages, and only one is served; choose with --page DIR")
        if not brought:
            return None
        found = next(iter(brought))
    if privileged:
        _check_readable(found, tree)
    return found


def aliases_of(options: list[str], *, privileged: bool, tree: Tree = HERE) -> list[tuple[str, str]]:
    """(prefix, directory) of each `--alias PREFIX:DIR`; `tree` as above. Raises UsageError."""
    found: dict[str, str] = {}
    for option in options:
        prefix, colon, directory = option.partition(":")
        if not colon or not _PREFIX.fullmatch(prefix):
            raise UsageError(f"--alias {option!r}: write /prefix:directory")
        if prefix in found or prefix.split("/")[1] in _OURS:
            raise UsageError(f"--alias {option!r}: {prefix} is taken")
        if not tree.is_directory(directory):
            raise UsageError(f"--alias {option!r}: there is no directory {directory}")
        found[prefix] = tree.real(directory)
        if privileged and os.stat(tree.place(found[prefix])).st_mode & 0o005 != 0o005:
            raise UsageError(f"{directory} cannot be read by the gateway's user: chmod -R o+rX {directory}")
    return list(found.items())


def _check_readable(path: str, tree: Tree) -> None:
    """The gateway is nobody's friend: what it serves must be readable by everybody."""
    for place, wanted in ((path, 0o005), (os.path.join(path, INDEX), 0o004)):
        if os.stat(tree.place(place)).st_mode & wanted != wanted:
            raise UsageError(f"{place} cannot be read by the gateway's user: chmod -R o+rX {path}")
