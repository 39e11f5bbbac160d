"""`initspawn compare`: what the same command sees and may do in different sandboxes, side by side."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import textwrap
from difflib import get_close_matches
from importlib import resources

from initspawn.cli.arguments import FORMS, parse_arguments
from initspawn.cli.compiled import FILES, plan_to_run
from initspawn.cli.exits import OK, REFUSED, UsageError
from initspawn.cli.findings import Finding, Value, findings, of_run
from initspawn.cli.output import plain, show_json, write_line
from initspawn.cli.pick import pick
from initspawn.cli.sequence import run_in_turn
from initspawn.config.inside import Unsettled, View
from initspawn.plan import Api, Command, Sandbox
from initspawn.sandbox.bind import bind

HELP = "run one command in several sandboxes, and say what it sees and may do in each"
EXAMPLES = """\
examples:
  initspawn compare configs/learn.yaml open/who --sandbox open --sandbox tight
  initspawn compare configs/learn.yaml open/who --sandbox none --sandbox open --all
  initspawn compare configs/demo.yaml host/ls --sandbox host --sandbox box dir=/ --json

The sandboxes are those of the file. `none` is no confinement but the user: what any program of that user has.
"""
NONE = "none"
SECONDS = 10.0
_PYTHONS = ("/usr/bin/python3", "/usr/local/bin/python3", "/bin/python3")
_NARROWEST = 20  # characters of a column
_LONGEST, _LONGEST_OUTPUT = 10, 40  # lines of one cell


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `compare`."""
    parser.epilog = EXAMPLES
    parser.add_argument("file", metavar="FILE", help=FILES)
    parser.add_argument("verb", metavar="VERB", help="the verb, or API/VERB")
    parser.add_argument("arguments", metavar="NAME=VALUE", nargs="*", default=[], help=FORMS)
    parser.add_argument(
        "--sandbox", action="append", default=[], metavar="NAME",
        help="a sandbox of the file, or `none`; twice or more (once: beside the verb's own)",
    )  # fmt: skip
    parser.add_argument("--all", action="store_true", help="also what is alike")
    parser.add_argument("--json", action="store_true", help="everything, as one JSON object")
    parser.add_argument(
        "--timeout", type=float, default=SECONDS, metavar="S",
        help=f"end each run after S seconds (default {SECONDS:g})",
    )  # fmt: skip


def main(arguments: argparse.Namespace) -> int:
    """Run and compare. Returns 0, or 125 when nothing could be started in any of the sandboxes.

    Raises ConfigError, PlanError, RequestError for a verb or arguments that do not fit, UsageError, OSError.
    """
    if not 0 < arguments.timeout <= 3600:
        raise UsageError("--timeout is a number of seconds from 0 to 3600")
    plan = plan_to_run([arguments.file])
    api, command = pick(plan, arguments.verb)
    argv = bind(command, parse_arguments(arguments.arguments))
    sandboxes = choose(api, command, arguments.sandbox)
    used = api.replace(sandboxes=tuple({box.uid: box for box in sandboxes}.values()), commands=(command,))
    starts = []
    for sandbox in sandboxes:
        look = lookaround(sandbox)
        starts += [(command.replace(sandbox=sandbox.uid), argv), (look, (look.path, *_look_arguments()))]
    ran = run_in_turn(plan, used, starts, arguments.timeout)
    runs = list(zip(sandboxes, ran[::2], ran[1::2], strict=True))
    found = findings([of_run(*run) for run in runs])
    names = [sandbox.uid for sandbox in sandboxes]
    if arguments.json:
        show_json(as_json(f"{api.api}/{command.verb}", argv, names, found), indent=2)
    else:
        _show(f"{api.api}/{command.verb}", names, found, everything=arguments.all)
    return REFUSED if all(one.refusal for one in ran) else OK


def choose(api: Api, command: Command, names: list[str]) -> list[Sandbox]:
    """The sandboxes of these names. Raises UsageError."""
    if not names:
        raise UsageError("say which sandboxes: --sandbox NAME, twice or more")
    known = {sandbox.uid: sandbox for sandbox in api.sandboxes}
    own = known[command.sandbox]
    if NONE in names and NONE not in known:
        known[NONE] = unconfined(own)
    for name in names:
        if name not in known:
            close = get_close_matches(name, known, 1)
            hint = f"did you mean `{close[0]}`?" if close else f"there are {', '.join(known)} and {NONE}"
            raise UsageError(f"no sandbox `{name}`; {hint}")
    return [known[name] for name in (names if len(names) > 1 else [own.uid, *names])]


