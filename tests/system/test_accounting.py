"""What a task used and why it ended, as its final event and its record tell."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path
from typing import Any

import pytest

from initspawn.plan import Sandbox
from tests.support.probes import cgroup_mount
from tests.system import boxes
from tests.system.conftest import everybody, root
from tests.system.harness import Person, Run, bench

pytestmark = pytest.mark.needs("userns", "cgroup")

BURN = """
import os, time
if os.fork() == 0:
    while time.process_time() < 0.3: pass
    os._exit(0)
os.wait()
while time.process_time() < 0.2: pass
"""


def end_of(run: Run) -> dict[str, Any]:
    """Its end, which is the same in the final event and in the record."""
    run.end()
    task = run.task
    assert task is not None
    record, told = task.record(), task.log.get(task.log.next - 1).data
    end = {name: record[name] for name in ("status", "reason", "usage")}
    assert told == {"type": "final-event", "pid": task.pid, **end}
    return end


def _burn(box: Sandbox) -> dict[str, Any]:
    with bench(box) as made:
        return end_of(made.python(BURN))


@pytest.mark.guest_too
@everybody
def test_times_are_those_of_the_whole_task(who: Person) -> None:
    end = who.call(_burn, boxes.sandbox(who, "pid"))
    usage = end["usage"]
    assert (end["status"], end["reason"]) == ({"exit": 0}, "exit")
    assert 0.45 < usage["user-seconds"] + usage["system-seconds"] < 5
    assert 0.45 < usage["seconds"] < 30
    # Without a cgroup nobody knows, and nothing is made up.
    assert set(usage) == {"seconds", "user-seconds", "system-seconds", "read-bytes", "written-bytes"}


ORPHAN = """
import os, time
if os.fork() == 0:
    if os.fork() == 0:
        while time.process_time() < 0.3: pass
        open("burnt", "w").close()
        time.sleep(60)
    os._exit(0)
os.wait()
while not os.path.exists("burnt"): time.sleep(0.01)
"""


@root
def test_a_cgroup_knows_of_those_that_nobody_waited_for(who: Person) -> None:
    with_group, without = who.call(_orphan, boxes.sandbox(who, directory=str(who.home)), str(who.home))
    times = [end["usage"]["user-seconds"] + end["usage"]["system-seconds"] for end in (with_group, without)]
    assert times[0] > 0.28 > times[1]


def _orphan(box: Sandbox, home: str) -> list[dict[str, Any]]:
    found = []
    for reason in ("", "not for this test"):
        with bench(box) as made:
            made.supervisor.groups.reason = reason
            found.append(end_of(made.python(ORPHAN)))
        os.unlink(f"{home}/burnt")
    return found


WRITE = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_DFL); open('file', 'wb').write(bytes(9999))"


def _reasons(box: Sandbox) -> dict[str, Any]:
    with bench(box) as made:
        return {
            "exit": end_of(made.shell("exit 3")),
            "signal": end_of(made.shell("kill -KILL $$")),
            "timeout": end_of(made.shell("sleep 60", timeout=0.2)),
            "stop": end_of(made.shell("echo x; exec sleep 60").until("x").stop(signal.SIGINT)),
            "output-limit": end_of(made.python(WRITE)),
        }


@everybody
def test_why_it_ended(who: Person) -> None:
    limits = ((resource.RLIMIT_FSIZE, 4096, 4096), (resource.RLIMIT_CORE, 0, 0))
    found = who.call(_reasons, boxes.sandbox(who, "pid", directory=str(who.home), limits=limits))
    assert {name: end["reason"] for name, end in found.items()} == {name: name for name in found}
    assert {name: end["status"] for name, end in found.items()} == {
        "exit": {"exit": 3},
        "signal": {"signal": "Killed"},
        "timeout": {"signal": "Killed", "info": "timeout"},
        "stop": {"signal": "Interrupt"},
        "output-limit": {"signal": "File size limit exceeded"},
    }


def _grouped(box: Sandbox) -> tuple[dict[str, Any], str, list[str]]:
    with bench(box) as made:
        run = made.shell("cat /proc/self/cgroup; exec sleep 60").begin()
        made.until(lambda: run.lines["stdout"], "its group")
        assert run.task is not None
        assert run.task.start is not None
        group = run.task.start.cgroup or ""
        assert str(run.pid) in Path(f"{group}/cgroup.procs").read_text().split()
        end = end_of(run.stop())
        own = made.supervisor.groups.root
    assert own is not None
    return end, group, [] if not Path(own).exists() else [own]


@root
def test_a_sandbox_with_cgroups_has_one_whatever_its_namespaces(who: Person) -> None:
    """Without limits, so that it runs where version 2 has no controllers."""
    box = boxes.sandbox(who, "pid", "mnt", cgroup=())
    end, group, left = who.call(_grouped, box)
    assert group.startswith(str(cgroup_mount()))
    assert group.endswith("/main")
    assert end["reason"] == "stop"
    assert left == []
