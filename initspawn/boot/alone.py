"""The supervisor of a machine, or of a container, that has no other init. Boot module.

PID 1 stays, starts it again when it has ended, and ends the machine when it has been told to (see `halt`).
"""

from __future__ import annotations

from initspawn.boot import early
from initspawn.boot.barrier import POWER_OFF, Barrier
from initspawn.boot.halt import is_machine, keep_keys
from initspawn.boot.log import NOTICE, tell
from initspawn.boot.supervise import Main
from initspawn.linux.cmdline import option
from initspawn.plan import BOOT, RECOVERY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from initspawn.boot.button import Button
    from initspawn.boot.watchdog import Watchdog
    from initspawn.plan import Plan


def main(began: str = "") -> int:
    """As `early.main`, with no other init to come."""
    return early.main(began, Alone)


class Alone(early.Early):
    """Nothing comes behind it: all stages are its own, and so are the doors for the network."""

    def __init__(self, plan: Plan, lock: int, barrier: Barrier) -> None:
        super().__init__(plan, lock, barrier)
        self._to = barrier
        self._button: Button | None = None
        self._watchdog = self._watch(option("watchdog"))
        keep_keys()

    def finish(self, what: str) -> None:
        """Stop, orderly; PID 1 makes of the machine `what`, a key of `barrier.WORDS`, even if that fails."""
        if self._button is not None:
            self._button.close()  # who presses it again does not want everything to be killed
            self._button = None
        if what == RECOVERY and self._watchdog is not None:
            self._watchdog.stop()  # nobody feeds it there
        if not self.supervisor.closing:
            tell(f"the end: {what}", NOTICE)
            self._to.announce(what)
            self.stop()

    def _watch(self, seconds: str) -> Watchdog | None:
        """The machine's own watchdog, where the kernel's command line asks for it."""
        if not seconds:
            return None
        from initspawn.boot.watchdog import DEVICE, Watchdog

        problem = "" if is_machine() else "not in a container: it is the machine's"
        made = Watchdog(seconds, option("watchdog_device") or DEVICE, problem)
        self.registry.about["watchdog"] = made.told
        made.feed()
        return made

    def _live(self) -> None:
        try:
            super()._live()  # first: whatever comes of the device, there is a next sign of life
        finally:
            if self._watchdog is not None:
                self._watchdog.feed()

    def _reach(self, stage: str) -> None:
        Main._reach(self, stage)

    def _decide(self, what: str) -> None:
        self.autostart.mark("handover decided")
        if what != BOOT:
            self.finish(what)

    def _open(self) -> None:
        super()._open()
        from initspawn.boot.button import Button  # not before the first commands are on their way

        self._button = Button(self.reactor, lambda: self.finish(POWER_OFF))

    def _try_doors(self) -> None:
        super()._try_doors()
        if self._remote is not None and self._adoption is not None:
            self._remote.open()
