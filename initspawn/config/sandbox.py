"""One sandbox of the file becomes one of the plan."""

from __future__ import annotations

import re
from typing import Any

from initspawn.config.bwrap import bubblewrap
from initspawn.config.cgroups import compile_cgroups
from initspawn.config.environment import environment
from initspawn.config.expand import ExpandFault, Names, expand
from initspawn.config.identity import Identity, Person, capability_mask, identify, label_of
from initspawn.config.inside import Unsettled, View
from initspawn.config.landlock import rules
from initspawn.config.mounts import Builder, build_mounts, build_root
from initspawn.config.namespace import Isolation, isolate
from initspawn.config.resources import rlimits, schedule
from initspawn.config.schema import Acls, Sandbox
from initspawn.config.seccomp import compile_filters
from initspawn.config.seccomp.handler import handler_of
from initspawn.config.spot import Spot, shown
from initspawn.config.target import Target
from initspawn.late import is_late
from initspawn.plan import Mount
from initspawn.plan import Sandbox as PlanSandbox

_UMASK = re.compile(r"0?[0-7]{1,3}")
_DEFAULT_UMASK = 0o022


def compile_sandbox(
    sandbox: Sandbox, names: Names, supervisor: Person, spot: Spot
) -> tuple[PlanSandbox, Names, bool]:
    """The plan's sandbox, the names its commands may use, and whether its file tree is complete.

    What is wrong is noted at `spot`; the sandbox is then good for finding more of it, and nothing else.
    """
    # What only follows from a value that was refused is not told.
    readable = spot["namespace"].clean and spot["acls"].clean
    target = names.target
    isolation = isolate(sandbox.namespace, spot["namespace"], privileged=supervisor.user == 0)
    found = _identity(sandbox.acls, spot["acls"], target, supervisor, isolation) if readable else None
    identity = found or Identity(supervisor.user, supervisor.group, (), None)
    names = names.also(SANDBOX_UID=sandbox.uid, SBOXUSER=str(identity.inside.user))
    new_root = _new_root(sandbox)
    mounts = None
    if found or not new_root:
        mounts = _mounts(sandbox, isolation, names, supervisor, identity, spot)
    complete = mounts is not None and spot["namespace"].clean
    own, place = isolation.own_users, spot["caps"]
    given = sandbox.caps if readable else []
    caps, if_held = capability_mask(given, place, target, supervisor=supervisor, own_users=own)
    _check_setuid(sandbox, spot)
    label, label_optional = label_of(sandbox, names, spot)
    view = View(new_root, mounts or (), target.tree) if complete else None
    return (
        PlanSandbox(
            uid=sandbox.uid,
            info=sandbox.info,
            privilege=sandbox.privilege,
            verbose=sandbox.verbose,
            timeout=float(sandbox.acls.timeout or 0),
            environment=environment(sandbox, names, identity, spot),
            user=identity.user,
            group=identity.group,
            groups=identity.groups,
            umask=_umask(sandbox.acls, spot["acls"]),
            directory=_directory(sandbox.acls, names, view, spot["acls"]["chdir"]),
            capabilities=caps,
            if_held=if_held,
            no_new_privileges=not sandbox.allow_setuid,
            namespaces=isolation.namespaces,
            id_map=identity.id_map,
            hostname=isolation.hostname,
            mounts=mounts or (),
            new_root=new_root,
            **_built(sandbox, isolation, label, supervisor.user, target, spot),
            filters=compile_filters(sandbox.seccomp, names, supervisor, caps, spot["seccomp"]),
            handler=handler_of(sandbox.seccomp),
            limits=rlimits(sandbox.limits, spot["limits"], supervisor, late=target.late),
            label=label,
            label_optional=label_optional,
            landlock=rules(sandbox.landlock, names, view, spot["landlock"]),
            scheduling=schedule(sandbox.scheduling, spot["scheduling"], supervisor, late=target.late),
            **compile_cgroups(sandbox.cgroups, target, spot["cgroups"]),
        ),
        names,
        complete,
    )


def _new_root(sandbox: Sandbox) -> bool:
    namespace = sandbox.namespace
    return namespace is not None and not (namespace.mounts is None and namespace.root is None)


