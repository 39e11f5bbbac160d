"""Whatever is given as a configuration, the answer is an API or a ConfigError."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from initspawn.config.compile import compile_raw
from initspawn.errors import ConfigError

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
        patch.setattr("initspawn.config.mounts._create", lambda *_: True)
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


def test_the_good_one_is_good_but_for_its_program() -> None:
    with pytest.raises(ConfigError, match="mounted are: /usr, /t") as caught:
        compile_raw(GOOD, file="f", user=1000, group=1000, environ={})
    assert len(caught.value.problems) == 1
