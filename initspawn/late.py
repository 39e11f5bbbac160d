"""What only the running machine knows, filled into a plan that was made ahead. Boot module.

`initspawn compile` leaves a mark, NUL NAME NUL, where a configuration says `$PID` and the like: no other
text of a plan holds a NUL. `settle` puts the values there when the supervisor starts, looks for bind
sources that no image holds, runs the shell lines of `execfd`, and drops of `caps: ALL` what is not held.
"""

from __future__ import annotations

import os
import time

from initspawn.errors import InitspawnError, PlanError
from initspawn.linux import capabilities
from initspawn.sources import find
from initspawn.tree import HERE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from initspawn.plan import Api, Command, Landlock, Mount, Plan, Sandbox

_NUL = "\0"
# In place of a variable's name: the supervisor's own variables. In place of its value: without it.
SERVER, UNSET = "\0SERVER\0", "\0UNSET\0"
# Nothing for commands: how initspawn itself is set up, tokens included, and what systemd tells it.
_OURS = ("INITSPAWN_", "LISTEN_", "NOTIFY_", "WATCHDOG_", _NUL)
# Among a supervisor's variables, where another process makes its plan: its pid.
OWN_PID = "\0PID"
# Directories that an image leaves empty and a running system fills.
RUNTIME = ("/dev", "/proc", "/run", "/sys", "/tmp", "/var/run")


def _uuid() -> str:
    """A random one, RFC 9562 version 4."""
    raw = bytearray(os.urandom(16))
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    text = raw.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _today() -> str:
    return time.strftime("%d-%b-%Y %T (%Z)")


# The built-in names whose value is the running machine's or its supervisor's.
VALUES: dict[str, Callable[[Mapping[str, str]], str]] = {
    "LOGNAME": lambda environ: environ.get("LOGNAME", "Unknown"),
    "HOSTNAME": lambda environ: environ.get("HOSTNAME") or os.uname().nodename,
    "HOME": lambda environ: environ.get("HOME", "/sandbox"),
    "AFB_ROOTDIR": lambda environ: environ.get("AFB_ROOTDIR", "."),
    "AFB_NAME": lambda environ: environ.get("AFB_NAME", "initspawn"),
    "PID": lambda environ: environ.get(OWN_PID) or str(os.getpid()),
    "TODAY": lambda _: _today(),
    "UUID": lambda _: _uuid(),
}


def mark(name: str) -> str:
    """What stands in a plan's text for the value of that name."""
    return f"{_NUL}{name}{_NUL}"


def is_mark(text: str) -> bool:
    """Whether a text is one mark and nothing else."""
    return text[1:-1] in VALUES and text == mark(text[1:-1])


def is_late(text: str) -> bool:
    """Whether a text holds a mark."""
    return _NUL in text


def check_machine(plan: Plan) -> None:
    """Refuse a plan for another processor: its filters would end everything. Raises PlanError."""
    here = os.uname().machine
    if plan.machine and plan.machine != here:
        raise PlanError(f"the plan is for {plan.machine}, and this is {here}: compile it with --arch {here}")


def settle(plan: Plan, environ: Mapping[str, str]) -> Plan:
    """The plan with nothing left to fill in. Raises PlanError that names the sandbox or the command."""

    def fill(text: str) -> str:
        return _filled(text, lambda name: VALUES[name](environ))

    settled = _settled(plan, fill, lambda sandbox: _sandbox(sandbox, plan.user, environ, fill))
    for api in settled.apis:
        for command in api.commands:
            if not command.path.startswith("/"):
                raise PlanError(f"command `{command.verb}`: {command.path!a} is not absolute")
    return settled


def described(plan: Plan) -> Plan:
    """The plan for reading only: where a value is not known yet, its name stands as `$NAME`."""

    def fill(text: str) -> str:
        return _filled(text, lambda name: f"${name}")

    def sandbox(sandbox: Sandbox) -> Sandbox:
        mounts = tuple(mount.replace(source=fill(mount.source)) for mount in sandbox.mounts)
        environment = _environment(sandbox, fill, {"(and that of the supervisor)": ""})
        return sandbox.replace(
            mounts=mounts,
            environment=environment,
            directory=fill(sandbox.directory),
            landlock=_landlock(sandbox, fill),
        )

    return _settled(plan, fill, sandbox)


