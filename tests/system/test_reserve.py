"""Starts that were prepared beforehand: used, found out of date, lost, dismissed."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import termios
import time
from pathlib import Path
from typing import Any

import pytest

from initspawn.linux.libc import libc, syscall
from initspawn.plan import Api, Command, Plan, Sandbox
from initspawn.sandbox.program import Slot
from initspawn.supervisor import reserve
from initspawn.supervisor.reactor import Reactor
from tests.support.probes import NOBODY
from tests.system import boxes
from tests.system.conftest import root, root_and_a_user
from tests.system.harness import Bench, Person, Result, alive, bench, children, marked, own_mounts
from tests.system.server import wait_for

pytestmark = pytest.mark.needs("userns", "seccomp")
KINDS = pytest.mark.parametrize("kind", ["pid", "plain", "full"])


@pytest.fixture(autouse=True)
def _one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most tests look at the one that waits."""
    monkeypatch.setattr(reserve, "RESERVE_EACH", 1)


def box_of(who: Person, kind: str) -> Sandbox:
    return {"pid": lambda: boxes.sandbox(who, "pid"), "plain": lambda: boxes.sandbox(who)}.get(
        kind, lambda: boxes.full(who)
    )()


def waiting(made: Bench) -> tuple[int, int]:
    """The reaper and the command that wait for the next start, once they do."""
    held = made.supervisor.reserve._waiting

    def ready() -> bool:
        return any(start.held for start, _ in held)

    made.until(ready, "a start that waits")
    ((start, _),) = held
    return start.pid, start.command_pid


@root_and_a_user
@KINDS
def test_a_start_takes_what_waits(who: Person, kind: str) -> None:
    pid, used, result = who.call(_second, box_of(who, kind))
    assert (result.status, result.out) == ({"exit": 0}, "it")
    assert used == pid
    assert result.measurement["arguments"][-1] == "it"


def _second(box: Sandbox) -> tuple[int, int, Result]:
    with bench(box) as made:
        made.run("/bin/true")
        _, pid = waiting(made)
        result = made.run("/bin/echo", "it")
        return pid, result.pid, result


@root_and_a_user
def test_what_was_replaced_since_is_seen_as_it_is_now(who: Person) -> None:
    source = who.home / "note"
    source.write_text("old")
    box = boxes.full(who, mounts=(*boxes.tree(who), boxes.bind(str(source), "/note")))
    pid, result = who.call(_replaced, box, str(source))
    assert (result.status, result.out) == ({"exit": 0}, "new")
    assert result.pid != pid  # what waited was thrown away


def _replaced(box: Sandbox, source: str) -> tuple[int, Result]:
    with bench(box) as made:
        assert made.run("/bin/cat", "/note").out == "old"
        _, pid = waiting(made)
        with open(f"{source}.new", "w") as file:
            file.write("new")
        os.rename(f"{source}.new", source)
        result = made.run("/bin/cat", "/note")
        assert not alive(pid)
        return pid, result


@root
@pytest.mark.parametrize("noticed", [True, False], ids=["noticed", "not noticed yet"])
def test_mounts_are_seen_as_they_are_now(who: Person, noticed: bool) -> None:
    """Also where the host's mounts do not propagate to those of sandboxes."""
    box = boxes.full(who, mounts=(*boxes.tree(who), boxes.bind(str(who.home), "/home")))
    assert who.call(_mounted, box, str(who.home), noticed) == ["", "new", "", "old"]


def _mounted(box: Sandbox, home: str, noticed: bool) -> list[str]:
    own_mounts()
    place = f"{home}/place"
    os.mkdir(place)
    seen = []
    with bench(box) as made:
        seen.append(made.run("/bin/ls", "/home/place").out)
        _, pid = waiting(made)
        syscall("mount", b"none", place.encode(), b"tmpfs", 0, 0)
        Path(place, "new").touch()
        if noticed:
            made.until(lambda: not alive(pid), "the notice")
        seen.append(made.run("/bin/ls", "/home/place").out)
        _, pid = waiting(made)
        syscall("umount2", place.encode(), 0)
        seen.append(made.run("/bin/ls", "/home/place").out)
        waiting(made)
        Path(place, "old").touch()
        seen.append(made.run("/bin/ls", "/home/place").out)
    return seen


