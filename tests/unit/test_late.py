"""What a plan made ahead leaves open is filled in, or the plan is refused with the reason."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from initspawn import late
from initspawn.errors import PlanError
from initspawn.linux import capabilities
from initspawn.plan import TEXT, Api, Command, Mount, Plan, Sandbox

ENVIRON = {
    "HOME": "/home/me",
    "LOGNAME": "me",
    "INITSPAWN_TOKEN": "secret",
    "WATCHDOG_USEC": "1",
    "LANG": "x",
}


def plan(*, user: int | None = None, command: dict[str, Any] | None = None, **sandbox: Any) -> Plan:
    me = os.geteuid() if user is None else user
    made = Sandbox(**{"uid": "s", "user": me, "group": me, **sandbox})
    run = Command(**{"uid": "c", "verb": "c", "sandbox": "s", "path": "/bin/c", **(command or {})})
    return Plan(
        user=me, group=me, late=True, apis=(Api(uid="u", api="t", sandboxes=(made,), commands=(run,)),)
    )


def settled(given: Plan) -> tuple[Sandbox, Command]:
    done = late.settle(given, ENVIRON)
    assert not done.late
    (api,) = done.apis
    return api.sandboxes[0], api.commands[0]


def text(value: str) -> tuple[tuple[str, str], ...]:
    return ((TEXT, value),)


def test_every_name_gets_its_value() -> None:
    names = ["PID", "HOME", "LOGNAME", "HOSTNAME", "AFB_ROOTDIR", "AFB_NAME"]
    arguments = tuple(text(f"<{late.mark(name)}>") for name in names)
    _, command = settled(plan(command={"arguments": arguments}))
    values = [os.getpid(), "/home/me", "me", os.uname().nodename, ".", "initspawn"]
    assert [parts[0][1] for parts in command.arguments] == [f"<{value}>" for value in values]


def test_a_uuid_is_a_new_one_each_time_and_today_is_a_time() -> None:
    both = late.mark("UUID") + " " + late.mark("UUID")
    _, command = settled(plan(command={"arguments": (text(both), text(late.mark("TODAY")))}))
    one, other = command.arguments[0][0][1].split()
    assert one != other
    form = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
    assert re.fullmatch(form, one)
    assert re.fullmatch(r"\d\d-\w{3}-\d{4} \d\d:\d\d:\d\d \(.+\)", command.arguments[1][0][1])


def test_everywhere_in_a_plan() -> None:
    mark = late.mark("LOGNAME")
    sandbox, command = settled(
        plan(
            environment=(("A", mark),),
            directory=f"/{mark}",
            mounts=(Mount(operation="symlink", target="/l", source=f"to/{mark}"),),
            command={"path": f"/{mark}/c", "encoder_options": {"file": [mark], "size": 3}},
        )
    )
    assert sandbox.environment == (("A", "me"),)
    assert sandbox.directory == "/me"
    assert sandbox.mounts[0].source == "to/me"
    assert command.path == "/me/c"
    assert command.encoder_options == {"file": ["me"], "size": 3}


def test_the_supervisors_environment_comes_where_it_was_asked_for() -> None:
    given = (("LANG", "C"), (late.SERVER, ""), ("HOME", "/own"), ("LOGNAME", late.UNSET), ("A", "b"))
    sandbox, _ = settled(plan(environment=given))
    assert sandbox.environment == (("LANG", "x"), ("HOME", "/own"), ("A", "b"))


def test_a_plan_that_is_not_late_stays_as_it_is() -> None:
    given = plan(environment=(("A", "b"),)).replace(late=False)
    assert late.settle(given, ENVIRON) is given


def test_lines_of_execfd_run_when_the_supervisor_starts() -> None:
    line = Mount(operation="file", target="/f", source=f"echo {late.mark('LOGNAME')}", late="line")
    sandbox, _ = settled(plan(mounts=(line,)))
    assert sandbox.mounts == (Mount(operation="file", target="/f", data=b"me\n"),)


def test_sources_are_looked_for_and_made(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real").mkdir()
    mounts = (
        Mount(operation="bind", target="/a", source=f"{tmp_path}/link", late="find"),
        Mount(operation="bind", target="/b", source=f"{tmp_path}/new/er", late="create", read_only=True),
    )
    sandbox, _ = settled(plan(mounts=mounts))
    assert [mount.source for mount in sandbox.mounts] == [f"{tmp_path}/real", f"{tmp_path}/new/er"]
    assert [mount.late for mount in sandbox.mounts] == ["", ""]
    assert (tmp_path / "new" / "er").is_dir()


def test_an_image_that_is_missing_does_not_cost_the_whole_plan(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("none")
    root = Mount(operation="image", target="/", source=f"{tmp_path}/link", read_only=True, late="find")
    sandbox, _ = settled(plan(mounts=(root,)))
    assert sandbox.mounts == (root.replace(source=f"{tmp_path}/none", late=""),)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (plan(command={"path": late.mark("AFB_ROOTDIR") + "/x"}), "command `c`: './x' is not absolute"),
        (plan(directory=late.mark("LOGNAME")), "sandbox `s`: 'me' is not absolute"),
        (plan(command={"path": late.mark("NEWER")}), "'NEWER', which this initspawn does not know"),
        (
            plan(mounts=(Mount(operation="bind", target="/t", source="/nothing/here", late="find"),)),
            "sandbox `s`, mount on /t: '/nothing/here' does not exist",
        ),
        (
            plan(mounts=(Mount(operation="bind", target="/t", source="/a/../b", late="find"),)),
            "no absolute path without `..`",
        ),
        (
            plan(mounts=(Mount(operation="file", target="/t", source="exit 3", late="line"),)),
            "sandbox `s`, mount on /t: the line ended with status 3",
        ),
        (plan(capabilities=1 << 63), "has 63 to give"),
    ],
)
def test_what_does_not_work_is_refused(given: Plan, told: str) -> None:
    with pytest.raises(PlanError) as caught:
        late.settle(given, ENVIRON)
    assert told in str(caught.value)


def test_all_capabilities_are_those_that_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capabilities, "bounding", lambda: 0b1011)
    monkeypatch.setattr(capabilities, "last_cap", lambda: 2)
    given = plan(user=0, capabilities=0b11111, if_held=0b11110)
    assert settled(given)[0].capabilities == 0b0011
    with pytest.raises(PlanError, match="DAC_READ_SEARCH to give"):
        late.settle(plan(user=0, capabilities=0b111, if_held=0b011), ENVIRON)
    # A user namespace of its own has all that the kernel knows.
    assert settled(given.replace(user=1000))[0].capabilities == 0b111


def test_a_plan_to_look_at_shows_the_names() -> None:
    mounts = (Mount(operation="file", target="/f", source=late.mark("PID"), late="line"),)
    (api,) = late.described(plan(mounts=mounts, command={"path": late.mark("HOME")})).apis
    assert api.commands[0].path == "$HOME"
    assert api.sandboxes[0].mounts[0].source == "$PID"


def test_another_processors_plan_is_refused() -> None:
    late.check_machine(Plan(user=0, group=0, machine=os.uname().machine))
    with pytest.raises(PlanError, match="the plan is for riscv64"):
        late.check_machine(Plan(user=0, group=0, machine="riscv64"))


def test_marks() -> None:
    assert late.is_mark(late.mark("PID"))
    assert not any(map(late.is_mark, ("", "\0", "PID", "\0NOTHING\0", "a\0PID\0")))
    assert late.is_late("a" + late.mark("PID"))
    assert not late.is_late("$PID")
