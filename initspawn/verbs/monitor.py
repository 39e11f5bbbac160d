"""The `monitor` API that every AFB server has, as far as its development pages need it. Boot module; pure.

Loaded with the first request for it.
"""

from __future__ import annotations

from initspawn.errors import RequestError
from initspawn.verbs.nearest import unknown_verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from initspawn.plan import Api
    from initspawn.verbs.actions import Caller
    from initspawn.verbs.registry import Registry

NAME = "monitor"
LEVEL = "notice"  # what is told on standard error; it is not changed while we run
SESSION_SECONDS = 32_000_000  # how long a session's name is good for: always as long again
DISCONNECTED = "disconnected"


def call(registry: Registry, caller: Caller, verb: str, arguments: Any) -> Any:
    """The response of one of its verbs. Raises RequestError."""
    known = VERBS.get(verb)
    if known is None:
        raise unknown_verb(verb, list(VERBS))
    return known[1](registry, caller, arguments)


def _get(registry: Registry, _: Caller, arguments: Any) -> Any:
    wanted = arguments if isinstance(arguments, dict) else {}
    found: dict[str, Any] = {}
    if wanted.get("verbosity") is not None and wanted["verbosity"] is not False:
        names = ["", *registry.apis, NAME]
        asked = _names(wanted["verbosity"], names)
        found["verbosity"] = {name: LEVEL for name in names if name in asked or ("*" in asked and name)}
    if "apis" in wanted and wanted["apis"] is not None:
        found["apis"] = _apis(registry, wanted["apis"])
    return found or None


def _apis(registry: Registry, asked: Any) -> dict[str, Any]:
    """A list of names, or for `true` and names the descriptions of these APIs."""
    every = [NAME, *registry.apis]
    if asked is False or asked == "*":
        return dict.fromkeys(every, True)
    names = _names(asked, every)
    return {name: _describe(registry, name) for name in every if name in names}


def _names(asked: Any, every: list[str]) -> list[str]:
    """The names that `true`, a name, a list or the true members of an object stand for."""
    if asked is True:
        return every
    if isinstance(asked, dict):
        return [name for name, value in asked.items() if value]
    if isinstance(asked, list):
        return [name for name in asked if isinstance(name, str)]
    return [asked] if isinstance(asked, str) else []


def _describe(registry: Registry, name: str) -> dict[str, Any]:
    """An API in the form of OpenAPI 3, never null: the pages look into it without asking."""
    api = registry.apis.get(name)
    if api is None:
        verbs: dict[str, tuple[str, str | None]] = {verb: (text, None) for verb, (text, _) in VERBS.items()}
        return _openapi(NAME, "about this server", "1.0", verbs)
    return _openapi(name, api.info or name, api.version or "0.0.0", _verbs(api))


def _verbs(api: Api) -> dict[str, tuple[str, str | None]]:
    """Description and privilege of each verb."""
    found: dict[str, tuple[str, str | None]] = {"ping": ("says pong", None), "info": ("says this", None)}
    for command in api.commands:
        privilege = command.privilege or api.sandbox(command.sandbox).privilege
        found[command.verb] = (command.info or command.verb, privilege)
    return found


def _openapi(
    title: str, about: str, version: str, verbs: dict[str, tuple[str, str | None]]
) -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for verb, (text, privilege) in verbs.items():
        operation: dict[str, Any] = {"responses": {"200": {"description": text}}}
        if privilege is not None:
            operation = {"x-permissions": {"permission": privilege}, **operation}
        paths[f"/{verb}"] = {"get": operation}
    info = {"version": version, "description": about, "title": title}
    return {"openapi": "3.0.0", "info": info, "paths": paths}


def _set(registry: Registry, caller: Caller, arguments: Any) -> None:
    if isinstance(arguments, dict):
        _unsubscribe(registry, caller, arguments.get("unsubscribe"))
        _subscribe(registry, caller, arguments.get("subscribe"))
    if isinstance(arguments, dict) and arguments.get("verbosity") is not None:
        raise RequestError("not-available", f"the level is {LEVEL}, and is not changed while the server runs")


def _session(_: Registry, caller: Caller, __: Any) -> dict[str, Any]:
    return {"uuid": caller.session, "timeout": SESSION_SECONDS, "remain": SESSION_SECONDS}


def _subscribe(registry: Registry, caller: Caller, arguments: Any) -> None:
    """The only event is `disconnected`: an imported API has gone."""
    if DISCONNECTED in _names(arguments, []):
        caller.watch(registry.watchers)


def _unsubscribe(registry: Registry, caller: Caller, arguments: Any) -> None:
    if DISCONNECTED in _names(arguments, []):
        registry.watchers.pop(caller.client, None)


def _list(registry: Registry, _: Caller, __: Any) -> str:
    return " ".join([*registry.apis, NAME])


def _trace(_: Registry, __: Caller, arguments: Any) -> None:
    """Nothing is traced: there is nothing to drop, and nothing can be added."""
    if isinstance(arguments, dict) and arguments.get("add") is not None:
        raise RequestError("not-available", "this server traces nothing; see its audit log")


def _info(_: Registry, __: Caller, ___: Any) -> dict[str, Any]:
    verbs = [{"name": verb, "info": text} for verb, (text, _) in VERBS.items()]
    return {"$schema": "afb-api-info/v2", "name": NAME, "info": "about this server", "verbs": verbs}


VERBS: dict[str, tuple[str, Callable[[Registry, Caller, Any], Any]]] = {
    "get": ("lists the APIs, or describes them", _get),
    "set": ("subscribes, and sets nothing yet", _set),
    "session": ("the session's name", _session),
    "subscribe": ("to the event `disconnected`", _subscribe),
    "unsubscribe": ("from it", _unsubscribe),
    "apis": ("the names of the APIs", _list),
    "trace": ("traces nothing yet", _trace),
    "info": ("describes this API", _info),
}