@root
def test_what_was_mounted_into_one_that_waits_is_noticed(who: Person) -> None:
    """Also when the same mounts have been compared before, and need not be again."""
    assert who.call(_mounted_into, boxes.full(who)) == [True, True, False]


def _mounted_into(box: Sandbox) -> list[bool]:
    """Whether each start used what waited."""
    found = []
    with bench(box) as made:
        made.run("/bin/true")
        for tampered in (False, False, True):
            _, pid = waiting(made)
            child = os.fork() if tampered else -1
            if child == 0:
                fd = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
                assert libc.setns(fd, 0) == 0
                syscall("mount", b"none", b"/tmp", b"tmpfs", 0, 0)
                os._exit(0)
            if tampered:
                assert os.waitpid(child, 0)[1] == 0
            result = made.run("/bin/true")
            assert result.status == {"exit": 0}
            found.append(result.pid == pid)
    return found


@root_and_a_user
@KINDS
@pytest.mark.parametrize("victim", ["reaper", "command"])
@pytest.mark.parametrize("noticed", [True, False], ids=["noticed", "not noticed yet"])
def test_what_waits_may_be_killed(who: Person, kind: str, victim: str, noticed: bool) -> None:
    result = who.call(_killed, box_of(who, kind), victim, noticed)
    assert (result.status, result.out) == ({"exit": 0}, "it")


def _killed(box: Sandbox, victim: str, noticed: bool) -> Result:
    with bench(box) as made:
        made.run("/bin/true")
        reaper, command = waiting(made)
        os.kill(reaper if victim == "reaper" else command, signal.SIGKILL)
        if noticed:
            made.until(lambda: made.supervisor.reserve.empty, "the notice")
        else:
            # A reaper that is PID 1 waits on its way out for its command, whose tracer we are.
            wait_for(lambda: not (alive(reaper) and alive(command)), "an end that the loop has not seen")
        return made.run("/bin/echo", "it")


@root_and_a_user
@KINDS
def test_a_signal_to_what_waits_is_lost_on_nobody(who: Person, kind: str) -> None:
    result = who.call(_stopped, box_of(who, kind))
    assert (result.status, result.out) == ({"exit": 0}, "it")


def _stopped(box: Sandbox) -> Result:
    with bench(box) as made:
        made.run("/bin/true")
        _, command = waiting(made)
        os.kill(command, signal.SIGCONT)
        os.kill(command, signal.SIGWINCH)
        for _ in range(3):
            made.reactor.turn(0.02)
        return made.run("/bin/echo", "it")


@root_and_a_user
@KINDS
def test_what_waits_shares_its_own_slot_and_nothing_else(who: Person, kind: str) -> None:
    """Who gets at the memory of one that waits is not to get at what other tasks are told in."""
    for found in who.call(_shared, box_of(who, kind)):
        assert found == [Slot.SIZE]


def _shared(box: Sandbox) -> list[list[int]]:
    other = box.replace(uid="other")
    with bench(box, other) as made:
        made.run("/bin/true")
        made.run("/bin/true", sandbox=other)
        made.until(lambda: made.supervisor.reserve.ready, "two that wait")
        starts = [start for start, _ in made.supervisor.reserve._waiting]
        assert len(starts) == 2
        pids = [start.command_pid for start in starts]
        if os.geteuid() == 0:  # the others cannot look into a reaper
            pids += [start.pid for start in starts]
        return [_shared_memory(pid) for pid in pids]


