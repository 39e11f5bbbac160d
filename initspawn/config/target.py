"""The machine that a plan is for: this one, or one whose file tree lies in a directory here."""

from __future__ import annotations

import grp
import os
import pwd
from typing import NamedTuple, Protocol

from initspawn.errors import InitspawnError
from initspawn.linux import capabilities
from initspawn.planfile import source
from initspawn.tree import Tree

MACHINES = ("aarch64", "x86_64")
_MAX_ACCOUNTS = 4 << 20  # bytes of a passwd or group file


class User(NamedTuple):
    """What passwd(5) says of somebody."""

    name: str
    number: int
    group: int
    home: str


class Accounts(Protocol):
    """Who is known on a machine."""

    def user(self, key: str | int) -> User | None:
        """By name or number."""

    def group(self, name: str) -> int | None:
        """A group's number."""

    def groups_of(self, user: User) -> set[int]:
        """All groups that somebody is a member of, the primary one included."""

    def user_names(self) -> list[str]:
        """For hints."""

    def group_names(self) -> list[str]:
        """For hints."""


class Target(NamedTuple):
    """Where everything is looked up that a configuration names.

    machine: as uname(2) calls it. bounding: the capabilities that its supervisor can give.
    late: the plan is made ahead, and what only the running machine knows is left open.
    read: the files, other than configurations, that the plan depends on; as `Plan.further` has them.
    """

    tree: Tree
    accounts: Accounts
    machine: str
    last_capability: int
    bounding: int
    late: bool = False
    read: set[tuple[str, int, int]] | None = None

    def note(self, path: str) -> None:
        """Remember that the plan depends on this file's content. To be called before it is read.

        So if it changes meanwhile, the plan is found stale. Raises InitspawnError as `Tree.place`.
        """
        if self.read is not None:
            try:
                self.read.add(source(self.tree.place(path), path))
            except (OSError, ValueError):
                pass  # whoever reads it says why


def here(*, late: bool = False, machine: str | None = None) -> Target:
    """This machine, for a plan that is used at once or (`late`) at another time.

    `machine`: its tree serves as that of another processor.
    """
    last = len(capabilities.NAMES) - 1
    bounding = -1
    try:  # where no /proc is mounted, the newest known
        last = capabilities.last_cap()
        # What another user's supervisor has is not ours to know, nor what a later one will have.
        if os.geteuid() == 0 and not late:
            bounding = capabilities.bounding()
    except OSError:
        pass
    return Target(Tree(), _OurAccounts(), machine or os.uname().machine, last, bounding, late)


def elsewhere(root: str, *, machine: str | None = None, last_capability: int | None = None) -> Target:
    """A machine whose file tree is below `root`. Raises InitspawnError."""
    if not os.path.isdir(root):
        raise InitspawnError(f"{root}: no directory")
    tree = Tree(root)
    last = len(capabilities.NAMES) - 1 if last_capability is None else last_capability
    return Target(tree, _TheirAccounts(tree), machine or os.uname().machine, last, -1, late=True)


class _OurAccounts:
    """This machine's, from wherever nsswitch.conf(5) says."""

    def user(self, key: str | int) -> User | None:
        try:
            found = pwd.getpwnam(key) if isinstance(key, str) else pwd.getpwuid(key)
        except (KeyError, OverflowError):
            return None
        return User(found.pw_name, found.pw_uid, found.pw_gid, found.pw_dir)

    def group(self, name: str) -> int | None:
        try:
            return grp.getgrnam(name).gr_gid
        except KeyError:
            return None

    def groups_of(self, user: User) -> set[int]:
        return set(os.getgrouplist(user.name, user.group))

    def user_names(self) -> list[str]:
        return [entry.pw_name for entry in pwd.getpwall()]

    def group_names(self) -> list[str]:
        return [entry.gr_name for entry in grp.getgrall()]


class _TheirAccounts:
    """Those of /etc/passwd and /etc/group of a tree; the first of two entries counts, as in the C library."""

    def __init__(self, tree: Tree) -> None:
        self._users: dict[str, User] = {}
        self._by_number: dict[int, User] = {}
        self._groups: dict[str, int] = {}
        self._members: dict[str, set[int]] = {}
        for name, number, group, _, home, *_ in _lines(tree, "/etc/passwd", 7):
            if number.isdecimal() and group.isdecimal():
                user = User(name, int(number), int(group), home)
                self._users.setdefault(name, user)
                self._by_number.setdefault(user.number, user)
        for name, number, members in _lines(tree, "/etc/group", 4):
            if number.isdecimal():
                self._groups.setdefault(name, int(number))
                for member in members.split(","):
                    self._members.setdefault(member, set()).add(int(number))

    def user(self, key: str | int) -> User | None:
        return self._users.get(key) if isinstance(key, str) else self._by_number.get(key)

    def group(self, name: str) -> int | None:
        return self._groups.get(name)

    def groups_of(self, user: User) -> set[int]:
        return {user.group, *self._members.get(user.name, ())}

    def user_names(self) -> list[str]:
        return list(self._users)

    def group_names(self) -> list[str]:
        return list(self._groups)


def _lines(tree: Tree, path: str, fields: int) -> list[list[str]]:
    """The lines of that many fields, their second one (the password) left out; none without a file."""
    place = tree.place(path)
    try:
        fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(fd, encoding="utf-8", errors="surrogateescape") as file:
            text = file.read(_MAX_ACCOUNTS)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InitspawnError(f"{place}: {error.strerror}") from error
    split = (line.split(":") for line in text.split("\n"))
    return [[line[0], *line[2:]] for line in split if len(line) == fields and line[0]]
