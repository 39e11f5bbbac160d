"""Configuration files become a plan: everything looked up, worked out and checked.

`check` and `serve` both compile, so what passes the one starts with the other.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any

from msgspec import structs

from initspawn.config.actions import check_targets, compile_actions, compile_imports, is_service
from initspawn.config.autostart import resolve
from initspawn.config.check import check
from initspawn.config.command import compile_command
from initspawn.config.devices import USER as WATCHER_USER
from initspawn.config.devices import first_waiting, watcher_config, with_system
from initspawn.config.expand import Names, builtin_names
from initspawn.config.files import files_of
from initspawn.config.guard import check_guard, find_nft, guard_config
from initspawn.config.identity import Person
from initspawn.config.load import load
from initspawn.config.page import page_directory
from initspawn.config.plugins import HOST_LIMITS, HOST_USER, Hosts, Plugins, find_plugins
from initspawn.config.sandbox import compile_sandbox
from initspawn.config.schema import Config, Metadata, Sandbox
from initspawn.config.seccomp.handler import check_handlers
from initspawn.config.spot import Report, Spot, shown
from initspawn.config.target import Target, here
from initspawn.errors import ConfigError, InitspawnError, Problem
from initspawn.plan import Api, Guard, Import, Plan
from initspawn.plan import Command as PlanCommand
from initspawn.plan import Sandbox as PlanSandbox
from initspawn.planfile import source

RESERVED_APIS = ("initspawn", "monitor")
RESERVED_VERBS = ("exec", "info", "ping")

_NOT_IN_API = re.compile(r"[\x00-\x20\x7f\"#%&'/?`@\\]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_VERBS_FROM = ("metadata", "sandboxes")
_NAME_MAX = 255  # bytes of a path component


def compile_files(
    paths: list[str], *, user: int, group: int, environ: Mapping[str, str], target: Target | None = None
) -> Plan:
    """The plan of these files and directories, for a supervisor that runs as `user` and `group`.

    `target`: the machine that it is for, this one if none is given.

    `environ` is where `$NAME` is looked up; only commands of a sandbox that says `envs_from: server` inherit
    it. Raises ConfigError with all problems of all files.
    """
    read: set[tuple[str, int, int]] = set()
    target = (target or here())._replace(read=read)
    paths = files_of(paths)
    problems: list[Problem] = []
    apis: list[Api] = []
    reports: list[Report] = []
    compiled: list[tuple[Config, Report]] = []
    sources: list[tuple[str, int, int]] = []
    hosts = Hosts()
    guard: Guard | None = None
    watcher: Api | None = None
    for path in paths:
        sources += _source(path, target)  # before it is read: if it changes meanwhile, the plan is stale
        try:
            document = load(path)
        except ConfigError as error:
            problems += error.problems
            continue
        report = Report(path, document.positions)
        config = check(document.data, report.root())
        reports.append(report)
        if config is not None:
            compiled.append((config, report))
            apis.append(_api(config, report.root(), Person(user, group), environ, target, hosts))
    _check_together(compiled)
    _check_imports(compiled, apis)
    if user == 0 and hosts.used:
        _keep_apart(compiled, apis, HOST_USER, "the encoder plug-ins run")
    # Where verbs were left out as refused, no action is to seem to call nothing because of that.
    if not problems and all(report.root()[key].clean for report in reports for key in _VERBS_FROM):
        for config, report in compiled:
            check_targets(config, apis, _imports_of(config, apis), report.root())
        apis = resolve(compiled, apis)
        guard = _guard(compiled, apis, Person(user, group), target)
        watcher = _watcher(compiled, apis, Person(user, group), target)
    problems += [problem for report in reports for problem in report.sorted()]
    if problems:
        raise ConfigError(sorted(problems, key=lambda problem: paths.index(problem.file)))
    return Plan(
        user=user,
        group=group,
        apis=tuple(apis),
        machine=target.machine,
        late=target.late,
        sources=tuple(sources),
        further=tuple(sorted(read)),
        hosts=_hosts(hosts, user, group, target),
        guard=guard,
        watcher=watcher,
    )


def _source(path: str, target: Target) -> list[tuple[str, int, int]]:
    """That file as `Plan.sources` has it; nothing of one that cannot be read: whoever reads it says why."""
    try:
        return [source(path, target.tree.name(path) or os.path.realpath(path))]
    except (OSError, ValueError):
        return []


def compile_raw(
    raw: Mapping[str, Any],
    *,
    file: str,
    user: int,
    group: int,
    environ: Mapping[str, str],
    hidden: bool = False,
    target: Target | None = None,
) -> Api:
    """The API of data that is in memory already; `file` is what messages call it.

    `hidden`: one of the supervisor's own, which may use a reserved name. `target`: as of
    `compile_files`. Raises ConfigError.
    """
    report = Report(file, {})
    config = check(dict(raw), report.root())
    api = None
    if config:
        person = Person(user, group)
        api = _api(config, report.root(), person, environ, target or here(), Hosts(), hidden=hidden)
    if config and api and all(report.root()[key].clean for key in _VERBS_FROM):
        check_targets(config, [api], api.imports, report.root())
        [api] = resolve([(config, report)], [api])
    if api is None or report.problems:
        raise ConfigError(report.sorted())
    return api


def _imports_of(config: Config, apis: list[Api]) -> tuple[Import, ...]:
    return next((api.imports for api in apis if api.api == config.metadata.api), ())


def _check_imports(compiled: list[tuple[Config, Report]], apis: list[Api]) -> None:
    """An imported API is no other file's, and the same in all files."""
    own = {api.api for api in apis}
    paths: dict[str, str] = {}
    for config, report in compiled:
        spot = report.root()["metadata"]["require"]
        for wanted in _imports_of(config, apis):
            other = "call it otherwise: ?as-api=NAME"
            if wanted.api in own:
                spot.refuse(f"API `{wanted.api}` is made by a file given too", other)
            elif paths.setdefault(wanted.api, wanted.path) != wanted.path:
                spot.refuse(f"another file imports `{wanted.api}` from elsewhere", other)


