"""`autostart` of commands: what each says, then whether all of them together can be started in an order."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from initspawn.config.autostart_schema import Autostart, Conditions, Policy, Restart
from initspawn.config.devices import check_devices
from initspawn.config.order import circles
from initspawn.config.schema import Config
from initspawn.config.spot import Report, Spot, nearest, shown
from initspawn.errors import RequestError
from initspawn.linux.landlock import SCOPES
from initspawn.plan import (
    ADDRESS,
    ALWAYS,
    BOOT,
    EARLY,
    EXITED,
    LINK,
    NEVER,
    NOTIFY,
    NOTIFY_PATH,
    ROUTE,
    STAGES,
    STARTED,
    SYSTEM,
    Api,
    Command,
    Sandbox,
    notifies,
)
from initspawn.plan import Autostart as PlanAutostart
from initspawn.plan import Restart as PlanRestart
from initspawn.sandbox.bind import bind

RELATIONS = ("after", "requires", "wants")
_PULLING = ("requires", "wants")
_LINK_NAME = re.compile(r"\*|(?!\.\.?$)[^\s/:!*]{1,15}")  # as the kernel takes them, IFNAMSIZ
_READY_SECONDS = 90  # for getting ready, where the file says nothing
_SHOWN = 12  # names of a circle that a message repeats


def compile_autostart(given: Autostart | None, sandbox: Sandbox, spot: Spot) -> PlanAutostart | None:
    """The plan's, with other commands named as the file does, for a command in that sandbox. What is wrong is
    noted at `spot`.
    """
    if given is None:
        return None
    handover = given.before is not None
    if given.start_timeout and given.ready == STARTED and not handover:
        spot["start_timeout"].refuse(
            "it is ready as soon as it runs", "say when it is with `ready`, or leave it out"
        )
    _check_handover(given, spot)
    if given.watchdog and given.ready == EXITED:
        spot["watchdog"].refuse("it is ready when it has ended", "write `ready: notify` or `started`")
    timeout = given.start_timeout
    if timeout is None and (given.ready == NOTIFY or handover):
        timeout = _READY_SECONDS
    conditions = given.conditions
    _check_conditions(conditions, spot["conditions"])
    made = PlanAutostart(
        stage=given.stage or (EARLY if handover else SYSTEM),
        after=tuple(given.after),
        requires=tuple(given.requires),
        wants=tuple(given.wants),
        arguments=given.args,
        words=tuple(conditions.kernel_command_line),
        paths=tuple(conditions.path),
        network=tuple(_network(conditions, spot["conditions"])),
        devices=tuple(tuple(device.items()) for device in conditions.udev),
        results=tuple((entry.command, entry.result == "success") for entry in conditions.task),
        skip=conditions.otherwise == "skip",
        ready=given.ready,
        start_timeout=float(timeout or 0),
        watchdog=float(given.watchdog or 0),
        stop_timeout=float(given.stop_timeout),
        restart=_restart(given.restart, given.ready, spot["restart"]),
        handover=handover,
        on_timeout=given.on_timeout or BOOT,
        on_failure=given.on_failure or BOOT,
    )
    if notifies(made):
        _check_socket(sandbox, spot["watchdog" if given.watchdog else "ready"])
    return made


def _check_handover(given: Autostart, spot: Spot) -> None:
    if given.before is None:
        for key in ("on_timeout", "on_failure"):
            if getattr(given, key) is not None:
                spot[key].refuse("the boot does not wait for it", "write `before: handover` too")
    elif given.stage not in (None, EARLY):
        spot["stage"].refuse(
            f"the real init would wait for it, and stage `{given.stage}` for the real init",
            "write `stage: early`, or leave it out",
        )
    elif given.start_timeout == 0 and given.on_timeout is not None:
        spot["on_timeout"].refuse("without a `start_timeout` it is never too late", "give it one")


def _check_socket(sandbox: Sandbox, spot: Spot) -> None:
    """Whether a command in that sandbox will reach the socket for its messages."""
    scopes = sandbox.landlock.scopes if sandbox.landlock is not None else 0
    hint = "give its sandbox a file tree of its own (`namespace.mounts`)"
    if any(entry.target == NOTIFY_PATH for entry in sandbox.mounts):
        spot.refuse(f"its socket is {NOTIFY_PATH}, and so is a mount of its sandbox", "mount that elsewhere")
    elif not sandbox.new_root and "net" in sandbox.namespaces:
        spot.refuse("its socket is in the network that its sandbox does not share", f"{hint}, or share it")
    elif not sandbox.new_root and scopes & SCOPES["abstract-sockets"]:
        spot.refuse("its socket is abstract, and `landlock.scope` shuts those out", f"{hint}, or let it")


def _check_conditions(conditions: Conditions, spot: Spot) -> None:
    check_devices(conditions.udev, spot["udev"])
    for index, path in enumerate(conditions.path):
        if not path.removeprefix("!").startswith("/"):
            spot["path"][index].refuse(
                f"{shown(path)} is not absolute", "write the full path, or `!` and the path"
            )
    for index, word in enumerate(conditions.kernel_command_line):
        if not word.removeprefix("!") or any(character.isspace() for character in word):
            spot["kernel_command_line"][index].refuse(
                f"{shown(word)} is no word of a command line",
                "write NAME or NAME=VALUE, or `!` and one of them",
            )


def _network(conditions: Conditions, spot: Spot) -> Iterator[tuple[str, str]]:
    """What links must have, each with the link's name."""
    for what in (LINK, ADDRESS, ROUTE):
        for index, name in enumerate(getattr(conditions, what)):
            if not _LINK_NAME.fullmatch(name.removeprefix("!")):
                spot[what][index].refuse(f"{shown(name)} is no link's name", "write one such as eth0, or `*`")
            yield what, name


