"""An exception at every line of the loop and of the control socket's server never ends the supervisor."""

from __future__ import annotations

import json
import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import hypothesis
import pytest

import initspawn
from initspawn.boot.supervise import Main
from initspawn.control.client import Client
from initspawn.errors import RequestError
from initspawn.planfile import load
from tests.support.pace import SLOWER
from tests.system.server import PATIENCE, lets_in, wait_for, write
from tests.system.test_serve import config, shell

pytestmark = pytest.mark.needs("userns")

Place = tuple[str, int]  # file and line

PACKAGE = os.path.dirname(initspawn.__file__)
TRACED = tuple(f"{PACKAGE}/{folder}/" for folder in ("supervisor", "control"))
# `make soak` has every line.
SAMPLE = 16 if hypothesis.settings().max_examples <= 100 else sys.maxsize
PAUSE = 1.0 * SLOWER  # seconds for an answer that may never come


class Tracer:
    """Raises once, at a place; without one, notes all places. Only while the first byte of `cell` says so,
    which the test shares; the second says that it has raised.
    """

    def __init__(self, cell: mmap.mmap, place: Place | None, kind: type[BaseException]) -> None:
        self.cell, self.place, self.kind = cell, place, kind
        self.seen: set[Place] = set()

    def __call__(self, frame: FrameType, what: str, _: Any) -> Any:
        return self.line if frame.f_code.co_filename.startswith(TRACED) else None

    def line(self, frame: FrameType, what: str, _: Any) -> Any:
        if what == "line" and self.cell[0] and not self.cell[1]:
            here = (frame.f_code.co_filename, frame.f_lineno)
            self.seen.add(here)
            if here == self.place:
                self.cell[1] = 1
                raise self.kind("injected")
        return self.line


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("plan")
    commands = (
        shell("talk", "for i in 1 2 3; do echo $i; done; exit 3", encoder="line"),
        shell("sync", "echo out", encoder="sync"),
        {"uid": "sleep", "exec": {"cmdpath": "/bin/sleep", "args": "100"}},
    )
    file = write(place, "test.json", config(*commands))
    path = str(place / "plan")
    subprocess.run([sys.executable, "-m", "initspawn", "compile", file, "-o", path], check=True)
    return path


@contextmanager
def supervisor(plan: str, place: Path, tracer: Tracer) -> Iterator[None]:
    """One that is traced from when its doors open; what it has seen is in `place/seen` when it has ended."""
    run_dir = place / "run"
    run_dir.mkdir(mode=0o700)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.dup2(os.open(place / "said", os.O_WRONLY | os.O_CREAT, 0o600), 2)
            sys.excepthook = sys.__excepthook__
            made = Main(load(plan), plan, str(run_dir), -1)
            sys.settrace(tracer)
            code = made.run()
            sys.settrace(None)
            (place / "seen").write_text(json.dumps(sorted(tracer.seen)))
        finally:
            os._exit(code)
    try:
        wait_for(lambda: lets_in(run_dir / "control"), "the door")
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGKILL):
            os.kill(pid, number)  # still our child's number: it has not been waited for
            if ended(pid, PATIENCE):
                break


def ended(pid: int, patience: float) -> bool:
    """Whether a child ends in time."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return True
        time.sleep(0.01)
    return False


def session(path: str) -> None:
    """Starts, reads and stops tasks; whatever is not answered is left."""

    def talk(client: Client) -> None:
        client.call("test/talk", {"action": "subscribe"})
        client.call("test/talk", {"action": "start"})
        for event in client.events():
            if event.data["type"] == "final-event":
                break

    def stop(client: Client) -> None:
        pid = client.call("test/sleep", {"action": "start"}).response["pid"]
        client.call("initspawn/tasks")
        client.call("test/sleep", {"action": "stop", "pid": pid})

    def wait(client: Client) -> None:
        client.call("test/sync", {"action": "start"})
        client.call("test/nothing")

    steps: tuple[Callable[[Client], None], ...] = (talk, stop, wait)
    for step in steps:
        with suppress(RequestError, OSError), Client(path, PAUSE) as client:
            step(client)


def test_every_line(plan: str, tmp_path: Path) -> None:
    cell = mmap.mmap(-1, mmap.PAGESIZE)
    first = tmp_path / "first"
    first.mkdir()
    with supervisor(plan, first, Tracer(cell, None, ValueError)):
        cell[0] = 1
        session(str(first / "run/control"))
        session(str(first / "run/control"))
        cell[0] = 0
    places: list[Place] = [(file, line) for file, line in json.loads((first / "seen").read_text())]
    assert len(places) > 500
    wrong, missed = [], []
    chosen = places[:: max(1, len(places) // SAMPLE)]
    for number, place in enumerate(chosen):
        kind = (MemoryError, KeyboardInterrupt, ValueError)[number % 3]
        here = tmp_path / str(number)
        here.mkdir()
        cell[0:2] = b"\0\0"
        with supervisor(plan, here, Tracer(cell, place, kind)):
            cell[0] = 1
            session(str(here / "run/control"))
            cell[0] = 0
            missed += [] if cell[1] else [place]
            faults = lives_on(here)
        faults += ends(here)
        wrong += [f"{place} {kind.__name__}: {what}" for what in faults]
    assert wrong == []
    assert len(missed) <= len(chosen) // 8, (
        missed
    )  # what is read at once, or in pieces, is not always the same


def lives_on(place: Path) -> list[str]:
    """What another client finds wrong."""
    try:
        with Client(str(place / "run/control"), PATIENCE) as other:
            assert other.call("test/ping").response
            status = other.call("test/sync", {"action": "start"}).response["status"]
            return [] if status == {"exit": 0} else [f"{status}"]
    except (RequestError, OSError) as error:
        return [f"{type(error).__name__}: {error}\n{(place / 'said').read_text()[-1500:]}"]


def ends(place: Path) -> list[str]:
    """What was wrong with its end: it knew of nothing that it could not end."""
    said = (place / "said").read_text()
    return [said[-1500:]] if "do not end" in said or not (place / "seen").exists() else []
