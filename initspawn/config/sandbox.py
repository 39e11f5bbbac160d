"""One sandbox of the file becomes one of the plan."""

from __future__ import annotations

import re
import resource

from initspawn.config.expand import ExpandFault, Names, expand
from initspawn.config.identity import Identity, Person, capability_mask, home_and_name, identify
from initspawn.config.inside import View
from initspawn.config.mounts import Builder, build_mounts
from initspawn.config.namespace import Isolation, isolate
from initspawn.config.schema import Acls, Env, Sandbox
from initspawn.config.seccomp import compile_filters
from initspawn.config.spot import Spot, shown
from initspawn.plan import Mount
from initspawn.plan import Sandbox as PlanSandbox

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LANG = "C.UTF-8"

_UMASK = re.compile(r"0?[0-7]{1,3}")
_DEFAULT_UMASK = 0o022
# A core file would carry the command's memory out of the sandbox.
_LIMITS = ((resource.RLIMIT_CORE, 0, 0),)


def compile_sandbox(
    sandbox: Sandbox, names: Names, supervisor: Person, spot: Spot
) -> tuple[PlanSandbox, Names]:
    """The plan's sandbox, and the names its commands may use. What is wrong is noted at `spot`.

    With problems noted, the sandbox is good for finding more of them and nothing else.
    """
    isolation = isolate(sandbox.namespace, spot["namespace"], privileged=supervisor.user == 0)
    found = identify(
        sandbox.acls,
        spot["acls"],
        supervisor=supervisor,
        own_users=isolation.own_users,
        disguised=isolation.disguised,
    )
    identity = found or Identity(supervisor.user, supervisor.group, (), None)
    names = names.also(SANDBOX_UID=sandbox.uid, SBOXUSER=str(identity.inside.user))
    mounts = _mounts(sandbox, isolation, names, supervisor, identity, spot) if found else ()
    new_root = sandbox.namespace is not None and sandbox.namespace.mounts is not None
    caps = capability_mask(sandbox.caps, spot["caps"], supervisor=supervisor, own_users=isolation.own_users)
    if sandbox.seccomp and sandbox.allow_setuid:
        spot["allow_setuid"].refuse(
            "does not go together with `seccomp`",
            "a filter may only be loaded where no privileges can be gained",
        )
    return PlanSandbox(
        uid=sandbox.uid,
        info=sandbox.info,
        privilege=sandbox.privilege,
        verbose=sandbox.verbose,
        environment=_environment(sandbox.envs, names, identity, spot["envs"]),
        user=identity.user,
        group=identity.group,
        groups=identity.groups,
        umask=_umask(sandbox.acls, spot["acls"]),
        directory=_directory(sandbox.acls, View(new_root, mounts), spot["acls"]) if found else "/",
        capabilities=caps,
        no_new_privileges=not sandbox.allow_setuid,
        namespaces=isolation.namespaces,
        id_map=identity.id_map,
        hostname=isolation.hostname,
        new_root=new_root,
        mounts=mounts,
        filters=compile_filters(sandbox.seccomp, spot["seccomp"]) if sandbox.seccomp else (),
        limits=_LIMITS,
    ), names


def _mounts(
    sandbox: Sandbox,
    isolation: Isolation,
    names: Names,
    supervisor: Person,
    identity: Identity,
    spot: Spot,
) -> tuple[Mount, ...]:
    namespace = sandbox.namespace
    if namespace is None:
        return ()
    if namespace.mounts is None:
        # The host's /proc would show the host's processes instead of the sandbox's own.
        return (Mount(operation="proc", target="/proc"),) if "pid" in isolation.namespaces else ()
    builder = Builder(
        supervisor,
        command=Person(identity.user, identity.group),
        namespaces=isolation.namespaces,
        autocreate=namespace.opts.autocreate,
    )
    return build_mounts(namespace.mounts, names, builder, spot["namespace"]["mounts"])


def _environment(
    envs: list[Env], names: Names, identity: Identity, spot: Spot
) -> tuple[tuple[str, str], ...]:
    """A clean environment, changed by the entries in their order; nothing is inherited."""
    home, user = home_and_name(identity.inside.user)
    variables = {"PATH": PATH, "LANG": LANG, "HOME": home, "USER": user}
    for index, entry in enumerate(envs):
        place = spot[index]
        if "=" in entry.name:
            place["name"].refuse("a name holds no `=`", "write the value under `value`")
        elif entry.mode == "unset":
            variables.pop(entry.name, None)
        else:
            try:
                variables[entry.name] = expand(entry.value, names)
            except ExpandFault as fault:
                place["value"].refuse(str(fault))
    return tuple(variables.items())


def _umask(acls: Acls, spot: Spot) -> int:
    if acls.umask is None:
        return _DEFAULT_UMASK
    if not _UMASK.fullmatch(acls.umask):
        spot["umask"].refuse(f"{shown(acls.umask)} is no octal mask", 'such as "027"')
        return _DEFAULT_UMASK
    return int(acls.umask, 8)


def _directory(acls: Acls, view: View, spot: Spot) -> str:
    path = acls.chdir
    if path is None:
        return "/"
    if not path.startswith("/"):
        spot["chdir"].refuse(f"{shown(path)} is not absolute", "begin it with `/`")
    elif not view.is_directory(path):
        where = " inside the sandbox" if view.new_root else ""
        spot["chdir"].refuse(f"{shown(path)} is no directory{where}")
    return path
