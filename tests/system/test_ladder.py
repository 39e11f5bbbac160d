"""Each step of the ladder: left out it is noticed, failing it refuses the start under its own name.

The steps come from the ladder's own tables. A new one fails these tests until `NOTICED` says by what its
absence would be seen.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from initspawn.linux import landlock, namespaces, process, ptrace, terminal
from initspawn.linux.capabilities import NUMBERS
from initspawn.linux.libc import syscall
from initspawn.linux.mount import AT_FDCWD
from initspawn.linux.numbers import table
from initspawn.plan import NAMESPACES, Landlock, Sandbox
from initspawn.sandbox import ladder, steps
from initspawn.sandbox.measure import Baseline
from initspawn.sandbox.program import Program, Slot
from initspawn.sandbox.recipe import Recipe, Step
from initspawn.supervisor import core
from tests.support.pace import SLOWER
from tests.system import boxes
from tests.system.conftest import ROOT_AND_A_USER, root_and_a_user
from tests.system.harness import PATIENCE, PYTHON, Bench, Person, Result, alive, bench, own_mounts

pytestmark = pytest.mark.needs("userns", "seccomp")

TABLES = ("REAPER_STEPS", "COMMAND_STEPS", "FILTER_STEPS")
ALL = tuple(step for name in TABLES for step in getattr(steps, name))
NO_SUCH_FD = 9999
SOON = 1.0 * SLOWER  # seconds, in place of those a start may take


def chosen(who: Person) -> Sandbox:
    """A sandbox that needs every step its person can need."""
    rules = Landlock(fs=landlock.FS["device"], optional=True)
    return boxes.full(who, directory="/tmp", umask=0o137, landlock=rules)


def without_proc(who: Person) -> Sandbox:
    mounts = tuple(entry for entry in boxes.tree(who) if entry.operation != "proc")
    return boxes.full(who, mounts=mounts, directory="/tmp")


def without_filters(who: Person) -> Sandbox:
    return boxes.full(who, filters=())


def without_users(who: Person) -> Sandbox:
    own = tuple(name for name in NAMESPACES if name != "user")
    return boxes.full(who, namespaces=own, id_map=None)


def without_namespaces(who: Person) -> Sandbox:
    return boxes.sandbox(who)


def with_capabilities(who: Person) -> Sandbox:
    return boxes.full(who, capabilities=1 << NUMBERS["NET_RAW"])


def read_only(who: Person) -> Sandbox:
    return boxes.full(who, landlock=Landlock(fs=landlock.FS["write"], optional=True))


def only_users(who: Person) -> Sandbox:
    return boxes.sandbox(who, "user")


# Things of the ladder that no file of /proc shows of the held command: looked at while it runs.


def reaper_has_its_own_session(made: Bench, patience: float) -> str:
    run = made.start("/bin/sleep", "60").begin()
    reaper = run.reaper  # its slot is another's when it has ended
    session = int(Path(f"/proc/{reaper}/stat").read_text().rpartition(")")[2].split()[3])
    run.signal(signal.SIGKILL).end()
    return "" if session == reaper else f"its session is {session}"


def reaper_is_hidden(made: Bench, patience: float) -> str:
    found = made.run("/bin/sh", "-c", "cat /proc/1/environ | wc -c; cat /proc/1/comm")
    return "" if found.out == "0\ninitspawn-reap" else found.out


def host_name_is_its_own(made: Bench, patience: float) -> str:
    found = made.run("/bin/hostname").out
    return "" if found == boxes.HOSTNAME else found


def loopback_is_up(made: Bench, patience: float) -> str:
    script = """