def unconfined(own: Sandbox) -> Sandbox:
    """No confinement but the user that `own` has outside, its environment and its umask.

    As root, setuid programs stay without effect. Raises UsageError where that user is root.
    """
    if own.user == 0:
        raise UsageError(f"`{NONE}` would run it as root with nothing around it; name sandboxes of the file")
    return Sandbox(
        uid=NONE, user=own.user, group=own.group, groups=own.groups, environment=own.environment,
        umask=own.umask, no_new_privileges=os.geteuid() == 0,
    )  # fmt: skip


def lookaround(sandbox: Sandbox) -> Command:
    """The command that looks around in a sandbox, with the Python that is to be found there."""
    view = View(sandbox.new_root, sandbox.mounts)
    places = (*_PYTHONS, os.path.realpath(sys.executable))
    try:
        path = next((path for path in places if view.is_file(path)), places[0])
    except Unsettled:  # in an image
        path = places[0]
    return Command(uid="compare", verb="compare", sandbox=sandbox.uid, path=path)


def _look_arguments() -> tuple[str, ...]:
    script = resources.files("initspawn.cli").joinpath("lookaround.py").read_text(encoding="utf-8")
    return ("-I", "-S", "-B", "-c", script)


def as_json(verb: str, argv: tuple[str, ...], names: list[str], found: list[Finding]) -> dict[str, object]:
    """What `--json` prints."""
    return {
        "verb": verb,
        "argv": list(argv),
        "sandboxes": names,
        "findings": [{**finding._asdict(), "same": finding.same} for finding in found],
    }


def _show(verb: str, names: list[str], found: list[Finding], *, everything: bool) -> None:
    shown = [finding for finding in found if everything or not finding.same]
    label = max((len(finding.name) for finding in shown), default=0)
    screen = shutil.get_terminal_size((110, 24)).columns
    width = max(_NARROWEST, (screen - label - 2 - 2 * len(names)) // len(names))
    write_line(f"{verb} in {' and in '.join(names)}", sys.stdout)
    section = ""
    for finding in shown:
        if finding.section != section:
            section = finding.section
            write_line("", sys.stdout)
            _row(section, label + 2, [[name] for name in names], width)
        _row(f"  {finding.name}", label + 2, _cells(finding, width, everything=everything), width)
    alike = len(found) - len(shown)
    if alike:
        what = "one finding is" if alike == 1 else f"{alike} findings are"
        write_line(f"\n{what} alike; see --all", sys.stdout)


def _cells(finding: Finding, width: int, *, everything: bool) -> list[list[str]]:
    """Each sandbox's value as lines. Of lists only what is not common to all, but for output."""
    values = finding.values
    lists = [value for value in values if isinstance(value, list)]
    common: set[str] = set()
    if not everything and len(lists) == len(values) and finding.section != "the command":
        common = set.intersection(*map(set, lists))
    return [_lines(value, common, width, output=finding.section == "the command") for value in values]


def _lines(value: Value, common: set[str], width: int, *, output: bool) -> list[str]:
    if isinstance(value, str):
        items = [value]
    else:
        items = [item for item in value if item not in common] or ["nothing more" if common else "nothing"]
        if not output and all(" " not in item and "=" not in item for item in items):
            items = [" ".join(items)]
    longest = _LONGEST_OUTPUT if output else _LONGEST
    lines = [line for item in items for line in textwrap.wrap(plain(item), width) or [""]]
    if len(lines) > longest:
        lines[longest:] = [f"... {len(lines) - longest} lines more"]
    return lines


def _row(label: str, label_width: int, cells: list[list[str]], width: int) -> None:
    for index in range(max(map(len, cells))):
        parts = [f"{label if index == 0 else '':{label_width}}"]
        parts += [f"{cell[index] if index < len(cell) else '':{width}}" for cell in cells]
        write_line("  ".join(parts).rstrip(), sys.stdout)
