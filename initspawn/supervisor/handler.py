"""What answers a task's notified calls: a command of the same API, started with their listener. Boot module.

It is a task like any other, with the listener as descriptor 3, and ends with the task it was started for.
When it ends before, nobody has the listener any more: the kernel then fails the calls with ENOSYS.
"""

from __future__ import annotations

import _signal
import os

from initspawn.errors import RequestError
from initspawn.sandbox.bind import bind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from initspawn.supervisor.core import Supervisor
    from initspawn.supervisor.running import Task

FAILED = "handler"  # why a task ends whose handler could not be started


def begin(supervisor: Supervisor, task: Task) -> None:
    """Start the handler of a task that has begun to run, if it needs one; a task that gets none is ended."""
    assert task.start is not None
    fd, task.start.listener = task.start.listener, -1
    if fd < 0:
        return
    command = next(one for one in task.api.commands if one.verb == task.sandbox.handler)

    def started(handler: Task) -> None:
        os.close(fd)
        if handler.refusal is not None:
            supervisor.stop(task, _signal.SIGKILL, reason=FAILED)

    try:
        argv = bind(command, None)
        task.handler = supervisor.start(task.api, command, argv, on_start=started, descriptors=(fd,))
    except RequestError:
        os.close(fd)
        supervisor.stop(task, _signal.SIGKILL, reason=FAILED)


def end(supervisor: Supervisor, task: Task) -> None:
    """The task is gone: so is what answered it."""
    if task.handler is not None:
        supervisor.stop(task.handler, _signal.SIGKILL)
