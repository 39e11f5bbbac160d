"""What a file wants called without a caller: `onload` and `onstart`, `events`, and `extra` verbs."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from initspawn.config.schema import Action, Config
from initspawn.config.spot import Spot, nearest, shown
from initspawn.event import named_by
from initspawn.plan import Action as PlanAction
from initspawn.plan import Api, Import

CALLABLE = ("ping", "info")  # what every API has besides its commands, and an action may call

_URI = re.compile(r"api://(?P<api>[^/#]+)#(?P<verb>.+)")
_FORM = "write api://API#VERB"
_AS_COMMAND = "make it a command of its own, and call that with api://API#VERB"
_REFUSED = {
    "lua": "initspawn runs no script within itself",
    "plugin": "initspawn loads no code into itself",
}
_LONGEST_VERB = 255
_UNIX, _AS_API, _PATH_BYTES = "unix:", "as-api=", 107  # sun_path has 108 bytes, one of them a NUL (unix(7))
_GONE = "monitor/disconnected"
_QUERY_ACTIONS = ("start", "stop", "subscribe", "unsubscribe")


def compile_actions(config: Config, spot: Spot, taken: Mapping[str, str]) -> dict[str, Any]:
    """The plan's actions by the fields of an API; `taken` are the verbs that an `extra` cannot be called.

    What is wrong within them is noted at `spot`, but not yet whether there is what they call.
    """
    lists = {name: _list(getattr(config, name), spot[name]) for name in ("onload", "onstart", "events")}
    names = set(taken)
    for index, action in enumerate(config.extra):
        _check_verb(action.uid, names, spot["extra"][index]["uid"])
        names.add(action.uid)
    for name in lists:
        for index, action in enumerate(getattr(config, name)):
            if action.privileges is not None:
                place = spot[name][index]["privileges"]
                place.refuse("nobody calls this who could hold it", "it belongs to `extra` verbs")
    return {
        "onload": (*lists["onload"], *lists["onstart"]),
        "events": lists["events"],
        "extra": _list(config.extra, spot["extra"]),
    }


def compile_imports(config: Config, spot: Spot, reserved: Collection[str]) -> tuple[Import, ...]:
    """The services among what is required; what is wrong with one is noted at `spot`, the keys' place."""
    found: dict[str, Import] = {}
    for index, names in enumerate(config.metadata.require):
        for name in names.split():
            if not is_service(name):
                continue
            path, asked, query = name.removeprefix(_UNIX).partition("?")
            api = query.removeprefix(_AS_API) if asked else path.lstrip("@").split("/")[-1]
            unix = name.startswith((f"{_UNIX}/", f"{_UNIX}@"))
            if not unix or not api or (asked and not query.startswith(_AS_API)):
                hint = "write unix:/PATH/API or unix:@NAME?as-api=API"
                spot[index].refuse(f"{shown(name)} is no service", hint)
            elif len(path.encode()) > _PATH_BYTES:
                spot[index].refuse(f"{shown(path)} is too long for a socket: at most {_PATH_BYTES} bytes")
            elif api in found or api == config.metadata.api or api in reserved:
                spot[index].refuse(f"API {shown(api)} is there already", f"call it otherwise: {_AS_API}NAME")
            else:
                found[api] = Import(api=api, path="\0" + path[1:] if path.startswith("@") else path)
    return tuple(found.values())


def is_service(name: str) -> bool:
    """Whether what is required is another server's API, by its socket."""
    return "/" in name or "@" in name  # which no name of an API can hold


def check_targets(config: Config, apis: Collection[Api], imports: Collection[Import], spot: Spot) -> None:
    """Note at `spot` every action that calls, or waits for, what none of these APIs has; what the imported
    ones have is not known.
    """
    foreign = {imported.api for imported in imports}
    verbs = {api.api: {*(command.verb for command in api.commands), *CALLABLE} for api in apis}
    extra = {(api.api, action.uid) for api in apis for action in api.extra}
    events = {f"{api.api}/{command.verb}" for api in apis for command in api.commands}
    for name in ("onload", "onstart", "events", "extra"):
        for index, action in enumerate(getattr(config, name)):
            found = _URI.fullmatch(action.action)
            if found is None:
                continue  # told already
            place = spot[name][index]["action"]
            api, verb = found["api"], found["verb"]
            if api in foreign:
                continue
            if api not in verbs:
                reason = "is made by no file given, nor imported by this one (`metadata.require`)"
                place.refuse(f"API {shown(api)} {reason}", nearest(api, {*verbs, *foreign}))
            elif verb in verbs[api]:
                continue
            elif (api, verb) in extra:
                place.refuse(f"{shown(verb)} is an `extra` verb itself", "call what that one calls")
            else:
                place.refuse(f"API {shown(api)} has no verb {shown(verb)}", nearest(verb, verbs[api]))
    for index, action in enumerate(config.events):
        if foreign and _may_be_foreign(action.uid, foreign):
            continue
        if action.uid not in events and not any(named_by(action.uid, event) for event in events):
            hint = nearest(action.uid, events) or "an event has the name of its command: API/VERB"
            spot["events"][index]["uid"].refuse(f"no event is called {shown(action.uid)}", hint)


def _may_be_foreign(uid: str, foreign: Collection[str]) -> bool:
    """Whether an imported API may have events of that name, or it is that of its end."""
    pattern = uid.partition("/")[0] if "/" in uid else uid
    return uid == _GONE or any(named_by(pattern, name) for name in foreign)


def _list(actions: list[Action], spot: Spot) -> tuple[PlanAction, ...]:
    return tuple(_action(action, spot[index]) for index, action in enumerate(actions))


def _action(action: Action, spot: Spot) -> PlanAction:
    found = _URI.fullmatch(action.action)
    scheme = action.action.partition("://")[0]
    if scheme in _REFUSED:
        spot["action"].refuse(f"`{scheme}://` is not done: {_REFUSED[scheme]}", _AS_COMMAND)
    elif not found:
        spot["action"].refuse(f"{shown(action.action)} is no action", _FORM)
    wanted = action.args.get("action") if isinstance(action.args, dict) else None
    if isinstance(wanted, str) and wanted.lower() not in _QUERY_ACTIONS:
        spot["args"]["action"].refuse(f"no action {shown(wanted)}", nearest(wanted, _QUERY_ACTIONS))
    return PlanAction(
        uid=action.uid,
        api=found["api"] if found else "",
        verb=found["verb"] if found else "",
        query=action.args,
        privilege=action.privileges,
    )


def _check_verb(uid: str, taken: Collection[str], spot: Spot) -> None:
    if uid in taken:
        spot.refuse(f"the verb `{uid}` is taken", "give it another `uid`")
    elif uid.startswith("/") or not uid.isprintable() or len(uid.encode()) > _LONGEST_VERB:
        spot.refuse(f"{shown(uid)} cannot be a verb", "a verb does not begin with `/` and is printable")
