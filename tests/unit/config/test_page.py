"""`metadata.page`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from initspawn.config.compile import compile_files
from initspawn.errors import ConfigError

Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A configuration file with this page, beside a directory `site` that is one."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("page")
    (tmp_path / "empty").mkdir()

    def write(page: str) -> str:
        path = tmp_path / "api.yaml"
        path.write_text(f"metadata:\n  uid: t\n  api: t\n  page: {page}\n")
        return str(path)

    return write


def page_of(file: str) -> str | None:
    environ = {"SITE": "site", **os.environ}
    return compile_files([file], user=0, group=0, environ=environ).apis[0].page


def test_relative_to_the_file_or_absolute_or_expanded(write: Write, tmp_path: Path) -> None:
    site = str(tmp_path / "site")
    assert page_of(write("site")) == site
    assert page_of(write("./site/")) == site
    assert page_of(write(site)) == site
    assert page_of(write("$SITE")) == site


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("nowhere", "is no directory"),
        ("site/index.html", "is no directory"),
        ("empty", "holds no index.html"),
        ("$NO_SUCH_NAME_", "neither built in nor in the environment"),
        ("''", "may not be empty"),
        ("3", "must be text"),
    ],
)
def test_what_is_no_page(write: Write, page: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        page_of(write(page))
    (problem,) = caught.value.problems
    assert said in problem.message
    assert (problem.line, problem.key) == (4, "metadata.page")
