"""What the keeper says of a command that has ended."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from initspawn.supervisor.keeper import Keeper


@pytest.mark.parametrize(
    ("status", "said"),
    [({"signal": "Killed"}, "signal Killed"), ({"exit": 3}, "exit 3"),
     ({"signal": "Killed", "info": "timeout"}, "signal Killed, info timeout")],
)  # fmt: skip
def test_an_end_is_told_in_words(
    status: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    waits: list[float] = []
    reactor = SimpleNamespace(after=lambda seconds, callback: waits.append(seconds))
    supervisor = cast(Any, SimpleNamespace(closing=False, reactor=reactor))
    keeper = Keeper(supervisor, cast(Any, None), cast(Any, SimpleNamespace(uid="gateway")), ())
    keeper._on_end(cast(Any, SimpleNamespace(refusal=None, status=status, began=1.0, ended=2.0)))
    assert capsys.readouterr().err == f"initspawn: gateway: ended ({said}), it is started again\n"
    assert len(waits) == 1
