"""Who a sandbox's commands run as: users, groups, capabilities, and the identity seen inside."""

from __future__ import annotations

from difflib import get_close_matches
from typing import NamedTuple

from initspawn.config.expand import Names, expand
from initspawn.config.schema import Acls, Cap, Label, Sandbox
from initspawn.config.spot import Spot, nearest, shown
from initspawn.config.target import Target
from initspawn.linux import lsm
from initspawn.linux.capabilities import NAMES, NUMBERS
from initspawn.plan import IdMap

_CAPABILITIES = 64  # that a mask of the kernel has room for
_HIGHEST_ID = 0xFFFFFFFE
_THE_USERS = "user"  # in a list of groups: all that the user is a member of
_NO_LABEL = ("LSM_LABEL_NO", "LSM_LABEL_NONE")


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
    acls: Acls, spot: Spot, target: Target, *, supervisor: Person, own_users: bool, disguised: bool
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
    wanted = _wanted(acls, spot, supervisor, target)
    groups = _groups(acls, spot["groups"], supervisor, wanted, target)
    if wanted is None or groups is None:
        return None
    if supervisor.user == 0:
        id_map = None
        if own_users:
            id_map = _map(inside=wanted, outside=wanted, first=False)
        return Identity(wanted.user, wanted.group, groups, id_map)
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


def _wanted(acls: Acls, spot: Spot, supervisor: Person, target: Target) -> Person | None:
    """The ids that `acls` names; the supervisor's own where it names none."""
    user: int | None = supervisor.user
    if acls.user is not None:
        user = _user(acls.user, spot["user"], target)
    group: int | None
    if acls.group is not None:
        group = _group(acls.group, spot["group"], target)
    elif user is None or user == supervisor.user:
        group = supervisor.group
    else:
        group = _primary_group(user, spot, target)
    return None if user is None or group is None else Person(user, group)


def _user(name: str | int, spot: Spot, target: Target) -> int | None:
    number = _number(name)
    if number is not None:
        return _in_range(number, spot)
    found = target.accounts.user(str(name))
    if found is None:
        spot.refuse(f"there is no user {shown(name)}", nearest(str(name), target.accounts.user_names()))
        return None
    return found.number


def _group(name: str | int, spot: Spot, target: Target) -> int | None:
    number = _number(name)
    if number is not None:
        return _in_range(number, spot)
    found = target.accounts.group(str(name))
    if found is None:
        spot.refuse(f"there is no group {shown(name)}", nearest(str(name), target.accounts.group_names()))
    return found


def _groups(
    acls: Acls, spot: Spot, supervisor: Person, wanted: Person | None, target: Target
) -> tuple[int, ...] | None:
    """The further groups that `acls` names, sorted and without the primary one."""
    if acls.groups and supervisor.user != 0:
        spot.refuse(
            "an ordinary user cannot take on groups, and keeps its own",
            "run initspawn as root, or remove it",
        )
        return None
    found: set[int | None] = set()
    for index, name in enumerate(acls.groups):
        if name == _THE_USERS and wanted is not None:
            found |= _groups_of(wanted.user, spot[index], target)
        elif name != _THE_USERS:
            found.add(_group(name, spot[index], target))
    if None in found:
        return None
    return tuple(sorted({number for number in found if number is not None} - {wanted and wanted.group}))


def _groups_of(user: int, spot: Spot, target: Target) -> set[int | None]:
    found = target.accounts.user(user)
    if found is None:
        spot.refuse(f"user {user} is not known here and so is in no group", "write the groups' numbers")
        return {None}
    return set(target.accounts.groups_of(found))


def _number(name: str | int) -> int | None:
    if isinstance(name, int):
        return name
    return int(name) if name.isascii() and name.isdecimal() and len(name) <= 10 else None


def _in_range(number: int, spot: Spot) -> int | None:
    if number <= _HIGHEST_ID:
        return number
    spot.refuse(f"{number} is no user or group number")
    return None


