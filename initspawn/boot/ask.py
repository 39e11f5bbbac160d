"""Asks a running supervisor to take another plan: for `initspawn reload`, and as a unit's ExecReload.

The plan is made here, not in the supervisor, which must not wait for anything; but where that runs and with
its environment, so that it becomes what a start would make of it.
"""

from __future__ import annotations

import os
import sys

from initspawn.boot import early
from initspawn.boot.reload import PREFIX
from initspawn.boot.supervise import CONTROL
from initspawn.control.client import Client
from initspawn.errors import InitspawnError, PlanError, RequestError
from initspawn.late import OWN_PID
from initspawn.linux.cmdline import option
from initspawn.planfile import save

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from initspawn.plan import Plan

SECONDS = 60.0  # for the answer of a supervisor that is alive


def main() -> int:
    """Have the supervisor of this device take the plan that it would begin with now. Returns the exit code:
    0, or 111 with a line on stderr.
    """
    try:
        with Client(os.path.join(early.RUN_DIR, CONTROL), SECONDS) as client:
            told = ask_sources(client)
            if told["files"] is not None:
                raise InitspawnError(f"`serve` runs: initspawn reload --run-dir {early.RUN_DIR}")
            print(summary(reload_device(client, told)))
    except (InitspawnError, OSError) as error:
        print(f"initspawn: {_told(error)}", file=sys.stderr)
        return 111
    return 0


def _told(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename or os.path.join(early.RUN_DIR, CONTROL)}: {error.strerror or error}"
    return error.info if isinstance(error, RequestError) and error.info else str(error)


def ask_sources(client: Client, token: str | None = None) -> dict[str, Any]:
    """What the supervisor's plan is made of, in our own encoding. Raises InitspawnError, OSError."""
    if client.user != os.geteuid():  # its files say what is run here to make the plan
        raise InitspawnError(f"the supervisor runs as user {client.user}: only that user can have it reload")
    told: dict[str, Any] = client.call("initspawn/sources", None, token).response

    def text(value: str) -> str:
        return os.fsdecode(value.encode("latin-1"))

    environment = {text(name): text(value) for name, value in told["environment"].items()}
    paths = {name: text(told[name]) for name in ("directory", "run-dir")}
    return {**told, **paths, "environment": environment}


def go_there(told: dict[str, Any]) -> dict[str, str]:
    """Be where the supervisor is, with its environment, which is returned with its pid. Raises OSError."""
    os.chdir(told["directory"])
    os.environ.clear()
    os.environ.update(told["environment"])
    return {**told["environment"], OWN_PID: str(told["pid"])}


def reload_device(client: Client, told: dict[str, Any], token: str | None = None) -> dict[str, Any]:
    """Hand over the plan with which a device would begin now: the first that there is, whether it can be used
    or not. Raises InitspawnError, OSError.
    """
    environment = go_there(told)
    found = early.candidates(option("plan"))
    if not found:
        raise PlanError(f"no plan: `initspawn compile -o {early.PLANS[0]}` makes one")
    return hand_over(client, told, early.usable(found[0], environment), token, found[0])


def hand_over(
    client: Client, told: dict[str, Any], plan: Plan, token: str | None = None, file: str = ""
) -> dict[str, Any]:
    """Have the supervisor take this plan. `file`: where it came from. Returns how much of it there is. Raises
    RequestError, OSError.
    """
    name = f"{PREFIX}{os.getpid()}"
    path = os.path.join(told["run-dir"], name)
    try:
        save(plan.replace(sources=(), further=()), path)
        answer: dict[str, Any] = client.call("initspawn/reload", {"plan": name, "file": file}, token).response
        return answer
    finally:
        if os.path.lexists(path):
            os.unlink(path)


def summary(told: dict[str, Any]) -> str:
    """One line about what there is now, and how much of it is another than before."""
    gone = f", {told['gone']} gone" if told["gone"] else ""
    return (
        f"initspawn: reloaded: {counted(told['apis'], 'API')}, "
        f"{counted(told['commands'], 'command')} ({told['new-commands']} new or changed{gone}), "
        f"{counted(told['sandboxes'], 'sandbox', 'sandboxes')} ({told['new-sandboxes']} new or changed)"
    )


def counted(number: int, one: str, more: str = "") -> str:
    """So many of them; `more`: the plural, where it is not the word with an s."""
    return f"{number} {one if number == 1 else more or f'{one}s'}"