def _settled(plan: Plan, fill: Callable[[str], str], sandbox: Callable[[Sandbox], Sandbox]) -> Plan:
    def api(api: Api) -> Api:
        return api.replace(
            sandboxes=tuple(sandbox(item) for item in api.sandboxes),
            commands=tuple(_command(item, fill) for item in api.commands),
        )

    if not plan.late:
        return plan
    return plan.replace(apis=tuple(api(item) for item in plan.apis), late=False)


def _filled(text: str, value: Callable[[str], str]) -> str:
    if _NUL not in text:
        return text
    parts = text.split(_NUL)
    try:
        parts[1::2] = [value(name) for name in parts[1::2]]
    except KeyError as error:
        raise PlanError(f"the plan asks for {error}, which this initspawn does not know") from error
    return "".join(parts)


def _command(command: Command, fill: Callable[[str], str]) -> Command:
    return command.replace(
        path=fill(command.path),
        arguments=tuple(
            tuple((kind, fill(text)) for kind, text in parts) for parts in command.arguments
        ),
        encoder_options=_options(command.encoder_options, fill),
    )  # fmt: skip


def _options(value: Any, fill: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return fill(value)
    if isinstance(value, dict):
        return {name: _options(item, fill) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_options(item, fill) for item in value)
    return value


def _sandbox(
    sandbox: Sandbox, supervisor: int, environ: Mapping[str, str], fill: Callable[[str], str]
) -> Sandbox:
    directory = fill(sandbox.directory)
    if not directory.startswith("/"):
        raise PlanError(f"sandbox `{sandbox.uid}`: {directory!a} is not absolute")
    return sandbox.replace(
        directory=directory,
        environment=_environment(sandbox, fill, environ),
        mounts=tuple(_mount(mount, sandbox, supervisor, fill) for mount in sandbox.mounts),
        landlock=_landlock(sandbox, fill),
        capabilities=_capabilities(sandbox, supervisor),
        if_held=0,
    )


def _environment(
    sandbox: Sandbox, fill: Callable[[str], str], environ: Mapping[str, str]
) -> tuple[tuple[str, str], ...]:
    variables: dict[str, str] = {}
    for name, value in sandbox.environment:
        if name == SERVER:
            variables |= inherited(environ)
        elif value == UNSET:
            variables.pop(name, None)
        else:
            variables.pop(name, None)
            variables[name] = fill(value)
    return tuple(variables.items())


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """What `envs_from: server` gives of the supervisor's variables."""
    return {name: text for name, text in environ.items() if not name.startswith(_OURS)}


def _mount(mount: Mount, sandbox: Sandbox, supervisor: int, fill: Callable[[str], str]) -> Mount:
    source = fill(mount.source)
    if not mount.late:
        return mount.replace(source=source) if source != mount.source else mount
    try:
        if mount.late == "line":
            from initspawn.execfd import output_of

            return mount.replace(source="", data=output_of(source), late="")
        if not source.startswith("/") or ".." in source.split("/"):
            raise PlanError(f"{source!a} is no absolute path without `..`")
        if mount.operation == "image":  # judged when it is attached: one that is bad costs its sandbox alone
            return mount.replace(source=HERE.real(source), late="")
        owner = (sandbox.user, sandbox.group)
        found = find(source, HERE, create=mount.late == "create", supervisor=supervisor, owner=owner)
    except InitspawnError as error:
        raise PlanError(f"sandbox `{sandbox.uid}`, mount on {mount.target}: {error}") from error
    return mount.replace(source=found, late="")


def _landlock(sandbox: Sandbox, fill: Callable[[str], str]) -> Landlock | None:
    rules = sandbox.landlock
    return rules and rules.replace(paths=tuple((fill(path), access) for path, access in rules.paths))


def _capabilities(sandbox: Sandbox, supervisor: int) -> int:
    """Those named must be there; of `ALL` those that are there."""
    if not sandbox.capabilities:
        return 0
    held = (1 << capabilities.last_cap() + 1) - 1
    if supervisor == 0 and "user" not in sandbox.namespaces:
        held &= capabilities.bounding()
    missing = sandbox.capabilities & ~held & ~sandbox.if_held
    if missing:
        names = ", ".join(capabilities.names(missing))
        raise PlanError(f"sandbox `{sandbox.uid}`: neither this kernel nor initspawn has {names} to give")
    return sandbox.capabilities & held
