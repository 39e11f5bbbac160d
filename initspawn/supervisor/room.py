"""What the supervisor keeps back for itself, and what it is short of. Boot module.

Descriptors are handed out lowest first, so a number says how many are taken. What serves callers must leave
the last numbers below the limit alone; a few descriptors and some memory are held besides, and let go when
not even our own work finds any. What waits in the reserve goes before anything is refused.
"""

from __future__ import annotations

import errno
import mmap
import os
import resource
import sys

from initspawn.limits import CALM_SECONDS, OWN_BYTES, OWN_DESCRIPTORS
from initspawn.say import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

DESCRIPTORS, PROCESSES, MEMORY, GROUPS = "descriptors", "processes", "memory", "control groups"
STEP = "room"  # of a start that is refused before anything is made for it
# How much of what is kept back must stay: more of it, the less its loss would be felt.
RESERVE, CALLER, CLIENT = 2.0, 1.0, 0.5
_KINDS = {
    errno.EMFILE: DESCRIPTORS, errno.ENFILE: DESCRIPTORS, errno.EAGAIN: PROCESSES, errno.ENOMEM: MEMORY,
}  # fmt: skip
_REMEDIES = {
    errno.EMFILE: "raise the supervisor's limit of open files (`ulimit -n`, LimitNOFILE=) or run less",
    errno.ENFILE: "raise the machine's limit of open files (fs.file-max) or run less",
    errno.EAGAIN: "raise the limit of processes (`ulimit -u`, TasksMax=, kernel.pid_max) or run less",
    errno.ENOMEM: "give the supervisor more memory (`ulimit -v`, vm.overcommit_memory) or run less",
}
_GROUPS_REMEDY = "raise cgroup.max.descendants of the control groups above the supervisor's, or run less"
_SPARES = 8  # descriptors held: a connection takes three for a moment, and keeps one
_SAY_AGAIN_SECONDS = 60.0
_LITTLE = 512  # bytes of output to be read at once where memory is short


def remedy(number: int) -> str:
    """What to do against an errno that says what is missing; empty for others."""
    return _REMEDIES.get(number, "")


class Lack:
    """One kind of shortage. `last` is when it was felt, `since` from when on; 0: it is over."""

    __slots__ = ("_kind", "last", "number", "said", "since", "times")

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self.since = self.last = 0.0
        self.said = -_SAY_AGAIN_SECONDS
        self.times = 0
        self.number = 0  # errno

    @property
    def why(self) -> str:
        """What is missing, in words, and what to do."""
        remedy = _GROUPS_REMEDY if self._kind == GROUPS else _REMEDIES[self.number]
        return f"{os.strerror(self.number)}: {remedy}"


