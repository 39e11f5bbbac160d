"""`initspawn check`: what is wrong in configuration files, or what they offer."""

from __future__ import annotations

import argparse
import sys

from initspawn.cli.compiled import FILES, add_user_option, compile_for, user_name
from initspawn.cli.exits import SYSTEM
from initspawn.cli.output import show_problems, show_table, write_line
from initspawn.config.devices import lacks_pyudev
from initspawn.config.files import files_of
from initspawn.config.spot import Report, Spot
from initspawn.config.target import Target, here
from initspawn.errors import Problem
from initspawn.plan import Api, Command, Plan, Sandbox
from initspawn.planfile import is_plan
from initspawn.supervisor.groups import controllers_of, nowhere

HELP = "say everything that is wrong in configuration files, or what they offer"
EXAMPLES = """\
examples:
  initspawn check configs/demo.yaml
  initspawn check --user root vpn.json reset.yaml

The files are compiled exactly as `serve` compiles them: `execfd` sources are run and `autocreate`
directories are made.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `check`."""
    parser.epilog = EXAMPLES
    parser.add_argument("files", nargs="+", metavar="FILE", help=FILES)
    add_user_option(parser)


def main(arguments: argparse.Namespace) -> int:
    """Print a table of the verbs. Returns 0, or 111 after saying which limits this machine does not have;
    raises ConfigError with every problem of every file.
    """
    plan = compile_for(arguments.files, arguments.user)
    problems = [
        _unlimited(api, sandbox, reason, arguments.files)
        for api in plan.apis
        for sandbox in api.sandboxes
        if not sandbox.cgroup_optional and (reason := nowhere(controllers_of(sandbox)))
    ]
    if problems:  # limits that no supervisor on this machine could apply, wherever it is started
        show_problems(problems)
        return SYSTEM
    for api in plan.apis:
        _show(api)
    if plan.guard is not None:
        failure = "open" if plan.guard.open_on_failure else "closed"
        write_line(f"guard: closed until {plan.guard.until} is ready; {failure} when that fails", sys.stdout)
    warn_of_devices(plan, here())
    return 0


def warn_of_devices(plan: Plan, target: Target) -> None:
    """Say on stderr that commands wait for devices in vain, where that is known already."""
    lacking = lacks_pyudev(plan.apis, target)
    if lacking:
        write_line(f"warning: {lacking}", sys.stderr)


def _unlimited(api: Api, sandbox: Sandbox, reason: str, files: list[str]) -> Problem:
    """That the limits of a sandbox cannot be had here, at its place in the file where there is one."""
    message = f"the limits of sandbox `{sandbox.uid}` of `{api.api}` cannot be had here: {reason}"
    hint = "for another machine: `initspawn compile --root`; to run without them: `optional: true`"
    spot = None if is_plan(files[0]) else _place(api, sandbox, files)
    if spot is None:
        return Problem(file=files[0], line=0, key="", message=message, hint=hint)
    spot.refuse(message, hint)
    return spot.report.problems[-1]


def _place(api: Api, sandbox: Sandbox, files: list[str]) -> Spot | None:
    """Where the file that an API is of has the limits of a sandbox. The files have been compiled already."""
    from initspawn.config.check import check  # not for a plan, which needs no package of theirs
    from initspawn.config.load import load

    for path in files_of(files):
        document = load(path)
        report = Report(path, document.positions)
        config = check(document.data, report.root())
        if config is not None and config.metadata.api == api.api:
            for index, one in enumerate(config.sandboxes):
                if one.uid == sandbox.uid:
                    return report.root()["sandboxes"][index]["cgroups"]
    return None


def _show(api: Api) -> None:
    about = " ".join(text for text in (api.version, f"- {api.info}" if api.info else None) if text)
    write_line(f"{api.api} {about}".rstrip(), sys.stdout)
    header = ("VERB", "SANDBOX", "USER", "CONFINED BY", "ABOUT")
    rows = [_row(command, api.sandbox(command.sandbox)) for command in api.commands]
    show_table([header, *rows], indent="  ")
    for kind in ("onload", "events", "extra"):
        for action in getattr(api, kind):
            write_line(f"  {kind} {action.uid}: {action.api}/{action.verb}", sys.stdout)


def _row(command: Command, sandbox: Sandbox) -> tuple[str, ...]:
    user = user_name(sandbox.user)
    if sandbox.id_map is not None and sandbox.id_map.inside_uid != sandbox.user:
        user += f" (as {user_name(sandbox.id_map.inside_uid)})"
    about = (command.info or "").splitlines()
    return command.verb, sandbox.uid, user, confinement(sandbox), about[0] if about else ""


def confinement(sandbox: Sandbox) -> str:
    """What confines a sandbox, in a few words."""
    words = ["own root"] if sandbox.new_root else []
    names = [name for name in sandbox.namespaces if name != "mnt" or not sandbox.new_root]
    if names:
        words.append(f"own {','.join(names)}")
    if sandbox.filters:
        words.append("seccomp")
    if sandbox.cgroup:
        words.append("limits")
    if sandbox.capabilities:
        count = sandbox.capabilities.bit_count()
        words.append("one capability" if count == 1 else f"{count} capabilities")
    if not sandbox.no_new_privileges:
        words.append("setuid allowed")
    return ", ".join(words) or "its user only"
