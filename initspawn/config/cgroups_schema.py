"""`cgroups` of a sandbox as types: see `schema`. The values are read by `cgroups`."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, field

from initspawn.config.part import Natural, Part

Amount = str | Natural  # a number, alone or with words around it


class Cset(Part):
    """On which processors and memory nodes."""

    noun = "cset"

    cpus: str | Natural | None = None
    mems: str | Natural | None = None


class Mem(Part):
    """How much memory."""

    aliases = {"hight": "high"}
    noun = "mem"

    max: Amount | None = None
    high: Amount | None = None
    min: Amount | None = None
    swap: Amount | None = None


class Cpu(Part):
    """How much of the processors' time."""

    noun = "cpu"

    weight: Amount | None = None
    max: Amount | None = None


class Pids(Part):
    """How many processes and threads."""

    noun = "pids"

    max: Amount | None = None


class Cgroups(Part):
    """How much of the machine a task may use."""

    noun = "cgroups"

    cset: str | Natural | Cset | None = None
    mem: Mem = field(default_factory=Mem)
    cpu: Cpu = field(default_factory=Cpu)
    io: list[str] = []
    pids: str | Natural | Pids | None = None
    scope: Literal["task", "sandbox"] = "task"
    optional: bool = False
    mount: Annotated[str, Meta(min_length=1)] | None = None
