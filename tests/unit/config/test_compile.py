"""Whole files become plans: names, verbs, encoders, what files must agree on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from initspawn import planfile
from initspawn.config.compile import compile_files
from initspawn.errors import ConfigError
from initspawn.plan import REQUIRED, TEXT, Api, Command, Plan, Sandbox

Build = Callable[..., Api]
Problems = Callable[..., list[str]]
TRUE = {"cmdpath": "/bin/true"}


def command(uid: str) -> dict[str, Any]:
    return {"uid": uid, "exec": TRUE}


def several(*sandboxes: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"uid": "u", "api": "t", **metadata}, "sandboxes": list(sandboxes)}


def verbs(api: Api) -> list[str]:
    return [command.verb for command in api.commands]


def test_a_small_plan_in_full(build: Build, ordinary: int) -> None:
    raw = {
        "metadata": {"uid": "u", "api": "t", "version": "1", "info": "i", "author": "a", "date": "d"},
        "sandboxes": {
            "uid": "s",
            "info": "si",
            "verbose": 2,
            "privilege": "p",
            "envs": [{"name": name, "mode": "unset"} for name in ("HOME", "USER", "PATH")],
            "commands": {
                "uid": "c",
                "info": "ci",
                "exec": {"cmdpath": "/bin/true", "args": ["-l", "%dir%", 80, True, {"x": [1, 2]}]},
                "once": True,
                "timeout": "7",
                "verbose": 9,
                "encoder": {"output": "Document", "opts": {"maxlen": 1024}},
                "usage": {"dir": "..."},
                "samples": [{"args": {}}],
            },
        },
    }
    assert build(raw=raw) == Api(
        uid="u",
        api="t",
        info="i",
        version="1",
        author="a",
        sandboxes=(
            Sandbox(
                uid="s",
                info="si",
                verbose=2,
                privilege="p",
                environment=(("LANG", "C.UTF-8"),),
                user=ordinary,
                group=ordinary,
                groups=None,
                limits=((4, 0, 0),),
            ),
        ),
        commands=(
            Command(
                uid="c",
                verb="c",
                sandbox="s",
                path="/bin/true",
                arguments=(
                    ((TEXT, "-l"),),
                    ((REQUIRED, "dir"),),
                    ((TEXT, "80"),),
                    ((TEXT, "true"),),
                    ((TEXT, '{"x": [1, 2]}'),),
                ),
                info="ci",
                privilege="p",
                timeout=7.0,
                most=1,
                verbose=9,
                encoder="text",
                encoder_options={"maxlen": 1024, "maxline": 128},
                usage={"dir": "..."},
                sample=[{"args": {}}],
            ),
        ),
    )


def test_a_plan_can_be_stored(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps(several({"uid": "s", "commands": command("c"), "namespace": {}})))
    made = compile_files([str(file)], user=1000, group=1001, environ={})
    assert (made.user, made.group) == (1000, 1001)
    planfile.save(made, str(tmp_path / "plan"))
    assert planfile.load(str(tmp_path / "plan")) == made


def test_no_files_no_apis() -> None:
    assert compile_files([], user=1, group=1, environ={}) == Plan(user=1, group=1, machine=os.uname().machine)


def test_verbs(build: Build) -> None:
    one = {"uid": "s", "commands": command("c")}
    two = {"uid": "s2", "commands": [command("c"), command("C")]}
    raw = several(one)
    assert verbs(build(raw=raw)) == ["c"]
    raw["sandboxes"] = one
    assert verbs(build(raw=raw)) == ["c"]
    assert verbs(build(raw=several(one, two))) == ["s/c", "s2/c", "s2/C"]
    assert verbs(build(raw=several({**one, "prefix": ""}, two))) == ["c", "s2/c", "s2/C"]
    assert verbs(build(raw=several({**one, "prefix": "a/b"}))) == ["a/b/c"]
    assert verbs(build(raw=several())) == []
    assert verbs(build(raw={"metadata": {"uid": "u", "api": "t"}})) == []
    assert verbs(build(raw=several({"uid": "s"}))) == []


@pytest.mark.parametrize(
    ("sandboxes", "said"),
    [
        ([{"uid": "s", "commands": [command("c"), command("c")]}], "the verb `c` is taken by a command of"),
        ([{"uid": "s", "commands": command("ping")}], "the verb `ping` is initspawn's own"),
        ([{"uid": "s", "commands": command("info")}], "the verb `info`"),
        ([{"uid": "s", "commands": command("exec")}], "the verb `exec`"),
        ([{"uid": "s"}, {"uid": "s"}], "another sandbox is called `s`"),
        (
            [{"uid": "s", "commands": command("c")}, {"uid": "r", "prefix": "s", "commands": command("c")}],
            "the verb `s/c` is taken by a command of sandbox `s`",
        ),
        ([{"uid": "s", "prefix": "a//b"}], "cannot be a name"),
        ([{"uid": "s", "prefix": "/a"}], "cannot be a name"),
        ([{"uid": "s", "prefix": "../a"}], "cannot be a name"),
        ([{"uid": "s", "commands": {"uid": "c"}}], "`exec` is missing"),
        ([{"uid": "s", "commands": {"exec": TRUE}}], "`uid` is missing"),
        ([{"uid": "s", "commands": {"uid": "c", "exec": {"args": []}}}], "`cmdpath` is missing"),
        ([{"uid": "s", "commands": {**command("c"), "shell": True}}], "unknown key in command"),
        ([{"uid": "s", "commands": {**command("c"), "caps": []}}], "it belongs to the sandbox"),
        ([{"uid": "s", "verbose": 10}], "from 0 to 9"),
        ([{"uid": "s", "capabilities": ["NET_ADMIN"]}], "unknown key in sandbox (did you mean `caps`?)"),
        ([{"uid": "s", "limits": {"memory": "1G"}}], "unknown key in limits (did you mean `as`, of each pro"),
        ([{"uid": "s", "commands": command("vpn/up")}], "cannot be a name (no path or control char"),
        ([{"info": "x"}], "`uid` is missing"),
    ],
)
def test_refused(problems: Problems, sandboxes: list[Any], said: str) -> None:
    (problem,) = problems(raw=several(*sandboxes))
    assert said in problem


@pytest.mark.parametrize("uid", ["", ".", "..", "a/b", "a\nb", "a\x7f", "a\x9b", "x" * 65, "😀" * 64])
def test_names_are_path_components(problems: Problems, uid: str) -> None:
    for raw in (several({"uid": uid}), several({"uid": "s", "commands": command(uid)})):
        (problem,) = problems(raw=raw)
        assert ".uid" in problem


@pytest.mark.parametrize("api", ["", "a b", *(f"a{mark}b" for mark in "/#%?@\\'\"`&\t\x7f")])
def test_api_names(problems: Problems, api: str) -> None:
    (problem,) = problems(raw=several(api=api))
    assert "metadata.api" in problem


def test_reserved_apis_are_for_hidden_sandboxes(build: Build, problems: Problems) -> None:
    for api in ("monitor", "initspawn"):
        (problem,) = problems(raw=several(api=api))
        assert "initspawn's own API" in problem
        assert build(raw=several(api=api), hidden=True).hidden
    assert build(raw=several(api="é-1")).api == "é-1"


def test_metadata_is_strict(problems: Problems) -> None:
    for key, value in (("version", 1), ("info", None), ("author", []), ("require", 1), ("require", [1])):
        (problem,) = problems(raw=several(**{key: value}))
        assert f"metadata.{key}" in problem
    (problem,) = problems(raw={"sandboxes": []})
    assert "`metadata` is missing" in problem


def write(tmp_path: Path, **files: dict[str, Any]) -> list[str]:
    paths = []
    for name, content in files.items():
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(content))
        paths.append(str(path))
    return paths


def test_files_agree(tmp_path: Path) -> None:
    needy = several(api="a", require="b c")
    good = write(tmp_path, a=needy, b=several(api="b"), c=several(api="c", require=["a"]))
    assert [api.api for api in compile_files(good, user=1, group=1, environ={}).apis] == ["a", "b", "c"]
    bad = write(tmp_path, a=several(api="a", require=["b nope"]), b=several(api="b"), c=several(api="a"))
    with pytest.raises(ConfigError) as caught:
        compile_files(bad, user=1, group=1, environ={})
    first, second = (str(problem) for problem in caught.value.problems)
    assert "API 'nope' is required, and no file makes it" in first
    assert f"API `a` is made by {bad[0]} already" in second


def test_problems_of_all_files_in_order(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{")
    paths = write(tmp_path, a=several(api="a b"), c=several(api="c", version=1))
    paths.insert(1, str(tmp_path / "broken.json"))
    with pytest.raises(ConfigError) as caught:
        compile_files([*paths, "/nosuch"], user=1, group=1, environ={})
    assert [problem.file for problem in caught.value.problems] == [*paths, "/nosuch"]


@pytest.mark.parametrize(
    ("args", "count"), [(None, 0), ([], 0), ("x", 1), (80, 1), ({"a": 1}, 1), (["a", ""], 2), ([[1], 1.5], 2)]
)
def test_arguments(build: Build, args: Any, count: int) -> None:
    (made,) = build({}, exec={**TRUE, "args": args}).commands
    assert len(made.arguments) == count


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([None], "args[0]: an argument may not be null"),
        (["a", "$NOSUCH"], "args[1]: `$NOSUCH`"),
        ("$NOSUCH", "exec.args: `$NOSUCH`"),
        (["a\0"], "NUL"),
        (["\ud800"], "Unicode"),
        (["x" * 131072], "131071 bytes"),
    ],
)
def test_arguments_refused(problems: Problems, args: Any, said: str) -> None:
    (problem,) = problems({}, exec={**TRUE, "args": args})
    assert said in problem
