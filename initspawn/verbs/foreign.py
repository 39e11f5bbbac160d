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
    """Make the imports of all APIs known to the controller's registry; those that are new are not connected
    yet, those that are as they were go on, and the others are left.
    """
    registry = controller.registry
    wanted: dict[str, str] = {}
    for api in registry.apis.values():
        for one in api.imports:
            wanted.setdefault(one.api, one.path)
    for name, imported in list(registry.imports.items()):
        if wanted.get(name) != imported.path:
            registry.imports.pop(name).close()
    hearers = {name: controller.hearers.get(name) or Hearer(controller) for name in registry.apis}
    controller.hearers = hearers
    for name, path in wanted.items():
        if name not in registry.imports:
            registry.imports[name] = _imported(controller, name, path)
    for name, hearer in hearers.items():
        hearer.api = registry.apis[name]
    registry.about["imports"] = lambda: {name: one.about() for name, one in registry.imports.items()}


def _imported(controller: Controller, name: str, path: str) -> Imported:
    registry = controller.registry

    def heard(event: str, data: bytes) -> None:
        for hearer in controller.hearers.values():
            if any(one.api == name for one in hearer.api.imports):
                hearer.hear(event, data)

    def lost() -> None:
        heard(GONE, f'"{name}"'.encode())
        for watcher in list(registry.watchers.values()):
            watcher(name)

    return Imported(name, path, controller.supervisor.reactor, heard, lost)


class Hearer:
    """One API's actions that wait for events of imported ones."""

    api: Api

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
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
                print(f"initspawn: {self.api.api}: events of imported APIs are lost", file=sys.stderr)
            self._lost = self._backlog.lost
            self._wake()

    def _handlers(self, event: str) -> list[Action]:
        return [action for action in self.api.events if named_by(action.uid, event)]

    def _wake(self, seconds: float = 0) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._controller.supervisor.reactor.after(seconds, self._next)

    def _next(self) -> None:
        self._scheduled = False
        if self._unanswered or self._controller.supervisor.closing:
            return
        if any(self._controller.is_crowded(action) for action in self.api.events):
            self._wake(PAUSE)
            return
        event = self._backlog.take()
        if event is None:
            return
        name, text = event
        data = wsapi.value(text)
        handlers = self._handlers(name)
        if not handlers:  # after a reload
            self._wake()
        self._unanswered = len(handlers)
        for action in handlers:
            caller = Itself(self._controller, self.api, (action,))
            named = data if isinstance(data, dict) else {"data": data}
            self._controller.call(caller, action, named, self._done(action))

    def _done(self, action: Action) -> Callable[[Answer], None]:
        def done(result: Answer) -> None:
            self._unanswered -= 1
            if result.status != "success" and action not in self._told:
                self._told.append(action)
                tell(self.api, "events", action, result)
            self._wake()

        return done
