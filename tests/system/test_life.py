"""How tasks live and end: whatever a command does, its end is told once and nothing of it is left."""

from __future__ import annotations

import errno
import gc
import os
import resource
import select
import signal
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from initspawn.event import DATA, FINAL
from initspawn.limits import LAUNCH_SECONDS, TASKS
from initspawn.linux import process
from initspawn.plan import Command, Plan, Sandbox
from initspawn.sandbox.launch import Start
from initspawn.sandbox.measure import Baseline
from initspawn.sandbox.program import Ledger
from initspawn.sandbox.spawner import Spawner
from initspawn.supervisor import core, prepare, running
from initspawn.supervisor.eventlog import Reader
from tests.support.pace import SLOWER
from tests.system import boxes
from tests.system.conftest import ROOT_AND_A_USER, everybody, root_and_a_user
from tests.system.harness import (
    PATIENCE,
    Bench,
    Person,
    Result,
    Run,
    alive,
    bench,
    children,
    descriptors,
    marked,
)

# What ends the processes that a command leaves: its pid namespace, its cgroup, or its reaper alone.
KINDS: dict[str, Callable[[Person], Sandbox]] = {
    "pid": lambda who: boxes.sandbox(who, "pid"),
    "cgroup": boxes.sandbox,
    "reaper": boxes.sandbox,
}
WAYS = [
    pytest.param(uid, kind, id=f"{kind}-{'root' if uid == 0 else 'user'}")
    for uid in ROOT_AND_A_USER
    for kind in KINDS
    if kind != "cgroup" or uid == 0  # an ordinary user may make no cgroup here
]
each_way = pytest.mark.parametrize(("who", "kind"), WAYS, indirect=["who"])
pytestmark = pytest.mark.needs("userns", "cgroup")

GRACE = 0.3
LATER = 0.2


@contextmanager
def prepared(box: Sandbox, kind: str, grace: float = GRACE) -> Iterator[tuple[Bench, str]]:
    """A bench where only `kind` ends what is left, and a word that marks this test's processes."""
    core.STOP_GRACE_SECONDS = prepare.STOP_GRACE_SECONDS = grace
    with bench(box) as made:
        if kind == "reaper":
            made.supervisor.groups.reason = "not for this test"
        word = str(10**6 + os.getpid())
        yield made, word
        made.until(lambda: not marked(word), f"the end of {[read(pid) for pid in marked(word)]}")


