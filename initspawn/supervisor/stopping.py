"""The end of all that starts by itself, in the reverse order of its start. Boot module; pure.

Nobody is asked to end while somebody lives that has come after it, by `after`, `requires`, `wants` or a
`task` condition, directly or by way of others that may have ended long ago.
"""

from __future__ import annotations

from initspawn.limits import DRAIN_SECONDS, STOP_GRACE_SECONDS
from initspawn.supervisor.service import ALIVE, RUNNING, STARTING
from initspawn.supervisor.services import GONE, named

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from initspawn.supervisor.service import Service
    from initspawn.supervisor.services import Services

WHY = "the supervisor stops"
# Of one that is killed when its `stop_timeout` is over: its reaper is, too, and its output is read no longer.
_KILLED_SECONDS = STOP_GRACE_SECONDS + DRAIN_SECONDS


class Stopping:
    """Ends the services of a plan. From now on none is started, and none is started again."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._looking = False
        services.close(WHY)
        services.on_change = [self.look]  # nobody else has a say any more
        self.seconds = longest(  # after which all have ended, whatever they do
            {name: named(service.plan) for name, service in services.every.items()},
            {
                name: service.run.stop_timeout + _KILLED_SECONDS if service.state in ALIVE else 0.0
                for name, service in services.every.items()
            },
        )

    def look(self) -> None:
        """Ask those to end whose turn it is."""
        if self._looking:
            return
        self._looking = True
        try:
            while turn := self._turn():
                for service in turn:
                    self._services.end(service, WHY)
        finally:
            self._looking = False

    def _turn(self) -> list[Service]:
        """Those that have not been asked and that no living one has come after."""
        every = self._services.every
        return _turn(every.values(), {name: named(service.plan) for name, service in every.items()})


class Leaving:
    """Ends services that a plan has no more, while the others go on. `before`: what each came after, in the
    plan that had them.
    """

    def __init__(self, services: Services, gone: list[Service], before: dict[str, tuple[str, ...]]) -> None:
        self._services = services
        self._gone = gone
        self._before = before
        services.on_change.append(self.look)
        self.look()

    def look(self) -> None:
        """Ask those to end whose turn it is."""
        there = self._services.every  # a later plan may have one again
        gone = [service for service in self._gone if there.get(service.name) is not service]
        for service in _turn(gone, self._before):
            if service.state in (STARTING, RUNNING):  # it may have been asked by what followed from another
                self._services.end(service, GONE)
        if self.look in self._services.on_change and not any(one.state in ALIVE for one in gone):
            self._services.on_change.remove(self.look)


def _turn(services: Collection[Service], before: dict[str, tuple[str, ...]]) -> list[Service]:
    """Those of them that have not been asked and that no living one has come after."""
    needed: set[str] = set()
    stack = [name for service in services if service.state in ALIVE for name in before[service.name]]
    while stack:
        name = stack.pop()
        if name not in needed:
            needed.add(name)
            stack.extend(before[name])
    return [
        service
        for service in services
        if service.state in (STARTING, RUNNING) and service.name not in needed
    ]


def longest(before: dict[str, tuple[str, ...]], seconds: dict[str, float]) -> float:
    """The length of the longest chain, of names that each come after those in `before`, without circles."""
    total: dict[str, float] = {}
    stack = list(before)
    while stack:
        missing = [name for name in before[stack[-1]] if name not in total]
        if missing:
            stack.extend(missing)
        else:
            name = stack.pop()
            total[name] = seconds[name] + max((total[other] for other in before[name]), default=0.0)
    return max(total.values(), default=0.0)
