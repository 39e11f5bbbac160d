"""Which plan a boot goes on with: the first that can be used, and what is told of the others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from initspawn.boot import early
from initspawn.errors import PlanError
from initspawn.plan import Plan
from initspawn.planfile import save

NAMED, OWN, LAST, BUILT_IN = (Plan(user=number, group=0) for number in (1, 2, 3, 4))
EMPTY = Plan(user=0, group=0)


@pytest.fixture
def plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """All candidates, each a plan of its own."""
    places = {name: tmp_path / name for name in ("named", "own", "last", "built-in")}
    for place, plan in zip(places.values(), (NAMED, OWN, LAST, BUILT_IN), strict=True):
        save(plan, str(place))
    monkeypatch.setattr(early, "PLANS", tuple(str(places[name]) for name in ("own", "last", "built-in")))
    return places


def begun(named: str = "", *refused: Plan) -> tuple[Plan, dict[str, Any]]:
    """The plan that was taken, and what is said of it. `refused`: those that the machine cannot run."""

    def make(plan: Plan) -> Any:
        if plan in refused:
            raise PlanError("no such cgroups")
        return SimpleNamespace(plan=plan, registry=SimpleNamespace(about={}))

    made: Any = early.begin(make, named)
    return made.plan, made.registry.about["plan"]()


def test_the_candidates_in_their_order(plans: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert begun(str(plans["named"])) == (NAMED, {"file": str(plans["named"]), "refused": []})
    for plan, name in ((OWN, "own"), (LAST, "last"), (BUILT_IN, "built-in")):
        assert begun() == (plan, {"file": str(plans[name]), "refused": []})
        assert capsys.readouterr().err == ""
        plans[name].unlink()
    assert begun() == (EMPTY, {"file": "", "refused": []})
    assert "no plan, so no commands" in capsys.readouterr().err


def test_the_last_plan_is_the_one_that_compile_keeps() -> None:
    own, last, _ = early.PLANS
    assert last == f"{own}.last"


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (b"\0rubbish", "not a plan"),
        (b"", "not a plan"),
        (None, "No such file or directory"),
    ],
)
def test_what_cannot_be_loaded_is_told(
    plans: dict[str, Path], bad: bytes | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plans["named"].unlink()
    if bad is not None:
        plans["named"].write_bytes(bad)
        plans["named"].chmod(0o600)
    plan, about = begun(str(plans["named"]))
    reason = f"{plans['named']}: {said}"
    assert (plan, about) == (OWN, {"file": str(plans["own"]), "refused": [reason]})
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"initspawn: {reason}", f"initspawn: {plans['own']} is the plan instead"]


def test_a_plan_for_another_machine(plans: dict[str, Path]) -> None:
    save(OWN.replace(machine="vax"), str(plans["own"]))
    plan, about = begun()
    assert plan == LAST
    assert about["refused"][0].startswith(f"{plans['own']}: the plan is for vax")


def test_a_plan_that_this_machine_cannot_run(plans: dict[str, Path]) -> None:
    reasons = [f"{plans[name]}: no such cgroups" for name in ("own", "last")]
    assert begun("", OWN, LAST) == (BUILT_IN, {"file": str(plans["built-in"]), "refused": reasons})
    plan, about = begun("", OWN, LAST, BUILT_IN)
    assert (plan, about["file"], len(about["refused"])) == (EMPTY, "", 3)


def test_without_a_plan_that_can_be_run_the_error_is_the_callers(plans: dict[str, Path]) -> None:
    with pytest.raises(PlanError):
        begun("", OWN, LAST, BUILT_IN, EMPTY)


SUPERVISORS = """
import json, os, sys
from initspawn.boot import early
from initspawn.supervisor.groups import Groups, PlanError

early.RUN_DIR, *early.PLANS = sys.argv[1:]
fit, before = Groups.fit, []

def refusing(groups, plan):
    before.append(len(os.listdir("/proc/self/fd")))
    if plan.user == 2:
        raise PlanError("its cgroups cannot be made")
    return fit(groups, plan)

Groups.fit = refusing
made = early.begin(lambda plan: early.Early(plan, -1, None))
print(json.dumps([made.registry.about["plan"](), made.supervisor.plan.user, before]))
"""


@pytest.mark.not_emulated("what a supervisor begins with: its spawner")
def test_a_supervisor_that_refuses_its_plan_leaves_nothing_to_the_next(
    plans: dict[str, Path], tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir(mode=0o700)
    argv = [sys.executable, "-c", SUPERVISORS, str(run_dir), str(plans["own"]), str(plans["last"])]
    done = subprocess.run(argv, check=True, capture_output=True, timeout=60)
    about, user, descriptors = json.loads(done.stdout)
    assert about == {
        "file": str(plans["last"]),
        "refused": [f"{plans['own']}: its cgroups cannot be made"],
    }
    assert user == 3
    first, second = descriptors
    assert first == second
    assert os.listdir(run_dir) == []
