"""`initspawn run`: one command in its sandbox, without a server."""

from __future__ import annotations

import argparse

HELP = "run one command of a file in its sandbox; its output and exit code are ours"
EXAMPLES = """\
examples:
  initspawn run configs/demo.yaml demo/id
  initspawn run my.json list dir=/etc
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `run`."""
    parser.epilog = EXAMPLES
    parser.add_argument("file", metavar="FILE", help="configuration, JSON or YAML")
    parser.add_argument("verb", metavar="VERB", help="the verb, or api/verb")
    parser.add_argument("arguments", nargs="*", metavar="NAME=VALUE", help="arguments; NAME:=JSON for others")
    parser.add_argument("--json", action="store_true", help="print the events, one JSON object a line")
