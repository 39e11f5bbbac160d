"""The `terminal` key: sizes, the encoder that goes with it, and what it excludes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from initspawn.plan import Api
from initspawn.sandbox.recipe import environment

Build = Callable[..., Api]
Problems = Callable[..., list[str]]


@pytest.mark.parametrize(
    ("given", "size"),
    [
        (False, None),
        (True, (24, 80)),
        ({}, (24, 80)),
        ({"rows": 50}, (50, 80)),
        ({"rows": 1, "columns": "32767"}, (1, 32767)),
    ],
)
def test_sizes(build: Build, given: Any, size: Any) -> None:
    (made,) = build({}, terminal=given).commands
    assert made.terminal == size
    assert made.encoder == ("stream" if size else "text")
    (made,) = build({}, terminal=given, encoder="line").commands
    assert made.encoder == "line"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"terminal": {"rows": 0}}, "rows: must be from 1 to 32767, not 0"),
        ({"terminal": {"columns": 32768}}, "columns: must be from 1 to 32767, not 32768"),
        ({"terminal": {"width": 80}}, "unknown key"),
        ({"terminal": "yes"}, "must be true or false or an object, not 'yes'"),
        ({"terminal": None}, "null"),
        ({"terminal": True, "stdin": True}, "stdin: contradicts `terminal`"),
    ],
)
def test_what_is_refused(problems: Problems, keys: dict[str, Any], said: str) -> None:
    (found,) = problems({}, **keys)
    assert said in found


@pytest.mark.parametrize(("own", "value"), [([], "xterm"), ([{"name": "TERM", "value": "dumb"}], "dumb")])
def test_term(build: Build, own: list[dict[str, str]], value: str) -> None:
    api = build({"envs": own}, terminal=True)
    (sandbox,) = api.sandboxes
    assert f"TERM={value}" in environment(sandbox, terminal=True)
    assert ("TERM=xterm" in environment(sandbox, terminal=False)) is False
