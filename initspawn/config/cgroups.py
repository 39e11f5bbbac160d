"""`cgroups` of a sandbox: limits as the interface files of cgroup v2 take them.

Source: Documentation/admin-guide/cgroup-v2.rst. Every value is written as the kernel gives it back, but for
amounts of memory, which it rounds down to whole pages.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

from initspawn.config.cgroups_schema import Amount, Cgroups, Cset, Pids
from initspawn.config.size import amount, amount_hint, is_too_much
from initspawn.config.spot import Spot, nearest, shown
from initspawn.config.target import Target
from initspawn.linux import cgroup

_MAX = "max"
_QUOTA = re.compile(r"(max|\d{1,10})(?:\s+(\d{1,10}))?")
_PERCENT = re.compile(r"(\d{1,6})\s?%")
_DEVICE = re.compile(r"\d{1,4}:\d{1,7}")
_PERIOD = 100_000  # microseconds: the kernel's default
_PERIODS = range(1000, 1_000_001)
_SHORTEST_QUOTA = 1000
_WEIGHTS = range(1, 10_001)
_PROCESSES = range(1, (4 << 20) + 1)  # PID_MAX_LIMIT
_HIGHEST_NUMBER = 8191  # NR_CPUS of the largest kernels
_IO_KEYS = ("rbps", "wbps", "riops", "wiops")
_IN_BYTES = ("rbps", "wbps")


def compile_cgroups(cgroups: Cgroups | None, target: Target, spot: Spot) -> dict[str, Any]:
    """The fields of the plan's sandbox that say it, none without the section. What is wrong is noted."""
    if cgroups is None:
        return {}
    _check_mount(cgroups.mount, target, spot["mount"])
    cset, pids = cgroups.cset, cgroups.pids
    cpus, place = (cset.cpus, spot["cset"]["cpus"]) if isinstance(cset, Cset) else (cset, spot["cset"])
    processes, where = (pids.max, spot["pids"]["max"]) if isinstance(pids, Pids) else (pids, spot["pids"])
    mem, cpu = spot["mem"], spot["cpu"]
    written: tuple[tuple[str, Amount | None, Callable[[str, Spot], str | None], Spot], ...] = (
        ("cpuset.cpus", cpus, _numbers, place),
        ("cpuset.mems", cset.mems if isinstance(cset, Cset) else None, _numbers, spot["cset"]["mems"]),
        ("cpu.weight", cgroups.cpu.weight, _weight, cpu["weight"]),
        ("cpu.max", cgroups.cpu.max, _quota, cpu["max"]),
        ("memory.max", cgroups.mem.max, _bytes, mem["max"]),
        ("memory.high", cgroups.mem.high, _bytes, mem["high"]),
        ("memory.min", cgroups.mem.min, _bytes, mem["min"]),
        ("memory.swap.max", cgroups.mem.swap, _bytes, mem["swap"]),
        ("pids.max", processes, _processes, where),
    )
    found = [
        (name, read)
        for name, value, reader, at in written
        if value is not None and (read := reader(str(value).strip(), at)) is not None
    ]
    if cgroups.io:
        found.append(("io.max", _io(cgroups.io, spot["io"])))
    return {
        "cgroup": tuple(found),
        "cgroup_shared": cgroups.scope == "sandbox",
        "cgroup_optional": cgroups.optional,
    }


def _check_mount(mount: str | None, target: Target, spot: Spot) -> None:
    if mount is None:
        return
    if not mount.startswith("/"):
        spot.refuse(f"{shown(mount)} is not absolute", "remove it: the hierarchy is found")
    elif not target.late:
        there = cgroup.mount_point()
        if there is None:
            spot.refuse("no cgroup v2 hierarchy is mounted", "mount -t cgroup2 none /sys/fs/cgroup")
        elif os.path.normpath(mount) != os.path.normpath(there):
            spot.refuse(f"the hierarchy is mounted on {there}", "remove it: the hierarchy is found")


