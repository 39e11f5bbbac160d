"""What configuration tests share: data in, a compiled API or the list of problems out."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from initspawn.config.compile import compile_raw
from initspawn.errors import ConfigError
from initspawn.plan import Api

# Who tests compile for as an ordinary user: ourselves, so that our own files are trusted.
ORDINARY = os.getuid() or 1000


def whole(sandbox: dict[str, Any], **command: Any) -> dict[str, Any]:
    """A complete configuration around a sandbox's keys, with one command."""
    ordinary = {"uid": "c", "exec": {"cmdpath": "/bin/true"}}
    return {
        "metadata": {"uid": "u", "api": "t"},
        "sandboxes": {"uid": "s", "commands": ordinary | command, **sandbox},
    }


@pytest.fixture
def ordinary() -> int:
    """The number of the ordinary user that `build` compiles for."""
    return ORDINARY


@pytest.fixture
def build() -> Callable[..., Api]:
    """build(sandbox keys, user=..., environ=..., command keys...): the compiled API."""

    def build(
        sandbox: dict[str, Any] | None = None,
        *,
        user: int = ORDINARY,
        environ: dict[str, str] | None = None,
        raw: dict[str, Any] | None = None,
        hidden: bool = False,
        **command: Any,
    ) -> Api:
        return compile_raw(
            raw if raw is not None else whole(sandbox or {}, **command),
            file="test",
            user=user,
            group=user,
            environ=environ or {},
            hidden=hidden,
        )

    return build


@pytest.fixture
def problems(build: Callable[..., Api]) -> Callable[..., list[str]]:
    """The same call, for a configuration that must be refused: its problems as text."""

    def problems(*args: Any, **options: Any) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            build(*args, **options)
        return [str(problem) for problem in caught.value.problems]

    return problems
