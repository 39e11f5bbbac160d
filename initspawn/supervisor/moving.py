"""Into another cgroup with everything that runs: what an adoption by systemd's unit is to the kernel.

A process that is moved goes on where it was. Tasks are frozen meanwhile, so that none of theirs is born
behind our back; what the supervisor itself has forked does nothing unasked. Boot module.
"""

from __future__ import annotations

import os

from initspawn.linux import cgroup
from initspawn.supervisor.groups import Groups, controllers_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from initspawn.plan import Plan
    from initspawn.supervisor.running import Task

_ROUNDS = 1000  # of looking for who is still there


def move(groups: Groups, base: str, plan: Plan, tasks: Iterable[Task], guest: int) -> None:
    """Have all groups below `base`, a group that is handed to us; its only process, `guest`, goes into the
    supervisor's own group. No task may be on its way to its exec. What those that run need must be there;
    what the plan's other sandboxes need, as far as it is.

    Raises OSError, nearly always before anything of ours has been moved: what fails then is the kernel.
    """
    grouped = [task for task in tasks if task.start is not None and task.start.cgroup is not None]
    fresh = Groups(base, each=groups.each)
    places = []
    try:
        needed = {name for task in grouped for name in controllers_of(task.sandbox)}
        later = {name for api in plan.apis for box in api.sandboxes for name in controllers_of(box)}
        fresh.divide(needed | (later & cgroup.controllers(base)), guest)
        for task in grouped:
            assert task.start is not None
            assert task.start.cgroup is not None
            name = os.path.basename(os.path.dirname(task.start.cgroup))
            place = fresh.make(task.api, task.sandbox, name)
            assert place is not None
            places.append((task.start, place))
    except OSError:
        if fresh.root is not None:
            _remove(fresh.root)
        raise
    for start, place in places:
        assert start.cgroup is not None
        _carry_frozen(os.path.dirname(start.cgroup), place)
        start.used = cgroup.usage(os.path.dirname(start.cgroup), start.used)
        start.cgroup = place
    old_base, old_root = groups.base, groups.root
    for path in (groups.own, old_base):
        if path is not None and os.path.isdir(path):
            _carry(path, fresh.own, below=False)
    vars(groups).update(vars(fresh))
    for path in (old_root, old_base):
        if path is not None:
            _remove(path)


def _carry_frozen(old: str, new: str) -> None:
    """Move a task's processes. What stays behind because that fails runs on. Raises OSError."""
    cgroup.write(old, "cgroup.freeze", "1")
    try:
        _carry(old, new)
    except OSError:
        cgroup.write(old, "cgroup.freeze", "0")
        raise


def _carry(old: str, new: str, *, below: bool = True) -> None:
    """Move all processes of a group, and of those below it, into another. Raises OSError."""
    for path, _, _ in os.walk(old) if below else ((old, (), ()),):
        for _ in range(_ROUNDS):
            found = cgroup.read(path, "cgroup.procs").split()
            if not found:
                break
            for pid in found:
                try:
                    cgroup.write(new, "cgroup.procs", pid)
                except ProcessLookupError:  # it has ended meanwhile
                    pass


def _remove(top: str) -> None:
    """Remove a group and all below, as far as they are empty: whoever is left there is not ours."""
    for path, _, _ in os.walk(top, topdown=False):
        try:
            os.rmdir(path)
        except OSError:
            pass
