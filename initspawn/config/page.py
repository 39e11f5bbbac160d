"""`metadata.page`: the directory of an API's own HTML page."""

from __future__ import annotations

import os

from initspawn.config.expand import ExpandFault, Names, expand
from initspawn.config.spot import Spot, shown
from initspawn.late import is_late

INDEX = "index.html"


def page_directory(text: str | None, names: Names, spot: Spot) -> str | None:
    """The absolute path of the directory, None for none. What is wrong is noted at `spot`.

    A relative one starts where the configuration file is.
    """
    if text is None:
        return None
    tree = names.target.tree
    try:
        path = expand(text, names)
    except ExpandFault as fault:
        spot.refuse(str(fault))
        return None
    beside = tree.name(os.path.dirname(os.path.abspath(spot.report.file)))
    if is_late(path) or (beside is None and not path.startswith("/")):
        spot.refuse("is a directory that only the running machine has", "write its absolute path there")
        return None
    path = os.path.join(beside or "/", path)
    reason = not_a_page(tree.place(path))
    if reason:
        spot.refuse(reason, f"make a directory with an {INDEX} in it")
        return None
    return tree.real(path)


def not_a_page(path: str) -> str:
    """Why a directory cannot be served as a page; empty if it can."""
    if not os.path.isdir(path):
        return f"{shown(path)} is no directory"
    return "" if os.path.isfile(os.path.join(path, INDEX)) else f"{shown(path)} holds no {INDEX}"