@root_and_a_user
def test_a_reaper_writes_nothing_where_the_next_task_may_be(who: Person) -> None:
    """What its command has not read, it reads; the slot may have been given back by then."""
    assert who.call(_unread, boxes.sandbox(who, "pid")) == b"/bin/echo"


def _unread(box: Sandbox) -> bytes:
    with bench(box) as made:
        made.run("/bin/true")
        _, command = waiting(made)
        ((start, _),) = made.supervisor.reserve._waiting
        os.kill(command, signal.SIGKILL)
        os.waitpid(command, 0)  # as its tracer: only then does its reaper hear of it
        while not start.alone:
            time.sleep(0.001)
        start.launch(("/bin/echo",))
        assert start.handshake is not None
        while fcntl.ioctl(start.handshake, termios.TIOCOUTQ, bytes(4)) != bytes(4):
            time.sleep(0.001)
        return ctypes.string_at(start._slot.path_address)


def _shared_memory(pid: int) -> list[int]:
    """The sizes of a process's shared anonymous mappings (mmap(2))."""
    found = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        span, rights, *_ = line.split()
        if rights.endswith("s") and "/dev/zero" in line:
            first, end = (int(number, 16) for number in span.split("-"))
            found.append(end - first)
    return found


@root
@pytest.mark.parametrize("kind", ["user", "plain", "full"])
def test_nobody_of_the_same_user_gets_at_what_waits(who: Person, kind: str) -> None:
    box = boxes.sandbox(who, "user") if kind == "user" else box_of(who, kind)
    assert who.call(_same_user, box) == errno.EACCES


def _same_user(box: Sandbox) -> int:
    with bench(box) as made:
        made.run("/bin/true")
        _, pid = waiting(made)
        made.until(lambda: f"Uid:\t{NOBODY}\t" in Path(f"/proc/{pid}/status").read_text(), "its user")
        made.until(lambda: "S (sleeping)" in Path(f"/proc/{pid}/status").read_text(), "its wait")
        child = os.fork()
        if child == 0:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            try:
                os.open(f"/proc/{pid}/mem", os.O_RDWR)
            except OSError as error:
                os._exit(error.errno or 1)
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@root_and_a_user
@KINDS
def test_it_waits_only_so_long(who: Person, kind: str) -> None:
    who.call(_expired, box_of(who, kind))


def _expired(box: Sandbox) -> None:
    reserve.RESERVE_SECONDS = 0.3
    with bench(box) as made:
        made.run("/bin/true")
        reaper, command = waiting(made)
        made.until(lambda: made.supervisor.reserve.empty, "the end of what waits")
        assert not alive(reaper)
        made.until(lambda: not alive(command), "its command's end")


def _pids(made: Bench) -> list[int]:
    return [start.command_pid for start, _ in made.supervisor.reserve._waiting]


@root_and_a_user
def test_who_asks_again_at_once_finds_another(who: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reserve, "RESERVE_EACH", 2)
    who.call(_two, boxes.sandbox(who, "pid"))


def _two(box: Sandbox) -> None:
    with bench(box) as made:
        made.run("/bin/true")
        made.until(lambda: made.supervisor.reserve.ready, "those that wait")
        first, second = _pids(made)
        assert made.run("/bin/true").pid == first
        assert made.run("/bin/true").pid == second
        made.until(lambda: made.supervisor.reserve.ready and len(_pids(made)) == 2, "two others")
        assert not {first, second} & set(_pids(made))


@root_and_a_user
def test_the_next_is_made_when_the_end_has_been_told(who: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reserve, "REFILL_SECONDS", 60.0)
    assert who.call(_told_first, boxes.sandbox(who, "pid")) == (0, 1)


def _told_first(box: Sandbox) -> tuple[int, int]:
    with bench(box) as made:
        run = made.start("/bin/true")
        assert run.task is not None
        told, found = run.task.on_end, []
        run.task.on_end = lambda task: (found.append(len(_pids(made))), told(task))  # type: ignore[func-returns-value]
        run.end()
        return found[0], len(_pids(made))