def _check_together(compiled: list[tuple[Config, Report]]) -> None:
    """What the files must agree on: every API once, and all that is required."""
    first: dict[str, str] = {}
    for config, report in compiled:
        api = config.metadata.api
        if api in first:
            report.root()["metadata"]["api"].refuse(f"API `{api}` is made by {first[api]} already")
        first.setdefault(api, report.file)
    for config, report in compiled:
        spot = report.root()["metadata"]["require"]
        for index, names in enumerate(config.metadata.require):
            for name in names.split():
                if name not in first and not is_service(name):
                    spot[index].refuse(f"API {shown(name)} is required, and no file makes it")


def _api(
    config: Config,
    spot: Spot,
    supervisor: Person,
    environ: Mapping[str, str],
    target: Target,
    hosts: Hosts,
    *,
    hidden: bool = False,
) -> Api:
    """One file's API. What is wrong is noted at `spot`."""
    metadata = config.metadata
    _check_api_name(metadata.api, spot["metadata"]["api"], hidden=hidden)
    names = builtin_names(
        environ, api=metadata.api, user=supervisor.user, group=supervisor.group, target=target
    ).also(AFB_CONFIG=_settings(metadata))
    plugins = Plugins(find_plugins(config.plugins, names, spot["plugins"]), hosts)
    sandboxes: list[PlanSandbox] = []
    commands: list[PlanCommand] = []
    verbs = dict.fromkeys(RESERVED_VERBS, "")
    uids: set[str] = set()
    for index, sandbox in enumerate(config.sandboxes):
        place = spot["sandboxes"][index]
        _check_uid(sandbox.uid, place["uid"])
        if sandbox.uid in uids:
            place["uid"].refuse(f"another sandbox is called `{sandbox.uid}` already")
        uids.add(sandbox.uid)
        # Where a sandbox was left out as refused, no verb is to seem taken because of that.
        prefix = _prefix(sandbox, place, alone=len(config.sandboxes) == 1 and spot["sandboxes"].clean)
        made, found = _compile_one(sandbox, names, plugins, supervisor, place, prefix, verbs)
        sandboxes.append(made)
        commands += found
    check_handlers(sandboxes, commands, spot["sandboxes"])
    return Api(
        uid=metadata.uid,
        api=metadata.api,
        info=metadata.info,
        version=metadata.version,
        author=metadata.author,
        page=page_directory(metadata.page, names, spot["metadata"]["page"]),
        hidden=hidden,
        sandboxes=tuple(sandboxes),
        commands=tuple(commands),
        **compile_actions(config, spot, verbs),
        imports=compile_imports(config, spot["metadata"]["require"], RESERVED_APIS),
    )


def _settings(metadata: Metadata) -> str:
    """What a binder would call the API's settings: its metadata, as JSON."""
    given = {name: value for name, value in structs.asdict(metadata).items() if value}
    return json.dumps(given, ensure_ascii=False)


def _keep_apart(compiled: list[tuple[Config, Report]], apis: list[Api], user: str, who: str) -> None:
    """What runs as the user of the plug-in hosts, or of the watcher, could look into them."""
    for (_, report), api in zip(compiled, apis, strict=True):
        for index, sandbox in enumerate(api.sandboxes):
            if str(sandbox.user) == user:
                message = f"{who} as user {user}, and nobody else may"
                report.root()["sandboxes"][index]["acls"]["user"].refuse(message, "take another number")


