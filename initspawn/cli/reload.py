"""`initspawn reload`: have a running supervisor take its configuration as it is now."""

from __future__ import annotations

import argparse
import sys

from initspawn.boot import ask
from initspawn.cli.connect import add_place, connect, path_of, token_of
from initspawn.cli.output import write_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from initspawn.control.client import Client

HELP = "have a running supervisor take its configuration as it is now; what runs goes on"
EXAMPLES = """\
examples:
  initspawn reload
  initspawn reload --run-dir /tmp/second

The files are those of `initspawn serve`, compiled as it did. A supervisor that was there before systemd takes
the plan that it would begin with now. If anything is wrong, nothing changes.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `reload`."""
    parser.epilog = EXAMPLES
    add_place(parser)


def main(arguments: argparse.Namespace) -> int:
    """Reload. Returns 0; raises ConfigError with what `check` would say, PlanError, RequestError, OSError."""
    token = token_of(arguments)
    with connect(path_of(arguments), ask.SECONDS) as client:
        told = ask.ask_sources(client, token)
        if told["files"] is None:
            answer = ask.reload_device(client, told, token)
        else:
            answer = _compiled(client, told, token)
        write_line(ask.summary(answer), sys.stdout)
    return 0


def _compiled(client: Client, told: dict[str, Any], token: str | None) -> dict[str, Any]:
    from initspawn.cli.compiled import plan_to_serve  # not on a device: it has no YAML
    from initspawn.late import settle

    environment = ask.go_there(told)
    plan = plan_to_serve(told["files"], told["plan"], environment)
    return ask.hand_over(client, told, settle(plan, environment), token)