import socket
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname())
"""
    return made.run(PYTHON, "-I", "-S", "-c", script).err


def files_need_rules(made: Bench, patience: float) -> str:
    found = made.run("/bin/sh", "-c", ": > /data/file")
    return "" if "Permission denied" in found.err else f"written: {found}"


def command_dies_with_its_reaper(made: Bench, patience: float) -> str:
    made.supervisor.groups.reason = "not here"  # a cgroup would end it too
    run = made.start("/bin/sleep", "60").begin()
    os.kill(run.reaper, signal.SIGKILL)
    run.end()
    try:
        made.until(lambda: not alive(run.pid), "its death", patience)
    except AssertionError as error:
        os.kill(run.pid, signal.SIGKILL)
        return str(error)
    return ""


def seize_late() -> None:
    """Hold the command only when it has had the time to run away, if it can."""
    original = ptrace.seize

    def seize(pid: int) -> None:
        end = time.monotonic() + SOON / 2
        while time.monotonic() < end and b"sleep" not in Path(f"/proc/{pid}/cmdline").read_bytes():
            time.sleep(0.01)
        original(pid)

    ptrace.seize = seize


class Notice(NamedTuple):
    """How a missing step is noticed: the start is refused there, or a look while it runs sees it."""

    step: str = ""
    word: str = ""
    look: Callable[[Bench, float], str] | None = None
    box: Callable[[Person], Sandbox] = chosen
    before: Callable[[], None] = lambda: None


NOTICED = {
    "own session": Notice(look=reaper_has_its_own_session),
    "identity map": Notice("measurement", "identity is", box=only_users),
    "reaper": Notice(look=reaper_is_hidden),
    "traceable": Notice("start", "not at its exec"),
    "session": Notice("measurement", "session is"),
    "terminal": Notice("measurement", "terminal is"),  # of a command that has one: see below
    "signals": Notice("measurement", "signals is"),
    "limits": Notice("measurement", "limits is"),
    "oom score": Notice("measurement", "scheduling is {'oom_score_adj': 0}"),
    "scheduling": Notice("measurement", "scheduling is {'nice': 0, 'policy': 0, 'io': "),
    "proc": Notice("user namespace", "/proc/self", box=without_proc),
    "cgroup namespace": Notice("measurement", "namespaces is {'cgroup': 'shared'}"),
    "mounts": Notice("measurement", "mounts is"),
    "host name": Notice(look=host_name_is_its_own),
    "loopback": Notice(look=loopback_is_up),
    "umask": Notice("measurement", "umask is"),
    "label": Notice("measurement", "label is"),  # where a module runs: see test_labels too
    "groups": Notice("measurement", "groups is (7,)"),
    "group": Notice("measurement", "group is", box=without_users),
    "user": Notice("measurement", "user is", box=without_users),
    # A supervisor that lacks a capability has none to show in place of those of the namespace.
    "user namespace": Notice("measurement|bounding set", "namespaces is {'user': 'shared'}|capset"),
    "bounding set": Notice("measurement", "capabilities is"),
    "capabilities": Notice("measurement", "capabilities is", box=with_capabilities),
    "directory": Notice("measurement", "directory is '/'"),
    "no new privileges": Notice("measurement", "no-new-privileges is 0", box=without_filters),
    "parent death signal": Notice(look=command_dies_with_its_reaper, box=without_namespaces),
    "Landlock": Notice(look=files_need_rules, box=read_only),
    "held": Notice("start|measurement", "not at its exec|cannot be traced", before=seize_late),
    "seccomp": Notice("measurement", "seccomp is"),
}


def people(uids: Sequence[int] = ROOT_AND_A_USER) -> list[tuple[int, Any]]:
    """Whom the tests run as, as far as it matters for which steps there are."""
    return [
        (uid, SimpleNamespace(root=uid == 0, command_uid=1, command_gid=1, home=Path("/tmp")))
        for uid in uids
    ]


def needed(who: Any) -> list[str]:
    recipe = Recipe(chosen(who), Baseline())
    return [step.name for step in ALL if step.needed(recipe)]


CASES = [pytest.param(uid, name, id=f"uid{uid}-{name}") for uid, who in people() for name in needed(who)]
each_step = pytest.mark.parametrize(("who", "name"), CASES, indirect=["who"])


def test_every_step_is_known_here() -> None:
    # Whoever runs the tests: what root's sandboxes need, and what a user's need.
    both = [who for _, who in people((0, 1))]
    found = {name for who in both for name in needed(who)}
    found |= set() if Baseline().landlock else {"Landlock"}
    found.add("label")  # only where a module takes one: the next tests, and tests/boot
    found.add("terminal")  # only for a command that has one: the same
    assert found == {step.name for step in ALL}
    assert set(NOTICED) == {step.name for step in ALL}


TERMINAL = (24, 80)


@root_and_a_user
@pytest.mark.parametrize(
    ("fault", "refusal"),
    [("", ("", "")), ("left out", ("measurement", "terminal is (0, -1)")), ("fails", ("terminal", "EBADF"))],
)
def test_a_terminal_that_is_not_the_controlling_one(
    who: Person, fault: str, refusal: tuple[str, str]
) -> None:
    result = who.call(_on_a_terminal, chosen(who), fault)
    assert result.step == refusal[0]
    assert refusal[1] in f"{result.refused_at()[1]} {result.detail}"


@root_and_a_user
def test_a_terminal_that_is_not_planned_is_noticed(who: Person) -> None:
    """A command that has one all the same: a step takes it."""
    result = who.call(_takes_a_terminal, without_namespaces(who))
    assert result.step == "measurement"
    assert "terminal is (" in result.detail


def _on_a_terminal(box: Sandbox, fault: str) -> Result:
    if fault == "left out":
        replace_step("terminal", lambda recipe: None)
    if fault == "fails":
        replace_step("terminal", lambda recipe: recipe.program.call("close", NO_SUCH_FD))
    with bench(box) as made:
        return made.run("/bin/true", terminal=TERMINAL)


def _takes_a_terminal(box: Sandbox) -> Result:
    def take(recipe: Recipe) -> None:
        program, flags = recipe.program, os.O_RDWR | os.O_NOCTTY
        program.call("setsid")
        ours = program.open("openat", AT_FDCWD, b"/dev/ptmx", flags)  # stays open, or it were hung up
        program.call("ioctl", ours, terminal.TIOCSPTLCK, bytes(4))
        theirs = program.open("ioctl", ours, terminal.TIOCGPTPEER, flags | os.O_CLOEXEC)
        program.call("ioctl", theirs, terminal.TIOCSCTTY, 0)

    replace_step("session", take)
    with bench(box) as made:
        return made.run("/bin/true")


@root_and_a_user
@pytest.mark.parametrize("left_out", [False, True])
def test_a_label_that_no_module_takes(who: Person, left_out: bool) -> None:
    result = who.call(_labelled, boxes.full(who, label="nobody:knows:this_t"), left_out)
    wanted = ("measurement", _no_other_label()) if left_out else ("label", "EINVAL")
    refused(who, result, *wanted)


def _no_other_label() -> str:
    """The error when a process is asked for its label: none where AppArmor says that it is not confined."""
    try:
        Path("/proc/self/attr/current").read_bytes()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "0"


def _labelled(box: Sandbox, left_out: bool) -> Result:
    if left_out:
        replace_step("label", lambda recipe: None)
    with bench(box) as made:
        return made.run("/bin/true")


@root_and_a_user
def test_a_label_that_may_be_left_out(who: Person) -> None:
    box = boxes.full(who, label="nobody:knows:this_t", label_optional=not Baseline().lsm)
    assert who.run(box, "/bin/true").step == ("label" if Baseline().lsm else "")


def alone() -> None:
    """What a mutilated sandbox does to the machine stays in this process's own namespaces.

    And give the command something to lose: a group, and signals that would stay ignored.
    """
    if os.geteuid() == 0:
        own_mounts()
        syscall("unshare", process.CLONE_NEWUTS)
        os.setgroups([7])
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    core.LAUNCH_SECONDS = SOON


def replace_step(name: str, add: Callable[[Recipe], None]) -> None:
    """Put other work in the place of a step, before the spawner is forked."""
    for rungs in TABLES:
        changed = [
            Step(step.name, add if step.name == name else step.add, step.needed)
            for step in getattr(steps, rungs)
        ]
        setattr(steps, rungs, tuple(changed))


@each_step
def test_a_step_that_is_left_out_is_noticed(who: Person, name: str) -> None:
    notice = NOTICED[name]
    box = notice.box(who)
    if notice.look is None:
        assert who.call(_refusal, box, "", notice.before) == ("", "")
        step, detail = who.call(_refusal, box, name, notice.before)
        assert step in notice.step.split("|")
        assert any(word in detail for word in notice.word.split("|"))
    else:
        assert who.call(_look, box, "", notice.look, PATIENCE) == ""
        assert who.call(_look, box, name, notice.look, SOON) != ""


def _refusal(box: Sandbox, name: str, before: Callable[[], None]) -> tuple[str, str]:
    alone()
    replace_step(name, lambda recipe: None)
    with bench(box) as made:
        before()
        run = made.start("/bin/sleep", "60")
        made.until(lambda: run.started, "the start")
        result = run.result()
        run.signal(signal.SIGKILL).end()
        return result.step, result.detail


def _look(box: Sandbox, name: str, look: Callable[[Bench, float], str], patience: float) -> str:
    alone()
    replace_step(name, lambda recipe: None)
    with bench(box) as made:
        return look(made, patience)


def marker(who: Person) -> tuple[str, ...]:
    """A command that leaves a trace in the person's home if it runs."""
    return ("/bin/sh", "-c", "echo ran; : > /data/ran")


