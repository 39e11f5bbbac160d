"""The measured process of launch.py: a supervisor with the modules of production, and no others.

Run as `python -I -S`; standard input is marshal of a dictionary:

    plan       path of the compiled plan; the runs of its commands are measured under their uids
    others     name to argv of what is only spawned and waited for
    filter     seccomp BPF for the others' descriptor FILTER_FD, empty if none wants it
    count      measured runs of each
    warm       runs of each before that

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

    def actions(self) -> dict[str, Callable[[], None]]:
        """A run of each of the plan's commands, from the call of `start` to `on_end`."""
        return {
            command.uid: self._action(api, command)
            for api in self.supervisor.plan.apis
            for command in api.commands
        }

    def _action(self, api: Api, command: Command) -> Callable[[], None]:
        def action() -> None:
            self._running = command.uid
            ended: list[Task] = []
            self.supervisor.start(api, command, bind(command, None), on_end=ended.append)
            while not ended:
                self.reactor.turn(None)
            if ended[0].refusal is not None or ended[0].status != {"exit": 0}:
                raise RuntimeError(f"{command.uid}: {ended[0].refusal or ended[0].status}")

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

    def settle(self) -> None:
        """What is left to do after a run, ours or another's: no part of the next one."""
        self.reactor.turn(0.0)

    def close(self) -> None:
        """End the supervisor."""
        self.reactor.after(0.0, lambda: self.supervisor.close(self.reactor.stop))
        self.reactor.run()
        self.reactor.close()


def spawned(name: str, argv: list[str], *, filtered: bool) -> Callable[[], None]:
    """A run of a program that is spawned and waited for, and nothing else."""

    def action() -> None:
        if filtered:
            os.lseek(FILTER_FD, 0, os.SEEK_SET)
        pid = os.posix_spawn(argv[0], argv, {}, setsigmask=())
        _, status = os.waitpid(pid, 0)
        if status:
            raise RuntimeError(f"{name}: wait status {status}")

    return action


def main() -> None:
    """Measure what standard input asks for."""
    job = marshal.loads(sys.stdin.buffer.read())
    loop = Loop(job["plan"])
    if job["filter"]:
        fd = os.memfd_create("filter")
        os.write(fd, job["filter"])
        os.dup2(fd, FILTER_FD)
        os.close(fd)
    actions = loop.actions()
    for name, argv in job["others"].items():
        actions[name] = spawned(name, argv, filtered=str(FILTER_FD) in argv)
    interleave(actions, job["warm"], between=loop.settle)
    loop.samples.clear()
    samples = interleave(actions, job["count"], between=loop.settle, samples=loop.samples)
    loop.close()
    sys.stdout.buffer.write(marshal.dumps(samples))


if __name__ == "__main__":
    main()
