"""A sandbox and an argv through the real supervisor, as root or as an ordinary user.

Everything runs in a child of the test: a supervisor blocks signals, waits for every child there is, and
forks its spawner when it is made, so what a test changes in the package has to be changed before.
"""

from __future__ import annotations

import errno
import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from initspawn.errors import LaunchRefused
from initspawn.linux.libc import syscall
from initspawn.linux.prctl import PR_SET_DUMPABLE, prctl
from initspawn.linux.process import CLONE_NEWNS
from initspawn.plan import Api, Command, Plan, Sandbox
from initspawn.supervisor.core import Supervisor
from initspawn.supervisor.eventlog import Reader
from initspawn.supervisor.reactor import Reactor
from initspawn.supervisor.running import Task
from tests.support.leftovers import WORKER
from tests.support.pace import SLOWER
from tests.support.probes import NOBODY, cgroup_mount
from tests.support.users import Ordinary

PATIENCE = 30.0 * SLOWER  # seconds a test waits for what must come


class Result(NamedTuple):
    """What became of one start. `step` is empty when it was not refused."""

    step: str
    errno: int
    detail: str
    status: dict[str, Any]
    out: str
    err: str
    measurement: dict[str, Any]
    pid: int

    def refused_at(self) -> tuple[str, str]:
        """The step and the name of the error number, for comparisons."""
        return self.step, errno.errorcode.get(self.errno, str(self.errno))


class Run:
    """One start on a bench, and what has been heard of it so far."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.task: Task | None = None
        self.refusal: LaunchRefused | None = None
        self.lines: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self.types: list[str] = []
        self.started = False
        self.ended = False

    @property
    def pid(self) -> int:
        """The command's process, as seen from here."""
        assert self.task is not None
        return self.task.pid

    @property
    def reaper(self) -> int:
        """The process above it."""
        assert self.task is not None
        assert self.task.start is not None
        return self.task.start.pid

    def on_start(self, task: Task) -> None:
        assert not self.started
        assert not self.ended
        self.started = True
        self.refusal = task.refusal

    def on_end(self, task: Task) -> None:
        assert self.started
        assert not self.ended
        self.ended = True

    def hear(self, reader: Reader) -> None:
        while (event := reader.take()) is not None:
            self.types.append(event.data["type"])
            for name, lines in self.lines.items():
                if name in event.data:
                    lines.append(event.data[name])

    def until(self, line: str, stream: str = "stdout") -> Run:
        """Serve until the command has written this line."""
        self.bench.until(lambda: line in self.lines[stream] or self.ended, f"the line {line!r}")
        assert line in self.lines[stream], f"it ended without {line!r}: {self.result()}"
        return self

    def begin(self) -> Run:
        """Serve until the command runs; fails the test when it is refused."""
        self.bench.until(lambda: self.started or self.refusal is not None, "the start")
        assert self.refusal is None, self.refusal.info
        return self

    def end(self) -> Result:
        """Serve until it has ended or was refused."""
        self.bench.until(lambda: self.ended, "the end")
        return self.result()

    def stop(self, number: int = signal.SIGTERM) -> Run:
        """Ask it to end."""
        assert self.task is not None
        self.bench.supervisor.stop(self.task, number)
        return self

    def signal(self, number: int) -> Run:
        """Send a signal to it."""
        assert self.task is not None
        self.bench.supervisor.signal(self.task, number)
        return self

    def result(self) -> Result:
        """What is known now."""
        no = self.refusal
        return Result(
            no.step if no else "",
            no.errno if no else 0,
            no.detail if no else "",
            self.task.status if self.task else {},
            "\n".join(self.lines["stdout"]),
            "\n".join(self.lines["stderr"]),
            self.task.measurement if self.task else {},
            self.task.pid if self.task else 0,
        )