def _restart(given: Policy | Restart, ready: str, spot: Spot) -> PlanRestart | None:
    whole = given if isinstance(given, Restart) else Restart(policy=given)
    if whole.policy == ALWAYS and ready == EXITED:
        spot.refuse("it is ready when it has ended, and would always be started again", "write on-failure")
    if whole.longest < whole.pause:
        spot["longest"].refuse(f"is less than the first pause, {whole.pause:g} s", "make it at least as long")
    if whole.policy == NEVER:
        return None
    return PlanRestart(
        policy=whole.policy,
        pause=whole.pause,
        longest=whole.longest,
        jitter=whole.jitter / 100,
        ran_well=whole.ran_well,
        tries=whole.tries or 0,
        permanent=tuple(whole.permanent),
    )


class _Named(NamedTuple):
    """One command naming another: by what it is named in full, and where the file says so."""

    name: str
    relation: str
    spot: Spot


def resolve(compiled: Sequence[tuple[Config, Report]], apis: Sequence[Api]) -> list[Api]:
    """The APIs with all names in full, and with those commands started that others pull in.

    What is wrong, circles included, is noted where the file says it.
    """
    commands = {f"{api.api}/{command.verb}": command for api in apis for command in api.commands}
    named: dict[str, list[_Named]] = {}
    for (config, report), api in zip(compiled, apis, strict=True):
        for command, spot in _with_spots(config, api, report.root()):
            if command.autostart is not None:
                _check_arguments(command, command.autostart, spot["args"])
                found = _all_named(api.api, command.autostart, commands, spot)
                named[f"{api.api}/{command.verb}"] = list(found)
    starts = {name: command.autostart for name, command in commands.items() if command.autostart is not None}
    starts |= _pulled(commands, named, starts)
    _check_order(starts, named)
    return [
        api.replace(
            commands=tuple(
                _resolved(command, f"{api.api}/{command.verb}", starts, named) for command in api.commands
            )
        )
        for api in apis
    ]


def _with_spots(config: Config, api: Api, root: Spot) -> Iterator[tuple[Command, Spot]]:
    """An API's commands, which are in the file's order, each with the place of its `autostart`."""
    commands = iter(api.commands)
    for index, sandbox in enumerate(config.sandboxes):
        for number in range(len(sandbox.commands)):
            yield next(commands), root["sandboxes"][index]["commands"][number]["autostart"]


