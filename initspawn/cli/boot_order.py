"""`initspawn explain FILE --boot`: which commands start by themselves, in which order, what they wait for,
and what waits for them: the boot, and a guard.
"""

from __future__ import annotations

import sys
from typing import Any

from initspawn.cli.output import show_json, show_table, write_line
from initspawn.config.order import in_order
from initspawn.plan import STAGES, Autostart, Guard, Plan, device_text


def show_boot(plan: Plan, *, as_json: bool) -> None:
    """Print the order, as a table or as JSON."""
    rows = boot_order(plan)
    if as_json:
        show_json(rows, indent=2)
        return
    header = ("COMMAND", "STAGE", "WAITS FOR", "READY", "RESTART")
    shown = [
        (row["command"], row["stage"], ", ".join(row["waits"]) or "-", _ready(row), row["restart"])
        for row in rows
    ]
    show_table([header, *shown])
    holding = [row for row in rows if row["handover"]]
    if holding:
        write_line("", sys.stdout)
        show_table([("THE BOOT WAITS FOR", "AT MOST", "ON TIMEOUT", "ON FAILURE"), *map(_held, holding)])
    for row in rows:
        if row["guard"] is not None:
            until = f"guard: nobody talks before {row['command']} is ready"
            write_line(f"\n{until}; {row['guard']} when it fails", sys.stdout)


def _ready(row: dict[str, Any]) -> str:
    """When it is ready; the time for that is the boot's where the boot waits."""
    limit = row["start_timeout"]
    return f"{row['ready']} within {limit:g} s" if limit and not row["handover"] else str(row["ready"])


def _held(row: dict[str, Any]) -> tuple[str, ...]:
    limit = row["start_timeout"]
    late = (f"{limit:g} s", row["on_timeout"]) if limit else ("any time", "-")
    return (row["command"], *late, row["on_failure"])


def boot_order(plan: Plan) -> list[dict[str, Any]]:
    """A record of each command that starts by itself: none comes before one that it waits for.

    Besides what its keys say, `start_timeout` in seconds (0: none), `handover` says whether the boot waits
    for it, and `guard` what the guard is when it fails that opens it; None where it opens none.
    """
    starts = {
        f"{api.api}/{command.verb}": command.autostart
        for api in plan.apis
        for command in api.commands
        if command.autostart is not None
    }
    order = in_order({name: _named(start) for name, start in starts.items()})
    # Nobody waits for a later stage, so this keeps everybody behind those it waits for.
    order.sort(key=lambda name: STAGES.index(starts[name].stage))
    return [_record(name, starts[name], plan.guard) for name in order]


def _named(start: Autostart) -> list[str]:
    named = (*start.after, *start.requires, *start.wants, *(name for name, _ in start.results))
    return list(dict.fromkeys(named))


def _record(name: str, start: Autostart, guard: Guard | None) -> dict[str, Any]:
    waits = [
        *(f"after {other}" for other in start.after),
        *(f"requires {other}" for other in start.requires),
        *(f"wants {other}" for other in start.wants),
        *(f"{'success' if well else 'failure'} of {other}" for other, well in start.results),
        *(f"kernel command line {word}" for word in start.words),
        *(f"path {path}" for path in start.paths),
        *(f"{what} {link}" for what, link in start.network),
        *(f"device {device_text(device)}" for device in start.devices),
    ]
    failed = None
    if guard is not None and guard.until == name:
        failed = "open" if guard.open_on_failure else "closed"
    return {
        "command": name,
        "stage": start.stage,
        "waits": waits,
        "ready": start.ready,
        "restart": "never" if start.restart is None else start.restart.policy,
        "start_timeout": start.start_timeout,
        "handover": start.handover,
        "on_timeout": start.on_timeout,
        "on_failure": start.on_failure,
        "guard": failed,
    }