@root_and_a_user
def test_the_marker_marks(who: Person) -> None:
    assert who.run(chosen(who), *marker(who)).out == "ran"
    assert (who.home / "ran").exists()


@each_step
def test_a_step_that_fails_refuses_under_its_name(who: Person, name: str) -> None:
    result = who.call(_failing, chosen(who), name, marker(who))
    refused(who, result, name, "EBADF")


def _failing(box: Sandbox, name: str, argv: tuple[str, ...]) -> Result:
    replace_step(name, lambda recipe: recipe.program.call("close", NO_SUCH_FD))
    with bench(box) as made:
        return made.run(*argv)


def refused(who: Person, result: Result, step: str, number: str) -> None:
    """At that step with that error, and nothing of the command has run."""
    assert result.refused_at() == (step, number), result
    assert (result.status, result.out, result.err) == ({}, "", "")
    assert not (who.home / "ran").exists()


@root_and_a_user
def test_namespaces_that_cannot_be_made_refuse(who: Person) -> None:
    refused(who, who.call(_no_namespaces, chosen(who), marker(who)), ladder.NAMESPACES, "EINVAL")


def _no_namespaces(box: Sandbox, argv: tuple[str, ...]) -> Result:
    ladder.clone_flags = lambda sandbox: 0x10000  # CLONE_THREAD, which does not go alone
    with bench(box) as made:
        return made.run(*argv)


