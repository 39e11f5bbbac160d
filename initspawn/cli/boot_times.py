"""`initspawn explain --boot` of a running supervisor: when what has happened, and what the boot waited for.

Times are seconds of the kernel's monotonic clock, which begins when the kernel does.
"""

from __future__ import annotations

import sys
from typing import Any

from initspawn.cli.output import show_json, show_table, write_line
from initspawn.supervisor.service import DUE, ENDED, IS_READY, RUNS

HANDOVER = "handover decided"
READY = "last command ready"


def show_times(told: dict[str, Any], *, as_json: bool) -> None:
    """Print what `initspawn/timeline` has told as a table, or as JSON, with the critical paths."""
    paths = critical_paths(told)
    if as_json:
        show_json({**told, "critical": [{"to": to, "path": path} for to, path in paths]}, indent=2)
        return
    show_table([("TIME", "WHAT", "STARTED", "READY", "ENDED", "WAITED FOR"), *_rows(told)])
    for to, path in paths:
        write_line(f"\ncritical path to: {to}", sys.stdout)
        show_table([("AT", "WHAT", "TOOK"), *((_shown(s["at"]), s["what"], _took(s)) for s in path)])


def critical_paths(told: dict[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    """What the handover waited for, if it did, and what the last command that got ready did: from the end
    back, each step with what it is, since when it holds, and how long it took from when its turn came.
    """
    marks = {mark["what"]: mark["time"] for mark in told["marks"]}
    services = {record["command"]: record for record in told["services"]}
    decided = marks.get(HANDOVER)
    awaited = [
        record
        for record in services.values()
        if record["handover"] and decided is not None and _settled(record, decided) is not None
    ]
    ready = [record for record in services.values() if IS_READY in record]
    found = []
    if awaited:
        end = max(awaited, key=lambda record: _settled(record, decided) or 0.0)
        found.append((HANDOVER, _path(end, services, marks)))
    if ready:
        found.append((READY, _path(max(ready, key=lambda one: one[IS_READY]), services, marks)))
    return found


def _path(
    end: dict[str, Any], services: dict[str, dict[str, Any]], marks: dict[str, float]
) -> list[dict[str, Any]]:
    record, path = end, list[dict[str, Any]]()
    while len(path) <= len(services):
        at, due = _settled(record), record.get(DUE)
        took = None if at is None or due is None else round(at - due, 6)
        path.append({"what": record["command"], "at": at, "took": took})
        waited = record.get("waited")
        if waited not in services:
            break
        record = services[waited]
    if waited and waited not in services:
        path.append({"what": waited, "at": marks.get(waited, record.get(DUE)), "took": None})
    return path


def _settled(record: dict[str, Any], until: float | None = None) -> float | None:
    """When others needed not wait for it any more; None if they still do, or did at `until`."""
    at: float | None = record.get(IS_READY, record.get(ENDED))
    return None if at is not None and until is not None and at > until else at


def _rows(told: dict[str, Any]) -> list[tuple[str, ...]]:
    marks = [(mark["time"], (mark["what"], "", "", "", "")) for mark in told["marks"]]
    ours = []
    for record in told["services"]:
        due = record.get(DUE)
        after = [_since(due, record.get(name)) for name in (RUNS, IS_READY, ENDED)]
        waited = record.get("waited", "-")
        ours.append((due, (f"{record['command']} ({record['state']})", *after, waited)))
    rows = sorted(
        [*marks, *ours], key=lambda row: (row[0] is None, row[0] or 0.0)
    )  # those whose turn has not come are last
    return [(_shown(when), *cells) for when, cells in rows]


def _shown(when: float | None) -> str:
    return "-" if when is None else f"{when:.3f}"


def _since(due: float | None, when: float | None) -> str:
    if when is None:
        return "-"
    return f"+{when - due:.3f}" if due is not None else f"{when:.3f}"


def _took(step: dict[str, Any]) -> str:
    return "" if step["took"] is None else f"+{step['took']:.3f}"