@root_and_a_user
def test_the_next_is_made_while_a_long_one_runs(who: Person) -> None:
    assert who.call(_while_it_runs, boxes.sandbox(who, "pid"))


def _while_it_runs(box: Sandbox) -> int:
    with bench(box) as made:
        run = made.start("/bin/sleep", "60").begin()
        pid = waiting(made)[1]
        run.stop().end()
        return pid


@root_and_a_user
def test_only_so_many_wait(who: Person) -> None:
    who.call(_many_sandboxes, boxes.sandbox(who, "pid"))


def _many_sandboxes(box: Sandbox) -> None:
    reserve.RESERVE_SANDBOXES, reserve.RESERVE_EACH = 2, 2
    made_of = [box.replace(uid=str(number)) for number in range(4)]
    with bench(*made_of) as made:
        for one in (*made_of, made_of[1]):
            made.run("/bin/true", sandbox=one)
        made.until(lambda: len(children(os.getpid())) == 6, "the spawners, and two that wait in each of two")


@root_and_a_user
def test_one_that_nobody_has_begun_with_is_begun_again(who: Person) -> None:
    """The spawner dies with a job that it has not looked at."""
    result = who.call(_unheard, boxes.sandbox(who, "pid"))
    assert result.status == {"exit": 0}


def _unheard(box: Sandbox) -> Result:
    with bench(box) as made:
        spawner = made.supervisor.launcher.spawner_pid
        os.kill(spawner, signal.SIGSTOP)
        run = made.start("/bin/true")
        os.kill(spawner, signal.SIGKILL)
        return run.end()


@root_and_a_user
def test_dismissed_before_it_was_made(who: Person) -> None:
    who.call(_unborn, boxes.sandbox(who, "pid"))


def _unborn(box: Sandbox) -> None:
    with bench(box) as made:
        spawner = made.supervisor.launcher.spawner_pid
        os.kill(spawner, signal.SIGSTOP)
        made.supervisor.reserve.refill(made.api, box)
        made.supervisor.reserve.close()
        made.reactor.turn(0.02)
        assert not made.supervisor.reserve.empty
        os.kill(spawner, signal.SIGCONT)
        made.until(lambda: made.supervisor.reserve.empty, "the end of what nobody wants")


def warm(made: Bench, count: int | None) -> None:
    """As if the plan's only command asked for so many."""
    command = Command(uid="c", verb="c", sandbox=made.sandboxes[0].uid, path="/bin/true", warm=count)
    api = made.api.replace(commands=(command,))
    # A plan's records are what the launcher knows sandboxes by.
    made.supervisor.reserve.fill(Plan(user=os.geteuid(), group=os.getegid(), apis=(api,)))


@root_and_a_user
@KINDS
def test_as_many_wait_as_a_command_asks_for(who: Person, kind: str) -> None:
    who.call(_warm, box_of(who, kind))


def _warm(box: Sandbox) -> None:
    with bench(box) as made:
        warm(made, 3)
        held = made.supervisor.reserve._waiting
        made.until(lambda: made.supervisor.reserve.ready, "all three")
        pids = {start.command_pid for start, _ in held}
        assert len(pids) == 3
        used = {made.run("/bin/true").pid for _ in range(3)}
        assert pids & used
        made.until(lambda: len(held) == 3 and made.supervisor.reserve.ready, "three again")
        assert not used & {start.command_pid for start, _ in held}


@root_and_a_user
def test_a_reload_between_closing_and_filling_counts(who: Person) -> None:
    """As when systemd's unit takes us over: nobody waits as the plan before wanted."""
    who.call(_reopened, boxes.sandbox(who, "pid"))


