"""Starts what starts by itself: between `services`, which decide, and the supervisor's tasks. Boot module."""

from __future__ import annotations

import _signal
import os

from initspawn.errors import RequestError
from initspawn.linux import process
from initspawn.linux.cmdline import words
from initspawn.plan import NETWORK, NOTIFY, devices_of, notifies
from initspawn.sandbox.bind import bind
from initspawn.say import say
from initspawn.supervisor.services import Services, named, reached
from initspawn.supervisor.stopping import Leaving, Stopping
from initspawn.supervisor.task import DRAINING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from initspawn.plan import Api, Command, Plan
    from initspawn.plan import Autostart as AutostartPlan
    from initspawn.supervisor.core import Supervisor
    from initspawn.supervisor.devices import Devices
    from initspawn.supervisor.network import Network
    from initspawn.supervisor.notify import Message, Notifications
    from initspawn.supervisor.paths import Paths
    from initspawn.supervisor.reactor import Timer
    from initspawn.supervisor.running import Task
    from initspawn.supervisor.service import Service

_AGAIN = 32  # marks of what happens often that are kept besides the first of each
_NO = "!"  # before a condition: that it must not be so


class Autostart:
    """The commands of a supervisor's plan that start by themselves, and their tasks."""

    def __init__(self, supervisor: Supervisor, command_line: str) -> None:
        """`command_line`: the kernel's."""
        self._supervisor = supervisor
        self.notifications: Notifications | None = None
        self.network: Network | None = None  # its state, where somebody follows it
        self._words = words(command_line)
        self._paths: Paths | None = None
        self._devices: Devices | None = None
        self._watcher = supervisor.plan.watcher
        self._wanted = devices_of(supervisor.plan.apis)  # as that was told
        self._commands = _starting(supervisor.plan)
        self._tasks: dict[Service, Task] = {}
        self._marks: dict[str, float] = {}
        self._again: list[tuple[str, float]] = []  # of some, the later times
        self.services = Services(_plans(self._commands), self)

    def reach(self, stage: str) -> None:
        """The boot has come so far: start whose turn it is."""
        for implied in reached(stage):
            self.mark(f"stage {implied}")
        self.services.reach(stage)

    def halt(self, name: str) -> None:
        """Somebody who may has stopped this command: nor will it be started, if it is just not running."""
        service = self.services.every.get(name)
        if service is not None:
            self.services.halt(service)

    def renew(self, plan: Plan) -> None:
        """From now on this is the plan. What runs goes on; what started by itself and is no verb any more
        ends, in the reverse of its order.
        """
        old, new = self._commands, _starting(plan)
        before = {name: named(service.plan) for name, service in self.services.every.items()}
        self._commands = new
        self._watch(plan)
        changed = {name for name in old.keys() & new.keys() if _others(old[name], new[name])}
        gone = self.services.renew(_plans(new), changed)
        there = {*self.services.every.values(), *gone}
        self._tasks = {
            service: task for service, task in self._tasks.items() if service in there or task.life.alive
        }
        verbs = {f"{api.api}/{command.verb}" for api in plan.apis for command in api.commands}
        if ending := [service for service in gone if service.name not in verbs]:
            Leaving(self.services, ending, before)

    def listen(self, notifications: Notifications) -> None:
        """Hear what commands tell of themselves."""
        self.notifications = notifications
        notifications.serve(self._supervisor.reactor, self._hear)

    def stop_all(self) -> tuple[list[Task], float]:
        """End them all one after the other, see `stopping`. Returns the tasks that have their turn in that,
        and the seconds it takes at most.
        """
        stopping = Stopping(self.services)
        self._supervisor.reactor.after(0, stopping.look)
        there = self.services.every.values()
        tasks = [task for service, task in self._tasks.items() if service in there and task.life.alive]
        return [*tasks, *(task.handler for task in tasks if task.handler is not None)], stopping.seconds

    def close(self) -> None:
        """Start nothing any more."""
        if self.notifications is not None:
            self.notifications.close(self._supervisor.reactor)
        if self._paths is not None:
            self._paths.close()
        if self._devices is not None:
            self._devices.close()

    def records(self) -> list[dict[str, Any]]:
        """What is told of each, with the id of its last task."""
        now = self.now()
        return [
            {**service.record(now), **({"task": self._tasks[service].id} if service in self._tasks else {})}
            for service in self.services.every.values()
        ]

    def mark(self, what: str, when: float | None = None) -> None:
        """This has happened at `when`, or now, by the loop's clock. Only the first time counts."""
        self._marks.setdefault(what, self.now() if when is None else when)

    def mark_again(self, what: str) -> None:
        """This has happened now, and may happen often: the first time counts, and so do the last ones."""
        if what in self._marks:
            self._again.append((what, self.now()))
            del self._again[:-_AGAIN]
        else:
            self.mark(what)

    def timeline(self) -> dict[str, Any]:
        """When what has happened, in seconds of the loop's clock: of the boot, and of each command."""
        every = [*self._marks.items(), *self._again]
        marks = [{"what": what, "time": round(when, 6)} for what, when in every]
        return {"marks": marks, "services": [service.times() for service in self.services.every.values()]}

    @property
    def networked(self) -> bool:
        """Whether any waits for the network."""
        plans = [service.plan for service in self.services.every.values()]
        return any(plan.stage == NETWORK or plan.network for plan in plans)

    def devices(self) -> dict[str, Any]:
        """What is told of those that are waited for."""
        return self._devices.told() if self._devices is not None else {"known": False}

    # What the services ask for.

    def now(self) -> float:
        return self._supervisor.reactor.clock()

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        return self._supervisor.reactor.after(seconds, callback)

    def full(self, service: Service) -> float:
        task = self._tasks[service]
        full = self.notifications.full if self.notifications is not None else {}
        return full.get((task.api.api, task.sandbox.uid), float("-inf"))

    def chance(self) -> float:
        return os.urandom(1)[0] / 255

    def holds(self, service: Service) -> str:
        for word in service.plan.words:
            if (word.removeprefix(_NO) in self._words) == word.startswith(_NO):
                return f"`{word}` is not so on the kernel's command line"
        for path in service.plan.paths:
            if os.path.exists(path.removeprefix(_NO)) == path.startswith(_NO):
                self._follow(path.removeprefix(_NO))
                if os.path.exists(path.removeprefix(_NO)) == path.startswith(_NO):
                    return f"{path.removeprefix(_NO)} is {'' if path.startswith(_NO) else 'not '}there"
        for what, name in service.plan.network:
            if self.network is None or not self.network.known:
                return "the state of the network is not known yet"
            if self.network.has(what, name.removeprefix(_NO)) == name.startswith(_NO):
                return f"{what} {name.removeprefix(_NO)} is {'' if name.startswith(_NO) else 'not '}there"
        for device in service.plan.devices:
            if lacking := self._lacks(device):
                return lacking
        return ""

    def unsure(self, service: Service) -> bool:
        network = self.network is not None and not self.network.known
        devices = self._devices is not None and not self._devices.known
        return (network and bool(service.plan.network)) or (devices and bool(service.plan.devices))

    def start(self, service: Service) -> None:
        api, command = self._commands[service.name]
        if self._supervisor.roster.bars(api, command):
            self.services.refuse(service, self._supervisor.roster.barred)
            return
        try:
            argv = bind(command, service.plan.arguments)
            task = self._supervisor.start(
                api, command, argv,
                on_start=lambda task: self._on_start(service, task),
                on_end=lambda task: self._on_end(service, task),
            )  # fmt: skip
        except RequestError as error:
            self.services.ended(service, None, str(error))
            return
        self._tasks[service] = task

    def stop(self, service: Service, reason: str) -> None:
        # Whoever hangs may leave a core, to see where.
        signal = _signal.SIGABRT if reason == "watchdog" else None
        self._supervisor.stop(self._tasks[service], signal, reason=reason)

    def tell(self, service: Service, text: str) -> None:
        say(f"{service.name}: {text}")

    def _on_start(self, service: Service, task: Task) -> None:
        if task.refusal is None:
            self.services.started(service)

    def _on_end(self, service: Service, task: Task) -> None:
        if task.refusal is not None:
            self.services.ended(service, None, task.refusal.info or task.refusal.status)
            return
        ending = ", ".join(f"{name} {value}" for name, value in task.status.items())
        wanted = task.reason in ("stop", "disconnected")
        self.services.ended(service, task.status.get("exit"), ending, wanted=wanted)

    def _hear(self, place: tuple[str, str], pid: int, message: Message) -> str:
        """A message that came in by a sandbox's socket. Returns why it is ignored, or nothing."""
        service = self._sender(place, pid)
        if service is None:
            return "unknown sender"
        if not notifies(service.run):
            return "not expected"
        if message.status is not None:
            service.told["status"] = message.status
        if message.stopping:
            service.told["stopping"] = True
        if message.extend:
            self.services.extend(service, message.extend)
        if message.ready and service.run.ready == NOTIFY:
            self.services.ready(service)
        if message.alive:
            self.services.feed(service)
        if message.failed:
            self.services.hangs(service)
        return ""

    def _sender(self, place: tuple[str, str], pid: int) -> Service | None:
        """The service whose task a process of that sandbox belongs to, by the reaper above it; of one that is
        gone nothing is known but its number, which may have been a command's.
        """
        tasks = {
            service: task
            for service, task in self._tasks.items()
            if (task.api.api, task.sandbox.uid) == place and task.life.alive and task.start is not None
        }
        try:
            above = process.lineage(pid)
        except (OSError, ValueError, IndexError):
            above = []
        for service, task in tasks.items():
            assert task.start is not None
            # While a task's last output is read, its numbers may be others' already.
            below = task.start.pid in above and task.life.state != DRAINING
            if below or (not above and task.pid == pid):
                return service
        return None

    def _follow(self, path: str) -> None:
        if self._paths is None:
            from initspawn.supervisor.paths import Paths

            self._paths = Paths(self._supervisor.reactor, self.services.look)
        self._paths.follow(path)

    def _watch(self, plan: Plan) -> None:
        """Follow other devices, when the next is asked for."""
        wanted = devices_of(plan.apis)
        if {*wanted} != {*self._wanted} or _boxes(plan.watcher) != _boxes(self._watcher):
            if self._devices is not None:
                self._devices.leave()
            self._devices, self._watcher, self._wanted = None, plan.watcher, wanted

    def _lacks(self, device: tuple[tuple[str, str], ...]) -> str:
        """Why a device is not there; empty if it is. The first that is asked for begins the following."""
        if self._devices is None and self._watcher is not None:
            from initspawn.supervisor.devices import Devices

            try:
                look = self.services.look
                self._devices = Devices(self._supervisor, self._watcher, self._wanted, look)
            except OSError as error:
                return f"devices cannot be followed: {error.strerror}"
        return self._devices.lacks(device) if self._devices is not None else "nothing follows devices"


def _starting(plan: Plan) -> dict[str, tuple[Api, Command]]:
    """What starts by itself, by its name."""
    return {
        f"{api.api}/{command.verb}": (api, command)
        for api in plan.apis
        for command in api.commands
        if command.autostart is not None
    }


def _plans(commands: dict[str, tuple[Api, Command]]) -> dict[str, AutostartPlan]:
    found = {name: command.autostart for name, (_, command) in commands.items()}
    return {name: plan for name, plan in found.items() if plan is not None}


def _boxes(api: Api | None) -> list[int]:
    return [id(box) for box in api.sandboxes] if api is not None else []


def _others(old: tuple[Api, Command], new: tuple[Api, Command]) -> bool:
    """Whether another command, or in another sandbox."""
    (old_api, one), (new_api, other) = old, new
    return one is not other or old_api.sandbox(one.sandbox) is not new_api.sandbox(other.sandbox)


def notifications_of(plan: Plan, run_dir: str) -> Notifications | None:
    """What has the sockets for what commands tell of themselves, if any do."""
    starts = [command.autostart for api in plan.apis for command in api.commands]
    if not any(start is not None and notifies(start) for start in starts):
        return None
    from initspawn.supervisor.notify import Notifications

    return Notifications(run_dir)
