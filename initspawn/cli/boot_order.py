"""`initspawn explain --boot`: which commands start by themselves, in which order, and what they wait for."""

from __future__ import annotations

from typing import Any

from initspawn.cli.output import show_json, show_table
from initspawn.config.order import in_order
from initspawn.plan import STAGES, Autostart, Plan, device_text


def show_boot(plan: Plan, *, as_json: bool) -> None:
    """Print the order, as a table or as JSON."""
    rows = boot_order(plan)
    if as_json:
        show_json(rows, indent=2)
        return
    header = ("COMMAND", "STAGE", "WAITS FOR", "READY", "RESTART")
    shown = [
        (row["command"], row["stage"], ", ".join(row["waits"]) or "-", row["ready"], row["restart"])
        for row in rows
    ]
    show_table([header, *shown])


def boot_order(plan: Plan) -> list[dict[str, Any]]:
    """A record of each command that starts by itself: none comes before one that it waits for."""
    starts = {
        f"{api.api}/{command.verb}": command.autostart
        for api in plan.apis
        for command in api.commands
        if command.autostart is not None
    }
    order = in_order({name: _named(start) for name, start in starts.items()})
    # Nobody waits for a later stage, so this keeps everybody behind those it waits for.
    order.sort(key=lambda name: STAGES.index(starts[name].stage))
    return [_record(name, starts[name]) for name in order]


def _named(start: Autostart) -> list[str]:
    named = (*start.after, *start.requires, *start.wants, *(name for name, _ in start.results))
    return list(dict.fromkeys(named))


def _record(name: str, start: Autostart) -> dict[str, Any]:
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
    return {
        "command": name,
        "stage": start.stage,
        "waits": waits,
        "ready": start.ready,
        "restart": "never" if start.restart is None else start.restart.policy,
    }
