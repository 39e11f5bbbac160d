"""One command of the file becomes one of the plan."""

from __future__ import annotations

import json
from typing import Any

from initspawn.config.autostart import compile_autostart
from initspawn.config.encoder import compile_encoder
from initspawn.config.expand import ExpandFault, Names, Parts, expand, template
from initspawn.config.inside import View
from initspawn.config.plugins import Plugins
from initspawn.config.program import check_program
from initspawn.config.schema import Command, Exec, Sandbox, Terminal
from initspawn.config.spot import Spot, shown
from initspawn.encoders.table import STREAM
from initspawn.late import is_late
from initspawn.limits import ARGUMENT_BYTES
from initspawn.plan import Command as PlanCommand
from initspawn.plan import Sandbox as PlanSandbox


def compile_command(
    command: Command,
    sandbox: Sandbox,
    compiled: PlanSandbox,
    names: Names,
    plugins: Plugins,
    spot: Spot,
    *,
    verb: str,
    look: bool,
) -> PlanCommand:
    """The plan's command. What is wrong is noted at `spot`.

    `look`: the sandbox is complete, so its file tree tells whether the program is there.
    """
    names = names.also(COMMAND_UID=command.uid)
    path = _path(command.exec, names, spot["exec"]["cmdpath"])
    if path is not None and look and not is_late(path):
        view = View(compiled.new_root, compiled.mounts, names.target.tree)
        check_program(path, view, spot["exec"]["cmdpath"])
    terminal = _terminal(command, spot)
    encoder, options = compile_encoder(
        command.encoder or (STREAM if terminal else None), names, plugins, spot["encoder"]
    )
    # An explicit 0 means none, also where the sandbox has a limit.
    timeout = command.timeout if command.timeout is not None else sandbox.acls.timeout
    return PlanCommand(
        uid=command.uid,
        verb=verb,
        sandbox=sandbox.uid,
        path=path or "/",
        arguments=_arguments(command.exec.args, names, spot["exec"]["args"]),
        info=command.info,
        privilege=command.privilege or sandbox.privilege,
        timeout=float(timeout or 0),
        stdin=command.stdin,
        terminal=terminal,
        most=_most(command, spot),
        queue=command.queue.length if command.queue else 0,
        oldest_out=command.queue is not None and command.queue.full == "oldest-out",
        warm=_warm(command, compiled, spot),
        verbose=sandbox.verbose if command.verbose is None else command.verbose,
        dash=command.dash == "allow",
        kill_on_disconnect=command.kill_on_disconnect,
        drop=command.slow_clients == "drop",
        encoder=encoder,
        encoder_options=options,
        usage=command.usage,
        sample=command.sample,
        autostart=compile_autostart(command.autostart, compiled, spot["autostart"]),
    )


def _terminal(command: Command, spot: Spot) -> tuple[int, int] | None:
    """Its rows and columns; None without one."""
    if not command.terminal:
        return None
    if command.stdin:
        spot["stdin"].refuse("contradicts `terminal`", "leave it out: a terminal is the standard input")
    size = command.terminal if isinstance(command.terminal, Terminal) else Terminal()
    return size.rows, size.columns


def _most(command: Command, spot: Spot) -> int:
    """How many at once; 0 for any number."""
    if command.single and command.max not in (None, 1):
        spot["max"].refuse("contradicts `single`", "write one of the two")
    most = 1 if command.single else command.max or 0
    if command.queue is not None and not most:
        spot["queue"].refuse("nothing ever waits", "say with `max` how many may be alive at once")
    return most


def _warm(command: Command, sandbox: PlanSandbox, spot: Spot) -> int | None:
    """How many starts wait; None where nothing is said."""
    if command.warm and any(entry.operation == "overlay" for entry in sandbox.mounts):
        spot["warm"].refuse(
            "nothing waits in a sandbox with an `overlay`, for no measurement tells whether its directory "
            "is still the one of that name", "leave it out, or show the directory with `ro`",
        )  # fmt: skip
    return command.warm


def _path(program: Exec, names: Names, spot: Spot) -> str | None:
    try:
        path = expand(program.cmdpath, names)
    except ExpandFault as fault:
        spot.refuse(str(fault))
        return None
    if not path.startswith("/") and not is_late(path):
        spot.refuse(f"{shown(path)} is not absolute", "write the full path; no search path is used")
        return None
    return path


def _arguments(args: Any, names: Names, spot: Spot) -> tuple[Parts, ...]:
    """One template for each element; anything but a list is one argument."""
    if args is None:
        return ()
    if not isinstance(args, list):
        spot.report.written((*spot.path, 0), spot.path)
        args = [args]
    found = (_argument(item, names, spot[index]) for index, item in enumerate(args))
    return tuple(parts for parts in found if parts is not None)


def _argument(item: Any, names: Names, spot: Spot) -> Parts | None:
    if item is None:
        spot.refuse("an argument may not be null", 'an empty one is written ""')
        return None
    try:
        text = item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)
        parts = template(text, names)
        size = len("".join(part for _, part in parts).encode())
    except ExpandFault as fault:
        spot.refuse(str(fault))
        return None
    except UnicodeEncodeError:
        spot.refuse("is not valid Unicode")
        return None
    if "\0" in text:
        spot.refuse("holds a NUL character")
    elif size >= ARGUMENT_BYTES:
        spot.refuse(f"is longer than the {ARGUMENT_BYTES - 1} bytes the kernel takes")
    else:
        return parts
    return None