class Bench:
    """A supervisor for these sandboxes, turned by hand. A callback that raises fails the test."""

    def __init__(self, *sandboxes: Sandbox) -> None:
        self.sandboxes = sandboxes
        self.errors: list[str] = []
        sys.excepthook = self._on_error
        self.reactor = Reactor()
        self.reactor.signals({})
        self.api = Api(uid="test", api=f"test{WORKER}", sandboxes=sandboxes)
        plan = Plan(user=os.geteuid(), group=os.getegid(), apis=(self.api,))
        self.supervisor = Supervisor(plan, self.reactor)
        self.supervisor.reserve.fill(plan)

    def _on_error(self, kind: Any, error: BaseException, trace: Any) -> None:
        import traceback

        self.errors.append("".join(traceback.format_exception(kind, error, trace)))

    def start(
        self,
        *argv: str,
        sandbox: Sandbox | None = None,
        timeout: float = 0.0,
        descriptors: tuple[int, ...] = (),
        terminal: tuple[int, int] | None = None,
    ) -> Run:
        """Start a command in the first sandbox, or in this one."""
        run = Run(self)
        box = sandbox or self.sandboxes[0]
        command = Command(
            uid="command", verb="command", sandbox=box.uid, path=argv[0], timeout=timeout,
            terminal=terminal, encoder="line", encoder_options={"maxlen": 65536},
        )  # fmt: skip
        try:
            run.task = self.supervisor.start(
                self.api, command, argv, on_start=run.on_start, on_end=run.on_end, descriptors=descriptors
            )
        except LaunchRefused as refusal:
            run.refusal = refusal
            run.ended = True
            return run
        reader = Reader(run.task.log, lambda: run.hear(reader))
        return run

    def run(self, *argv: str, **options: Any) -> Result:
        """Start a command and wait for its end."""
        return self.start(*argv, **options).end()

    def shell(self, line: str, **options: Any) -> Run:
        """Start a shell with this line."""
        return self.start("/bin/sh", "-c", line, **options)

    def python(self, script: str, *arguments: str, **options: Any) -> Run:
        """Start a Python with this script."""
        return self.start(PYTHON, "-I", "-S", "-c", script, *arguments, **options)

    def until(self, condition: Callable[[], Any], what: str, patience: float = PATIENCE) -> None:
        """Serve until a condition holds; fails the test when it does not come."""
        end = time.monotonic() + patience
        while not condition():
            assert time.monotonic() < end, f"waited in vain for {what}"
            # Most conditions are only changed by the loop itself, some by processes it does not know.
            self.reactor.turn(0.02)
        assert not self.errors, "\n".join(self.errors)

    def close(self) -> None:
        """Stop everything; fails the test when something went wrong behind its back."""
        closed: list[bool] = []
        self.supervisor.close(lambda: closed.append(True))
        self.until(lambda: closed, "the supervisor's end")
        self.until(lambda: not children(os.getpid()), "the end of all children")
        self.reactor.close()


@contextmanager
def bench(*sandboxes: Sandbox) -> Iterator[Bench]:
    """A bench, closed at the end; descriptors and tasks must be as before."""
    gc.collect()
    before = descriptors()
    made = Bench(*sandboxes)
    yield made
    made.close()
    assert descriptors() == before
    assert not made.supervisor.roster.every()


def descriptors(pid: int | str = "self") -> dict[int, str]:
    """A process's descriptors and what they are."""
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # the one the list was read with
            found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
    return found


class Person:
    """Who a supervisor runs as. `call` is what the tests use."""

    def __init__(self, uid: int, home: Path, library: str) -> None:
        self._ordinary = Ordinary(uid, home, library)
        self.uid = uid
        self.home = home  # the command's user owns it
        self.gid = self._ordinary.gid
        self.root = uid == 0
        self._calls = 0
        self.command_uid = NOBODY if self.root else uid
        self.command_gid = NOBODY if self.root else self._ordinary.gid
        if self.root:
            os.chown(home, NOBODY, NOBODY)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a function returns in a child that is this person, in a cgroup of its own if it can be."""
        mount = cgroup_mount() if self.root else None
        if mount is None:
            return self._ordinary.call(_as_after_exec, function, *arguments)
        # Its name carries the worker, so that other workers know that it is not theirs.
        self._calls += 1
        group = mount / f"initspawn-test-{WORKER}-{os.getpid()}-{self._calls}"
        group.mkdir()
        try:
            return self._ordinary.call(_in_group, group, function, *arguments)
        finally:
            _remove(group)

    def run(self, sandbox: Sandbox, *argv: str) -> Result:
        """One command in one sandbox, from start to end."""
        result: Result = self.call(_run, sandbox, argv)
        return result


def _in_group(group: Path, function: Callable[..., Any], *arguments: Any) -> Any:
    (group / "cgroup.procs").write_text("0")
    return function(*arguments)


def _as_after_exec(function: Callable[..., Any], *arguments: Any) -> Any:
    """A change of user hides a process from that user until its next exec (PR_SET_DUMPABLE in prctl(2))."""
    prctl(PR_SET_DUMPABLE, 1)
    return function(*arguments)


def _remove(group: Path) -> None:
    """Only our own child was in it."""
    for seconds in (2, 2):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                for path, _, _ in os.walk(group, topdown=False):
                    os.rmdir(path)
                return
            except OSError:
                time.sleep(0.01)
        (group / "cgroup.kill").write_text("1")  # the leftovers' check would name them; this is sooner
    raise AssertionError(f"{group} cannot be removed")


def _run(sandbox: Sandbox, argv: tuple[str, ...]) -> Result:
    with bench(sandbox) as made:
        return made.run(*argv)


PYTHON = os.path.realpath(sys.executable)


# mount(2)
MS_REC, MS_BIND, MS_PRIVATE, MS_SHARED = 0x4000, 0x1000, 1 << 18, 1 << 20


def own_mounts() -> None:
    """What this process mounts from here on, or what a faulty sandbox does, is seen by nobody else."""
    syscall("unshare", CLONE_NEWNS)
    syscall("mount", b"none", b"/", 0, MS_REC | MS_PRIVATE)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"


def children(pid: int) -> list[int]:
    """A process's children, zombies among them; none if it is gone."""
    with suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def marked(word: str) -> list[int]:
    """All living processes that have this word among their arguments."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):
                words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
                if word.encode() in words and alive(int(name)):
                    found.append(int(name))
    return found


