"""Launching a plain sandbox for real, measured like any other, to see whether this machine can."""

from __future__ import annotations

import _signal
import os
import sys

from initspawn.cli.probes import ProbeError
from initspawn.linux import process
from initspawn.plan import TEXT, Api, Command, IdMap, Mount, Plan, Sandbox
from initspawn.supervisor.core import Supervisor
from initspawn.supervisor.reactor import Reactor
from initspawn.supervisor.running import Task

_PROGRAMS = ("/bin/true", "/usr/bin/true")


def launch_plain() -> None:
    """Run `true` in namespaces of its own. To be called in a child: it blocks signals and adopts orphans.

    Raises LaunchRefused with the step that failed, ProbeError for a wrong end, OSError.
    """
    plan = _plan(os.geteuid(), os.getegid())
    (api,) = plan.apis
    (command,) = api.commands
    reactor = Reactor()
    ended: list[Task] = []

    def on_end(task: Task) -> None:
        ended.append(task)
        supervisor.close(reactor.stop)

    reactor.signals({_signal.SIGTERM: reactor.stop})
    process.set_child_subreaper()
    supervisor = Supervisor(plan, reactor)
    argv = (command.path, *(parts[0][1] for parts in command.arguments))
    try:
        supervisor.start(api, command, argv, on_end=on_end)
    except BaseException:
        supervisor.close(reactor.stop)
        reactor.run()
        raise
    reactor.run()
    (task,) = ended
    if task.refusal is not None:
        raise task.refusal
    if task.status != {"exit": 0}:
        raise ProbeError(f"{command.path} ended with {task.status}")


def _plan(user: int, group: int) -> Plan:
    privileged = user == 0
    ids = IdMap(
        inside_uid=user, outside_uid=user, inside_gid=group, outside_gid=group, first=not privileged
    )
    program, words = _program()
    sandbox = Sandbox(
        uid="plain",
        user=user,
        group=group,
        groups=() if privileged else None,
        namespaces=("user", "pid", "mnt"),
        id_map=ids,
        mounts=(Mount(operation="proc", target="/proc"),),
    )
    command = Command(
        uid="true", verb="true", sandbox="plain", path=program,
        arguments=tuple(((TEXT, word),) for word in words),
    )  # fmt: skip
    api = Api(uid="doctor", api="doctor", sandboxes=(sandbox,), commands=(command,))
    return Plan(user=user, group=group, apis=(api,))


def _program() -> tuple[str, list[str]]:
    for path in _PROGRAMS:
        if os.access(path, os.X_OK):
            return path, []
    return os.path.realpath(sys.executable), ["-I", "-S", "-c", ""]