def read(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""


# Started processes that ignore every polite signal, in sessions of their own, behind a dead parent.
DAEMONS = """
import os, signal, sys
word, count, mode = sys.argv[1], int(sys.argv[2]), sys.argv[3]
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT): signal.signal(number, signal.SIG_IGN)
def daemon():
    if os.fork(): return
    os.setsid()
    if os.fork(): os._exit(0)
    if mode != "holding":
        for fd in (0, 1, 2): os.close(fd)
    os.execv("/bin/sleep", ["sleep", word])
for _ in range(count): daemon()
for _ in range(count): os.wait()
print("started", flush=True)
if mode == "staying":
    os.execv("/bin/sleep", ["sleep", word])
os._exit(3)
"""


@each_way
def test_a_polite_signal_ends_a_shell_and_its_children(who: Person, kind: str) -> None:
    result = who.call(_polite, KINDS[kind](who), kind)
    assert result.status == {"signal": "Terminated"}


def _polite(box: Sandbox, kind: str) -> Result:
    with prepared(box, kind, grace=60) as (made, word):
        run = made.shell(f"sleep {word} & sleep {word} & echo here; wait").until("here")
        return run.stop().end()


@each_way
def test_a_command_that_catches_the_signal_ends_as_it_likes(who: Person, kind: str) -> None:
    result = who.call(_catching, KINDS[kind](who), kind)
    assert (result.status, result.out) == ({"exit": 9}, "here\nbye")


def _catching(box: Sandbox, kind: str) -> Result:
    with prepared(box, kind, grace=60) as (made, word):
        run = made.shell(f"trap 'echo bye; exit 9' TERM; echo here; sleep {word} & wait").until("here")
        return run.stop().end()


@each_way
def test_who_ignores_the_signal_dies_after_the_grace_with_all_it_started(who: Person, kind: str) -> None:
    result = who.call(_ignoring, KINDS[kind](who), kind)
    assert result.status == {"signal": "Killed"}


def _ignoring(box: Sandbox, kind: str) -> Result:
    with prepared(box, kind) as (made, word):
        run = made.python(DAEMONS, word, "5", "staying").until("started")
        made.until(lambda: len(marked(word)) == 6, "the daemons")
        return run.stop().end()


@pytest.mark.guest_too
@each_way
def test_daemons_end_with_their_command(who: Person, kind: str) -> None:
    result = who.call(_daemons, KINDS[kind](who), kind, "20", "leaving")
    assert (result.status, result.out) == ({"exit": 3}, "started")


@each_way
def test_who_holds_the_pipes_does_not_hold_up_the_end(who: Person, kind: str) -> None:
    result = who.call(_daemons, KINDS[kind](who), kind, "3", "holding")
    assert (result.status, result.out) == ({"exit": 3}, "started")


def _daemons(box: Sandbox, kind: str, count: str, mode: str) -> Result:
    with prepared(box, kind) as (made, word):
        return made.python(DAEMONS, word, count, mode).end()


@each_way
def test_a_storm_of_processes_ends_at_a_time_limit(who: Person, kind: str) -> None:
    result = who.call(_storm, KINDS[kind](who), kind)
    assert result.status == {"signal": "Killed", "info": "timeout"}


def _storm(box: Sandbox, kind: str) -> Result:
    count = f"{200 / SLOWER:.0f}"
    with prepared(box, kind) as (made, word):
        return made.python(DAEMONS, word, count, "staying", timeout=1.5 * SLOWER).until("started").end()


@each_way
def test_a_time_limit_ends_a_command(who: Person, kind: str) -> None:
    result = who.call(_timeout, KINDS[kind](who), kind)
    assert (result.status, result.out) == ({"signal": "Killed", "info": "timeout"}, "early")


def _timeout(box: Sandbox, kind: str) -> Result:
    with prepared(box, kind) as (made, word):
        return made.shell(f"echo early; sleep {word}; echo late", timeout=0.2).end()


@pytest.mark.racy
@root_and_a_user
def test_a_time_limit_that_races_with_the_end_tells_one_end(who: Person) -> None:
    # Run checks that `on_end` comes once, the bench that no callback raises.
    for types, status in who.call(_race, boxes.sandbox(who, "pid")):
        assert types == [FINAL]
        assert status in ({"exit": 0}, {"signal": "Killed", "info": "timeout"})


def _race(box: Sandbox) -> list[tuple[list[str], dict[str, Any]]]:
    found = []
    with bench(box) as made:
        for batch in range(10):
            # From far too short to just enough: some batch meets the moment.
            runs = [
                made.start("/bin/sleep", "0.01", timeout=0.008 + 0.0005 * batch + 0.0002 * number)
                for number in range(20)
            ]
            for run in runs:
                result = run.end()
                found.append((run.types, result.status))
    return found


@pytest.mark.racy
@root_and_a_user
def test_a_stop_that_races_with_the_end_tells_one_end(who: Person) -> None:
    for types, step in who.call(_stop_race, boxes.sandbox(who, "pid")):
        assert types == [FINAL] or (types == [] and step)


def _stop_race(box: Sandbox) -> list[tuple[list[str], str]]:
    found = []
    with bench(box) as made:
        for turns in range(60):
            run = made.start("/bin/true")
            for _ in range(turns // 4):  # from the very beginning to long after the end
                made.reactor.turn(0.001)
            run.stop().stop(signal.SIGINT)
            found.append((run.types, run.end().step))
            run.stop()
    return found


@everybody
def test_a_stream_may_be_closed_early(who: Person) -> None:
    box = boxes.sandbox(who)
    result = who.run(box, "/bin/sh", "-c", "echo e >&2; exec 2>&-; echo a; sleep 0.05; echo b; exit 5")
    assert (result.out, result.err, result.status) == ("a\nb", "e", {"exit": 5})
    result = who.run(box, "/bin/sh", "-c", "exec >&-; echo a >&2; sleep 0.05; echo b >&2; exit 6")
    assert (result.out, result.err, result.status) == ("", "a\nb", {"exit": 6})
    result = who.run(box, "/bin/sh", "-c", "exec >&- 2>&-; sleep 0.05; exit 7")
    assert (result.out, result.err, result.status) == ("", "", {"exit": 7})


@root_and_a_user
def test_a_stranger_who_holds_the_pipes_is_not_waited_for(who: Person) -> None:
    result = who.call(_stranger, boxes.sandbox(who))
    assert (result.out, result.status) == ("here\nlast", {"exit": 0})


def _stranger(box: Sandbox) -> Result:
    running.DRAIN_SECONDS = GRACE
    with bench(box) as made:
        reader, writer = os.pipe()
        run = made.shell("echo here; read line <&3; echo last", descriptors=(reader,)).until("here")
        held = [os.open(f"/proc/{run.pid}/fd/{fd}", os.O_WRONLY) for fd in (1, 2)]
        os.write(writer, b"go\n")
        result = run.end()
        for fd in (reader, writer, *held):
            os.close(fd)
    return result


@root_and_a_user
def test_what_a_command_left_in_its_pipe_is_told_to_a_slow_reader(who: Person) -> None:
    """Also when the time for strangers is over between two of its rests."""
    assert who.call(_slowly, boxes.sandbox(who)) == [str(number) for number in range(1, 20001)]


def _slowly(box: Sandbox) -> list[str]:
    running.DRAIN_SECONDS = 0.0
    heard: list[str] = []
    with bench(box) as made:
        run = made.start("/usr/bin/seq", "20000").begin()
        assert run.task is not None
        reader = Reader(run.task.log, lambda: None)

        def some(most: int) -> None:
            for _ in range(most):
                if (event := reader.take()) is not None and "stdout" in event.data:
                    heard.append(event.data["stdout"])

        made.until(lambda: some(1000) or run.ended, "the end")
        some(20000)
        reader.close()
    return heard


FLOOD = """
import sys
for number in range(1024):
    for stream in (sys.stdout, sys.stderr): stream.write(f"{number:07}" * 146 + "x\\n")
"""


@root_and_a_user
def test_a_mebibyte_on_both_streams_is_complete_and_in_order(who: Person) -> None:
    whole = [f"{number:07}" * 146 + "x" for number in range(1024)]
    assert sum(len(line) + 1 for line in whole) == 1 << 20
    assert who.call(_floods, boxes.sandbox(who, "pid"), whole) == [{"exit": 0}] * 25


def _floods(box: Sandbox, whole: list[str]) -> list[dict[str, Any]]:
    statuses = []
    with bench(box) as made:
        for _ in range(5):
            runs = [made.python(FLOOD) for _ in range(5)]
            for run in runs:
                statuses.append(run.end().status)
                assert run.lines == {"stdout": whole, "stderr": whole}
                assert run.types == [*[DATA] * 2048, FINAL]
    return statuses


ENDS = {
    "exit 0": {"exit": 0},
    "exit 7": {"exit": 7},
    "exit 125": {"exit": 125},
    "exit 255": {"exit": 255},
    "kill -TERM $$": {"signal": "Terminated"},
    "kill -KILL $$": {"signal": "Killed"},
    "kill -SEGV $$": {"signal": "Segmentation fault"},
    "kill -ABRT $$": {"signal": "Aborted"},
    "kill -40 $$": {"signal": "Real-time signal 6"},
}


@everybody
@pytest.mark.parametrize("kind", ["pid", "cgroup"])
def test_how_it_ended_is_told_as_it_was(who: Person, kind: str) -> None:
    assert who.call(_ends, KINDS[kind](who)) == ENDS


def _ends(box: Sandbox) -> dict[str, dict[str, Any]]:
    with bench(box) as made:
        runs = {line: made.shell(line) for line in ENDS}
        return {line: run.end().status for line, run in runs.items()}


@each_way
def test_a_stopped_command_can_be_stopped_and_continued(who: Person, kind: str) -> None:
    """A stop signal from its user's terminal habits must not look like an end."""
    assert who.call(_suspend, KINDS[kind](who), kind) == ({"exit": 4}, {"signal": "Killed"})


def _suspend(box: Sandbox, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    with prepared(box, kind) as (made, word):
        run = made.shell("echo here; kill -STOP $$; exit 4").until("here")
        made.until(lambda: ") T " in read(run.pid), "the stop")
        assert not run.ended
        first = run.signal(signal.SIGCONT).end().status
        run = made.shell(f"echo here; kill -STOP $$; sleep {word}").until("here")
        made.until(lambda: ") T " in read(run.pid), "the stop")
        return first, run.stop().end().status


@pytest.mark.guest_too
@each_way
def test_when_its_reaper_is_killed_the_command_dies(who: Person, kind: str) -> None:
    result = who.call(_kill_reaper, KINDS[kind](who), kind)
    assert (result.step, result.status) == ("", {"signal": "Killed"})


def _kill_reaper(box: Sandbox, kind: str) -> Result:
    with prepared(box, kind) as (made, word):
        # Without a namespace and a cgroup only the command itself is sure to die with its reaper.
        another = "" if kind == "reaper" else f"sleep {word} & "
        run = made.shell(f"{another}echo here; exec sleep {word}").until("here")
        os.kill(run.reaper, signal.SIGKILL)
        return run.end()


@root_and_a_user
@pytest.mark.parametrize("noticed", [True, False], ids=["noticed", "not noticed yet"])
def test_when_the_spawner_is_killed_the_next_start_works(who: Person, noticed: bool) -> None:
    results = who.call(_kill_spawner, boxes.sandbox(who, "pid"), noticed)
    assert [result.status for result in results] == [{"exit": 0}] * 3, results


def _kill_spawner(box: Sandbox, noticed: bool) -> list[Result]:
    with bench(box) as made:
        reader, writer = os.pipe()
        running = made.shell("echo here; read line <&3", descriptors=(reader,)).until("here")
        first = made.supervisor.launcher.spawner_pid
        os.kill(first, signal.SIGKILL)
        made_before = made
        if noticed:
            made.until(lambda: made.supervisor.launcher.spawner_pid != first, "the new spawner")
        else:
            # Gone, but the loop has not turned since.
            os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
        results = [made_before.run("/bin/true"), made.run("/bin/true")]
        os.write(writer, b"go\n")
        results.append(running.end())
        os.close(reader)
        os.close(writer)
    return results


@root_and_a_user
@pytest.mark.parametrize("timed", [False, True], ids=["", "late"])
def test_a_start_that_is_stopped_before_it_is_cloned(who: Person, timed: bool) -> None:
    stopped, after, survived = who.call(_stop_uncloned, boxes.sandbox(who, "pid"), timed)
    assert (stopped.step, stopped.detail) == ("start", "it was stopped before it ran")
    assert after.status == {"exit": 0}
    assert survived is not timed  # one that does nothing for so long does not work any more


def _stop_uncloned(box: Sandbox, timed: bool) -> tuple[Result, Result, bool]:
    """A stopped start, the next one, and whether the spawner is still the same."""
    if timed:
        core.LAUNCH_SECONDS = GRACE
    with bench(box) as made:
        spawner = made.supervisor.launcher.spawner_pid
        made.until(lambda: made.supervisor.launcher.spare_pid, "the spare spawner")
        os.kill(spawner, signal.SIGSTOP)
        run = made.start("/bin/true").stop()
        assert run.task is not None
        assert run.task.start is not None
        assert run.task.start.pid == 0
        if not timed:
            os.kill(spawner, signal.SIGCONT)
        stopped = run.end()
        core.LAUNCH_SECONDS = LAUNCH_SECONDS
        after = made.run("/bin/true")
        return stopped, after, made.supervisor.launcher.spawner_pid == spawner and alive(spawner)


@root_and_a_user
@pytest.mark.parametrize(
    ("who_died", "step", "detail"),
    [
        ("supervisor", "reaper", "getppid which lives"),
        ("reaper", "child", "it ended before its exec without a word"),
    ],
)
def test_a_parent_that_died_too_early_to_send_its_signal(
    who: Person, who_died: str, step: str, detail: str
) -> None:
    found = who.call(_orphaned, boxes.sandbox(who), who_died)
    assert (found.step, found.detail) == (step, detail)


def _orphaned(box: Sandbox, who_died: str) -> Result:
    """A start by a spawner whose own number, or whose reapers', is not that of the parent there."""
    serve = Spawner._serve

    def orphaned(self: Spawner) -> bool:
        if who_died == "supervisor":
            self._baseline.supervisor = 1
        else:
            os.getppid = lambda: 1
        return serve(self)

    Spawner._serve = orphaned  # type: ignore[method-assign]
    with bench(box) as made:
        return made.run("/bin/true")


def test_a_spawner_whose_supervisor_died_too_early_ends() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, open("/dev/null") as null:
        baseline = Baseline()
        baseline.supervisor = 1
        pid = os.fork()
        if pid == 0:
            Spawner(theirs, [], baseline, Ledger(1), null.fileno()).live()
        end = os.pidfd_open(pid)
        try:
            assert select.select([end], [], [], PATIENCE)[0] == [end]
        finally:
            os.close(end)
            os.kill(pid, signal.SIGKILL)  # not waited for: the number is its own
            os.waitpid(pid, 0)


@root_and_a_user
def test_a_start_has_the_more_time_the_more_tasks_are_alive(who: Person) -> None:
    refused = who.call(_crowded, boxes.sandbox(who, "pid"))
    assert (refused.step, refused.detail) == ("start", f"not at its exec after {GRACE + 2 * LATER:g} s")


def _crowded(box: Sandbox) -> Result:
    """What becomes of a start that nobody begins with, when others came after it."""
    core.LAUNCH_SECONDS, core.LAUNCH_EACH_SECONDS = GRACE, LATER
    with bench(box) as made:
        made.until(lambda: made.supervisor.launcher.spare_pid, "the spare spawner")
        os.kill(made.supervisor.launcher.spawner_pid, signal.SIGSTOP)
        first, *others = [made.start("/bin/true") for _ in range(3)]
        refused = first.end()
        for other in others:
            other.end()
        return refused


@root_and_a_user
def test_thirty_two_at_once(who: Person) -> None:
    found = who.call(_at_once, boxes.full(who), 32)
    assert found == [(f"task {number}", {"exit": number}) for number in range(32)]


def _at_once(box: Sandbox, count: int) -> list[tuple[str, dict[str, Any]]]:
    with bench(box) as made:
        reader, writer = os.pipe()
        runs = [
            made.shell(f"echo task {number}; read line <&3; exit {number}", descriptors=(reader,))
            for number in range(count)
        ]
        for number, run in enumerate(runs):
            run.until(f"task {number}")
        assert len({run.pid for run in runs}) == count
        assert all(alive(run.pid) for run in runs)
        os.write(writer, b"go\n" * count)
        results = [run.end() for run in runs]
        os.close(reader)
        os.close(writer)
        return [(result.out, result.status) for result in results]


@root_and_a_user
def test_as_many_as_may_be_alive_are_started_in_one_go(who: Person) -> None:
    assert who.call(_burst, boxes.sandbox(who, "pid"), TASKS, 0, False) == {"": TASKS}


@root_and_a_user
@pytest.mark.parametrize("killed", [False, True], ids=["", "killed"])
def test_starts_wait_for_a_spawner_that_has_much_to_do(who: Person, killed: bool) -> None:
    assert who.call(_burst, boxes.sandbox(who, "pid"), 60, 4096, killed) == {"": 60}


def _burst(box: Sandbox, count: int, room: int, killed: bool) -> dict[str, int]:
    """How many starts, made in one go, came to which refusal. `room`: bytes on its socket; `killed`: the
    spawner, before it has begun with any.
    """
    with bench(box) as made:
        launcher = made.supervisor.launcher
        assert launcher._socket is not None
        made.until(lambda: launcher.spare_pid, "the spare spawner")
        if room:
            launcher._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
            os.kill(launcher.spawner_pid, signal.SIGSTOP)
        runs = [made.start("/bin/true") for _ in range(count)]
        if room:
            assert launcher._waiting
            os.kill(launcher.spawner_pid, signal.SIGKILL if killed else signal.SIGCONT)
        steps = [run.end().step for run in runs]
        assert not launcher._waiting
    return dict(Counter(steps))


@root_and_a_user
def test_a_reload_without_a_spare_is_one_all_the_same(who: Person) -> None:
    """It has died, and for another there are no descriptors."""
    assert who.call(_renewed, boxes.sandbox(who, "pid")) == [0o77] * 3


def _renewed(box: Sandbox) -> list[int]:
    """The umasks of tasks in a sandbox that came with a reload, while the spawner lives and afterwards."""
    with bench(box) as made:
        launcher = made.supervisor.launcher
        made.until(lambda: launcher.spare_pid, "the spare spawner")
        assert launcher._spare is not None
        launcher._spare.close()
        usual = resource.getrlimit(resource.RLIMIT_NOFILE)
        renew_spare = launcher.renew_spare

        def renew() -> None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, usual[1]))
            try:
                renew_spare()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, usual)

        launcher.renew_spare = renew  # type: ignore[method-assign]
        made.sandboxes = (box.replace(umask=0o77),)
        made.api = made.api.replace(sandboxes=made.sandboxes)
        launcher.renew([*made.sandboxes])
        made.supervisor.reserve.renew(Plan(user=os.geteuid(), group=os.getegid(), apis=(made.api,)))
        launcher.renew_spare = renew_spare  # type: ignore[method-assign]
        found = [made.run("/bin/true").measurement["umask"] for _ in range(2)]
        spawner = launcher.spawner_pid
        os.kill(spawner, signal.SIGKILL)
        made.until(lambda: launcher.spawner_pid != spawner, "another spawner")
        return [*found, made.run("/bin/true").measurement["umask"]]