def _primary_group(user: int, spot: Spot, target: Target) -> int | None:
    found = target.accounts.user(user)
    if found is None:
        spot.refuse(f"user {user} is not known here and so has no primary group", "say `group` too")
        return None
    return found.group


def label_of(sandbox: Sandbox, names: Names, spot: Spot) -> tuple[str | None, bool]:
    """The security label of its commands, and whether one that cannot be given is left out.

    `spot`: the sandbox's.
    """
    selinux = spot["namespace"]["opts"]["selinux"]
    spot = spot["acls"]["label"]
    wanted = sandbox.acls.label
    if sandbox.namespace is not None and sandbox.namespace.opts.selinux:
        if wanted is not None:
            selinux.refuse("`acls.label` says the label already", "keep one of them")
            return None, False
        if not names.target.late and lsm.labelling() != lsm.SELINUX:
            hint = "remove it, or say `acls: {label: {name: LSM_LABEL_SBOX, optional: true}}`"
            selinux.refuse("SELinux does not run here", hint)
        return sandbox.uid, False
    optional = isinstance(wanted, Label) and wanted.optional
    if isinstance(wanted, Label):
        wanted, spot = wanted.name, spot["name"]
    if wanted is None or wanted in _NO_LABEL:
        return None, optional
    if wanted == "LSM_LABEL_SBOX":
        label = sandbox.uid
    elif wanted == "LSM_LABEL_API":
        label = expand("$API_NAME", names)
    elif wanted == "LSM_LABEL_CMD" and len(sandbox.commands) == 1:
        label = sandbox.commands[0].uid
    elif wanted == "LSM_LABEL_CMD":
        spot.refuse("a sandbox with several commands has no command's label", "write a sandbox for each")
        return None, optional
    elif wanted.startswith("LSM_LABEL"):
        hint = "LSM_LABEL_SBOX, _API, _CMD or _NO, or the label itself"
        spot.refuse(f"unknown label {shown(wanted)}", hint)
        return None, optional
    else:
        label = wanted
    if not optional and not names.target.late and not lsm.labelling():
        spot.refuse(
            "neither SELinux nor Smack runs here", "say `{name: LABEL, optional: true}` to go without there"
        )
    return label, optional


def home_and_name(user: int, target: Target) -> tuple[str, str]:
    """HOME and USER of a user; `/` and the number for one that is not known."""
    found = target.accounts.user(user)
    return ("/", str(user)) if found is None else (found.home or "/", found.name)


def capability_mask(
    caps: list[Cap], spot: Spot, target: Target, *, supervisor: Person, own_users: bool
) -> tuple[int, int]:
    """What is left when the entries are applied in order to nothing. What is wrong is noted.

    Returns the mask, and those of it that a plan made ahead gives only where they are held.
    """
    last = target.last_capability
    every = (1 << last + 1) - 1
    # A user namespace of its own begins with all capabilities, over what belongs to it.
    limit = every if own_users or supervisor.user != 0 else target.bounding & every
    mask = if_held = 0
    for index, entry in enumerate(caps):
        place = spot[index]["cap"]
        name = entry.cap.upper().removeprefix("CAP_")
        if name == "ALL":
            wanted = limit
        elif name == "LAST_CAP":
            wanted = 1 << last
        elif name in NUMBERS:
            wanted = 1 << NUMBERS[name]
        elif name.isascii() and name.isdecimal() and int(name[:4]) < _CAPABILITIES:
            wanted = 1 << int(name)
        else:
            place.refuse(f"unknown capability {shown(entry.cap)}", _nearest_capability(name))
            continue
        if_held &= ~wanted
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
            if_held |= wanted if target.late and name == "ALL" else 0
    return mask, if_held


def _nearest_capability(name: str) -> str:
    close = get_close_matches(name, NAMES, 1)
    return f"did you mean `{close[0]}`?" if close else "see capabilities(7)"
