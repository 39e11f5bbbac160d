"""What the steps to a command's exec are made with. Boot module."""

from __future__ import annotations

from initspawn.linux import capabilities
from initspawn.sandbox.program import Program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from initspawn.plan import Sandbox
    from initspawn.sandbox.measure import Baseline


def labelled(sandbox: Sandbox, module: str) -> bool:
    """Whether a command gets a label; where no module gives any (`module` is empty), that fails."""
    return sandbox.label is not None and bool(module or not sandbox.label_optional)


def environment(sandbox: Sandbox, *, terminal: bool) -> tuple[str, ...]:
    """A command's variables as `NAME=value`: on a terminal with TERM, which every ncurses knows."""
    own = sandbox.environment
    if terminal and all(name != "TERM" for name, _ in own):
        own = (*own, ("TERM", "xterm"))
    return tuple(f"{name}={value}" for name, value in own)


def outside(sandbox: Sandbox, baseline: Baseline) -> Sandbox:
    """The part of a sandbox that is our own work: all of it, or what is not bubblewrap's."""
    if not sandbox.bwrap:
        return sandbox
    # user_namespaces(7): without it, user 0 cannot be mapped.
    rights = 1 << capabilities.NUMBERS["SETFCAP"] if sandbox.user == 0 else 0
    return sandbox.replace(
        namespaces=(), id_map=None, hostname=None, new_root=False, mounts=(), filters=(), directory="/",
        environment=(), capabilities=baseline.permitted & rights,
    )  # fmt: skip


class Recipe:
    """What the steps work on: the sandbox, who we are, and the program they write.

    `extra`: how many descriptors the command gets beside 0, 1 and 2; the handshake has the next number,
    and behind it comes the cgroup the command is born in, if there is one. `terminal`: what it gets as 0, 1
    and 2 is one.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        baseline: Baseline,
        extra: int = 0,
        *,
        grouped: bool = False,
        terminal: bool = False,
    ) -> None:
        self.sandbox = sandbox
        self.baseline = baseline
        self.terminal = terminal
        self.handshake = 3 + extra
        self.cgroup = self.handshake + 1 if grouped else -1
        self.program = Program(self.handshake + 1 + grouped)
        self.proc = -1

    @property
    def privileged(self) -> bool:
        """Whether the supervisor is root, and so changes users for real."""
        return self.sandbox.groups is not None

    @property
    def maps_first(self) -> bool:
        """Whether a user namespace is made before, and owns, all others."""
        return self.sandbox.id_map is not None and self.sandbox.id_map.first

    @property
    def maps_last(self) -> bool:
        """Whether a user namespace is made when everything else is done."""
        return self.sandbox.id_map is not None and not self.sandbox.id_map.first

    @property
    def labelled(self) -> bool:
        """Whether the command takes on a security label."""
        return labelled(self.sandbox, self.baseline.lsm)

    def prctl(self, option: int, value: int, note: str, extra: int = 0) -> None:
        """Append one prctl(2)."""
        self.program.call("prctl", option, value, extra, 0, 0, note=note)


class Step:
    """One rung: its name, what it adds to the program, and whether a sandbox needs it."""

    __slots__ = ("add", "name", "needed")

    def __init__(
        self, name: str, add: Callable[[Recipe], None], needed: Callable[[Recipe], bool] = lambda _: True
    ) -> None:
        self.name = name
        self.add = add
        self.needed = needed
