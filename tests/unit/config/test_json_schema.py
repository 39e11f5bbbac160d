"""The JSON Schema accepts what the checker accepts, and refuses shapes that the checker refuses."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from initspawn.cli.main import main
from initspawn.config.check import check
from initspawn.config.json_schema import json_schema
from initspawn.config.keys import KEYS
from initspawn.config.load import load
from initspawn.config.spot import Report
from tests.unit.config.test_properties import GOOD, VALUES, paths

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
SCHEMA = json_schema()
VALIDATOR = Draft202012Validator(SCHEMA)
WHOLE = [*CONFIGS.glob("*.yaml"), *CONFIGS.glob("*.json"), *CONFIGS.glob("scripts/*.yaml")]
YAML = [path for path in WHOLE if path.suffix == ".yaml"]


def accepted(data: Any) -> tuple[bool, bool]:
    """What the checker and the schema say."""
    report = Report("file", {})
    config = check(data, report.root())
    return config is not None and not report.problems, VALIDATOR.is_valid(data)


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == SCHEMA


@pytest.mark.parametrize("path", WHOLE, ids=lambda path: path.name)
def test_all_samples_are_accepted(path: Path) -> None:
    VALIDATOR.validate(load(str(path)).data)
    assert len(WHOLE) >= 4


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.name)
def test_yaml_samples_name_it_for_editors(path: Path) -> None:
    name = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# yaml-language-server: $schema=")
    assert json.loads((path.parent / name).read_text(encoding="utf-8")) == SCHEMA


@pytest.mark.parametrize(("part", "name"), [(part, name) for part, keys in KEYS.items() for name in keys])
def test_every_example_fits_its_key(part: str, name: str) -> None:
    definitions = {**SCHEMA["$defs"], "Config": SCHEMA}  # the root is no definition of its own
    key = definitions[part]["properties"][name]
    Draft202012Validator({"$defs": SCHEMA["$defs"], **key}).validate(KEYS[part][name].example)


METADATA = {"uid": "u", "api": "t"}


def box(**keys: Any) -> dict[str, Any]:
    return {"metadata": METADATA, "sandboxes": {"uid": "s", **keys}}


def command(**keys: Any) -> dict[str, Any]:
    return box(commands={"uid": "c", "exec": {"cmdpath": "/bin/true"}, **keys})


SHAPES: list[tuple[Any, bool]] = [
    (GOOD, True),
    ({"metadata": METADATA}, True),
    ({"metadata": METADATA, "$schema": "config.schema.json", "x-mine": [1, None]}, True),
    ({"metadata": METADATA | {"x-more": 1}, "sandbox": []}, True),
    (box(acl={"user": 5, "group": "5"}), True),
    (box(verbose="0x2"), True),
    (box(verbose=2.0), True),
    (box(envs={"key": "A"}), True),
    (box(caps=[{"cap": "ALL", "mode": "SET"}]), True),
    (box(namespace={"shares": {"user": "Disable"}}), True),
    (command(once=True, samples=[{}], encoder="line"), True),
    (command(encoder={"output": "text", "opts": {"maxlen": "100"}}, usage=None), True),
    ([], False),
    ({}, False),
    ({"metadata": None}, False),
    ({"metadata": METADATA, "metadat": {}}, False),
    ({"metadata": {"uid": "u"}}, False),
    ({"metadata": METADATA | {"version": 1}}, False),
    ({"metadata": METADATA, "sandbox": [], "sandboxes": []}, False),
    (box(verbose=10), False),
    (box(verbose="two"), False),
    (box(verbose=1.5), False),
    (box(verbose=True), False),
    (box(allow_setuid="true"), False),
    (box(info=None), False),
    (box(uid=""), False),
    (box(envs=[{"name": "A", "key": "B"}]), False),
    (box(caps=[{"cap": "ALL"}]), False),
    (box(namespace={"shares": {"all": "disabled"}}), False),
    (box(acls=[{"user": "a"}]), False),
    (box(commands="c"), False),
    (command(single=True, once=True), False),
    (command(encoder=3), False),
    (command(nothing=3), False),
]


@pytest.mark.parametrize(("data", "fine"), SHAPES)
def test_both_say_the_same(data: Any, fine: bool) -> None:
    assert accepted(data) == (fine, fine)


@given(st.sampled_from(paths(GOOD)[1:]), VALUES)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=300)
def test_what_the_checker_accepts_the_schema_accepts(path: tuple[Any, ...], value: Any) -> None:
    data = copy.deepcopy(GOOD)
    place: Any = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    by_checker, by_schema = accepted(data)
    assert by_schema or not by_checker
