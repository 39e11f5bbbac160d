"""The part of the schema that bounds what commands use and reach: limits, scheduling, Landlock rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta, defstruct, field

from initspawn.config.part import Natural, Part
from initspawn.linux.scheduling import IO_PRIORITIES, NICE, OOM_SCORES

Bound = str | Natural  # of a resource limit
Port = Annotated[int, Meta(ge=0, le=65535)]
Access = Literal["read", "write", "execute", "create", "remove", "move", "device", "ioctl"]
# What Landlock rules are about unless the file says something else: all that Linux 6.2 has words for.
RESTRICTED: tuple[Access, ...] = ("read", "write", "execute", "create", "remove", "move", "device")
# getrlimit(2) without RLIMIT_, in the kernel's order.
LIMIT_NAMES = (
    "cpu", "fsize", "data", "stack", "core", "rss", "nproc", "nofile", "memlock", "as", "locks",
    "sigpending", "msgqueue", "nice", "rtprio", "rttime",
)  # fmt: skip


class Limit(Part):
    """A resource limit whose two values differ."""

    noun = "limit"
    form = "write {soft: 64, hard: 128}"

    soft: Bound
    hard: Bound


if TYPE_CHECKING:
    Limits = Part
else:  # made from the kernel's names, one of which (`as`) Python keeps for itself
    Limits = defstruct(
        "Limits",
        [(name, Bound | Limit | None, None) for name in LIMIT_NAMES],
        bases=(Part,),
        namespace={"__doc__": "Resource limits of each process.", "noun": "limits"},
        module=__name__,
        kw_only=True,
        forbid_unknown_fields=True,
    )


class Scheduling(Part):
    """What the commands are given before others, or after them."""

    noun = "scheduling"

    nice: Annotated[int, Meta(ge=NICE[0], le=NICE[-1])] | None = None
    cpu: Literal["other", "batch", "idle"] | None = None
    io: Literal["realtime", "best-effort", "idle"] | None = None
    io_priority: Annotated[int, Meta(ge=IO_PRIORITIES[0], le=IO_PRIORITIES[-1])] | None = None
    oom_score_adj: Annotated[int, Meta(ge=OOM_SCORES[0], le=OOM_SCORES[-1])] | None = None


class LandlockPath(Part):
    """What may be done with a file, or with a directory and all below it."""

    noun = "Landlock path"
    form = "write {path: /PATH, allow: [read, execute]}"

    path: Annotated[str, Meta(min_length=1)]
    allow: list[Access]


class Landlock(Part):
    """Rules that the kernel holds the commands to whoever they are."""

    noun = "landlock"

    restrict: list[Access] = field(default_factory=lambda: list(RESTRICTED))
    paths: list[LandlockPath] = []
    bind: list[Port] | None = None
    connect: list[Port] | None = None
    scope: list[Literal["abstract-sockets", "signals"]] = []
    optional: bool = False
