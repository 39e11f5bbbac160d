"""`autostart` in a file: what it becomes, and what cannot be."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initspawn.config.compile import compile_files
from initspawn.config.order import circles, in_order
from initspawn.errors import ConfigError
from initspawn.plan import Api, Autostart, Restart
from initspawn.planfile import load, save
from tests.unit.config.conftest import ORDINARY

Build = Callable[..., Api]
Problems = Callable[..., list[str]]


def several(args: Any = None, **starts: Any) -> dict[str, Any]:
    """A configuration of the API `t` with a command for each name; None: it does not start by itself."""
    program = {"cmdpath": "/bin/true", **({"args": args} if args else {})}
    commands = [
        {"uid": name, "exec": program, **({} if start is None else {"autostart": start})}
        for name, start in starts.items()
    ]
    return {"metadata": {"uid": "u", "api": "t"}, "sandboxes": {"uid": "s", "commands": commands}}


def starts_of(api: Api) -> dict[str, Autostart]:
    return {command.verb: command.autostart for command in api.commands if command.autostart is not None}


def test_nothing_starts_unasked(build: Build) -> None:
    assert starts_of(build()) == {}


def test_an_empty_object_will_do(build: Build) -> None:
    assert starts_of(build(autostart={})) == {"c": Autostart()}


def test_what_becomes_of_all_keys(build: Build, tmp_path: Path) -> None:
    start = {
        "stage": "EARLY",
        "after": "b",
        "requires": ["t/b"],
        "wants": "b",
        "args": {"x": 1},
        "ready": "exited",
        "start_timeout": 9,
        "conditions": {
            "kernel_command_line": ["a", "!b=c"], "path": "!/run/x", "otherwise": "skip",
            "task": {"command": "b", "result": "failure"},
            "link": ["wg0", "!eth0.1"], "address": "*", "route": "!*",
            "udev": {"SUBSYSTEM": "usb", "ID_VENDOR_ID": "0781", "x-why": "a stick"},
        },
        "restart": {
            "policy": "on-failure", "pause": "1", "longest": 2.5, "jitter": 50, "ran_well": 3, "tries": 4,
            "permanent": [],
        },
    }  # fmt: skip
    made = build(raw=several(a=start, b={"stage": "early"}))
    restart = Restart(
        policy="on-failure", pause=1.0, longest=2.5, jitter=0.5, ran_well=3.0, tries=4, permanent=()
    )
    assert starts_of(made)["a"] == Autostart(
        stage="early", after=("t/b",), requires=("t/b",), wants=("t/b",), arguments={"x": 1}, ready="exited",
        start_timeout=9.0, words=("a", "!b=c"), paths=("!/run/x",),
        network=(("link", "wg0"), ("link", "!eth0.1"), ("address", "*"), ("route", "!*")),
        devices=((("SUBSYSTEM", "usb"), ("ID_VENDOR_ID", "0781")),),
        results=(("t/b", False),), skip=True, restart=restart,
    )  # fmt: skip


def test_a_plan_file_holds_it(tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    file.write_text(str(several(a={"restart": "always", "after": "b"}, b={})).replace("'", '"'))
    made = compile_files([str(file)], user=ORDINARY, group=ORDINARY, environ={})
    save(made, str(tmp_path / "plan"))
    assert load(str(tmp_path / "plan")) == made


def test_a_word_is_a_whole_policy(build: Build) -> None:
    found = starts_of(build(autostart={"restart": "on-failure"}))["c"].restart
    assert found == Restart(
        policy="on-failure", pause=0.2, longest=60.0, jitter=0.1, ran_well=10.0, permanent=(125,)
    )
    assert starts_of(build(autostart={"restart": "never"}))["c"].restart is None


@pytest.mark.parametrize(
    ("start", "problem"),
    [
        (True, "must be an object, not true (write autostart: {})"),
        ({"stage": "late"}, ".stage: unknown word 'late' (known: api, early, network, system)"),
        ({"requres": "b"}, ".requres: unknown key in autostart (did you mean `requires`?)"),
        ({"watchdog": 3, "ready": "exited"},
         ".watchdog: it is ready when it has ended (write `ready: notify` or `started`)"),
        ({"watchdog": 0}, ".watchdog: must be from 1 to 86400, not 0"),
        ({"stop_timeout": -1}, ".stop_timeout: must be from 0 to 86400, not -1"),
        ({"conditions": {"udev": {}}},
         ".conditions.udev: says nothing of the device (write properties, such as {SUBSYSTEM: block})"),
        ({"conditions": {"udev": "block"}}, ".conditions.udev: must be an object, not 'block'"),
        ({"conditions": {"udev": {"ID_BUS": 7}}},
         ".conditions.udev.ID_BUS: must be text, not 7 (write it in quotes)"),
        ({"conditions": {"udev": {"ATTR{size}": "7"}}},
         ".conditions.udev: 'ATTR{size}' is no property of a device (`udevadm info` shows a device's "
         "properties)"),
        ({"conditions": {"udev": {"ACTION": "add"}}},
         ".conditions.udev.ACTION: `ACTION` is a property of events, not of devices (say what the device is "
         "that has to be there)"),
        ({"conditions": {"udev": [{"DEVNAME": "!"}]}},
         ".conditions.udev[0].DEVNAME: nothing follows the `!` (`!*`: it must not have this property)"),
        ({"start_timeout": 5},
         ".start_timeout: it is ready as soon as it runs (say when it is with `ready`, or leave it out)"),
        ({"restart": {"policy": "always"}, "ready": "exited"},
         ".restart: it is ready when it has ended, and would always be started again (write on-failure)"),
        ({"restart": {"policy": "always", "pause": 9, "longest": 8}},
         ".restart.longest: is less than the first pause, 9 s (make it at least as long)"),
        ({"restart": {"policy": "always", "pause": 0}}, ".restart.pause: must be from 0.01 to 86400, not 0"),
        ({"restart": {"policy": "always", "pause": "soon"}}, ".restart.pause: must be a number, not 'soon'"),
        ({"restart": {"policy": "always", "pause": True}}, ".restart.pause: must be a number, not true"),
        ({"restart": {"policy": "always", "permanent": 256}},
         ".restart.permanent: must be from 0 to 255, not 256"),
        ({"restart": "somtimes"}, ".restart: unknown word 'somtimes' (known: always, never, on-failure)"),
        ({"restart": 3}, ".restart: must be a word or an object, not 3 "
         "(write never, on-failure, always, or {policy: on-failure})"),
        ({"restart": True}, ".restart: must be a word or an object, not true "
         "(write never, on-failure, always, or {policy: on-failure})"),
        (
            {"conditions": {"udev": "ID_FS_LABEL=data"}},
            ".conditions.udev: must be an object, not 'ID_FS_LABEL=data' (write {ID_FS_LABEL: data})",
        ),
        ({"conditions": {"path": "dev/x"}},
         ".conditions.path: 'dev/x' is not absolute (write the full path, or `!` and the path)"),
        ({"conditions": {"kernel_command_line": "a b"}},
         ".conditions.kernel_command_line: 'a b' is no word of a command line "
         "(write NAME or NAME=VALUE, or `!` and one of them)"),
        ({"conditions": {"kernel_command_line": "!"}},
         ".conditions.kernel_command_line: '!' is no word of a command line "
         "(write NAME or NAME=VALUE, or `!` and one of them)"),
        *(({"conditions": {"link": name}},
           f".conditions.link: {name!a} is no link's name (write one such as eth0, or `*`)")
          for name in ("a/b", "a b", "..", "!", "a" * 16, "a:1", "eth*")),
        ({"after": "d"}, ".after: there is no command 'd' (known: c, t/c)"),
        ({"requires": ["c"]}, ".requires[0]: `t/c` would wait for itself (take one of them out)"),
        ({"conditions": {"task": {"command": "x/y", "result": "success"}}},
         ".conditions.task.command: there is no command 'x/y' (known: c, t/c)"),
    ],
)  # fmt: skip
def test_what_cannot_be(problems: Problems, start: Any, problem: str) -> None:
    colon = "" if problem.startswith(".") else ": "
    assert problems(autostart=start) == [f"test: sandboxes.commands.autostart{colon}{problem}"]


def test_its_arguments_must_do(problems: Problems, build: Build) -> None:
    raw = several(["%a%"], x={"args": {"a": "-r"}}, y={}, z={"args": {"a": 1}})
    hint = "(write `args` in its `autostart`)"
    place = "test: sandboxes.commands"
    assert problems(raw=raw) == [
        f"{place}[0].autostart.args: `x` cannot be started so: argument `a` may not begin with '-' {hint}",
        f"{place}[1].autostart.args: `y` cannot be started so: argument `a` is missing {hint}",
    ]


def test_who_notifies_has_a_time_limit(build: Build) -> None:
    assert starts_of(build(autostart={"ready": "notify"}))["c"].start_timeout == 90
    assert starts_of(build(autostart={"ready": "notify", "start_timeout": 0}))["c"].start_timeout == 0
    assert starts_of(build(autostart={"ready": "started"}))["c"].start_timeout == 0
    assert starts_of(build(autostart={"watchdog": 7}))["c"].watchdog == 7


TREE = [{"target": path, "mode": "ro"} for path in ("/bin", "/lib", "/lib64", "/usr") if Path(path).is_dir()]
ALONE = {"shares": {"net": "disable"}}


@pytest.mark.not_emulated("Landlock")
@pytest.mark.parametrize(
    ("sandbox", "problem"),
    [
        ({"namespace": ALONE},
         "ready: its socket is in the network that its sandbox does not share (give its sandbox a file tree "
         "of its own (`namespace.mounts`), or share it)"),
        ({"landlock": {"restrict": [], "scope": "abstract-sockets"}},
         "ready: its socket is abstract, and `landlock.scope` shuts those out (give its sandbox a file tree "
         "of its own (`namespace.mounts`), or let it)"),
        ({"namespace": {"mounts": [*TREE, {"target": "/.notify", "mode": "tmpfs"}]}},
         "ready: its socket is /.notify, and so is a mount of its sandbox (mount that elsewhere)"),
        ({"namespace": {**ALONE, "mounts": TREE}}, ""),
        ({"landlock": {"restrict": [], "scope": "signals"}}, ""),
    ],
)  # fmt: skip
def test_who_notifies_must_reach_its_socket(
    build: Build, problems: Problems, sandbox: dict[str, Any], problem: str
) -> None:
    if problem:
        told = f"test: sandboxes.commands.autostart.{problem}"
        assert problems(sandbox, autostart={"ready": "notify"}) == [told]
    else:
        build(sandbox, autostart={"ready": "notify"})


# Together.


def test_who_is_required_or_wanted_is_started_as_early_as_it_has_to_be(build: Build) -> None:
    raw = several(a={"requires": "x", "stage": "api"}, b={"wants": "x", "stage": "early"}, x=None, y=None)
    made = starts_of(build(raw=raw))
    assert made["x"] == Autostart(stage="early")
    assert "y" not in made


def test_who_cannot_be_started_without_arguments_is_not_pulled_in(problems: Problems) -> None:
    raw = several(["%a%"], a={"requires": "x", "args": {"a": 1}}, x=None)
    assert problems(raw=raw) == [
        "test: sandboxes.commands[0].autostart.requires: `x` cannot be started so: argument `a` is missing "
        "(write `args` in its `autostart`)"
    ]


def test_nobody_starts_what_is_only_waited_for(problems: Problems) -> None:
    told = "nothing starts `t/x` (give it an `autostart`, or name it in `wants`)"
    assert problems(raw=several(a={"after": ["x"]}, x=None)) == [
        f"test: sandboxes.commands[0].autostart.after[0]: {told}"
    ]


def test_an_order_against_the_stages(problems: Problems) -> None:
    raw = several(a={"after": "b", "stage": "early"}, b={"stage": "api"})
    assert problems(raw=raw) == [
        "test: sandboxes.commands[0].autostart.after: `t/a` is of stage `early` and would wait for `t/b`, of "
        "stage `api` (write `stage: api` here, or an earlier stage there)"
    ]


def test_a_circle_is_printed_where_it_begins(problems: Problems) -> None:
    condition = {"conditions": {"task": {"command": "b", "result": "success"}}}
    raw = several(z={}, b={"after": "d", "wants": "z"}, c=condition, d={"requires": "c"})
    told = "these would wait for one another: t/b -> t/d -> t/c -> t/b (take one of them out)"
    assert problems(raw=raw) == [f"test: sandboxes.commands[1].autostart.after: {told}"]


def test_every_circle_is_told_and_who_waits_for_one_is_not(problems: Problems) -> None:
    raw = several(a={"after": "b"}, b={"after": "a"}, c={"after": "a"}, d={"after": ["d"]}, e={"after": "d"})
    assert problems(raw=raw) == [
        "test: sandboxes.commands[0].autostart.after: these would wait for one another: t/a -> t/b -> t/a "
        "(take one of them out)",
        "test: sandboxes.commands[3].autostart.after[0]: `t/d` would wait for itself (take one of them out)",
    ]


def test_other_files_are_named_with_their_api(tmp_path: Path) -> None:
    for name, start in (("one", {"after": "two/c"}), ("two", {"requires": "one/c"})):
        text = str(several(c=start)).replace("'", '"').replace('"api": "t"', f'"api": "{name}"')
        (tmp_path / f"{name}.json").write_text(text)
    files = [str(tmp_path / "one.json"), str(tmp_path / "two.json")]
    with pytest.raises(ConfigError) as caught:
        compile_files(files, user=ORDINARY, group=ORDINARY, environ={})
    (problem,) = caught.value.problems
    assert str(problem) == (
        f"{files[0]}:1: sandboxes.commands[0].autostart.after: these would wait for one another: "
        "one/c -> two/c -> one/c (take one of them out)"
    )


def test_a_verb_of_the_same_file_comes_before_anothers(build: Build) -> None:
    raw = several(a={"after": "t/b"}, b={})
    raw["sandboxes"] = [
        raw["sandboxes"],
        {"uid": "t", "commands": {"uid": "b", "exec": {"cmdpath": "/bin/true"}, "autostart": {}}},
    ]
    raw["sandboxes"][0]["prefix"] = ""
    assert starts_of(build(raw=raw))["a"].after == ("t/t/b",)


def test_ten_thousand_in_a_chain_and_in_a_circle() -> None:
    chain = {str(number): [str(number - 1)] if number else [] for number in range(10_000)}
    assert in_order(chain) == [str(number) for number in range(10_000)]
    assert circles(chain) == []
    (circle,) = circles(chain | {"0": ["9999"]})
    assert circle == ["0", *(str(number) for number in range(9999, 0, -1))]


def test_a_long_circle_is_told_in_part(problems: Problems) -> None:
    raw = several(**{f"n{number}": {"after": f"n{(number + 1) % 30}"} for number in range(30)})
    (problem,) = problems(raw=raw)
    assert "t/n0 -> t/n1 -> t/n2 -> t/n3 -> t/n4 -> t/n5 -> (19 more) -> t/n25" in problem
    assert problem.endswith("t/n29 -> t/n0 (take one of them out)")


@given(st.dictionaries(st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdef"), max_size=3)))
def test_an_order_or_a_circle(some: dict[str, list[str]]) -> None:
    graph = {name: some.get(name, []) for name in "abcdef"}
    order, found = in_order(graph), circles(graph)
    for name in order:
        assert set(graph[name]) <= set(order[: order.index(name)])
    assert (len(order) == len(graph)) == (not found)
    for circle in found:
        for one, other in itertools.pairwise([*circle, circle[0]]):
            assert other in graph[one]
    assert not set(order) & {name for circle in found for name in circle}


def test_the_boot_may_wait_for_a_command(build: Build) -> None:
    made = starts_of(build(autostart={"before": "handover"}))["c"]
    assert made == Autostart(stage="early", handover=True, start_timeout=90.0)
    keys = {"before": "handover", "start_timeout": 5, "on_timeout": "reboot", "on_failure": "recovery"}
    made = starts_of(build(autostart=keys))["c"]
    assert (made.start_timeout, made.on_timeout, made.on_failure) == (5.0, "reboot", "recovery")


@pytest.mark.parametrize(
    ("start", "key", "words"),
    [
        ({"on_failure": "reboot"}, "on_failure", "the boot does not wait for it (write `before: handover`"),
        ({"on_timeout": "boot"}, "on_timeout", "the boot does not wait for it"),
        ({"before": "handover", "stage": "system"}, "stage", "stage `system` for the real init"),
        ({"before": "handover", "start_timeout": 0, "on_timeout": "boot"}, "on_timeout", "never too late"),
        ({"before": "breakfast"}, "before", "handover"),
    ],
)
def test_what_the_boot_cannot_wait_for(problems: Problems, start: Any, key: str, words: str) -> None:
    (found,) = problems(autostart=start)
    assert f"autostart.{key}" in found
    assert words in found
