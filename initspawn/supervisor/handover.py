"""When the boot may go on to the real init, and what else may become of it. Boot module; pure.

The boot waits for the commands whose `autostart` says `before: handover`, each no longer than its time
limit, from now on and whatever it waits for itself; and for as long as somebody says that it must not go on.
"""

from __future__ import annotations

from initspawn.plan import BOOT, REBOOT, RECOVERY
from initspawn.supervisor.service import BROKEN, MET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from initspawn.supervisor.service import Service
    from initspawn.supervisor.services import Services

WAIT = "wait"
_WORST_FIRST = (REBOOT, RECOVERY, WAIT, BOOT)


class Handover:
    """Decides. `decide` is called once, with BOOT, RECOVERY or REBOOT; `held` says whether BOOT must wait."""

    def __init__(self, services: Services, decide: Callable[[str], None], held: Callable[[], bool]) -> None:
        self._services = services
        self._decide = decide
        self._held = held
        self._late: set[str] = set()
        self.done = False
        self._awaited = [service for service in services.every.values() if service.plan.handover]
        services.on_change.append(self.look)
        for service in self._awaited:
            if service.plan.start_timeout:
                self._limit(service)

    def look(self) -> None:
        """Something has changed that the decision may hang on."""
        if self.done:
            return
        found = {BOOT, *(self._of(service.name) for service in self._awaited)}
        verdict = next(word for word in _WORST_FIRST if word in found)
        if verdict == WAIT or (verdict == BOOT and self._held()):
            return
        self.done = True
        self._decide(verdict)

    def lacks(self) -> list[str]:
        """The names of those that are waited for."""
        return [service.name for service in self._awaited if self._of(service.name) == WAIT]

    def _of(self, name: str) -> str:
        """What one command lets become of the boot."""
        service = self._services.every[name]
        if service.state in MET:
            return BOOT
        if name in self._late:
            return service.plan.on_timeout
        return service.plan.on_failure if service.state in BROKEN else WAIT

    def _limit(self, service: Service) -> None:
        self._services.hands.after(service.plan.start_timeout, lambda: self._too_late(service))

    def _too_late(self, service: Service) -> None:
        if not self.done and self._of(service.name) == WAIT:
            limit = service.plan.start_timeout
            self._services.hands.tell(service, f"not ready {limit:g} s after the boot began")
            self._late.add(service.name)
            self.look()