def _built(
    sandbox: Sandbox, isolation: Isolation, label: str | None, supervisor: int, target: Target, spot: Spot
) -> dict[str, Any]:
    """How the file tree is made: the plan's fields of `namespace.opts`."""
    if sandbox.namespace is None:
        return {}
    opts, root = sandbox.namespace.opts, sandbox.namespace.root
    if root is not None and opts.writable_root:
        spot["namespace"]["opts"]["writable_root"].refuse(
            "is for a root that is empty", "write `root: {overlay: true}`, or leave it out"
        )
    return {
        "writable_root": opts.writable_root or (root is not None and root.overlay),
        "bwrap": bubblewrap(sandbox, isolation, label, supervisor, target, spot),
    }


def _check_setuid(sandbox: Sandbox, spot: Spot) -> None:
    if sandbox.seccomp and sandbox.allow_setuid:
        spot["allow_setuid"].refuse(
            "does not go together with `seccomp`",
            "a filter may only be loaded where no privileges can be gained",
        )
    if sandbox.landlock and sandbox.allow_setuid:
        spot["allow_setuid"].refuse(
            "does not go together with `landlock`",
            "rules may only be laid on where no privileges can be gained",
        )


def _identity(
    acls: Acls, spot: Spot, target: Target, supervisor: Person, isolation: Isolation
) -> Identity | None:
    """Who runs, or None with the reason noted."""
    if acls.runmod == "admin" and supervisor.user != 0:
        spot["runmod"].refuse("`admin` is for root only", "run initspawn as root, or remove it")
    elif acls.runmod == "user" and supervisor.user == 0:
        spot["runmod"].refuse("`user` is not for root", "run initspawn as an ordinary user, or remove it")
    return identify(
        acls,
        spot,
        target,
        supervisor=supervisor,
        own_users=isolation.own_users,
        disguised=isolation.disguised,
    )


def _mounts(
    sandbox: Sandbox,
    isolation: Isolation,
    names: Names,
    supervisor: Person,
    identity: Identity,
    spot: Spot,
) -> tuple[Mount, ...] | None:
    """The mounts; None if some are not known, because nothing is run or made for a refused file."""
    namespace = sandbox.namespace
    if namespace is None:
        return ()
    if namespace.mounts is None and namespace.root is None:
        # The host's /proc would show the host's processes instead of the sandbox's own.
        return (Mount(operation="proc", target="/proc"),) if "pid" in isolation.namespaces else ()
    builder = Builder(
        supervisor,
        command=Person(identity.user, identity.group),
        namespaces=isolation.namespaces,
        autocreate=namespace.opts.autocreate,
        refused=bool(spot.report.problems),
    )
    root: tuple[Mount, ...] = ()
    if namespace.root is not None:
        found = build_root(namespace.root, names, builder, spot["namespace"]["root"])
        if found is None:
            return None
        root = (found,)
    entries = namespace.mounts or []
    made = build_mounts(entries, names, builder, spot["namespace"]["mounts"], root)
    return made if len(made) == len(entries) + len(root) else None


def _umask(acls: Acls, spot: Spot) -> int:
    if acls.umask is None:
        return _DEFAULT_UMASK
    if not _UMASK.fullmatch(acls.umask):
        spot["umask"].refuse(f"{shown(acls.umask)} is no octal mask", 'such as "027"')
        return _DEFAULT_UMASK
    return int(acls.umask, 8)


def _directory(acls: Acls, names: Names, view: View | None, spot: Spot) -> str:
    """The working directory; whether it is there is looked at where a view is given."""
    if acls.chdir is None:
        return "/"
    try:
        path = expand(acls.chdir, names)
    except ExpandFault as fault:
        spot.refuse(str(fault))
        return "/"
    if is_late(path):
        return path
    if not path.startswith("/"):
        spot.refuse(f"{shown(path)} is not absolute", "begin it with `/`")
    elif view is not None and not _may_be_directory(path, view):
        where = " inside the sandbox" if view.new_root else ""
        spot.refuse(f"{shown(path)} is no directory{where}")
    return path


def _may_be_directory(path: str, view: View) -> bool:
    try:
        return view.is_directory(path)
    except Unsettled:
        return True  # the launch will say
