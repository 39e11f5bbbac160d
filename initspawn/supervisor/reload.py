"""Another plan for a supervisor that runs: what stays, what is made, and the moment in between. Boot module.

Everything that can be refused is refused by `Change`, before anything is another; `commit` follows. What is
equal in both plans stays the same object: a sandbox keeps all that was made for it, and the starts that wait
in it. Loaded with the first reload.
"""

from __future__ import annotations

from initspawn.errors import PlanError, RequestError
from initspawn.plan import notifies

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from initspawn.plan import Api, Command, Plan, Sandbox
    from initspawn.supervisor.core import Supervisor
    from initspawn.supervisor.notify import Notifications

_RESTART = "restart the supervisor for that"
_GONE = "the configuration was reloaded meanwhile, and what was asked for is another: ask again"


class Change:
    """The way of a supervisor to another plan. `loaded` is the plan it was started with, or that of the last
    change, as its file has it; `new` likewise: its hidden APIs are the supervisor's own, which stay.

    Raises PlanError, and nothing has changed then.
    """

    def __init__(
        self, supervisor: Supervisor, notifications: Notifications | None, loaded: Plan, new: Plan
    ) -> None:
        self._supervisor = supervisor
        self._notifications = notifications
        if new.late or new.user != loaded.user or new.group != loaded.group:
            raise PlanError("the plan is not for this supervisor as it runs")
        hidden = tuple(api for api in loaded.apis if api.hidden)
        given = tuple(api for api in new.apis if api.hidden)
        if given and given != hidden:
            raise PlanError(f"the gateway differs from what runs: {_RESTART}")
        new = new.replace(apis=(*(api for api in new.apis if not api.hidden), *hidden))
        _refuse(loaded, new)
        self._before = {id(box) for box in supervisor.plan.sandboxes()}
        self._commands = _commands(loaded)
        self.loaded = _kept_plan(loaded, new)
        self.plan = self._fitted(loaded, self.loaded)

    def _fitted(self, loaded: Plan, new: Plan) -> Plan:
        """The new plan as this machine can run it; what was there before as it is."""
        supervisor = self._supervisor
        before = dict(zip(map(id, loaded.sandboxes()), supervisor.plan.sandboxes(), strict=True))
        fresh = _only(new, lambda sandbox: id(sandbox) not in before)
        try:
            if self._notifications is not None:
                fresh = self._notifications.equip(fresh)
            fresh = supervisor.images.fit(supervisor.groups.fit(fresh))
            if fault := supervisor.images.fault(fresh):
                raise PlanError(f"an image cannot be used: {fault}")
        except PlanError:
            self.drop()
            raise
        made = iter(fresh.sandboxes())

        def one(api: Api) -> Api:
            boxes = [before[id(box)] if id(box) in before else next(made) for box in api.sandboxes]
            return api.replace(sandboxes=tuple(boxes))

        plan = new.replace(apis=tuple(one(api) for api in new.apis))
        hosts = one(new.hosts) if new.hosts else None
        watcher = one(new.watcher) if new.watcher else None
        return plan.replace(hosts=hosts, guard=supervisor.plan.guard, watcher=watcher)

    def drop(self) -> None:
        """It does not come to the change."""
        self._supervisor.images.keep([*self._supervisor.plan.sandboxes(), *self._needed()])
        self._keep_sockets()

    def commit(self) -> None:
        """From now on this is the plan. Raises OSError, and nothing has changed then."""
        supervisor = self._supervisor
        known = {id(box) for box in self.plan.sandboxes()}
        others = {id(box): box for box in self._needed() if id(box) not in known}
        boxes = [*self.plan.sandboxes(), *others.values()]
        supervisor.launcher.renew(boxes)
        supervisor.plan = self.plan
        supervisor.images.keep(boxes)
        self._keep_sockets()
        commands = {id(command): api for api in self.plan.apis for command in api.commands}
        for task in list(supervisor.roster.waiting):
            if id(task.command) in commands and id(task.sandbox) in known:
                task.api = commands[id(task.command)]  # its handler may be another one
            else:
                supervisor.turn_away(task, RequestError("not-available", _GONE))
        supervisor.reserve.renew(self.plan)

    def _needed(self) -> list[Sandbox]:
        """Who is on the way to its exec may need its sandbox once more, or a handler's."""
        begun = [task for task in self._supervisor.roster.every() if not task.life.started]
        return [box for task in begun for box in task.api.sandboxes]

    def _keep_sockets(self) -> None:
        """Of those for messages, that the plan needs, or somebody who runs."""
        supervisor = self._supervisor
        if self._notifications is not None:
            running = [task.sandbox for task in supervisor.roster.every()]
            self._notifications.keep([*supervisor.plan.sandboxes(), *running], supervisor.reactor)

    def told(self) -> dict[str, int]:
        """How much of the new plan there is, how much of that is new or another than before, and how many
        commands are gone.
        """
        apis = [api for api in self.plan.apis if not api.hidden]
        boxes = {id(box) for api in apis for box in api.sandboxes}
        commands = _commands(self.plan)
        return {
            "apis": len(apis),
            "commands": len(commands),
            "new-commands": sum(self._commands.get(name) is not one for name, one in commands.items()),
            "gone": len(self._commands.keys() - commands.keys()),
            "sandboxes": len(boxes),
            "new-sandboxes": len(boxes - self._before),
        }


