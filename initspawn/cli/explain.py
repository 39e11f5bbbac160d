"""`initspawn explain`: what a verb runs, as whom, and how it is confined, from the compiled plan."""

from __future__ import annotations

import argparse
import base64
import json
import shlex
import sys
from typing import Any

from initspawn.cli.arguments import parse_arguments
from initspawn.cli.boot_order import show_boot
from initspawn.cli.boot_times import show_times
from initspawn.cli.compiled import FILES, add_user_option, compile_for, user_name
from initspawn.cli.connect import add_place, connect, path_of, token_of
from initspawn.cli.exits import UsageError
from initspawn.cli.output import show_json, write_line
from initspawn.cli.pick import pick, pick_extra
from initspawn.errors import RequestError
from initspawn.linux.capabilities import names
from initspawn.plan import OPTIONAL, REQUIRED, TEXT, Action, Api, Command, Plan, Sandbox
from initspawn.sandbox.bind import bind
from initspawn.sandbox.calls import calls
from initspawn.sandbox.describe import MEASURED, endings, gaps, mounts, steps
from initspawn.sandbox.equivalent import Equivalent, equivalent
from initspawn.sandbox.measure import Baseline
from initspawn.sandbox.recipe import environment
from initspawn.verbs.query import START, blend

HELP = "say what a verb runs, as whom, how it is confined, and what is not"
EXAMPLES = """\
examples:
  initspawn explain configs/demo.yaml box/env
  initspawn explain configs/demo.yaml demo/host/ls dir=/etc --calls
  initspawn explain --user root configs/demo.yaml box/env --json
  initspawn explain configs/autostart.yaml --boot
  initspawn explain --boot
"""
_PATIENCE_SECONDS = 10.0
_MARKS = {TEXT: "{}", REQUIRED: "%{}%", OPTIONAL: "?{}?"}


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `explain`."""
    parser.epilog = EXAMPLES
    parser.add_argument("file", metavar="FILE", nargs="?", help=FILES)
    parser.add_argument(
        "verb", metavar="VERB", nargs="?", help="api/verb, or the verb where only one has that name"
    )
    parser.add_argument(
        "--boot", action="store_true",
        help="instead of a verb: the order of what starts by itself; without FILE when a running supervisor "
        "has started it",
    )  # fmt: skip
    parser.add_argument(
        "arguments", metavar="NAME=VALUE", nargs="*", default=[], help="arguments, to show its argv"
    )
    parser.add_argument("--calls", action="store_true", help="each step with its system calls")
    parser.add_argument("--json", action="store_true", help="everything, as one JSON object")
    add_user_option(parser)
    add_place(parser)


def main(arguments: argparse.Namespace) -> int:
    """Print the explanation. Raises ConfigError, and RequestError for a verb or arguments that do not fit."""
    if arguments.boot == (arguments.verb is not None):
        raise UsageError("write either a VERB or --boot")
    if arguments.file is None:
        with connect(path_of(arguments), _PATIENCE_SECONDS) as client:
            told = client.call("initspawn/timeline", token=token_of(arguments)).response
        show_times(told, as_json=arguments.json)
        return 0
    if arguments.run_dir or arguments.socket:
        raise UsageError("FILE is explained without a supervisor; leave one of them out")
    plan = compile_for([arguments.file], arguments.user)
    if arguments.boot:
        show_boot(plan, as_json=arguments.json)
        return 0
    values = parse_arguments(arguments.arguments)
    extra = pick_extra(plan, arguments.verb)
    if extra is None:
        api, command = pick(plan, arguments.verb)
        found = describe(api, command, values, privileged=plan.privileged)
    else:
        found = _described_extra(plan, *extra, values)
    if arguments.json:
        show_json(found, indent=2)
        return 0
    for line in _lines(found, with_calls=arguments.calls):
        write_line(line, sys.stdout)
    return 0


def describe(api: Api, command: Command, values: Any, *, privileged: bool) -> dict[str, Any]:
    """Everything known about a command before it runs, as JSON values.

    `values`: a request's arguments, None to show the template. Raises RequestError, OSError.
    """
    sandbox = api.sandbox(command.sandbox)
    baseline = Baseline()
    if privileged and not baseline.permitted:
        baseline.permitted = (1 << baseline.last_capability + 1) - 1  # explained by an ordinary user
    template = template_of(command)
    argv = _bound(command, values)
    terminal = command.terminal is not None
    made = calls(sandbox, baseline, terminal=terminal)
    taken = [
        {"step": name, "does": text, "calls": made.get(name, [])}
        for name, text in steps(sandbox, baseline, terminal=terminal)
    ]
    return {
        "verb": f"{api.api}/{command.verb}",
        "info": command.info,
        "sandbox": sandbox.uid,
        "path": command.path,
        "template": template,
        "argv": None if argv is None else list(argv),
        "environment": dict(text.split("=", 1) for text in environment(sandbox, terminal=terminal)),
        "directory": sandbox.directory,
        "identity": _identity(sandbox),
        "callers": callers(command.privilege or sandbox.privilege),
        "timeout": command.timeout,
        "most": command.most,
        "queue": command.queue,
        "encoder": {"name": command.encoder, **command.encoder_options},
        "steps": taken,
        "mounts": mounts(sandbox),
        "ends": [{"certain": certain, "how": text} for certain, text in endings(command, sandbox)],
        "not-confined": gaps(command, sandbox),
        "measured": MEASURED,
        "bwrap": _bwrap(equivalent(sandbox, argv or tuple(template))),
    }


def _described_extra(plan: Plan, name: str, extra: Action, values: Any) -> dict[str, Any]:
    """What an `extra` verb starts: the command, with the arguments that are its own. Raises RequestError."""
    called = f"{extra.api}/{extra.verb}"
    if all(called != f"{api.api}/{command.verb}" for api in plan.apis for command in api.commands):
        raise RequestError("unknown-verb", f"`{name}` calls {called}, which starts no command")
    api, command = pick(plan, called)
    action, together, _ = blend(extra.query, None if values is None else {"args": values})
    if action != START:
        raise RequestError("invalid-request", f"`{name}` starts nothing: its action for {called} is {action}")
    try:
        bind(command, together)
    except RequestError:
        if values is not None:
            raise
        together = None
    found = describe(api, command, together, privileged=plan.privileged)
    if extra.privilege is not None:
        also = f"; `{extra.privilege}` as well"
        found["callers"] = [text + also if "token" in text else text for text in found["callers"]]
    return {**found, "verb": name, "calls": {"verb": called, "query": extra.query}}


def template_of(command: Command) -> list[str]:
    """The argv with `%name%` for a required and `?name?` for an optional argument."""
    items = ["".join(_MARKS[kind].format(text) for kind, text in parts) for parts in command.arguments]
    return [command.path, *items]


def callers(privilege: str | None) -> list[str]:
    """Who may start it, one sentence each; nobody else may."""
    scope = f"`{privilege}`" if privilege is not None else "`start`"
    return [
        "root and the supervisor's own user, over the control socket",
        f"who shows a token with the scope {scope} or `*`",
        "anybody who reaches the gateway, if it was opened with --no-auth",
    ]


def _bound(command: Command, values: Any) -> tuple[str, ...] | None:
    """The argv for these values; None when there are none and the template needs some."""
    try:
        return bind(command, values)
    except RequestError:
        if values is None:
            return None
        raise


def _identity(sandbox: Sandbox) -> dict[str, Any]:
    found: dict[str, Any] = {
        "user": sandbox.user,
        "group": sandbox.group,
        "groups": "the supervisor's" if sandbox.groups is None else list(sandbox.groups),
        "umask": f"{sandbox.umask:03o}",
        "capabilities": names(sandbox.capabilities),
    }
    if sandbox.id_map is not None:
        found["inside"] = {"user": sandbox.id_map.inside_uid, "group": sandbox.id_map.inside_gid}
    return found


def _bwrap(found: Equivalent) -> dict[str, Any]:
    opened = [f"{fd}<{shlex.quote(name)}" for fd, name, _ in found.files]
    return {
        "command": " ".join([shlex.join(found.argv), *opened]),
        "files": {name: base64.b64encode(data).decode() for _, name, data in found.files},
        "differences": list(found.differences),
    }


def _lines(found: dict[str, Any], *, with_calls: bool) -> list[str]:
    """The explanation as text."""
    about = f": {found['info']}" if found["info"] else ""
    lines = [f"{found['verb']}{about}"]
    if "calls" in found:  # an `extra` verb
        query = json.dumps(found["calls"]["query"], ensure_ascii=True)
        lines.append(f"  another name of {found['calls']['verb']}, called with {query}")
    lines += ["", "runs"]
    lines.append(f"  {shlex.join(found['argv'] or found['template'])}")
    lines.append(f"  in {found['directory']}, with this environment and no other:")
    lines += [f"    {name}={value}" for name, value in found["environment"].items()]
    lines += ["", "as", f"  {_who(found['identity'])}"]
    lines += ["", "may be started by", *(f"  {text}" for text in found["callers"])]
    lines += ["", "output and time", f"  {_manner(found)}", "", f"confined by sandbox {found['sandbox']}"]
    for number, step in enumerate(found["steps"], 1):
        lines.append(f"  {number:2}. {step['step']}: {step['does']}")
        if step["step"] == "mounts" and not with_calls:
            lines += [f"        {text}" for text in found["mounts"]]
        if with_calls:
            lines += [f"        {call}" for call in step["calls"]]
    lines += ["", "ended by"]
    for end in found["ends"]:
        lines.append(f"  {'for sure   ' if end['certain'] else 'best effort'}  {end['how']}")
    lines += ["", "not confined", *(f"  {text}" for text in found["not-confined"] or ["nothing known"])]
    lines += ["", "compared at its exec with what is said here"]
    lines += [f"  {name}: {text}" for name, text in found["measured"].items()]
    bwrap = found["bwrap"]
    lines += ["", "nearest command line of bubblewrap", f"  {bwrap['command']}"]
    lines += [f"  where {name}: as `--json` gives it, in base64" for name in bwrap["files"]]
    lines += [f"  but {text}" for text in bwrap["differences"]]
    return lines


def _who(identity: dict[str, Any]) -> str:
    groups = identity["groups"]
    further = groups if isinstance(groups, str) else " ".join(map(str, groups)) or "none"
    text = f"user {identity['user']} ({user_name(identity['user'])}), group {identity['group']}"
    text += f", further groups {further}, umask {identity['umask']}"
    inside = identity.get("inside")
    if inside is not None and inside["user"] != identity["user"]:
        text += f"; it sees itself as user {inside['user']} ({user_name(inside['user'])})"
    return f"{text}; capabilities: {' '.join(identity['capabilities']) or 'none'}"


def _manner(found: dict[str, Any]) -> str:
    encoder = dict(found["encoder"])
    name = encoder.pop("name")
    options = ", ".join(f"{key} {value}" for key, value in encoder.items())
    limit = f"time limit {found['timeout']:g} s" if found["timeout"] else "no time limit"
    alone = f", {found['most']} at once" if found["most"] else ""
    alone += f", {found['queue']} in the queue" if found["queue"] else ""
    return f"encoder {name} ({options}), {limit}{alone}" if options else f"encoder {name}, {limit}{alone}"
