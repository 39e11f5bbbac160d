"""`initspawn schema`: the configuration as JSON Schema, for editors."""

from __future__ import annotations

import argparse

from initspawn.cli.output import show_json
from initspawn.config.json_schema import json_schema

HELP = "print the JSON Schema (draft 2020-12) of configuration files, for editors"
EXAMPLES = """\
examples:
  initspawn schema >config.schema.json

Then write as the first line of a YAML file, for editors with the YAML language server:
  # yaml-language-server: $schema=config.schema.json
or as a key of a JSON file:
  "$schema": "config.schema.json"
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """`schema` has no options."""
    parser.epilog = EXAMPLES


def main(arguments: argparse.Namespace) -> int:
    """Print it. Returns 0."""
    show_json(json_schema(), indent=2)
    return 0