def _commands(plan: Plan) -> dict[tuple[str, str], Command]:
    """Those that callers have, each by its API and its name there."""
    return {
        (api.api, command.uid): command for api in plan.apis if not api.hidden for command in api.commands
    }


def _refuse(old: Plan, new: Plan) -> None:
    """Raises PlanError for what cannot become another while we run."""
    for what in ("guard", "doors"):
        if getattr(old, what) != getattr(new, what):
            raise PlanError(f"its {what} differs from what runs: {_RESTART}")
    pages = [{api.page for api in plan.apis if api.page is not None} for plan in (old, new)]
    if pages[0] != pages[1]:
        raise PlanError(f"its `page` differs from what runs: {_RESTART}")


def _kept_plan(old: Plan, new: Plan) -> Plan:
    """The new plan, with the old one's objects where they are equal."""
    known = {api.api: api for api in old.apis}
    hosts = _kept_api(old.hosts, new.hosts) if new.hosts is not None else None
    apis = tuple(_kept_api(known.get(api.api), api) for api in new.apis)
    watcher = _kept_api(old.watcher, new.watcher) if new.watcher is not None else None
    return new.replace(apis=apis, hosts=hosts, guard=old.guard, watcher=watcher)


def _kept_api(old: Api | None, new: Api) -> Api:
    if old is None or old is new:
        return new
    lists = ("commands", "onload", "events", "extra")
    same = {name: _kept(getattr(old, name), getattr(new, name)) for name in lists}
    # Who sends messages, and how often, is part of what a sandbox gets.
    before, after = _messages(old), _messages(new)
    boxes = [
        box if before.get(box.uid) == after.get(box.uid) else other
        for box, other in zip(_kept(old.sandboxes, new.sandboxes), new.sandboxes, strict=True)
    ]
    return new.replace(sandboxes=tuple(boxes), **same)


def _messages(api: Api) -> dict[str, set[float]]:
    """The watchdogs of those that send messages, by their sandbox."""
    found: dict[str, set[float]] = {}
    for command in api.commands:
        if command.autostart is not None and notifies(command.autostart):
            found.setdefault(command.sandbox, set()).add(command.autostart.watchdog)
    return found


def _kept(old: tuple[Any, ...], new: tuple[Any, ...]) -> tuple[Any, ...]:
    known: dict[str, list[Any]] = {}
    for one in old:
        known.setdefault(one.uid, []).append(one)
    return tuple(next((one for one in known.get(item.uid, ()) if one == item), item) for item in new)


def _only(plan: Plan, wanted: Callable[[Sandbox], bool]) -> Plan:
    """The plan with these sandboxes alone, and without a guard."""

    def one(api: Api) -> Api:
        return api.replace(sandboxes=tuple(box for box in api.sandboxes if wanted(box)))

    hosts = one(plan.hosts) if plan.hosts else None
    watcher = one(plan.watcher) if plan.watcher else None
    return plan.replace(
        apis=tuple(one(api) for api in plan.apis), hosts=hosts, guard=None, watcher=watcher
    )
