"""Finding a command by what a person calls it."""

from __future__ import annotations

from difflib import get_close_matches

from initspawn.errors import RequestError
from initspawn.plan import Action, Api, Command, Plan


def pick(plan: Plan, name: str) -> tuple[Api, Command]:
    """The command of that verb; `name` is `api/verb`, or the verb alone where only one API has it.

    Raises RequestError(unknown-verb), its info says which verbs there are.
    """
    every = [(api, command) for api in plan.apis for command in api.commands]
    full = {f"{api.api}/{command.verb}": (api, command) for api, command in every}
    if name in full:
        return full[name]
    found = [(api, command) for api, command in every if command.verb == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise RequestError("unknown-verb", f"several APIs have `{name}`; write API/VERB")
    close = get_close_matches(name, [*full, *(command.verb for _, command in every)], 1)
    hint = f"did you mean `{close[0]}`?" if close else f"there are {', '.join(full) or 'none'}"
    raise RequestError("unknown-verb", f"no verb `{name}`; {hint}")


def pick_extra(plan: Plan, name: str) -> tuple[str, Action] | None:
    """The `extra` verb of that name, written in full, where no command has it; names as `pick` takes them."""
    found = {
        f"{api.api}/{extra.uid}": extra
        for api in plan.apis
        for extra in api.extra
        if name in (f"{api.api}/{extra.uid}", extra.uid)
    }
    taken = any(name == command.verb for api in plan.apis for command in api.commands)
    return next(iter(found.items())) if len(found) == 1 and not taken else None
