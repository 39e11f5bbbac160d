"""`onload`, `onstart`, `events` and `extra` in a file: what they become, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from initspawn.config.compile import compile_files
from initspawn.errors import ConfigError
from initspawn.event import named_by
from initspawn.plan import Action, Api, Import, Plan
from initspawn.planfile import load, save
from tests.unit.config.conftest import whole

Problems = Callable[..., list[str]]


def with_action(key: str, **keys: Any) -> dict[str, Any]:
    entry = {"uid": "t/c" if key == "events" else "name", "action": "api://t#c", **keys}
    return {**whole({}), key: entry}


def test_what_becomes_of_them(build: Callable[..., Api]) -> None:
    made = build(
        raw={
            **whole({}),
            "onload": [
                {"uid": "1", "action": "api://t#c"},
                {"uid": "2", "action": "api://t#ping", "info": "i"},
            ],
            "onstart": {"uid": "3", "action": "api://t#c", "args": {"action": "START", "x": 1}},
            "events": {"uid": "t/*", "action": "api://t#c", "args": "text"},
            "extra": {"uid": "a/b", "action": "api://t#info", "privileges": "urn:p"},
        }
    )
    assert made.onload == (
        Action(uid="1", api="t", verb="c"),
        Action(uid="2", api="t", verb="ping"),
        Action(uid="3", api="t", verb="c", query={"action": "START", "x": 1}),
    )
    assert made.events == (Action(uid="t/*", api="t", verb="c", query="text"),)
    assert made.extra == (Action(uid="a/b", api="t", verb="info", privilege="urn:p"),)


@pytest.mark.parametrize("key", ["onload", "onstart", "events", "extra"])
def test_check_134_lua_and_plugin(problems: Problems, key: str) -> None:
    (said,) = problems(raw=with_action(key, action="lua://script#function"))
    assert f"{key}.action: `lua://` is not done: initspawn runs no script within itself" in said
    assert "make it a command of its own" in said
    (said,) = problems(raw=with_action(key, action="plugin://p#f"))
    assert "`plugin://` is not done: initspawn loads no code into itself" in said


@pytest.mark.parametrize("key", ["onload", "onstart", "events", "extra"])
@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"action": "exec://x#y"}, "'exec://x#y' is no action (write api://API#VERB)"),
        ({"action": "api://t"}, "'api://t' is no action"),
        ({"action": "api://t/c"}, "'api://t/c' is no action"),
        ({"action": "t/c"}, "'t/c' is no action"),
        ({"action": ""}, "'' is no action"),
        ({"action": "api://t#C"}, "API 't' has no verb 'C' (did you mean `c`?)"),
        ({"action": "api://t#exec"}, "has no verb 'exec'"),
        ({"action": "api://other#c"}, "API 'other' is made by no file given, nor imported"),
        ({"action": "api://monitor#get"}, "API 'monitor' is made by no file given"),
        ({"args": {"action": "fly"}}, "no action 'fly'"),
        ({"action": 5}, "must be text"),
        ({"foo": 1}, "unknown key in action"),
    ],
)
def test_refused(problems: Problems, key: str, keys: Any, said: str) -> None:
    found = problems(raw=with_action(key, **keys))
    assert [problem for problem in found if said in problem], found


def test_uid_and_action_are_needed(problems: Problems) -> None:
    found = problems(raw={**whole({}), "onload": [{"uid": "x"}, {"action": "api://t#c"}]})
    assert ["`action` is missing" in found[0], "`uid` is missing" in found[1]] == [True, True]


@pytest.mark.parametrize("key", ["onload", "onstart", "events"])
def test_only_extra_verbs_have_privileges(problems: Problems, key: str) -> None:
    (said,) = problems(raw=with_action(key, privileges="p"))
    assert "nobody calls this who could hold it" in said


@pytest.mark.parametrize("uid", ["c", "ping", "info", "exec"])
def test_an_extra_verb_that_is_taken(problems: Problems, uid: str) -> None:
    (said,) = problems(raw=with_action("extra", uid=uid))
    assert f"extra.uid: the verb `{uid}` is taken" in said


@pytest.mark.parametrize("uid", ["/x", "a\nb", "x" * 256])
def test_an_extra_verb_that_is_none(problems: Problems, uid: str) -> None:
    assert "cannot be a verb" in problems(raw=with_action("extra", uid=uid))[0]


def test_extra_verbs_are_different_and_call_no_other(problems: Problems) -> None:
    extra = [
        {"uid": "x", "action": "api://t#c"},
        {"uid": "x", "action": "api://t#c"},
        {"uid": "y", "action": "api://t#x"},
    ]
    taken, circle = problems(raw={**whole({}), "extra": extra})
    assert "the verb `x` is taken" in taken
    assert "'x' is an `extra` verb itself" in circle


@pytest.mark.parametrize("uid", ["c", "t/C", "monitor/disconnected", "x/*"])
def test_events_that_never_come(problems: Problems, uid: str) -> None:
    (said,) = problems(raw=with_action("events", uid=uid))
    assert f"events.uid: no event is called {uid!r}" in said


def test_of_another_file(tmp_path: Path) -> None:
    paths = []
    for name, other in (("a", "b"), ("b", "a")):
        raw = whole({})
        raw["metadata"]["api"] = name
        raw["onload"] = {"uid": "go", "action": f"api://{other}#c"}
        raw["events"] = {"uid": f"{other}/c", "action": f"api://{name}#c"}
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(raw))
        paths.append(str(path))
    made = compile_files(paths, user=1000, group=1000, environ={})
    assert [api.onload[0].api for api in made.apis] == ["b", "a"]
    with pytest.raises(ConfigError, match="API 'b' is made by no file given"):
        compile_files(paths[:1], user=1000, group=1000, environ={})


def test_they_can_be_stored(build: Callable[..., Api], tmp_path: Path) -> None:
    api = build(raw=with_action("onload", args={"args": {"a": [1, {"b": None}]}}))
    plan = Plan(user=1000, group=1000, apis=(api,))
    save(plan, str(tmp_path / "plan"))
    assert load(str(tmp_path / "plan")) == plan


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/bc", False),
        ("", "a", False),
        ("*", "a/b", True),
        ("*", "", True),
        ("a/*", "a/b", True),
        ("a/*", "a/", True),
        ("a/*", "b/a/", False),
        ("*/b", "a/b", True),
        ("*/b", "a/bb", False),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("a*b*c", "a1b2c", True),
        ("a*b*c", "acb", False),
        ("a*b*b", "ab", False),
        ("a**", "a", True),
        ("A/*", "a/b", False),
        ("a/?", "a/b", False),
    ],
)
def test_patterns(pattern: str, name: str, fits: bool) -> None:
    assert named_by(pattern, name) == fits


# APIs of other servers.


def importing(*required: str, **root: Any) -> dict[str, Any]:
    made = {**whole({}), **root}
    made["metadata"] = {**made["metadata"], "require": list(required)}
    return made


@pytest.mark.parametrize(
    ("required", "wanted"),
    [
        ("unix:/run/lights", Import(api="lights", path="/run/lights")),
        ("unix:/run/a/b?as-api=lights", Import(api="lights", path="/run/a/b")),
        ("unix:@lights", Import(api="lights", path="\0lights")),
        ("unix:@x/y?as-api=lights", Import(api="lights", path="\0x/y")),
    ],
)
def test_what_is_imported(build: Callable[..., Api], required: str, wanted: Import) -> None:
    actions = {
        "onload": {"uid": "1", "action": "api://lights#any/verb"},
        "events": {"uid": "lights/*", "action": "api://t#c"},
    }
    made = build(raw=importing(required, **actions))
    assert made.imports == (wanted,)
    assert Api.from_plain(made.to_plain()) == made


@pytest.mark.parametrize("uid", ["lights/changed", "*", "li*/x", "monitor/disconnected"])
def test_events_of_what_is_imported(build: Callable[..., Api], uid: str) -> None:
    build(raw=importing("unix:/run/lights", events={"uid": uid, "action": "api://t#c"}))


@pytest.mark.parametrize(
    ("required", "root", "said"),
    [
        ("tcp:host:1/lights", {}, "is no service (write unix:/PATH/API or unix:@NAME?as-api=API)"),
        ("unix:lights/x", {}, "is no service"),
        ("unix:/run/", {}, "is no service"),
        ("unix:/run/lights?as-api=", {}, "is no service"),
        ("unix:/run/lights?api=x", {}, "is no service"),
        (f"unix:/{'x' * 107}", {}, "too long for a socket"),
        ("unix:/run/t", {}, "API 't' is there already (call it otherwise: as-api=NAME)"),
        ("unix:/run/monitor", {}, "API 'monitor' is there already"),
        ("unix:/a/l unix:/b/l", {}, "API 'l' is there already"),
        ("unix:/run/lights", {"onload": {"uid": "1", "action": "api://light#x"}}, "did you mean `lights`?"),
        ("unix:/run/lights", {"events": {"uid": "other/x", "action": "api://t#c"}}, "no event is called"),
    ],
)
def test_what_cannot_be_imported(problems: Problems, required: str, root: dict[str, Any], said: str) -> None:
    found = problems(raw=importing(required, **root))
    assert [problem for problem in found if said in problem], found


def test_files_agree_on_what_is_imported(tmp_path: Path) -> None:
    files = []
    for api, path in (("a", "/run/1/x"), ("b", "/run/2/x"), ("x", "/run/y")):
        made = {**importing(f"unix:{path}")}
        made["metadata"] = {**made["metadata"], "api": api}
        file = tmp_path / f"{api}.json"
        file.write_text(json.dumps(made))
        files.append(str(file))
    with pytest.raises(ConfigError) as caught:
        compile_files(files[:2], user=1000, group=1000, environ={})
    assert "another file imports `x` from elsewhere" in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        compile_files([files[0], files[2]], user=1000, group=1000, environ={})
    assert "API `x` is made by a file given too" in str(caught.value)