@root_and_a_user
def test_five_hundred_starts_leave_nothing_behind(who: Person) -> None:
    before, half, after = who.call(_many, boxes.full(who))
    for name in ("descriptors", "spawner's descriptors", "children", "slots", "timers", "watched"):
        assert after[name] == before[name], name
    # A list grows in steps, and the interpreter keeps some free memory: a leak would be 500 of something.
    assert after["objects"] - before["objects"] < 250, (before, after)
    for name in ("memory", "spawner's memory"):
        assert after[name] - half[name] < 512, (half, after)


def _many(box: Sandbox) -> list[dict[str, Any]]:
    counts = []
    with bench(box) as made:
        # First until all that is kept is full: ended tasks are remembered.
        for batches in (10, 25, 25):
            for _ in range(batches):
                _batch(made)
            counts.append(_count(made))
    return counts


def _batch(made: Bench) -> None:
    runs: list[Run] = [made.start("/bin/true", timeout=60) for _ in range(8)]
    runs.append(made.start("/nothing"))
    runs.append(made.start("/bin/sleep", "60").begin().stop(signal.SIGKILL))
    assert [run.end().step for run in runs] == [""] * 8 + ["exec", ""]


def _count(made: Bench) -> dict[str, Any]:
    supervisor = made.supervisor
    spawner = supervisor.launcher.spawner_pid
    helpers = {spawner, supervisor.launcher.spare_pid}
    supervisor.reserve.close()
    made.until(lambda: set(children(os.getpid())) == helpers, "the end of all tasks")
    made.until(lambda: supervisor.reserve.empty, "the end of what was only asked for")
    made.reactor._patience(None)  # forgets cancelled timers
    gc.collect()
    return {
        "descriptors": sorted(descriptors()),
        "spawner's descriptors": sorted(descriptors(spawner)) if os.geteuid() == 0 else [],  # it is hidden
        "children": children(os.getpid()),
        "slots": len(supervisor.launcher.ledger._free),
        "timers": sum(timer.callback is not None for timer in made.reactor._timers),
        "watched": len(made.reactor._callbacks),
        "objects": len(gc.get_objects()),
        "memory": _memory("self"),
        "spawner's memory": _memory(str(spawner)),
    }


