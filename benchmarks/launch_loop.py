"""The measured process of launch.py: a supervisor with the modules of production, and no others.

Run as `python -I -S`; standard input is marshal of a dictionary:

    plan       path of the compiled plan; the runs of its commands are measured under their uids
    others     name to argv of what is only spawned and waited for
    filter     seccomp BPF for the others' descriptor FILTER_FD
    count      measured runs of each
    warm       runs of each before that
    many       pairs (name, how many at once): measured a tenth as often

Standard output is marshal of the samples. A run that does not end well ends the measurement.
"""

from __future__ import annotations

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(HERE)]

import marshal  # noqa: E402
import time  # noqa: E402

from measure import interleave  # noqa: E402

from initspawn.linux.process import set_child_subreaper  # noqa: E402
from initspawn.planfile import load  # noqa: E402
from initspawn.sandbox.bind import bind  # noqa: E402
from initspawn.sandbox.launch import Start  # noqa: E402
from initspawn.supervisor.core import Supervisor  # noqa: E402
from initspawn.supervisor.reactor import Reactor  # noqa: E402

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from initspawn.plan import Api, Command
    from initspawn.supervisor.running import Task

FILTER_FD = 100  # where the others find the filter
MEASUREMENT = "measurement of "
FIRST = "first start, "


class Loop:
    """A supervisor as `boot.supervise` makes it, without doors."""

    def __init__(self, plan: str) -> None:
        self.reactor = Reactor()
        self.reactor.signals({})
        set_child_subreaper()
        self.supervisor = Supervisor(load(plan), self.reactor)
        self.samples: dict[str, list[int]] = {}
        self._running = ""
        self._wrap_measurement()

    def actions(self) -> dict[str, Callable[[], int | None]]:
        """A run of each of the plan's commands, from the call of `start` to `on_end`."""
        found = {}
        for api in self.supervisor.plan.apis:
            for command in api.commands:
                found[command.uid] = self._action(api, command)
                found[FIRST + command.uid] = self._action(api, command, named=FIRST + command.uid)
        return found

    def at_once(self, uid: str, count: int) -> Callable[[], int | None]:
        """Runs of one of the plan's commands that are all asked for at the same time."""
        api, command = next(
            (api, command) for api in self.supervisor.plan.apis for command in api.commands
            if command.uid == uid
        )  # fmt: skip
        return self._action(api, command, named=f"{count} x {uid}", count=count)

    def _action(
        self, api: Api, command: Command, *, named: str = "", count: int = 1
    ) -> Callable[[], int | None]:
        ended: list[Task] = []
        last = 0

        def on_end(task: Task) -> None:
            nonlocal last
            last = time.perf_counter_ns()
            ended.append(task)

        def action() -> int:
            self._running = named or command.uid
            ended.clear()
            for _ in range(count):
                self.supervisor.start(api, command, bind(command, None), on_end=on_end)
            while len(ended) < count:
                self.reactor.turn(None)
            for task in ended:
                if task.refusal is not None or task.status != {"exit": 0}:
                    raise RuntimeError(f"{command.uid}: {task.refusal or task.status}")
            return last

        return action

    def _wrap_measurement(self) -> None:
        stopped = Start.stopped

        def timed(start: Start, status: int) -> bool:
            # Processor time: once it is let go, the command may run before we do.
            began = time.thread_time_ns()
            done = stopped(start, status)
            if done:
                taken = self.samples.setdefault(MEASUREMENT + self._running, [])
                taken.append(time.thread_time_ns() - began)
            return done

        Start.stopped = timed  # type: ignore[method-assign]

    def settle(self, name: str) -> None:
        """Before a run, ours or another's: what is left to do of the one before is no part of it.

        A start finds another waiting, as one that follows the last by a few milliseconds does; a FIRST
        start finds none.
        """
        reserve = self.supervisor.reserve
        if name.startswith(FIRST):
            reserve.close()
        else:
            reserve.fill(self.supervisor.plan)
            for api in self.supervisor.plan.apis:
                for sandbox in api.sandboxes:
                    reserve.refill(api, sandbox)
        while not (reserve.empty if name.startswith(FIRST) else reserve.ready):
            self.reactor.turn(None)
        self.reactor.turn(0.0)

    def close(self) -> None:
        """End the supervisor."""
        self.reactor.after(0.0, lambda: self.supervisor.close(self.reactor.stop))
        self.reactor.run()
        self.reactor.close()


def spawned(name: str, argv: list[str], filter: bytes, count: int = 1) -> Callable[[], None]:
    """Runs of a program that is spawned and waited for, and nothing else: all of them, then the waiting."""
    filtered = str(FILTER_FD) in argv

    def action() -> None:
        pids = []
        for _ in range(count):
            if filtered:
                own = os.memfd_create("filter")  # reading moves a descriptor's offset, for all who share it
                os.write(own, filter)
                os.lseek(own, 0, os.SEEK_SET)
                os.dup2(own, FILTER_FD)
                os.close(own)
            pids.append(os.posix_spawn(argv[0], argv, {}, setsigmask=()))
        for pid in pids:
            _, status = os.waitpid(pid, 0)
            if status:
                raise RuntimeError(f"{name}: wait status {status}")

    return action


def main() -> None:
    """Measure what standard input asks for."""
    job = marshal.loads(sys.stdin.buffer.read())
    loop = Loop(job["plan"])
    actions, many = loop.actions(), {}
    for name, argv in job["others"].items():
        actions[name] = spawned(name, argv, job["filter"])
    for name, count in job["many"]:
        if name in job["others"]:
            many[f"{count} x {name}"] = spawned(name, job["others"][name], job["filter"], count)
        elif name in actions:
            many[f"{count} x {name}"] = loop.at_once(name, count)
    interleave(actions, job["warm"], before=loop.settle)
    loop.samples.clear()
    samples = interleave(actions, job["count"], before=loop.settle, samples=loop.samples)
    interleave(many, 2, before=loop.settle)
    interleave(many, max(1, job["count"] // 10), before=loop.settle, samples=samples)
    loop.close()
    sys.stdout.buffer.write(marshal.dumps(samples))


if __name__ == "__main__":
    main()
