"""`tree.follow`, against the file system's own answer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from initspawn.tree import follow

PATHS = "a/b a/./b// a/b/../c up/b to-a/../x chain/b absolute/b no/such/../name .."


def _link(path: str) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None


@pytest.mark.parametrize("path", PATHS.split())
def test_links_lead_where_they_lead(tmp_path: Path, path: str) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "to-a").symlink_to("a")
    (tmp_path / "up").symlink_to("a/../a")
    (tmp_path / "chain").symlink_to("to-a/b/..")
    (tmp_path / "absolute").symlink_to(tmp_path / "to-a")
    assert follow(f"{tmp_path}/{path}", _link) == os.path.realpath(tmp_path / path)


def test_the_root_has_nothing_above_it_and_a_circle_no_end() -> None:
    assert follow("/../..", lambda _: None) == "/"
    assert follow("/a/b", {"/a": "b", "/b": "a"}.get) is None
    hops = {f"/{n}": str(n + 1) for n in range(40)}
    assert follow("/0", hops.get) == "/40"
    assert follow("/0", {**hops, "/40": "41"}.get) is None