@root_and_a_user
def test_descriptors_that_cannot_be_placed_refuse(who: Person) -> None:
    refused(who, who.call(_no_descriptors, chosen(who), marker(who)), ladder.DESCRIPTORS, "EBADF")


def _no_descriptors(box: Sandbox, argv: tuple[str, ...]) -> Result:
    original = ladder.descriptors
    ladder.descriptors = lambda sources, kept: original((NO_SUCH_FD, *sources[1:]), kept)
    with bench(box) as made:
        return made.run(*argv)


@root_and_a_user
def test_every_single_call_that_fails_refuses_under_its_steps_name(who: Person) -> None:
    for index, note, step, result in who.call(_each_call, chosen(who), marker(who)):
        assert result.refused_at() == (step, "EBADF"), (index, note, result)
        assert (result.status, result.out, result.err) == ({}, "", "")
    assert not (who.home / "ran").exists()


def _each_call(box: Sandbox, argv: tuple[str, ...]) -> list[tuple[int, str, str, Result]]:
    """One sandbox per call, the number in its name saying which of its calls fails."""
    recipe = Recipe(box, Baseline())
    notes, first = [], {}
    for wanted in (steps.REAPER_STEPS, steps.COMMAND_STEPS, steps.FILTER_STEPS):
        first[wanted] = len(notes)
        notes += ladder.compile_steps(wanted, recipe).notes
    original = ladder.compile_steps

    def compile_steps(wanted: Any, recipe: Any) -> Program:
        program = original(wanted, recipe)
        index = int(recipe.sandbox.uid) - first[wanted]
        if 0 <= index < len(program.calls):
            program.calls[index] = (table()["close"], NO_SUCH_FD, 0, 0, 0, 0, -1, 0)
        return program

    ladder.compile_steps = compile_steps
    found = []
    with bench(*(box.replace(uid=str(index)) for index in range(len(notes)))) as made:
        for index, (step, note) in enumerate(notes):
            found.append((index, note, step, made.run(*argv, sandbox=made.sandboxes[index])))
    return found