def _reopened(box: Sandbox) -> None:
    with bench(box) as made:
        warm(made, 3)
        waiting = made.supervisor.reserve
        plan = Plan(user=os.geteuid(), group=os.getegid(), apis=(made.api,))
        waiting.close()
        waiting.renew(plan)
        waiting.fill(plan)
        made.until(lambda: waiting.empty, "the end of those before")
        made.run("/bin/true")
        made.until(lambda: not waiting.empty and waiting.ready, "the next")
        assert len(waiting._waiting) == reserve.RESERVE_EACH


@root_and_a_user
def test_none_waits_where_none_is_wanted(who: Person) -> None:
    assert who.call(_cold, boxes.sandbox(who, "pid"), 0) == 2


def _cold(box: Sandbox, count: int) -> int:
    with bench(box) as made:
        warm(made, count)
        made.run("/bin/true")
        for _ in range(5):
            made.reactor.turn(0.02)
        return len(children(os.getpid()))


@root_and_a_user
def test_what_has_waited_long_is_replaced(who: Person) -> None:
    who.call(_renewed, boxes.sandbox(who, "pid"))


def _renewed(box: Sandbox) -> None:
    reserve.RESERVE_SECONDS = 0.3
    with bench(box) as made:
        warm(made, 1)
        _, first = waiting(made)
        made.until(lambda: not alive(first), "its end")
        assert waiting(made)[1] != first


def test_a_supervisor_that_serves_nobody_keeps_none() -> None:
    plan = Plan(user=os.geteuid(), group=os.getegid())
    reactor = Reactor()
    kept = reserve.Reserve(reactor, None)  # type: ignore[arg-type]
    kept.refill(Api(uid="a", api="a"), Sandbox(uid="s", user=0, group=0))
    assert kept.empty
    kept.fill(plan)
    assert kept.empty
    kept.close()
    reactor.close()


ARGUMENTS: list[Any] = [
    pytest.param(("x" * 3000,), id="short"),
    pytest.param(("x" * 5000,), id="longer than a slot"),
    pytest.param(("x" * 100_000, "y" * 100_000), id="longer than a packet"),
    pytest.param(tuple(map(str, range(500))), id="many"),
    pytest.param(("", "ä\n", ""), id="odd"),
]


@root_and_a_user
@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_arguments_of_every_size(who: Person, arguments: tuple[str, ...]) -> None:
    for result in who.call(_arguments, boxes.full(who), arguments):
        assert result.status == {"exit": 0}, result
        assert result.measurement["arguments"][3:] == arguments


def _arguments(box: Sandbox, arguments: tuple[str, ...]) -> list[Result]:
    with bench(box) as made:
        return [made.run("/bin/sh", "-c", ":", *arguments) for _ in range(2)]


@root_and_a_user
@KINDS
def test_an_end_is_told_when_nothing_is_left(who: Person, kind: str) -> None:
    """Whatever the command leaves is gone before anybody hears of its end."""
    for left in who.call(_leaves_one, box_of(who, kind)):
        assert not left


def _leaves_one(box: Sandbox) -> list[list[int]]:
    found = []
    with bench(box) as made:
        for _ in range(5):
            word = f"9{os.getpid()}.{time.monotonic_ns()}"
            made.shell(f"setsid sleep {word} >/dev/null 2>&1 & sleep 0.05").end()
            found.append(marked(word))
    return found


@root_and_a_user
@KINDS
def test_a_supervisor_killed_at_any_moment_leaves_nothing_that_waits(who: Person, kind: str) -> None:
    """A reaper may have been cloned and not yet have asked to die with it. What is left fails the test."""
    who.call(_killed_at, box_of(who, kind))


def _killed_at(box: Sandbox) -> None:
    for step in range(24):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            with bench(box) as made:
                made.run("/bin/true")
                os.write(writer, b"!")
                while True:
                    made.reactor.turn(0.01)
        os.close(writer)
        os.read(reader, 1)
        os.close(reader)
        time.sleep(step / 8000)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
