"""`initspawn compile`: configuration files become a plan that a supervisor starts from, here or elsewhere."""

from __future__ import annotations

import argparse
import os
import sys

from initspawn.boot.ask import counted
from initspawn.cli import doors
from initspawn.cli.check import warn_of_devices
from initspawn.cli.compiled import person
from initspawn.cli.exits import UsageError
from initspawn.cli.image import lacking
from initspawn.cli.output import write_line
from initspawn.config.compile import compile_files
from initspawn.config.target import MACHINES, Target, elsewhere, here
from initspawn.linux.capabilities import NAMES, NUMBERS
from initspawn.planfile import forget_last, is_plan, save

HELP = "compile configuration files into a plan, for this machine or for an image of another"
EXAMPLES = """\
examples:
  initspawn compile vpn.json reset.yaml -o plan
  initspawn compile --root rootfs --arch aarch64 rootfs/etc/initspawn/vpn.json -o rootfs/var/lib/vpn.plan
  initspawn compile --root rootfs --gateway up --host 0.0.0.0 vpn.json -o rootfs/etc/initspawn/boot.plan

With --root, users, groups, programs and bind sources are looked up in that directory and nothing leads
out of it. What only the running machine knows is filled in when the supervisor starts.

With --gateway, a supervisor that is started before systemd opens the doors for the network itself, when
its unit has it and the network is up; the options for them are as those of `serve`, for the device.
"""

_ALIASES = {"arm64": "aarch64", "amd64": "x86_64"}  # as Debian and Linux's own tree call them


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `compile`."""
    parser.epilog = EXAMPLES
    parser.add_argument("files", nargs="+", metavar="FILE", help="configuration, JSON or YAML")
    parser.add_argument("-o", "--output", metavar="PLAN", required=True, help="the file to write")
    parser.add_argument("--root", metavar="DIR", help="the file tree of the machine that the plan is for")
    parser.add_argument(
        "--arch", type=lambda name: _ALIASES.get(name, name), choices=MACHINES, metavar="ARCH",
        help=f"its processor, {' or '.join(MACHINES)} (also called arm64 and amd64), for seccomp filters "
        "(default: this machine's)",
    )  # fmt: skip
    parser.add_argument(
        "--user", metavar="NAME", help="who its supervisor runs as (default: root with --root, else you)"
    )
    parser.add_argument(
        "--last-cap", metavar="NAME",
        help=f"the last capability that its kernel knows, with --root (default: {NAMES[-1]})",
    )  # fmt: skip
    doors.configure_ahead(parser)


def main(arguments: argparse.Namespace) -> int:
    """Write the plan. Returns 0; raises ConfigError with what `check` would say, UsageError, OSError."""
    for path in arguments.files:
        if is_plan(path):
            raise UsageError(f"{path} is a plan already; name the files it was made of")
    target = _target(arguments)
    user, group = _supervisor(arguments, target)
    plan = compile_files(arguments.files, user=user, group=group, environ=os.environ, target=target)
    plan = doors.plan_with_doors(arguments, plan, target)
    save(plan, arguments.output, keep=arguments.root is None)
    if arguments.root is not None:  # what an earlier build of the image left has never been used
        forget_last(arguments.output)
    warn_of_devices(plan, target)
    for line in lacking(plan, target.tree):
        write_line(f"warning: {line}", sys.stderr)
    served = [api for api in plan.apis if not api.hidden]
    commands = sum(len(api.commands) for api in served)
    size = os.path.getsize(arguments.output)
    write_line(
        f"{arguments.output}: {counted(len(served), 'API')}, {counted(commands, 'command')}, {size} bytes, "
        f"for user {user} on {plan.machine}",
        sys.stdout,
    )
    return 0


def _target(arguments: argparse.Namespace) -> Target:
    if arguments.root is None:
        if arguments.last_cap is not None:
            raise UsageError("--last-cap goes with --root: this machine's kernel is asked")
        return here(late=True, machine=arguments.arch)
    last = None
    if arguments.last_cap is not None:
        last = NUMBERS.get(arguments.last_cap.upper().removeprefix("CAP_"))
        if last is None:
            raise UsageError(f"--last-cap: {arguments.last_cap!r} is no capability, see capabilities(7)")
    return elsewhere(arguments.root, machine=arguments.arch, last_capability=last)


def _supervisor(arguments: argparse.Namespace, target: Target) -> tuple[int, int]:
    """The user and group that the target's supervisor runs as."""
    if arguments.root is None:
        return person(arguments.user) if arguments.user is not None else (os.geteuid(), os.getegid())
    name = "0" if arguments.user is None else arguments.user
    found = target.accounts.user(int(name) if name.isdecimal() else name)
    if found is not None:
        return found.number, found.group
    if name in ("0", "root"):  # an image need not list root
        return 0, 0
    raise UsageError(f"there is no user {name!r} in {arguments.root}/etc/passwd")
