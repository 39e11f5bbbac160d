"""The early stage: a supervisor before any other init, a child of PID 1. Boot module.

It mounts what is missing, loads the compiled plan, starts the commands, answers on the control socket, and
lets PID 1 go on to the real init. When that is systemd, a unit adopts it (see `adoption`). Nothing that goes
wrong here may keep the device from booting: what fails is told in the kernel's log and left out. Written
is only below /run.
"""

from __future__ import annotations

import fcntl
import gc
import os
import time

from initspawn.boot.barrier import Barrier
from initspawn.boot.log import tell
from initspawn.boot.mounts import mount_missing
from initspawn.boot.supervise import LOCK, Main
from initspawn.errors import InitspawnError, PlanError
from initspawn.linux import cgroup
from initspawn.linux.cmdline import option
from initspawn.linux.mount import open_null
from initspawn.plan import API, BOOT, EARLY, SYSTEM, Plan
from initspawn.planfile import LAST, load
from initspawn.supervisor import leftovers
from initspawn.supervisor.handover import Handover

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from initspawn.boot.adoption import Adoption, Unit
    from initspawn.boot.remote import Remote

RUN_DIR = "/run/initspawn"
# The first that can be used; `initspawn.plan=PATH` on the kernel's command line comes before them.
PLANS = ("/etc/initspawn/boot.plan", f"/etc/initspawn/boot.plan{LAST}", "/usr/lib/initspawn/boot.plan")
GROUP = "initspawn"  # below the cgroup hierarchy's root, until a unit has one for us
# While this file is there, the real init is not started; `initspawn.hold=PATH` names another.
HOLD = "/var/lib/initspawn/hold"
_RENEW_SECONDS = 1.0
_RETRY_SECONDS = 5.0
_LOCK_TRIES = 20


def main(began: str = "", kind: type[Early] | None = None) -> int:
    """Be the supervisor until told to stop. Returns the exit code: 0, or 111 with a line in the log.
    `began`: when PID 1 did, in seconds as in proc_uptime(5); `kind`: of a machine that has no other init.
    """
    failures = mount_missing()
    _own_descriptors(keep=kind is not None)
    for failure in failures:
        tell(failure)
    try:
        _enter_group()
    except OSError as error:
        tell(f"no cgroup before systemd's: {error.filename}: {error.strerror}")
    if kind is None and option("watchdog"):
        tell("initspawn.watchdog is for initspawn.init=none: the real init feeds it")
    barrier = Barrier()
    try:
        lock = _lock()
        early = begin(lambda plan: (kind or Early)(plan, lock, barrier), option("plan"))
        if began:
            early.autostart.mark("init started", float(began))
        return early.run()
    except Exception as error:
        tell(f"{type(error).__name__}: {error}")
        return 111


def be_unit(address: str, watchdog: str, lock: int) -> int:
    """Be the supervisor as a unit's main process, which nobody was before it. Returns the exit code."""
    os.umask(0o022)
    _end_leftovers()
    return begin(lambda plan: Early(plan, lock, None, address, watchdog), option("plan")).run()


