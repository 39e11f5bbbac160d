"""The calls that configurations make themselves: at the start, and when events come. Boot module.

An API is a caller like others, trusted as the file it was made of. What its calls start or subscribe to,
its `events` hear; one event after the other, each call answered before the next. An action never hears what
it has caused itself, however indirectly: nothing goes round in a circle.
"""

from __future__ import annotations

import os
import sys

from initspawn.event import named_by
from initspawn.limits import EVENT_TASKS
from initspawn.supervisor.eventlog import Reader
from initspawn.verbs import query
from initspawn.verbs.access import Identity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from initspawn.plan import Action, Api
    from initspawn.supervisor.running import Task
    from initspawn.verbs.answer import Answer
    from initspawn.verbs.foreign import Hearer
    from initspawn.verbs.registry import Registry


PAUSE = 0.2  # seconds, until it is looked again whether there is room for another task


class Controller:
    """Makes the calls of all APIs of a registry."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.supervisor = registry.supervisor
        self.closed = False  # it never leaves
        self.listeners: dict[tuple[str, Task], Listener] = {}
        self.hearers: dict[str, Hearer] = {}  # by the API, where one imports another
        self.heard: dict[tuple[str, Task], Itself] = {}  # by an API, whether it has `events` for them or not

    def load(self, made: Sequence[Action] = ()) -> None:
        """Make every `onload` call, in order, but for those that were `made` before; those of another
        server's API when, and whenever, it is there. A failure is told on standard error and stops nobody.
        """
        imports = self.registry.imports
        for imported in imports.values():
            imported.on_up.clear()
        for api in self.registry.apis.values():
            for action in api.onload:
                other = imports.get(action.api)
                if other is not None:
                    other.on_up.append(self._loader(api, action))
                if (other is None or other.up) and not any(action is one for one in made):
                    self._load(api, action)
        for imported in imports.values():
            if not imported.begun:
                imported.connect()

    def renew(self) -> None:
        """The registry's plan is another one: from now on its `events` hear what is heard already."""
        for listener in list(self.listeners.values()):
            listener.renew()
        for (_, task), owner in list(self.heard.items()):
            if task.life.alive:
                owner.subscribe(task, task.log.next)

    def _loader(self, api: Api, action: Action) -> Callable[[], None]:
        return lambda: self._load(api, action)

    def _load(self, api: Api, action: Action) -> None:
        self.call(Itself(self, api, ()), action, None, self._tell(api, "onload", action))

    def call(self, caller: Itself, action: Action, data: Any, answer: Callable[[Answer], None]) -> None:
        """Make a call, its query over the data of an event, if it is one that is handled."""
        if action.api in self.registry.imports:
            self.registry.call_imported(action, data, answer)
            return
        given = None if data is None else {"action": query.START, "args": data}
        wanted, arguments, verbose = query.blend(action.query, given)
        strict = {"action": wanted, "args": arguments, "verbose": verbose}
        self.registry.call(caller, f"{action.api}/{action.verb}", strict, answer)

    def is_crowded(self, action: Action) -> bool:
        """Whether what causes events would take the places of all other tasks."""
        if action.api in self.registry.imports:
            return False
        starts = query.parse(action.query)[0] == query.START
        return starts and self.registry.running(action.api, action.verb) >= EVENT_TASKS

    def _tell(self, api: Api, what: str, action: Action) -> Callable[[Answer], None]:
        def answer(result: Answer) -> None:
            if result.status != "success" and not self.supervisor.closing:
                tell(api, what, action, result)

        return answer


class Itself:
    """An API as a caller. `causes` are the actions that led to this call, the first one first."""

    def __init__(self, controller: Controller, api: Api, causes: tuple[Action, ...]) -> None:
        self.identity = Identity(kind="local", user=os.geteuid(), name=f"api:{api.api}")
        self.session = ""
        self.door = "configuration"
        self.client = controller
        self.api = api
        self.causes = causes
        self._controller = controller

    def subscribe(self, task: Task, first: int | None = None) -> None:
        """Let the API's `events` hear the task, those apart that led to it."""
        key = (self.api.api, task)
        handlers = self.handlers(task)
        self._controller.heard = {
            one: owner for one, owner in self._controller.heard.items() if one[1].life.alive
        }
        self._controller.heard.setdefault(key, self)
        if handlers and key not in self._controller.listeners:
            self._controller.listeners[key] = Listener(self._controller, self, task, handlers, first or 1)

    def handlers(self, task: Task) -> list[Action]:
        """What its events are for, as the plan says now, but for what led to them."""
        api = self._controller.registry.apis.get(self.api.api)
        return [
            action
            for action in (api.events if api is not None else ())
            if named_by(action.uid, task.event_name) and not any(action is cause for cause in self.causes)
        ]

    def watch(self, watchers: object) -> None:
        """Its `events` hear of the APIs it imports anyway."""

    def unsubscribe(self, task: Task) -> None:
        """Let them hear it no more."""
        self._controller.heard.pop((self.api.api, task), None)
        listener = self._controller.listeners.get((self.api.api, task))
        if listener is not None:
            listener.close()


class Listener:
    """One task's events on their way to the actions that wait for them."""

    def __init__(
        self, controller: Controller, owner: Itself, task: Task, handlers: list[Action], first: int
    ) -> None:
        self._controller = controller
        self._owner = owner
        self._task = task
        self._handlers = handlers
        self._told: list[Action] = []  # those whose failure has been told: once is enough
        self._unanswered = 0
        self._scheduled = False
        self._closed = False
        self._reader = Reader(task.log, self.wake, first)
        self.wake()

    def renew(self) -> None:
        """Its API may be another one, or gone."""
        self._handlers = self._owner.handlers(self._task)
        if not self._handlers:
            self.close()

    def wake(self) -> None:
        """There may be an event: look, after everything that happens now."""
        if not self._scheduled and not self._closed:
            self._scheduled = True
            self._controller.supervisor.reactor.after(0, self._next)

    def close(self) -> None:
        """Take no more events."""
        if not self._closed:
            self._closed = True
            del self._controller.listeners[self._owner.api.api, self._task]
            self._reader.close()

    def _next(self) -> None:
        self._scheduled = False
        if self._closed or self._unanswered:
            return
        if any(self._controller.is_crowded(action) for action in self._handlers):
            self._scheduled = True  # the events wait, and if they become too many their command
            self._controller.supervisor.reactor.after(PAUSE, self._next)
            return
        event = self._reader.take()
        if event is None or self._controller.supervisor.closing:
            if not self._task.life.alive:
                self.close()
            return
        self._unanswered = len(self._handlers)
        for action in self._handlers:
            caller = Itself(self._controller, self._owner.api, (*self._owner.causes, action))
            self._controller.call(caller, action, event.data, self._done(action))

    def _done(self, action: Action) -> Callable[[Answer], None]:
        def done(result: Answer) -> None:
            self._unanswered -= 1
            if result.status != "success" and action not in self._told:
                self._told.append(action)
                tell(self._owner.api, "events", action, result)
            self.wake()

        return done


def tell(api: Api, what: str, action: Action, result: Answer) -> None:
    """Say on standard error that a call of a configuration went wrong."""
    info = f": {result.info}" if result.info else ""
    print(f"initspawn: {api.api}: {what} `{action.uid}`: {result.status}{info}", file=sys.stderr)