@root_and_a_user
@pytest.mark.parametrize("name", [name for name in NAMESPACES if name != "cgroup"])
def test_a_namespace_that_is_left_out_is_noticed(who: Person, name: str) -> None:
    box = boxes.sandbox(who, name, mounts=(), hostname="other" if name == "uts" else None)
    result = who.call(_without_flag, box, name)
    if name == "user":
        steps = ("measurement", "bounding set") if who.root else ("identity map",)
        assert result.step in steps, result
    elif who.root:
        assert result.step == "measurement", result
        assert f"namespaces is {{'{name}': 'shared'}}" in result.detail
    else:
        # Without the namespace an ordinary user has no right to what comes next, or it is measured.
        assert result.step in ("measurement", "mounts", "host name", "loopback"), result


def _without_flag(box: Sandbox, name: str) -> Result:
    alone()
    original = ladder.clone_flags
    ladder.clone_flags = lambda sandbox: original(sandbox) & ~namespaces.FLAGS[name]
    if name == "user":
        replace_step("user namespace", lambda recipe: None)
    with bench(box) as made:
        return made.run("/bin/true")


# The descriptors: what a command would get, were one of their calls forgotten.

DESCRIPTOR_CALLS = ("dup3 stdin", "dup3 stdout", "dup3 stderr", "dup3 handshake", "close_range")


@root_and_a_user
@pytest.mark.parametrize("call", range(len(DESCRIPTOR_CALLS)), ids=DESCRIPTOR_CALLS)
def test_a_descriptor_that_is_not_placed_is_noticed(who: Person, call: int) -> None:
    result = who.call(_without_call, chosen(who), call)
    assert result.step != "", result
    if call < 3:
        assert result.step == "measurement", result
        assert "descriptors is" in result.detail


def _without_call(box: Sandbox, call: int) -> Result:
    core.LAUNCH_SECONDS = SOON
    for fd, other in enumerate((*os.pipe(), os.open("/", os.O_RDONLY))):
        os.dup2(other, fd)  # what the supervisor itself has there
        os.close(other)
    original = ladder.descriptors

    def without(sources: tuple[int, ...], handshake: int) -> Program:
        program = original(sources, handshake)
        place = call - len(DESCRIPTOR_CALLS) + len(program.calls)
        del program.calls[place]
        return program

    ladder.descriptors = without
    with bench(box) as made:
        return made.run("/bin/true")


# The program: what is executed is the file that was planned.


@root_and_a_user
@pytest.mark.parametrize("script", [False, True], ids=["program", "script"])
def test_another_program_under_the_planned_name_is_noticed(who: Person, script: bool) -> None:
    """In a file tree of its own and without one."""
    for box in (boxes.full(who), without_namespaces(who)):
        path = "/bin/echo"
        if script:
            (who.home / "script").write_text("#!/bin/cat\n")
            (who.home / "script").chmod(0o755)
            path = f"{'/data' if box.mounts else who.home}/script"
        result = who.call(_another_program, box, path)
        assert result.step == "measurement", result
        assert f"program is '{os.path.realpath(PYTHON)}', not '{path}'" in result.detail


def _another_program(box: Sandbox, planned: str) -> Result:
    """The path that is executed is not the first of the arguments."""
    original = Slot.store_arguments

    def another(slot: Slot, argv: tuple[str, ...]) -> bool:
        assert original(slot, (PYTHON, *argv))
        pointers = (ctypes.c_void_p * (len(argv) + 1)).from_address(slot.argv_address)
        pointers[:] = [*list((ctypes.c_void_p * (len(argv) + 1)).from_address(slot.argv_address + 8))]
        return True

    Slot.store_arguments = another  # type: ignore[method-assign]
    with bench(box) as made:
        return made.run(planned, "it")