def _hosts(hosts: Hosts, user: int, group: int, target: Target) -> Api | None:
    """The API that runs the plug-ins of a plan."""
    config = hosts.config(user=user, tree=target.tree)
    if config is None:
        return None
    made = compile_raw(
        config, file="the sandboxes of encoder plug-ins", user=user, group=group, environ={}, hidden=True,
        target=target._replace(late=False),
    )  # fmt: skip
    return made.replace(sandboxes=tuple(box.replace(limits=HOST_LIMITS) for box in made.sandboxes))


def _guard(
    compiled: list[tuple[Config, Report]], apis: list[Api], supervisor: Person, target: Target
) -> Guard | None:
    """Who may talk at first, if any file says so. What is wrong is noted there."""
    commands = {f"{api.api}/{command.verb}": command for api in apis for command in api.commands}
    made: Guard | None = None
    for config, report in compiled:
        spot = report.root()["guard"]
        if config.guard is None:
            continue
        if made is not None:
            spot.refuse("another file has a guard already", "keep one")
            continue
        wanted = check_guard(config.guard, config.metadata.api, commands, supervisor.user, spot)
        nft = find_nft(target, spot) if wanted is not None else None
        if wanted is not None and nft is not None:
            api = compile_raw(
                guard_config(nft, wanted.close), file="the sandbox of nft", user=supervisor.user,
                group=supervisor.group, environ={}, hidden=True, target=target._replace(late=False),
            )  # fmt: skip
            made = Guard(until=wanted.until, api=api, open_on_failure=wanted.open_on_failure)
    return made


def _watcher(
    compiled: list[tuple[Config, Report]], apis: list[Api], supervisor: Person, target: Target
) -> Api | None:
    """What follows the devices that commands wait for, if any does."""
    try:
        config = watcher_config(apis, supervisor.user, target)
    except InitspawnError as error:
        compiled[first_waiting(apis)][1].root()["sandboxes"].refuse(str(error))
        return None
    if config is None:
        return None
    if supervisor.user == 0:
        _keep_apart(compiled, apis, WATCHER_USER, "what follows devices runs")
    made = compile_raw(
        config, file="the sandboxes of the watcher", user=supervisor.user, group=supervisor.group, environ={},
        hidden=True, target=target._replace(late=False),
    )  # fmt: skip
    return with_system(made, supervisor.user)


def _compile_one(
    sandbox: Sandbox,
    names: Names,
    plugins: Plugins,
    supervisor: Person,
    spot: Spot,
    prefix: str,
    verbs: dict[str, str],
) -> tuple[PlanSandbox, list[PlanCommand]]:
    """A sandbox with its commands; `verbs` holds the names taken so far, with who took them."""
    made, names, complete = compile_sandbox(sandbox, names, supervisor, spot)
    commands: list[PlanCommand] = []
    for index, command in enumerate(sandbox.commands):
        place = spot["commands"][index]
        _check_uid(command.uid, place["uid"])
        verb = f"{prefix}/{command.uid}" if prefix else command.uid
        if verb in verbs:
            owner = verbs[verb]
            taken = f"is taken by a command of sandbox `{owner}`" if owner else "is initspawn's own"
            hint = "give it another `uid`, or the sandbox a `prefix`"
            place["uid"].refuse(f"the verb `{verb}` {taken}", hint)
        verbs[verb] = sandbox.uid
        commands.append(
            compile_command(command, sandbox, made, names, plugins, place, verb=verb, look=complete)
        )
    return made.replace(prefix=prefix), commands


def _prefix(sandbox: Sandbox, spot: Spot, *, alone: bool) -> str:
    """What comes before the command's name in its verb; empty: nothing."""
    if sandbox.prefix is None:
        return "" if alone else sandbox.uid
    if sandbox.prefix:
        for name in sandbox.prefix.split("/"):
            _check_uid(name, spot["prefix"])
    return sandbox.prefix


def _check_api_name(api: str, spot: Spot, *, hidden: bool) -> None:
    found = _NOT_IN_API.search(api)
    if found:
        spot.refuse(f"an API name may not hold {shown(found.group())}", "use letters, digits, `-` and `_`")
    elif api in RESERVED_APIS and not hidden:
        spot.refuse(f"`{api}` is initspawn's own API", "choose another name")


def _check_uid(uid: str, spot: Spot) -> None:
    """Names become parts of verbs, task ids and paths: each must be one plain path component."""
    if uid in ("", ".", "..") or "/" in uid or _CONTROL.search(uid) or len(uid.encode()) > _NAME_MAX:
        spot.refuse(f"{shown(uid)} cannot be a name", "no path or control characters; `prefix` may be a path")