def take_lock() -> int:
    """The run directory's lock, which makes us its only supervisor; -1 where it cannot be made, because /run
    is full: commands need nothing of it. Raises BlockingIOError when another one has it.
    """
    try:
        os.makedirs(RUN_DIR, 0o700, exist_ok=True)
        fd = os.open(f"{RUN_DIR}/{LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        tell(f"{RUN_DIR}: {error.strerror}")
        return -1
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise
    return fd


def _lock() -> int:
    """That lock, when whoever had it before is gone. Raises BlockingIOError."""
    for _ in range(_LOCK_TRIES):  # PID 1 starts us again as soon as one of us has been killed
        try:
            return take_lock()
        except BlockingIOError:
            time.sleep(0.1)
    return take_lock()


def begin(make: Callable[[Plan], Early], named: str = "") -> Early:
    """What `make` makes of the first plan that can be used, or of one without commands. What keeps a better
    one from it is told, by `initspawn/info` too. Raises what `make` does, but for a plan's PlanError.
    """
    refused: list[str] = []
    for path in candidates(named):
        try:
            early = make(usable(path, os.environ))
        except PlanError as error:
            reason = str(error) if path in str(error) else f"{path}: {error}"
            refused.append(reason)
            tell(reason)
            continue
        if refused:
            tell(f"{path} is the plan instead")
        break
    else:
        path = ""
        tell(f"no plan, so no commands: `initspawn compile -o {PLANS[0]}` makes one")
        early = make(Plan(user=0, group=0))
    early.registry.about["plan"] = lambda: {"file": path, "refused": refused}
    return early


def candidates(named: str) -> list[str]:
    """The files of plans that there are, the best first; `named` whether it is there or not."""
    return [*filter(None, (named,)), *(path for path in PLANS if os.path.lexists(path))]


def usable(path: str, environ: Mapping[str, str]) -> Plan:
    """The plan of a file, as it is for this machine and a supervisor's variables. Raises PlanError."""
    from initspawn.late import check_machine, settle

    try:
        plan = load(path)
        check_machine(plan)
        if plan.doors is not None:
            from initspawn.boot.remote import with_place

            plan = with_place(plan, RUN_DIR)
        return settle(plan, environ) if plan.late else plan
    except OSError as error:
        raise PlanError(f"{error.filename or path}: {error.strerror}") from error
    except PlanError:
        raise
    except (InitspawnError, ValueError) as error:
        raise PlanError(f"{path}: {error}") from error


class Early(Main):
    """The supervisor of a machine that is booting."""

    def __init__(
        self, plan: Plan, lock: int, barrier: Barrier | None, address: str = "", watchdog: str = ""
    ) -> None:
        self._barrier = barrier
        self._began_as = (address, watchdog)
        self._unit: Unit | None = None
        self._adopted = False
        self._boot: Handover | None = None
        self._adoption: Adoption | None = None
        self._lock = lock  # held for as long as we are
        super().__init__(plan, "", RUN_DIR, -1)
        self._remote: Remote | None = None
        if plan.doors is not None:
            from initspawn.boot.remote import Remote

            self._remote = Remote(self, plan.doors)
            self.start = {name: plan.doors[name] for name in ("gateway", "up", "tls") if name in plan.doors}
            self._gateway_runs = plan.doors["gateway"]
            self.registry.limits.update(plan.doors["limits"])
        self.supervisor.groups.each = True  # found by its group when we are gone, moved with it when adopted

    def _reach(self, stage: str) -> None:
        """The boot has come so far; but what needs more than the early stage waits for the adoption."""
        super()._reach(EARLY if self._barrier is not None and not self._adopted else stage)

    def adopted(self) -> None:
        """We belong to a unit: the system is there."""
        self._adopted = True
        self.autostart.mark("adopted by a unit")
        self._reach(SYSTEM)
        if self._remote is not None:
            self._remote.open()
        else:
            self._reach(API)  # no network's door is to come
        self._on_network()

    def open_network(self) -> None:
        """The doors for the network: not before `_remote` opens them, when all others are open for good."""
        if self._remote is None or "listen" in self.start:
            super().open_network()

    def _open(self) -> None:
        """The doors; what they need may come later."""
        if self._barrier is not None:  # nobody waits for our doors
            self._boot = Handover(self.autostart.services, self._decide, self._held)
            self._live()
        gc.enable()  # see __main__
        from initspawn.boot.adoption import Unit  # not before the first commands are on their way

        self._unit = Unit(self.supervisor)
        self._unit.serve(*self._began_as)
        self._try_doors()
        self._unit.tell("READY=1")  # with doors or without: the boot waits for this

    def _try_doors(self) -> None:
        from initspawn.boot.adoption import Adoption

        assert self._unit is not None
        try:
            super()._open()
            self._adoption = Adoption(self, self._unit, self.adopted)
        except OSError as error:
            tell(f"no door yet: {error.filename or RUN_DIR}: {error.strerror}")
            self._close_doors()
            self.reactor.after(_RETRY_SECONDS, self._try_doors)
        else:
            if self._remote is not None and self._barrier is None:
                self._remote.open()

    def _live(self) -> None:
        assert self._barrier is not None
        if self._barrier.waiting and self._boot is not None:
            self._barrier.renew()
            self.reactor.after(_RENEW_SECONDS, self._live)
            if not self.supervisor.closing:
                self._boot.look()  # who holds it need not tell us that it does not any more

    def _decide(self, what: str) -> None:
        assert self._barrier is not None
        self.autostart.mark("handover decided")
        if what != BOOT:
            tell(f"not to the real init, but to {what}")
        self._barrier.decide(what)

    def waits_for(self) -> str:
        """The boot waits for commands as the plan says that it began with."""
        decided = self._boot is None or self._boot.done
        return "" if decided else "the boot waits for commands with `before: handover` still"

    @staticmethod
    def _held() -> bool:
        return os.path.lexists(option("hold") or HOLD)

    def _on_stop(self, seconds: float) -> None:
        if self._unit is not None:  # systemd's own patience may be shorter
            self._unit.tell(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={seconds * 1e6:.0f}")

    def _close_doors(self) -> None:
        if self._adoption is not None:
            self._adoption.close()
            self._adoption = None
        super()._close_doors()


def _own_descriptors(*, keep: bool = False) -> None:
    """No terminal and no console is ours: it may hang up. What we say goes to the kernel's log. With `keep`,
    where that cannot be written, as in a container: to where it went before.
    """
    null = _opened(open_null)
    log = _opened(lambda: os.open("/dev/kmsg", os.O_WRONLY | os.O_CLOEXEC))
    if log < 0 and not keep:
        log = null
    for fd, ours in ((0, null), (1, log), (2, log)):
        if ours >= 0:  # else what is open there stays
            os.dup2(ours, fd)
    for fd in {null, log} - {-1, 0, 1, 2}:
        os.close(fd)


def _opened(device: Callable[[], int]) -> int:
    try:
        return device()
    except OSError:
        return -1


def _enter_group() -> None:
    """A group of our own, which systemd leaves alone; with every controller. Raises OSError."""
    root = cgroup.mount_point()
    if root is None:
        return
    own = f"{root}/{GROUP}"
    os.makedirs(own, exist_ok=True)
    cgroup.write(own, "cgroup.procs", "0")
    for name in cgroup.controllers(root):
        try:
            cgroup.enable(root, (name,))
        except OSError:  # such as `cpu` where real-time processes are
            pass


def _end_leftovers() -> None:
    """What an early supervisor left that died before systemd could have adopted it."""
    root = cgroup.mount_point()
    early = f"{root}/{GROUP}"
    if root is not None and os.path.isdir(early):
        leftovers.end(early)
        try:
            os.rmdir(early)
        except OSError:  # one that lives is there, or its processes are on their way out
            pass
