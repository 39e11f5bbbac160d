"""The environment a sandbox's commands start with."""

from __future__ import annotations

from collections.abc import Iterator

from initspawn import late
from initspawn.config.expand import ExpandFault, Names, expand
from initspawn.config.identity import Identity, home_and_name
from initspawn.config.schema import Sandbox
from initspawn.config.spot import Spot

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LANG = "C.UTF-8"


def environment(
    sandbox: Sandbox, names: Names, identity: Identity, spot: Spot
) -> tuple[tuple[str, str], ...]:
    """All variables, in order; what is wrong is noted at `spot`, the sandbox's.

    A clean environment, or with `envs_from: server` that of whoever compiles, in which HOME and USER are
    the command's own all the same; then `acls.path` and `acls.ldpath`, then the entries of `envs`.
    """
    home, user = home_and_name(identity.inside.user, names.target)
    variables = {"PATH": PATH, "LANG": LANG}
    ahead = sandbox.envs_from == "server" and names.target.late
    if ahead:
        variables[late.SERVER] = ""
    elif sandbox.envs_from == "server":
        variables |= late.inherited(names.environ)
    variables |= {"HOME": home, "USER": user}
    for name, text, place in _settings(sandbox, spot):
        if text is None:
            variables.pop(name, None)
            if ahead:
                variables[name] = late.UNSET
            continue
        try:
            variables[name] = expand(text, names)
        except ExpandFault as fault:
            place.refuse(str(fault))
    return tuple(variables.items())


def _settings(sandbox: Sandbox, spot: Spot) -> Iterator[tuple[str, str | None, Spot]]:
    """Every change in its order: the variable, its text or None to unset it, where that is written."""
    acls, place = sandbox.acls, spot["acls"]
    if acls.path is not None:
        yield "PATH", acls.path, place["path"]
    if acls.ldpath is not None:
        yield "LD_LIBRARY_PATH", acls.ldpath, place["ldpath"]
    for index, entry in enumerate(sandbox.envs):
        place = spot["envs"][index]
        if "=" in entry.name:
            place["name"].refuse("a name holds no `=`", "write the value under `value`")
        elif entry.mode == "unset":
            yield entry.name, None, place
        else:
            yield entry.name, entry.value, place["value"]
