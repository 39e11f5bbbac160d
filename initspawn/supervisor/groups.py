"""Where tasks are kept together and limited: cgroups. Boot module.

    BASE/                           the cgroup we were started in
        initspawn-PID-BEGAN.supervisor/  where we are ourselves, if BASE, which is ours, hands controllers on
        initspawn-PID-BEGAN/        one per supervisor, removed with it; BEGAN: `process.began`
            _API.SANDBOX/           one per sandbox, while it has tasks; after a reload with
                                    other limits `+1_API.SANDBOX`, and so on
                TASK/               one per task: what is limited, accounted and killed
                    main/           where its processes live

The kernel lets no group but the root have both processes and controllers for the groups below (the
no-internal-process rule): so we leave BASE, and tasks live in `main`. Without controllers version 2 is
enough for `cgroup.kill`. Where we may make no group, tasks without limits run without, and what they leave
behind is ended as well as a subreaper can.
"""

from __future__ import annotations

import errno
import os

from initspawn.errors import PlanError
from initspawn.linux import cgroup, process
from initspawn.sandbox.launch import limited
from initspawn.say import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from initspawn.plan import Api, Plan, Sandbox

PREFIX = "initspawn-"
OURSELVES = ".supervisor"
_ACCOUNTING = {"io", "memory", "pids"}  # enabled with the others where they are: what tells what was used
_DELEGATE = "start it in a unit with Delegate=yes, such as `systemd-run --scope -p Delegate=yes`"


def controllers_of(sandbox: Sandbox) -> set[str]:
    """The controllers that a sandbox's limits need."""
    return {name.partition(".")[0] for name, _ in sandbox.cgroup or ()}


def nowhere(names: Iterable[str]) -> str:
    """Which of these controllers no group of this machine can have, with the remedy; empty if none."""
    root = cgroup.mount_point()
    there = cgroup.controllers(root) if root is not None and _has(root, "cgroup.controllers") else set()
    lacking = sorted(set(names) - there)
    if not lacking:
        return ""
    remedy = "the kernel lacks them, or they are not handed to this container"
    if root is None:
        remedy = "it is not mounted: mount -t cgroup2 none /sys/fs/cgroup"
    elif old := cgroup.old_controllers() & set(lacking):
        remedy = f"version 1 has {' '.join(sorted(old))}: boot with cgroup_no_v1=all"
    return f"this machine's version 2 hierarchy has no {' '.join(lacking)} ({remedy})"


def _has(group: str, name: str) -> bool:
    return os.path.exists(f"{group}/{name}")


