"""The part of the schema that starts commands without a caller, and keeps them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, field

from initspawn.config.part import Part

Name = Annotated[str, Meta(min_length=1)]
Seconds = Annotated[int, Meta(ge=0, le=315_360_000)]
Pause = Annotated[float, Meta(ge=0.01, le=86_400)]
Code = Annotated[int, Meta(ge=0, le=255)]
Policy = Literal["never", "on-failure", "always"]
Stage = Literal["early", "system", "network", "api"]
Fate = Literal["boot", "recovery", "reboot"]


class Restart(Part):
    """Whether and when a command is started again that has ended."""

    noun = "restart"
    form = "write never, on-failure, always, or {policy: on-failure}"

    policy: Policy
    pause: Pause = 0.2
    longest: Pause = 60.0
    jitter: Annotated[int, Meta(ge=0, le=100)] = 10
    ran_well: Pause = 10.0
    tries: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    permanent: list[Code] = field(default_factory=lambda: [125])


class TaskResult(Part):
    """What has become of another command that starts by itself."""

    noun = "task"
    form = "write {command: VERB, result: success}"

    command: Name
    result: Literal["success", "failure"]


class Conditions(Part):
    """What else must be so before a command starts."""

    noun = "conditions"

    kernel_command_line: list[Name] = []
    path: list[Name] = []
    link: list[Name] = []
    address: list[Name] = []
    route: list[Name] = []
    udev: list[dict[Name, Name]] = []
    task: list[TaskResult] = []
    otherwise: Literal["wait", "skip"] = "wait"


class Autostart(Part):
    """A command that starts by itself."""

    noun = "autostart"
    form = "write autostart: {}"

    stage: Stage | None = None
    before: Literal["handover"] | None = None
    on_timeout: Fate | None = None
    on_failure: Fate | None = None
    after: list[Name] = []
    requires: list[Name] = []
    wants: list[Name] = []
    args: Any = None
    conditions: Conditions = field(default_factory=Conditions)
    ready: Literal["started", "notify", "exited"] = "started"
    start_timeout: Seconds | None = None
    watchdog: Annotated[int, Meta(ge=1, le=86_400)] | None = None
    stop_timeout: Annotated[int, Meta(ge=0, le=86_400)] = 2
    restart: Policy | Restart = "never"
