"""Landlock rules of a sandbox: words become the kernel's masks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from initspawn.config.bounds_schema import Landlock, LandlockPath
from initspawn.config.expand import ExpandFault, Names, expand
from initspawn.config.inside import Unsettled, View
from initspawn.config.spot import Spot, shown
from initspawn.late import is_late
from initspawn.linux import landlock as kernel
from initspawn.plan import Landlock as PlanLandlock


def rules(wanted: Landlock | None, names: Names, view: View | None, spot: Spot) -> PlanLandlock | None:
    """The plan's; what is wrong is noted. Paths are looked for where a view is given."""
    if wanted is None:
        return None
    restricted = _mask(wanted.restrict, kernel.FS)
    if restricted:
        restricted |= kernel.FS["move"]  # rules about files forbid that in any case, but where one allows it
    paths = [
        (path, _mask(entry.allow, kernel.FS))
        for index, entry in enumerate(wanted.paths)
        if (path := _path(entry, restricted, names, view, spot["paths"][index])) is not None
    ]
    found = PlanLandlock(
        fs=restricted,
        net=(wanted.bind is not None and kernel.BIND) | (wanted.connect is not None and kernel.CONNECT),
        scopes=_mask(wanted.scope, kernel.SCOPES),
        paths=tuple(paths),
        ports=(
            *((port, kernel.BIND) for port in dict.fromkeys(wanted.bind or ())),
            *((port, kernel.CONNECT) for port in dict.fromkeys(wanted.connect or ())),
        ),
        optional=wanted.optional,
    )
    if not (found.fs or found.net or found.scopes):
        spot.refuse("holds nothing back", "say what: `restrict`, `bind`, `connect` or `scope`")
    elif not found.optional and not names.target.late:
        _check_kernel(found, spot)
    return found


def _mask(words: Iterable[str], bits: Mapping[str, int]) -> int:
    mask = 0
    for word in words:
        mask |= bits[word]
    return mask


def _check_kernel(found: PlanLandlock, spot: Spot) -> None:
    has, needed = kernel.version(), kernel.needed(found.fs, found.net, found.scopes)
    if has < needed:
        here = f"this kernel has ABI {has}" if has else "this kernel has no Landlock"
        hint = "say `optional: true` if what it has is enough, or hold back less"
        spot.refuse(f"needs Landlock ABI {needed}, and {here}", hint)


def _path(entry: LandlockPath, restricted: int, names: Names, view: View | None, spot: Spot) -> str | None:
    """Where the rule is for, links followed; None with the reason noted."""
    for index, word in enumerate(entry.allow):
        if not kernel.FS[word] & restricted:
            spot["allow"][index].refuse(f"`{word}` is not held back anywhere", "add it to `restrict`")
    try:
        path = expand(entry.path, names)
    except ExpandFault as fault:
        spot["path"].refuse(str(fault))
        return None
    if is_late(path):
        return path
    if not path.startswith("/"):
        spot["path"].refuse(f"{shown(path)} is not absolute", "begin it with `/`")
        return None
    try:
        return path if view is None else _existing(path, entry, view, spot)
    except Unsettled:
        return path  # the launch will say


def _existing(path: str, entry: LandlockPath, view: View, spot: Spot) -> str | None:
    """The path without links. Raises Unsettled."""
    real = view.real(path)
    if real is None or not (view.is_directory(real) or view.is_file(real)):
        spot["path"].refuse(f"{shown(path)} is not there" + (" inside the sandbox" if view.new_root else ""))
        return None
    if not view.is_directory(real):
        for index, word in enumerate(entry.allow):
            if not kernel.FS[word] & kernel.OF_FILES:
                spot["allow"][index].refuse(f"{shown(path)} is a file: `{word}` is for directories")
    return real