def _all_named(api: str, start: PlanAutostart, commands: dict[str, Command], spot: Spot) -> Iterator[_Named]:
    """All that a command names, but for names of nobody, which are noted."""
    written = [
        (relation, name, spot[relation][index])
        for relation in RELATIONS
        for index, name in enumerate(getattr(start, relation))
    ]
    results = spot["conditions"]["task"]
    written += [("task", name, results[index]["command"]) for index, (name, _) in enumerate(start.results)]
    for relation, name, place in written:
        full = _full(api, name, commands)
        if full in commands:
            yield _Named(full, relation, place)
        else:
            own = [verb.removeprefix(f"{api}/") for verb in commands if verb.startswith(f"{api}/")]
            place.refuse(f"there is no command {shown(name)}", nearest(name, [*own, *commands]))


def _full(api: str, name: str, commands: dict[str, Command]) -> str:
    """A verb of the same file comes before another file's."""
    return f"{api}/{name}" if f"{api}/{name}" in commands else name


def _pulled(
    commands: dict[str, Command], named: dict[str, list[_Named]], starts: dict[str, PlanAutostart]
) -> dict[str, PlanAutostart]:
    """Those that start only because others require or want them: as early as the first of these."""
    pulled: dict[str, PlanAutostart] = {}
    for name, entries in named.items():
        for entry in entries:
            if entry.name in starts or entry.relation not in _PULLING:
                continue
            stages = [starts[name].stage, *([pulled[entry.name].stage] if entry.name in pulled else [])]
            pulled[entry.name] = PlanAutostart(stage=min(stages, key=STAGES.index))
            _check_arguments(commands[entry.name], pulled[entry.name], entry.spot)
    return pulled


def _check_arguments(command: Command, start: PlanAutostart, spot: Spot) -> None:
    """Fill the templates as a start will, but for what only the running machine knows."""
    known = command.replace(
        path=command.path.replace("\0", ""),
        arguments=tuple(
            tuple((kind, text.replace("\0", "")) for kind, text in parts) for parts in command.arguments
        ),
    )
    try:
        bind(known, start.arguments)
    except RequestError as error:
        spot.refuse(f"`{command.verb}` cannot be started so: {error.info}", "write `args` in its `autostart`")


def _check_order(starts: dict[str, PlanAutostart], named: dict[str, list[_Named]]) -> None:
    """Note names of what nobody starts, orders against the stages, and circles."""
    graph: dict[str, list[str]] = {name: [] for name in starts}
    spots: dict[tuple[str, str], Spot] = {}
    for name, entries in named.items():
        for entry in entries:
            if entry.name not in starts:
                hint = "give it an `autostart`, or name it in `wants`"
                entry.spot.refuse(f"nothing starts `{entry.name}`", hint)
                continue
            mine, its = starts[name].stage, starts[entry.name].stage
            if STAGES.index(its) > STAGES.index(mine):
                entry.spot.refuse(
                    f"`{name}` is of stage `{mine}` and would wait for `{entry.name}`, of stage `{its}`",
                    f"write `stage: {its}` here, or an earlier stage there",
                )
            graph[name].append(entry.name)
            spots.setdefault((name, entry.name), entry.spot)
    for circle in circles(graph):
        spots[circle[0], circle[1 % len(circle)]].refuse(_told(circle), "take one of them out")


def _told(circle: list[str]) -> str:
    if len(circle) == 1:
        return f"`{circle[0]}` would wait for itself"
    names = [*circle, circle[0]]
    if len(names) > _SHOWN:
        left = len(names) - _SHOWN
        names = [*names[: _SHOWN // 2], f"({left} more)", *names[-_SHOWN // 2 :]]
    return f"these would wait for one another: {' -> '.join(names)}"


def _resolved(
    command: Command, name: str, starts: dict[str, PlanAutostart], named: dict[str, list[_Named]]
) -> Command:
    start = starts.get(name)
    if start is None:
        return command
    names = {relation: [] for relation in (*RELATIONS, "task")}  # type: dict[str, list[str]]
    for entry in named.get(name, ()):
        names[entry.relation].append(entry.name)
    if len(names["task"]) == len(start.results):  # else one of them was refused
        results = tuple((full, good) for full, (_, good) in zip(names["task"], start.results, strict=True))
        start = start.replace(results=results)
    return command.replace(
        autostart=start.replace(**{relation: tuple(names[relation]) for relation in RELATIONS})
    )
