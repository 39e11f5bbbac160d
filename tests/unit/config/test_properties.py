"""Whatever is given as a configuration, the answer is an API or a ConfigError."""

from __future__ import annotations

import contextlib
import copy
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import inspect

from initspawn.config.check import check
from initspawn.config.compile import compile_files, compile_raw
from initspawn.config.load import load
from initspawn.config.schema import Config
from initspawn.config.spot import Report
from initspawn.errors import ConfigError
from tests.unit.config.conftest import ORDINARY

WORDS = st.sampled_from(
    ["", "a", "/", "/usr", "/bin/true", "..", "%a%", "$HOME", "$", "\0", "\ud800", "root", "set", "disable",
     "enable", "ro", "rw", "tmpfs", "symlink", "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO(1)", "execve", "027", "1"]
)  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | WORDS
KEYS = st.sampled_from(
    ["metadata", "sandboxes", "uid", "api", "acls", "acl", "envs", "caps", "seccomp", "namespace", "commands",
     "exec", "args", "cmdpath", "mounts", "target", "mode", "once", "single", "opts", "x-a", "$b", "cgroups"]
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=15,
)
GOOD: dict[str, Any] = {
    "metadata": {"uid": "u", "api": "t", "require": []},
    "sandboxes": [
        {
            "uid": "s",
            "prefix": "p",
            "envs": [{"name": "A", "value": "$UID", "mode": "set"}],
            "acls": {"umask": "027", "chdir": "/", "timeout": 3},
            "caps": [{"cap": "KILL", "mode": "set"}],
            "seccomp": {
                "default": "SCMP_ACT_ALLOW",
                "locked": True,
                "rules": [{"syscall": "mkdir", "action": "SCMP_ACT_ERRNO", "errno": 1}],
            },
            "namespace": {
                "opts": {"hostname": "h"},
                "shares": {"all": "disable", "net": "enable"},
                "mounts": [{"target": "/usr", "mode": "ro"}, {"target": "/t", "mode": "tmpfs"}],
            },
            "commands": [{"uid": "c", "exec": {"cmdpath": "/bin/true", "args": ["%a%"]}, "encoder": "line"}],
        }
    ],
}


@pytest.fixture(autouse=True, scope="module")
def _harmless() -> Any:
    """Nothing is run or made, whatever the data say."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("initspawn.config.mounts.output_of", lambda _: b"")
        patch.setattr("initspawn.sources._make", lambda *_: None)
        yield


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in nested data."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(deeper for key, item in items for deeper in paths(item, (*path, key)))]


def only_config_errors(raw: Any, user: int) -> None:
    with contextlib.suppress(ConfigError):
        compile_raw(raw, file="f", user=user, group=user, environ={})


@given(st.dictionaries(KEYS, VALUES, max_size=6), st.sampled_from([0, 1000]))
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_any_object(raw: dict[str, Any], user: int) -> None:
    only_config_errors(raw, user)


@given(st.sampled_from(paths(GOOD)[1:]), VALUES, st.sampled_from([0, 1000]))
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=300)
def test_a_good_one_with_one_value_changed(path: tuple[Any, ...], value: Any, user: int) -> None:
    raw = copy.deepcopy(GOOD)
    place = raw
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    only_config_errors(raw, user)


def accepted(kind: inspect.Type) -> st.SearchStrategy[Any]:
    """Values that the schema takes for a type."""
    if isinstance(kind, inspect.StructType):
        required = {field.name: accepted(field.type) for field in kind.fields if field.required}
        optional = {field.name: accepted(field.type) for field in kind.fields if not field.required}
        return st.fixed_dictionaries(required, optional=optional)
    if isinstance(kind, inspect.ListType):
        item = accepted(kind.item_type)
        return item | st.lists(item, max_size=2)
    if isinstance(kind, inspect.DictType):
        return st.dictionaries(accepted(kind.key_type), accepted(kind.value_type), max_size=2)
    if isinstance(kind, inspect.UnionType):
        return st.one_of([accepted(one) for one in kind.types if not isinstance(one, inspect.NoneType)])
    if isinstance(kind, inspect.LiteralType):
        words = [str(word) for word in kind.values]
        return st.sampled_from([*words, *(word.upper() for word in words)])
    if isinstance(kind, inspect.IntType):
        low = -(1 << 40) if kind.ge is None else kind.ge
        return st.integers(low, 1 << 40 if kind.le is None else kind.le).map(lambda n: n if n % 3 else str(n))
    if isinstance(kind, inspect.FloatType):
        return st.floats(kind.ge or 0.0, kind.le or 1e9)
    if isinstance(kind, inspect.StrType):
        short = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
        return (TEXTS | short).filter(lambda text: len(text) >= (kind.min_length or 0))
    return st.booleans() if isinstance(kind, inspect.BoolType) else st.none() | st.booleans() | TEXTS


TEXTS = st.sampled_from(
    ["c", "s", "/", "/usr", "/bin/true", "/nowhere", "..", "a/b", "%a%", "?a?", "+%Y-%m", "$HOME", "${A-b}",
     "$", "root", "daemon", "027", "KILL", "ALL", "SCMP_ACT_ALLOW", "errno(1)", "execve", "mkdir", "==",
     "masked_eq", "text", "log", "api://t#c", "start"]
)  # fmt: skip


@given(accepted(inspect.type_info(Config)), st.sampled_from([0, ORDINARY]))
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None)
def test_what_the_schema_takes_compiles_or_is_refused_at_its_place(
    tmp_path_factory: pytest.TempPathFactory, raw: dict[str, Any], user: int
) -> None:
    file = tmp_path_factory.getbasetemp() / "schema.json"
    file.write_text(json.dumps(raw, indent=1), encoding="utf-8")
    document = load(str(file))
    report = Report(str(file), document.positions)
    assert check(document.data, report.root()) is not None
    assert not report.problems
    try:
        compile_files([str(file)], user=user, group=user, environ={"A": "a"})
    except ConfigError as error:
        for problem in error.problems:
            assert problem.file == str(file)
            assert problem.line > 0
            assert problem.key.split("[")[0].split(".")[0] in raw
            assert problem.message


def test_the_good_one_is_good_but_for_its_program() -> None:
    with pytest.raises(ConfigError, match="mounted are: /usr, /t") as caught:
        compile_raw(GOOD, file="f", user=1000, group=1000, environ={})
    assert len(caught.value.problems) == 1
