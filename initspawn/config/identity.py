"""Who a sandbox's commands run as: users, groups, capabilities, and the identity seen inside."""

from __future__ import annotations

import grp
import os
import pwd
from difflib import get_close_matches
from typing import NamedTuple

from initspawn.config.schema import Acls, Cap
from initspawn.config.spot import Spot, nearest, shown
from initspawn.linux.capabilities import NAMES, NUMBERS
from initspawn.plan import IdMap

_HIGHEST_ID = 0xFFFFFFFE


class Person(NamedTuple):
    """The ids of whoever compiles for, or runs: a user and a group number."""

    user: int
    group: int


class Identity(NamedTuple):
    """Who the commands run as."""

    user: int
    group: int
    groups: tuple[int, ...] | None
    id_map: IdMap | None

    @property
    def inside(self) -> Person:
        """The ids that the command itself sees."""
        if self.id_map is None:
            return Person(self.user, self.group)
        return Person(self.id_map.inside_uid, self.id_map.inside_gid)


def identify(
    acls: Acls, spot: Spot, *, supervisor: Person, own_users: bool, disguised: bool
) -> Identity | None:
    """Who runs, or None with the reason noted.

    `own_users`: the sandbox has a user namespace of its own. `disguised`: it was asked for by
    `shares.users`, so the ids inside may differ from those outside.
    """
    if supervisor.user == 0 and acls.user is None:
        spot.refuse(
            "as root a sandbox must name the user its commands run as",
            "say `acls: {user: NAME}`, or `user: root` to really run as root",
        )
        return None
    wanted = _wanted(acls, spot, supervisor)
    if wanted is None:
        return None
    if supervisor.user == 0:
        id_map = None
        if own_users:
            id_map = _map(inside=wanted, outside=wanted, first=False)
        return Identity(wanted.user, wanted.group, (), id_map)
    if wanted != supervisor and not disguised:
        _refuse_change(acls, spot, supervisor, wanted)
        return None
    id_map = _map(inside=wanted, outside=supervisor, first=True) if own_users else None
    return Identity(supervisor.user, supervisor.group, None, id_map)


def _map(*, inside: Person, outside: Person, first: bool) -> IdMap:
    return IdMap(
        inside_uid=inside.user,
        outside_uid=outside.user,
        inside_gid=inside.group,
        outside_gid=outside.group,
        first=first,
    )


def _refuse_change(acls: Acls, spot: Spot, supervisor: Person, wanted: Person) -> None:
    if wanted.user != supervisor.user:
        place, message = spot["user"], f"an ordinary user cannot become `{acls.user}`"
    else:
        place, message = spot["group"], f"an ordinary user cannot take on group `{acls.group}`"
    place.refuse(
        message,
        "run initspawn as root, or set `namespace.shares.users: disable` to only show that identity inside",
    )


def _wanted(acls: Acls, spot: Spot, supervisor: Person) -> Person | None:
    """The ids that `acls` names; the supervisor's own where it names none."""
    user: int | None = supervisor.user
    if acls.user is not None:
        user = _user(acls.user, spot["user"])
    group: int | None
    if acls.group is not None:
        group = _group(acls.group, spot["group"])
    elif user is None or user == supervisor.user:
        group = supervisor.group
    else:
        group = _primary_group(user, spot)
    return None if user is None or group is None else Person(user, group)


def _user(name: str | int, spot: Spot) -> int | None:
    number = _number(name)
    if number is not None:
        return _in_range(number, spot)
    try:
        return pwd.getpwnam(str(name)).pw_uid
    except KeyError:
        known = [entry.pw_name for entry in pwd.getpwall()]
        spot.refuse(f"there is no user {shown(name)}", nearest(str(name), known))
        return None


def _group(name: str | int, spot: Spot) -> int | None:
    number = _number(name)
    if number is not None:
        return _in_range(number, spot)
    try:
        return grp.getgrnam(str(name)).gr_gid
    except KeyError:
        known = [entry.gr_name for entry in grp.getgrall()]
        spot.refuse(f"there is no group {shown(name)}", nearest(str(name), known))
        return None


def _number(name: str | int) -> int | None:
    if isinstance(name, int):
        return name
    return int(name) if name.isascii() and name.isdecimal() and len(name) <= 10 else None


def _in_range(number: int, spot: Spot) -> int | None:
    if number <= _HIGHEST_ID:
        return number
    spot.refuse(f"{number} is no user or group number")
    return None


def _primary_group(user: int, spot: Spot) -> int | None:
    try:
        return pwd.getpwuid(user).pw_gid
    except KeyError:
        spot.refuse(f"user {user} is not known here and so has no primary group", "say `group` too")
        return None


def home_and_name(user: int) -> tuple[str, str]:
    """HOME and USER of a user; `/` and the number for one that is not known."""
    try:
        entry = pwd.getpwuid(user)
    except KeyError:
        return "/", str(user)
    return entry.pw_dir or "/", entry.pw_name


def capability_mask(caps: list[Cap], spot: Spot, *, supervisor: Person, own_users: bool) -> int:
    """What is left when the entries are applied in order to nothing. What is wrong is noted."""
    last = _last_capability()
    every = (1 << last + 1) - 1
    # A user namespace of its own begins with all capabilities, over what belongs to it.
    limit = every if own_users else _bounding(supervisor, every)
    mask = 0
    for index, entry in enumerate(caps):
        place = spot[index]["cap"]
        name = entry.cap.upper().removeprefix("CAP_")
        if name == "ALL":
            wanted = limit
        elif name == "LAST_CAP":
            wanted = 1 << last
        elif name in NUMBERS:
            wanted = 1 << NUMBERS[name]
        else:
            place.refuse(f"unknown capability {shown(entry.cap)}", _nearest_capability(name))
            continue
        if entry.mode == "unset":
            mask &= ~wanted
        elif supervisor.user != 0 and not own_users:
            place.refuse(
                "an ordinary user has no capabilities to give",
                "add a `namespace` section: in namespaces of its own a command can hold them",
            )
        elif wanted & ~every:
            place.refuse(f"this kernel does not know {name}")
        elif wanted & ~limit:
            place.refuse(f"initspawn itself was started without {name}")
        else:
            mask |= wanted
    return mask


def _last_capability() -> int:
    try:
        with open("/proc/sys/kernel/cap_last_cap", "rb") as file:
            return int(file.read())
    except OSError:  # compiling where no /proc is mounted
        return len(NAMES) - 1


def _bounding(supervisor: Person, every: int) -> int:
    """The capabilities that the supervisor can give: its bounding set, if it is this process's user."""
    if supervisor.user != 0 or os.geteuid() != 0:
        return every
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith("CapBnd:"):
                    return int(line.split()[1], 16) & every
    except OSError:
        pass  # compiling where no /proc is mounted
    return every


def _nearest_capability(name: str) -> str:
    close = get_close_matches(name, NAMES, 1)
    return f"did you mean `{close[0]}`?" if close else "see capabilities(7)"
