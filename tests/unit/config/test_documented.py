"""docs/configuration.md says something about every key, and its tables are those of `config.keys`.

`python -m tests.unit.config.test_documented` writes them anew, and docs/config.schema.json with them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from msgspec import structs

from initspawn.config.expand import ALIASES, builtin_names
from initspawn.config.json_schema import json_schema, plain_default, required_keys
from initspawn.config.keys import KEYS
from initspawn.config.later import LATER, MISPLACED, later, misplaced
from initspawn.config.part import Part

DOCS = Path(__file__).resolve().parents[3] / "docs"
PAGE = (DOCS / "configuration.md").read_text(encoding="utf-8")
SCHEMA = DOCS / "config.schema.json"
CODE = set(re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```|``.+?``", "", PAGE, flags=re.DOTALL)))
PARTS = Part.__subclasses__()
TABLE = re.compile(r"<!-- keys: (\w+) -->\n((?:\|.*\n)*)")
each_part = pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)


def table(part: type[Part]) -> str:
    """The Markdown table of an object's keys."""
    lines = ["| key | default | | example |", "|---|---|---|---|"]
    for name, key in KEYS[part.__name__].items():
        others = [f"`{other}`" for other, proper in part.aliases.items() if proper == name]
        same = f"; {' and '.join(others)} is the same key" if others else ""
        example = json.dumps(key.example, ensure_ascii=False)
        lines.append(f"| `{name}` | {default(part, name)} | {key.sentence}{same} | `{example}` |")
    return "\n".join(lines) + "\n"


def default(part: type[Part], name: str) -> str:
    """What is said of a key's default."""
    plain = plain_default(part, name)
    if name in required_keys(part):
        return "required"
    words = KEYS[part.__name__][name].default
    if words or plain is None:
        return words or "none"
    return f"`{plain}`" if isinstance(plain, str) else f"`{json.dumps(plain)}`"


@each_part
def test_every_key_has_a_sentence_and_an_example(part: type[Part]) -> None:
    assert list(KEYS[part.__name__]) == [field.name for field in structs.fields(part)]


def test_nothing_else_is_described() -> None:
    assert KEYS.keys() == {part.__name__ for part in PARTS}
    assert sorted(name for name, _ in TABLE.findall(PAGE)) == sorted(part.__name__ for part in PARTS)


@each_part
def test_the_tables_are_those_of_the_keys(part: type[Part]) -> None:
    (found,) = [text for name, text in TABLE.findall(PAGE) if name == part.__name__]
    assert found == table(part), "run python -m tests.unit.config.test_documented"


def test_the_schema_that_is_kept_is_the_one_that_is_made() -> None:
    kept = json.loads(SCHEMA.read_text(encoding="utf-8"))
    assert kept == json_schema(), "run python -m tests.unit.config.test_documented"


@each_part
def test_every_key_is_documented(part: type[Part]) -> None:
    keys = {field.name for field in structs.fields(part)} | part.aliases.keys()
    assert not (keys | later(part).keys() | misplaced(part).keys()) - CODE


def test_what_is_not_built_is_what_is_said_to_be_not_built() -> None:
    section = PAGE.partition("\n## Known, but not built yet\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^\* in `(\S+)`: (.+)$", section, re.MULTILINE)
    said = {place: set(re.findall(r"`(\w+)`", keys)) for place, keys in lines}
    names = {"Root": "namespace.root", "Autostart": "autostart", "Conditions": "autostart.conditions"}
    assert said == {names.get(part, part): set(keys) for part, keys in LATER.items()}
    _, _, own = section.partition("Refused in a command, because they belong to its sandbox:")
    assert set(re.findall(r"`(\w+)`", own)) == MISPLACED["Command"].keys() - {"acl"}


def test_every_built_in_name_is_documented() -> None:
    names = builtin_names({}, api="t", user=1, group=1).known()
    assert not {*names, *ALIASES, "SANDBOX_UID", "COMMAND_UID", "SBOXUSER"} - CODE


def write() -> None:
    """Make both anew."""
    by_name = {part.__name__: part for part in PARTS}
    text = TABLE.sub(lambda found: f"<!-- keys: {found[1]} -->\n{table(by_name[found[1]])}", PAGE)
    (DOCS / "configuration.md").write_text(text, encoding="utf-8")
    SCHEMA.write_text(json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