class Room:
    """One per loop. `clock` gives seconds; `later` calls back once after so many.

    Before `keep`, and behind `close`, nothing is kept back.
    """

    def __init__(
        self, clock: Callable[[], float], later: Callable[[float, Callable[[], None]], object]
    ) -> None:
        self.give_up: Callable[[], bool] = lambda: False  # what can be done without; False: nothing
        self.again: Callable[[], None] = lambda: None  # there is room for it again
        self._clock = clock
        self._later = later
        self._lacks = {kind: Lack(kind) for kind in (DESCRIPTORS, PROCESSES, MEMORY, GROUPS)}
        self._spares: list[int] = []
        self._memory: mmap.mmap | None = None
        self.said = 0  # lines on standard error
        self._kept = False
        self._looking = False

    def keep(self) -> None:
        """From now on keep something back."""
        self._kept = True
        self._look_at_descriptors()
        self.fits(OWN_BYTES)

    def close(self) -> None:
        """Give back what is held."""
        self._kept = False
        self._release_descriptors()
        self._release_memory()

    @property
    def short(self) -> bool:
        """Whether anything is missing."""
        return any(lack.since for lack in self._lacks.values())

    def ceiling(self, share: float) -> int:
        """The first descriptor that is not for this purpose: RESERVE, CALLER or CLIENT; 0: our own."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY or not self._kept:
            return sys.maxsize
        return soft - int(min(OWN_DESCRIPTORS, soft // 4) * share)

    def fits(self, size: int) -> int:
        """How many of so many bytes of output may be read now: as long as memory is short a few, or none."""
        if not self._kept:
            return size
        try:
            if self._memory is None:
                self._memory = mmap.mmap(-1, OWN_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            mmap.mmap(-1, OWN_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
        except (OSError, MemoryError):
            if self._release_memory() or not self._lacks[MEMORY].since:  # there may never have been any
                self.lack(errno.ENOMEM)
            self._lacks[MEMORY].last = self._clock()
        else:
            return size
        try:  # the other half is for answers and for the ends of tasks
            mmap.mmap(-1, OWN_BYTES // 2, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
        except (OSError, MemoryError):
            return 0
        return min(size, _LITTLE)

    def lack(self, number: int, *, group: bool = False) -> bool:
        """An errno says that something is missing for what can be refused; `group`: for a control group.
        True when it may be tried once more: something was given up for it.
        """
        kind = GROUPS if group and number == errno.EAGAIN else _KINDS.get(number)
        if kind is None:
            return False
        lack, now = self._lacks[kind], self._clock()
        lack.since, lack.last, lack.number = lack.since or now, now, number
        lack.times += 1
        try:
            if now - lack.said >= _SAY_AGAIN_SECONDS:
                lack.said = now
                self.said += 1
                say(f"short of {kind}: {lack.why}")
            if not self._looking:
                self._later(CALM_SECONDS, self._look)
                self._looking = True
            return self.give_up()
        except MemoryError:  # `told` looks as well
            return False

    def spend(self, number: int) -> bool:
        """The same for what must not be refused: what is held goes as well."""
        held = self._release_memory() if number == errno.ENOMEM else self._release_descriptors()
        return self.lack(number) or held

    def told(self) -> list[dict[str, Any]]:
        """What is missing, why, for how many seconds, and how often that was felt."""
        self._check()
        now = self._clock()
        return [
            {"what": kind, "why": lack.why, "seconds": round(now - lack.since), "times": lack.times}
            for kind, lack in self._lacks.items()
            if lack.since
        ]

    def _look(self) -> None:
        self._looking = False
        self._check()
        if self.short:
            self._later(CALM_SECONDS, self._look)
            self._looking = True

    def _check(self) -> None:
        """See what is missing now, and forget what is not any more."""
        before = self.short
        enough = {DESCRIPTORS: self._look_at_descriptors(), MEMORY: self.fits(OWN_BYTES) == OWN_BYTES}
        calm = self._clock() - CALM_SECONDS
        for kind, lack in self._lacks.items():
            if lack.since and enough.get(kind, True) and lack.last <= calm:
                lack.since, lack.times = 0.0, 0
        if before and not self.short:
            self.again()

    def _look_at_descriptors(self) -> bool:
        """Whether a caller's start gets any beyond what is held, which is taken again."""
        if not self._kept:
            return True
        try:
            while len(self._spares) < _SPARES:
                self._spares.append(os.eventfd(0, os.EFD_CLOEXEC))
            probe = os.eventfd(0, os.EFD_CLOEXEC)
            os.close(probe)
        except OSError as error:
            self._release_descriptors()
            number = error.errno or 0
        else:
            number = 0 if probe < self.ceiling(CALLER) else errno.EMFILE
        if number and not self._lacks[DESCRIPTORS].since:
            self.lack(number)
        return not number

    def _release_descriptors(self) -> bool:
        held = bool(self._spares)
        while self._spares:
            os.close(self._spares.pop())
        return held

    def _release_memory(self) -> bool:
        held, self._memory = self._memory, None
        if held is not None:
            held.close()
        return held is not None