def _numbers(text: str, spot: Spot) -> str | None:
    """A list such as `0-1,4`, in order and without overlaps."""
    members: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not _is_number(first, 4) or (dash and not _is_number(last, 4)):
            return _no(spot, f"{shown(text)} is no list of numbers", "such as `0-1,4`")
        low, high = int(first), int(last or first)
        if low > high or high > _HIGHEST_NUMBER:
            return _no(spot, f"{part.strip()} is no range", f"from low to high, at most {_HIGHEST_NUMBER}")
        members.update(range(low, high + 1))
    return _as_list(sorted(members))


def _as_list(members: list[int]) -> str:
    """Numbers in order as the kernel writes them."""
    parts: list[str] = []
    begin = members[0]
    for number, following in zip(members, [*members[1:], -1], strict=True):
        if following != number + 1:
            parts.append(str(begin) if begin == number else f"{begin}-{number}")
            begin = following
    return ",".join(parts)


def _bytes(text: str, spot: Spot) -> str | None:
    if text.lower() == _MAX:
        return _MAX
    number = amount(text)
    if number is None:
        hint = amount_hint(text) or "such as `512M` or `max`; K is 1024"
        return _no(spot, f"{shown(text)} is no amount of bytes", hint)
    if is_too_much(number):
        return _no(spot, f"{shown(text)} is too much", "`max` is no limit")
    return str(number)


def _weight(text: str, spot: Spot) -> str | None:
    return _within(text, _WEIGHTS, spot)


def _processes(text: str, spot: Spot) -> str | None:
    return _MAX if text.lower() == _MAX else _within(text, _PROCESSES, spot)


def _within(text: str, bounds: range, spot: Spot) -> str | None:
    if _is_number(text, 10) and int(text) in bounds:
        return str(int(text))
    return _no(spot, f"{shown(text)} is no whole number from {bounds[0]} to {bounds[-1]}", "")


def _quota(text: str, spot: Spot) -> str | None:
    """`QUOTA PERIOD`, both in microseconds."""
    if percent := _PERCENT.fullmatch(text):
        quota, period = str(int(percent[1]) * _PERIOD // 100), _PERIOD
    elif found := _QUOTA.fullmatch(text.lower()):
        quota, period = found[1], int(found[2] or _PERIOD)
    else:
        hint = "such as `50%`, `50000` or `50000 100000`: microseconds in each period"
        return _no(spot, f"{shown(text)} is no processor time", hint)
    if period not in _PERIODS:
        return _no(spot, f"a period of {period}", f"from {_PERIODS[0]} to {_PERIODS[-1]} microseconds")
    if quota != _MAX and int(quota) < _SHORTEST_QUOTA:
        return _no(spot, f"{shown(text)} is too little", f"at least {_SHORTEST_QUOTA} microseconds, or 1%")
    return f"{quota if quota == _MAX else int(quota)} {period}"


def _io(lines: list[str], spot: Spot) -> str:
    """One line for each device, in order."""
    found: dict[tuple[int, ...], str] = {}
    for index, line in enumerate(lines):
        device, *pairs = line.split() or [""]
        place = spot[index]
        if not _DEVICE.fullmatch(device) or not pairs:
            place.refuse(f"{shown(line)} is no limit of a device", "such as `8:0 wbps=10M`: see `ls -l /dev`")
            continue
        number = tuple(map(int, device.split(":")))
        if number in found:
            place.refuse(f"device {device} is named twice", "say all its limits in one")
        limits = dict.fromkeys(_IO_KEYS, _MAX)
        for pair in pairs:
            key, _, value = pair.partition("=")
            if key not in limits:
                place.refuse(f"unknown limit {shown(key)}", nearest(key, _IO_KEYS))
            elif key in _IN_BYTES:
                limits[key] = _bytes(value, place) or _MAX
            elif value != _MAX:
                limits[key] = _within(value, range(1, 1 << 31), place) or _MAX
            if limits.get(key) == "0":
                place.refuse(f"{shown(pair)} would stop it for ever", "1 or more")
        if set(limits.values()) == {_MAX} and place.clean:
            place.refuse(f"{shown(line)} limits nothing", "remove it")
        name = ":".join(map(str, number))
        found[number] = " ".join([name, *(f"{key}={value}" for key, value in limits.items())])
    return "\n".join(found[number] for number in sorted(found))


def _is_number(text: str, digits: int) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= digits


def _no(spot: Spot, message: str, hint: str) -> str | None:
    spot.refuse(message, hint)
    return None
