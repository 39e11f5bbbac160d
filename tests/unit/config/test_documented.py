"""docs/configuration.md says something about every key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from msgspec import structs

from initspawn.config import schema
from initspawn.config.expand import ALIASES, builtin_names
from initspawn.config.later import later, misplaced

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "configuration.md").read_text(encoding="utf-8")
CODE = set(re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```|``.+?``", "", PAGE, flags=re.DOTALL)))
PARTS = [part for part in vars(schema).values() if isinstance(part, type) and issubclass(part, schema.Part)]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
def test_every_key_is_documented(part: type[schema.Part]) -> None:
    keys = {field.name for field in structs.fields(part)} | part.aliases.keys()
    assert not (keys | later(part).keys() | misplaced(part).keys()) - CODE


def test_every_built_in_name_is_documented() -> None:
    names = builtin_names({}, api="t", user=1, group=1).known()
    assert not {*names, *ALIASES, "SANDBOX_UID", "COMMAND_UID", "SBOXUSER"} - CODE