class Groups:
    """The cgroups of one supervisor, made when a task first needs one.

    `base` is where, `root` their directory, None before that, and where none can be made; `reason` then
    says why.
    """

    def __init__(self, base: str | None = None, *, each: bool = False) -> None:
        self.root: str | None = None
        self.reason = ""
        self.each = each  # every task has a group, also those that could do without
        self._base = base
        self._known_name = ""
        self._left_base = False
        self._enabled: set[str] = set()  # below BASE, by us
        # The limits that a sandbox's name has stood for: after a reload others run on with those before.
        self._limits: dict[tuple[str, str], list[tuple[Any, bool]]] = {}

    @property
    def base(self) -> str | None:
        """The cgroup we were started in; None without cgroup v2. Raises OSError."""
        if self._base is None and (mount := cgroup.mount_point()) is not None:
            self._base = mount.rstrip("/") + cgroup.own_path().rstrip("/")
        return self._base

    def fit(self, plan: Plan) -> Plan:
        """The plan as this machine can run it, with everything ready for its limits. What is `optional` and
        cannot be, is left out with a notice. Raises PlanError with reason and remedy for the rest.
        """
        without: list[Sandbox] = []
        for api in plan.apis:
            for sandbox in api.sandboxes:
                reason = "" if sandbox.cgroup is None else self.lacks(api, sandbox)
                if not reason:
                    continue
                if not sandbox.cgroup_optional:
                    hint = "`optional: true` runs it without them"
                    raise PlanError(
                        f"{api.api}: sandbox `{sandbox.uid}`: its cgroups cannot be made: {reason}; {hint}"
                    )
                say(f"{api.api}: sandbox `{sandbox.uid}` runs without its limits: {reason}")
                without.append(sandbox)
        if not without:
            return plan

        def fitted(sandbox: Sandbox) -> Sandbox:
            return sandbox.replace(cgroup=None) if any(sandbox is one for one in without) else sandbox

        return plan.replace(
            apis=tuple(
                api.replace(sandboxes=tuple(fitted(sandbox) for sandbox in api.sandboxes))
                for api in plan.apis
            )
        )

    def lacks(self, api: Api, sandbox: Sandbox) -> str:
        """Why a sandbox's limits cannot be applied; empty if they were, for a trial, to an empty group."""
        try:
            if reason := nowhere(controllers_of(sandbox)):
                return reason
            self._make_root()
            if self.root is None:
                return f"{self.reason} ({_DELEGATE})"
            reason = self._enable(controllers_of(sandbox))
            if reason:
                return reason
            main = self.make(api, sandbox, "trial")
            assert main is not None
            try:
                wrong = self.differences(main, sandbox)
            finally:
                self.remove(main)
        except OSError as error:
            return f"{error.filename}: {error.strerror}"
        return wrong

    def _enable(self, wanted: set[str]) -> str:
        """Hand controllers on to our groups; why not all of them, else empty. Raises OSError."""
        assert self.base is not None
        assert self.root is not None
        there = cgroup.controllers(self.base)
        if lacking := wanted - there:
            return f"{self.base} has no {' '.join(sorted(lacking))} to hand on ({_DELEGATE})"
        names = wanted | (_ACCOUNTING & there)
        try:
            self._enabled |= cgroup.enable(self.base, names)
        except OSError as error:
            if error.errno != errno.EBUSY:
                return f"{self.base} is not ours to divide: {error.strerror} ({_DELEGATE})"
            if not self._leave_base():
                return f"others are in {self.base} too ({_DELEGATE})"
            self._enabled |= cgroup.enable(self.base, names)
        cgroup.enable(self.root, names)
        return ""

    def _leave_base(self) -> bool:
        """Go into a group of our own, if nobody else is where we are. Raises OSError."""
        if cgroup.read(self.base or "", "cgroup.procs").split() != [str(os.getpid())]:
            return False
        self._make_own()
        cgroup.write(self.own, "cgroup.procs", "0")
        return True

    def _make_own(self) -> None:
        os.mkdir(self.own)
        self._left_base = True

    def divide(self, wanted: set[str], guest: int) -> None:
        """Make groups with these controllers of BASE, whose only process, `guest`, goes into our own.
        Raises OSError.
        """
        self._make_own()
        cgroup.write(self.own, "cgroup.procs", str(guest))
        self._make_root()
        reason = self.reason or self._enable(wanted)
        if reason:
            raise OSError(errno.ENOTSUP, reason, self.base)

    @property
    def own(self) -> str:
        """Where we are ourselves, if BASE is divided. Raises OSError."""
        return f"{self.base}/{self._name()}{OURSELVES}"

    def _name(self) -> str:
        """Ours alone, also where another supervisor had our number before us. Raises OSError, the first time:
        at the end there may be no descriptor for it.
        """
        self._known_name = self._known_name or f"{PREFIX}{os.getpid()}-{process.began()}"
        return self._known_name

    def make(self, api: Api, sandbox: Sandbox, task: str) -> str | None:
        """A new task's directory to be born in, None where there are no cgroups. Raises OSError."""
        if self.root is None and not self.reason:
            self._make_root()
        if self.root is None:
            return None
        home = self._home(api, sandbox)
        main = f"{home}/{task}/main"
        try:
            if not os.path.isdir(home):
                os.mkdir(home)
                if sandbox.cgroup is not None:
                    cgroup.enable(home, cgroup.controllers(home))
                if sandbox.cgroup_shared:
                    _limit(home, sandbox)
            os.mkdir(f"{home}/{task}")
            if sandbox.cgroup is not None:
                if not sandbox.cgroup_shared:
                    _limit(f"{home}/{task}", sandbox)
                if _has(f"{home}/{task}", "memory.oom.group"):
                    cgroup.write(f"{home}/{task}", "memory.oom.group", "1")  # half a task is no task
            os.mkdir(main)
        except OSError:
            self.remove(main)
            raise
        return main

    def _home(self, api: Api, sandbox: Sandbox) -> str:
        """The directory of all tasks of a sandbox with its limits."""
        known = self._limits.setdefault((api.api, sandbox.uid), [])
        limits = (sandbox.cgroup, sandbox.cgroup_shared)
        if limits not in known:
            known.append(limits)
        number = known.index(limits)
        # No name of ours can be that of an interface file.
        return f"{self.root}/{f'+{number}' if number else ''}_{api.api}.{sandbox.uid}"

    @staticmethod
    def differences(main: str, sandbox: Sandbox) -> str:
        """What differs between the limits in force for a task and those planned; empty if nothing does.
        Raises OSError.
        """
        limits = dict(sandbox.cgroup or ())
        found = cgroup.in_force(limited(main, sandbox), limits)
        wrong = [
            f"{name} is {found[name]!r}, not {cgroup.kept(name, value)!r}"
            for name, value in limits.items()
            if found[name] != cgroup.kept(name, value)
        ]
        return "; ".join(wrong)

    def _make_root(self) -> None:
        base = self.base
        if self.root is not None or self.reason:
            return
        if base is None:
            self.reason = "no cgroup v2 file system is mounted"
            return
        path = f"{base}/{self._name()}"
        try:
            os.mkdir(path)
        except OSError as error:
            self.reason = f"{base}: {error.strerror}"
            return
        if os.access(f"{path}/cgroup.kill", os.W_OK):
            self.root = path
        else:
            os.rmdir(path)
            self.reason = "this kernel has no cgroup.kill (it came with Linux 5.14)"

    def kill(self, main: str) -> None:
        """End every process of a task, at once and with certainty. Raises OSError."""
        cgroup.kill(os.path.dirname(main))

    def remove(self, main: str) -> bool:
        """Remove a task's directories, and its sandbox's with the last; False while processes are still on
        their way out of them.
        """
        group = os.path.dirname(main)
        for path in (main, group):
            try:
                os.rmdir(path)
            except FileNotFoundError:
                pass
            except OSError:
                return False
        try:
            os.rmdir(os.path.dirname(group))
        except OSError:  # it has other tasks
            pass
        return True

    def leave(self) -> None:
        """The same as `close`; what cannot be removed is told."""
        try:
            self.close()
        except OSError as error:
            say(f"{self.root} could not be removed: {error}")

    def close(self) -> None:
        """Kill what is left, remove everything, and go back to where we came from. Raises OSError for what
        cannot be removed.
        """
        if self.root is None:
            return
        cgroup.kill(self.root)
        for path, directories, _ in os.walk(self.root, topdown=False):
            for name in directories:
                _rmdir(f"{path}/{name}")
        _rmdir(self.root)
        self.root = None
        if self._left_base:  # else it is the hierarchy's root, where others may need them too
            self._left_base = False
            cgroup.disable(self._base or "", sorted(self._enabled))
            cgroup.write(self._base or "", "cgroup.procs", "0")
            _rmdir(self.own)


def _limit(group: str, sandbox: Sandbox) -> None:
    for name, value in sandbox.cgroup or ():
        cgroup.write(group, name, value)


def _rmdir(path: str) -> None:
    from time import sleep  # only at the very end, when there is nobody left to serve

    for _ in range(100):
        try:
            os.rmdir(path)
            return
        except FileNotFoundError:
            return
        except OSError:
            sleep(0.01)  # killed processes leave their group a moment later
    os.rmdir(path)