def _memory(pid: str) -> int:
    """What a process has in memory, in KiB; pages it shares with its parent until they are written too."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() // 1024


@root_and_a_user
def test_closing_the_supervisor_ends_all_tasks(who: Person) -> None:
    assert who.call(_closing, boxes.sandbox(who, "pid")) == [{"signal": "Killed"}] * 5


def _closing(box: Sandbox) -> list[dict[str, Any]]:
    runs: list[Run] = []
    with prepared(box, "pid") as (made, word):
        for _ in range(5):
            runs.append(made.shell(f"trap '' TERM; echo here; sleep {word}; sleep {word}").until("here"))
        made.close()
        made.close = lambda: None
    return [run.result().status for run in runs]


def _failing(number: int) -> None:
    """From now on the launch after so many fails, as nobody expects it."""
    real, left = Start.launch, [number]

    def launch(self: Start, argv: tuple[str, ...]) -> None:
        if not left[0]:
            Start.launch = real  # type: ignore[method-assign]
            raise RuntimeError("it was not expected")
        left[0] -= 1
        real(self, argv)

    Start.launch = launch  # type: ignore[method-assign]


@pytest.mark.parametrize("warm", [False, True], ids=["fresh", "warm"])
@root_and_a_user
def test_a_start_that_fails_as_nobody_expects_leaves_nothing(who: Person, warm: bool) -> None:
    assert who.call(_unexpected, boxes.sandbox(who, "pid"), warm) == {"exit": 3}


def _unexpected(box: Sandbox, warm: bool) -> dict[str, Any]:
    with bench(box) as made:
        supervisor = made.supervisor
        if warm:
            made.run("/bin/true")
            made.until(lambda: supervisor.reserve.starts and supervisor.reserve.ready, "the reserve")
        _failing(0)
        with pytest.raises(RuntimeError, match="not expected"):
            made.run("/bin/true")
        assert supervisor.roster.every() == []
        waiting = lambda: {start for start, _ in supervisor.reserve._waiting}  # noqa: E731
        made.until(lambda: not supervisor.launcher.starts - waiting(), "the end of its start")
        return made.shell("exit 3").end().status


@root_and_a_user
def test_the_turn_of_one_that_fails_as_nobody_expects_goes_to_the_next(who: Person) -> None:
    assert who.call(_queued, boxes.sandbox(who, "pid")) == [None, ("internal-error", ""), None]


def _queued(box: Sandbox) -> list[tuple[str, str] | None]:
    with bench(box) as made:
        command = Command(uid="c", verb="c", sandbox=box.uid, path="/bin/true", most=1, queue=2)
        ended: list[Any] = []
        _failing(1)
        tasks = [
            made.supervisor.start(made.api, command, ("/bin/true",), on_end=ended.append) for _ in range(3)
        ]
        while len(ended) < 3:
            made.reactor.turn(0.02)
        assert len(made.errors) == 1
        assert "not expected" in made.errors.pop()
        refusals = [task.refusal for task in tasks]
        return [refusal and (refusal.status, refusal.info) for refusal in refusals]


@root_and_a_user
def test_a_command_that_cannot_be_held_for_want_of_descriptors_is_a_shortage(who: Person) -> None:
    assert who.call(_not_held, boxes.sandbox(who, "pid")) == ["descriptors"]


def _not_held(box: Sandbox) -> list[str]:
    real = process.pidfd_open

    def none(*_: Any) -> int:
        process.pidfd_open = real
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with bench(box) as made:
        process.pidfd_open = none
        result = made.run("/bin/true")
        assert (result.step, result.errno) == ("measurement", errno.EMFILE)
        return [lack["what"] for lack in made.reactor.room.told()]
