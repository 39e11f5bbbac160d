"""Verbs every API has, and the supervisor's own APIs. Boot module."""

from __future__ import annotations

from initspawn import __version__
from initspawn.errors import RequestError
from initspawn.verbs.access import CONFIGURE, RECORDS, SEE, allowed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from initspawn.plan import Api
    from initspawn.verbs.actions import Caller
    from initspawn.verbs.registry import Registry

MONITOR = "monitor"
OWN = "initspawn"

# The verbs of every API, and of our own, each with the right it takes. What is not here is no verb.
EVERYWHERE = {"ping": SEE, "info": SEE}
OURS = {
    "ping": SEE, "info": SEE, "tasks": RECORDS, "services": RECORDS, "timeline": RECORDS,
    "sources": CONFIGURE, "reload": CONFIGURE,
}  # fmt: skip
LOCAL_DOOR = "control"  # the only one by which the supervisor itself is configured


def action(api: str, verb: str) -> str:
    """What right a built-in procedure takes, whether it exists or not."""
    return (OURS if api == OWN else EVERYWHERE).get(verb, SEE)


def call(registry: Registry, caller: Caller, name: str, verb: str, arguments: Any) -> Any:
    """The response of a built-in procedure. Raises RequestError for one that does not exist."""
    if name == MONITOR:
        from initspawn.verbs import monitor

        return monitor.call(registry, caller, verb, arguments)
    api = registry.apis.get(name)
    if api is None and name != OWN:
        raise RequestError("unknown-api")
    if api is None:
        if verb not in OURS:
            raise _unknown(verb, [*OURS])
    elif verb not in EVERYWHERE:
        commands = [command.verb for command in api.commands] + [extra.uid for extra in api.extra]
        raise _unknown(verb, [*EVERYWHERE, *commands])
    if verb == "ping":
        registry.pings += 1
        return f"pong={registry.pings}"
    if api is None and OURS[verb] == CONFIGURE:
        return _configure(registry, caller, verb, arguments)
    return _own(registry, caller, verb) if api is None else info(api)


def _unknown(verb: str, known: list[str]) -> RequestError:
    from initspawn.verbs.nearest import unknown_verb

    return unknown_verb(verb, known)


def info(api: Api) -> dict[str, Any]:
    """An API's description of itself: its sandboxes as groups, its commands as verbs."""
    groups = [
        _present(
            uid=sandbox.uid,
            info=sandbox.info,
            verbs=[
                _present(
                    uid=command.uid,
                    verb=command.verb,
                    info=command.info,
                    sample=command.sample,
                    input="terminal" if command.terminal else "pipe" if command.stdin else None,
                    usage=_present(action=["start", "stop"], args=command.usage),
                )
                for command in api.commands
                if command.sandbox == sandbox.uid
            ],
        )
        for sandbox in api.sandboxes
    ]
    metadata = _present(uid=api.uid, info=api.info, version=api.version, author=api.author)
    return {"groups": groups, "metadata": metadata}


def _present(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _configure(registry: Registry, caller: Caller, verb: str, arguments: Any) -> Any:
    if caller.door != LOCAL_DOOR:  # a gateway acts for local users too, and is not trusted so far
        raise RequestError("insufficient-scope", "only by the control socket")
    if registry.configure is None:
        raise RequestError("not-available", "this supervisor has nothing to reload")
    return registry.configure(verb, arguments)


def _own(registry: Registry, caller: Caller, verb: str) -> Any:
    supervisor = registry.supervisor
    if verb == "info":
        more = {name: tell() for name, tell in registry.about.items()}
        return {"version": __version__, "apis": list(registry.apis), "limits": registry.limits, **more}
    if verb in ("services", "timeline"):
        # They are nobody's own, as tasks are that no caller has started.
        if registry.autostart is None or not allowed(caller.identity, RECORDS, None, ""):
            return [] if verb == "services" else {"marks": [], "services": []}
        return registry.autostart.records() if verb == "services" else registry.autostart.timeline()
    every = [*supervisor.ended, *supervisor.tasks, *supervisor.roster.waiting]
    return [
        task.record()
        for task in every
        if not task.api.hidden and allowed(caller.identity, RECORDS, None, task.owner)
    ]
