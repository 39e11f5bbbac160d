"""The `encoder` of a command: its name and complete options."""

from __future__ import annotations

import os
from difflib import get_close_matches
from typing import Any

from initspawn.config.check import check_part
from initspawn.config.expand import ExpandFault, Names, expand
from initspawn.config.plugins import BUILTINS, Plugins
from initspawn.config.schema import Encoder, EncoderOpts
from initspawn.config.spot import Spot, shown
from initspawn.encoders.table import COMMON, DEFAULT, ENCODERS, NUMBERS, PATHS, complete, options_of
from initspawn.late import is_late
from initspawn.plan import PLUGIN
from initspawn.tree import Tree

ALIASES = {"document": "text"}


def compile_encoder(
    encoder: str | Encoder | None, names: Names, plugins: Plugins, spot: Spot
) -> tuple[str, dict[str, Any]]:
    """The encoder's name and options for the plan. What is wrong is noted at `spot`."""
    given = encoder if isinstance(encoder, Encoder) else Encoder(output=encoder or DEFAULT)
    place = spot["output"] if isinstance(encoder, Encoder) else spot
    if given.plugin is not None and given.plugin.lower() != BUILTINS:
        return PLUGIN, _of_plugin(given, plugins, spot)
    name = ALIASES.get(given.output.lower(), given.output.lower())
    if name not in ENCODERS:
        _refuse(given.output, [*ENCODERS, *ALIASES], place.coded("ENCODER_NOT_FOUND"))
        return DEFAULT, {}
    place = spot.coded(EncoderOpts.code)["opts"]
    opts = check_part(EncoderOpts, given.opts, place)
    return name, _options(name, opts or EncoderOpts(), names, place)


def _of_plugin(given: Encoder, plugins: Plugins, spot: Spot) -> dict[str, Any]:
    """The options of a command whose output goes through a plug-in."""
    uid = str(given.plugin).lower()
    found = plugins.found.get(uid)
    if found is None:
        if uid not in plugins.found:  # else it was refused already
            known = ", ".join(f"`{name}`" for name in (*plugins.found, BUILTINS))
            spot["plugin"].coded("PLUGIN_NOT_FOUND").refuse(
                f"no plug-in {shown(given.plugin)}", f"`plugins` has {known}"
            )
        return {}
    name = next((name for name in found.names if name.lower() == given.output.lower()), None)
    if name is None:
        _refuse(given.output, list(found.names), spot["output"].coded("ENCODER_NOT_FOUND"))
        return {}
    if not isinstance(given.opts, dict):
        spot["opts"].coded(EncoderOpts.code).refuse("must be an object")
        return {}
    return {"host": plugins.hosts.uid(found, name), "name": str(given.plugin), "options": given.opts}


def _options(name: str, opts: EncoderOpts, names: Names, spot: Spot) -> dict[str, Any]:
    given = {
        option: getattr(opts, option)
        for option in opts.__struct_fields__
        if getattr(opts, option) is not None
    }
    known = options_of(name)
    for option in given.keys() - {*known, *COMMON}:
        spot[option].refuse(f"`{name}` has no such option", f"it has {', '.join(known)}")
    for option, (_, allowed) in NUMBERS[name].items():
        if given.get(option, allowed[0]) not in allowed:
            message = f"must be from {allowed[0]} to {allowed[-1]}, not {given.pop(option)}"
            spot[option].refuse(message)
    for option in given.keys() & PATHS.get(name, ()):
        given[option] = _path(given[option], names, spot[option])
    return complete(name, given)


def _path(path: str, names: Names, spot: Spot) -> str:
    """A file of the host, as it will be opened at each start."""
    try:
        path = expand(path, names)
    except ExpandFault as fault:
        spot.refuse(str(fault))
        return path
    if not is_late(path) and (not path.startswith("/") or path != os.path.normpath(path)):
        spot.refuse(f"{shown(path)} is no full path of a file", "write it from `/` on, without `..` or `//`")
    elif not names.target.late:
        _check_directory(os.path.dirname(path), names.target.tree, spot)
    return path


def _check_directory(directory: str, tree: Tree, spot: Spot) -> None:
    """Where the file is to be: no link leads there, and nobody makes it."""
    if not tree.is_directory(directory):
        spot.refuse(f"there is no directory {shown(directory)}", f"make it: mkdir -p {directory}")
    elif (real := tree.real(directory)) != directory:
        hint = f"write it below {shown(real)}"
        spot.refuse(f"a symbolic link leads to {shown(directory)}, and none is followed", hint)


def _refuse(wanted: str, known: list[str], spot: Spot) -> None:
    close = get_close_matches(wanted.lower(), known, 1)
    hint = f"did you mean `{close[0]}`?" if close else f"there are {', '.join(known)}"
    spot.refuse(f"no encoder {shown(wanted)}", hint)
