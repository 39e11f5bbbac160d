"""How a task ended, in the words that clients get. Boot module; pure."""

from __future__ import annotations

import _signal
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def status_object(status: int | None, reason: str) -> dict[str, Any]:
    """A wait status as clients get it: `{"exit": N}`, `{"signal": TEXT}`, with `info` for a time limit."""
    if status is None:
        return {"signal": "Killed", **({"info": reason} if reason == "timeout" else {})}
    if os.WIFEXITED(status):
        return {"exit": os.WEXITSTATUS(status)}
    text = _signal.strsignal(os.WTERMSIG(status)) or str(os.WTERMSIG(status))
    return {"signal": text, **({"info": reason} if reason == "timeout" else {})}


def why(status: int | None, *, out_of_memory: bool) -> str:
    """Why a task ended that we did not end: `exit`, `signal`, `memory` or `output-limit`."""
    if status is not None and os.WIFEXITED(status):
        return "exit"
    if status is not None and os.WTERMSIG(status) == _signal.SIGXFSZ:
        return "output-limit"  # setrlimit(2): a file grew larger than RLIMIT_FSIZE
    return "memory" if out_of_memory else "signal"
