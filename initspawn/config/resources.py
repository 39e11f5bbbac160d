"""What a sandbox's commands get of the machine: resource limits, and their place among others."""

from __future__ import annotations

import os
import resource

from msgspec import structs

from initspawn.config.bounds_schema import LIMIT_NAMES, Limit, Limits, Scheduling
from initspawn.config.identity import Person
from initspawn.config.size import amount, amount_hint, is_too_much
from initspawn.config.spot import Spot, shown
from initspawn.linux import scheduling as kernel
from initspawn.plan import Scheduling as PlanScheduling

UNLIMITED = "unlimited"
_IO_PRIORITY = 4  # what the kernel gives at nice value 0


def rlimits(
    limits: Limits, spot: Spot, supervisor: Person, *, late: bool
) -> tuple[tuple[int, int, int], ...]:
    """(RLIMIT_*, soft, hard) of each, -1 for no limit; what is wrong is noted.

    A core file would carry the command's memory out of the sandbox, so there is none unless it is said.
    """
    found = {resource.RLIMIT_CORE: (0, 0)}
    for name, value in structs.asdict(limits).items():
        if value is None:
            continue
        place = spot[name]
        if isinstance(value, Limit):
            soft, hard = _bound(value.soft, place["soft"]), _bound(value.hard, place["hard"])
        else:
            soft = hard = _bound(value, place)
        if soft is None or hard is None:
            continue
        which = LIMIT_NAMES.index(name)
        if hard != -1 and not 0 <= soft <= hard:
            place["soft"].refuse("is more than `hard`")
        elif _is_ours(supervisor, late=late) and _exceeds(hard, ours := resource.getrlimit(which)[1]):
            place.refuse(f"an ordinary user cannot raise its limit of {ours}", "run initspawn as root")
        found[which] = (soft, hard)
    return tuple((which, soft, hard) for which, (soft, hard) in sorted(found.items()))


def _bound(value: str | int, spot: Spot) -> int | None:
    """A number as the kernel has it, -1 for none; None if it is no such number."""
    if value == UNLIMITED:
        return -1
    number = amount(str(value))
    if number is not None and not is_too_much(number):
        return number
    hint = amount_hint(str(value)) if number is None else ""
    spot.refuse(f"{shown(value)} is no limit", hint or f"such as `512M` or `{UNLIMITED}`; K is 1024")
    return None


def _is_ours(supervisor: Person, *, late: bool) -> bool:
    """Whether it is an ordinary user's supervisor that will have what we have."""
    return supervisor.user != 0 and supervisor.user == os.geteuid() and not late


def _exceeds(wanted: int, ours: int) -> bool:
    return ours != -1 and not 0 <= wanted <= ours


def schedule(
    wanted: Scheduling | None, spot: Spot, supervisor: Person, *, late: bool
) -> PlanScheduling | None:
    """The plan's; what is wrong, or not this user's to give, is noted."""
    if wanted is None:
        return None
    if wanted.nice is not None and _is_ours(supervisor, late=late) and wanted.nice < _least_nice():
        spot["nice"].refuse(f"an ordinary user cannot go below {_least_nice()}", "run initspawn as root")
    if wanted.io == "realtime" and supervisor.user != 0:
        spot["io"].refuse("an ordinary user cannot be first at the disks", "run initspawn as root")
    if wanted.io_priority is not None and wanted.io in (None, "idle"):
        spot["io_priority"].refuse("needs `io: best-effort` or `io: realtime`")
    level = 0
    if wanted.io != "idle":
        level = _IO_PRIORITY if wanted.io_priority is None else wanted.io_priority
    return PlanScheduling(
        nice=wanted.nice,
        policy=None if wanted.cpu is None else kernel.POLICIES[wanted.cpu],
        io=None if wanted.io is None else kernel.io_priority(kernel.IO_CLASSES[wanted.io], level),
        oom_score_adj=wanted.oom_score_adj,
    )


def _least_nice() -> int:
    """The lowest nice value that we may give: ours, or what RLIMIT_NICE allows (getrlimit(2))."""
    soft = resource.getrlimit(resource.RLIMIT_NICE)[0]
    allowed = kernel.NICE[0] if soft == -1 else 20 - soft
    return min(os.getpriority(os.PRIO_PROCESS, 0), allowed)
