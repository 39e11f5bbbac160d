"""The events of imported APIs on their way to a configuration's `events` actions. Boot module.

Loaded only if a configuration imports an API. One event after the other, each call answered before the next;
what does not fit meanwhile is lost, and that is told.
"""

from __future__ import annotations

import sys

from initspawn.event import named_by
from initspawn.verbs import wsapi
from initspawn.verbs.controller import PAUSE, Itself, tell
from initspawn.verbs.imports import DISCONNECTED, Backlog, Imported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from initspawn.plan import Action, Api
    from initspawn.verbs.answer import Answer
    from initspawn.verbs.controller import Controller

GONE = f"monitor/{DISCONNECTED}"


def begin(controller: Controller) -> None:
    """Make the imports of all APIs known to the controller's registry; they are not connected yet."""
    registry = controller.registry
    listeners: dict[str, list[Hearer]] = {}
    for api in registry.apis.values():
        hearer = Hearer(controller, api)
        for wanted in api.imports:
            hearers = listeners.setdefault(wanted.api, [])
            hearers.append(hearer)
            if wanted.api not in registry.imports:
                registry.imports[wanted.api] = _imported(controller, wanted.api, wanted.path, hearers)
    registry.about["imports"] = lambda: {name: one.about() for name, one in registry.imports.items()}


def _imported(controller: Controller, name: str, path: str, hearers: list[Hearer]) -> Imported:
    registry = controller.registry

    def heard(event: str, data: bytes) -> None:
        for hearer in hearers:
            hearer.hear(event, data)

    def lost() -> None:
        heard(GONE, f'"{name}"'.encode())
        for watcher in list(registry.watchers.values()):
            watcher(name)

    return Imported(name, path, controller.supervisor.reactor, heard, lost)


class Hearer:
    """One API's actions that wait for events of imported ones."""

    def __init__(self, controller: Controller, api: Api) -> None:
        self._controller = controller
        self._api = api
        self._backlog = Backlog()
        self._told: list[Action] = []  # those whose failure has been told: once is enough
        self._lost = 0
        self._unanswered = 0
        self._scheduled = False

    def hear(self, event: str, data: bytes) -> None:
        """An event has come; its data is JSON."""
        if self._handlers(event):
            self._backlog.put(event, data)
            if self._backlog.lost and not self._lost:
                print(f"initspawn: {self._api.api}: events of imported APIs are lost", file=sys.stderr)
            self._lost = self._backlog.lost
            self._wake()

    def _handlers(self, event: str) -> list[Action]:
        return [action for action in self._api.events if named_by(action.uid, event)]

    def _wake(self, seconds: float = 0) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._controller.supervisor.reactor.after(seconds, self._next)

    def _next(self) -> None:
        self._scheduled = False
        if self._unanswered or self._controller.supervisor.closing:
            return
        if any(self._controller.is_crowded(action) for action in self._api.events):
            self._wake(PAUSE)
            return
        event = self._backlog.take()
        if event is None:
            return
        name, text = event
        data = wsapi.value(text)
        handlers = self._handlers(name)
        self._unanswered = len(handlers)
        for action in handlers:
            caller = Itself(self._controller, self._api, (action,))
            named = data if isinstance(data, dict) else {"data": data}
            self._controller.call(caller, action, named, self._done(action))

    def _done(self, action: Action) -> Callable[[Answer], None]:
        def done(result: Answer) -> None:
            self._unanswered -= 1
            if result.status != "success" and action not in self._told:
                self._told.append(action)
                tell(self._api, "events", action, result)
            self._wake()

        return done
