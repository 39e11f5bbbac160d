"""One command of the file becomes one of the plan."""

from __future__ import annotations

import json
from difflib import get_close_matches
from typing import Any

from initspawn.config.expand import ExpandFault, Names, Parts, expand, template
from initspawn.config.inside import View
from initspawn.config.program import check_program
from initspawn.config.schema import Command, Encoder, EncoderOpts, Exec, Sandbox
from initspawn.config.spot import Spot, shown
from initspawn.encoders.table import DEFAULT, ENCODERS
from initspawn.limits import ARGUMENT_BYTES, MAX_LINE_BYTES, MAX_LINES
from initspawn.plan import Command as PlanCommand
from initspawn.plan import Sandbox as PlanSandbox

_ENCODER_ALIASES = {"document": "text"}
_LATER_ENCODERS = ("json", "raw", "log")


def compile_command(
    command: Command,
    sandbox: Sandbox,
    compiled: PlanSandbox,
    names: Names,
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
    if path is not None and look:
        check_program(path, View(compiled.new_root, compiled.mounts), spot["exec"]["cmdpath"])
    encoder, options = _encoder(command.encoder, spot["encoder"])
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
        once=command.single,
        verbose=sandbox.verbose if command.verbose is None else command.verbose,
        dash=command.dash == "allow",
        encoder=encoder,
        encoder_options=options,
        usage=command.usage,
        sample=command.sample,
    )


def _path(program: Exec, names: Names, spot: Spot) -> str | None:
    try:
        path = expand(program.cmdpath, names)
    except ExpandFault as fault:
        spot.refuse(str(fault))
        return None
    if not path.startswith("/"):
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


def _encoder(encoder: str | Encoder | None, spot: Spot) -> tuple[str, dict[str, Any]]:
    """The encoder's name and complete options."""
    if isinstance(encoder, Encoder):
        wanted, options, place = encoder.output, encoder.opts, spot["output"]
    else:
        wanted, options, place = encoder or DEFAULT, EncoderOpts(), spot
    name = _ENCODER_ALIASES.get(wanted.lower(), wanted.lower())
    if name not in ENCODERS:
        _refuse_encoder(wanted, place.coded("ENCODER_NOT_FOUND"))
    maxlen = MAX_LINE_BYTES if options.maxlen is None else options.maxlen
    maxline = MAX_LINES if options.maxline is None else options.maxline
    return name, {"maxlen": maxlen, "maxline": maxline}


def _refuse_encoder(wanted: str, spot: Spot) -> None:
    if wanted.lower() in _LATER_ENCODERS:
        spot.refuse(f"`{wanted}` is known but not built yet: more encoders come with a later version")
        return
    close = get_close_matches(wanted.lower(), [*ENCODERS, *_ENCODER_ALIASES], 1)
    hint = f"did you mean `{close[0]}`?" if close else f"there are {', '.join(ENCODERS)}"
    spot.refuse(f"no encoder {shown(wanted)}", hint)
