"""Where tasks that have no pid namespace of their own are kept together: cgroups. Boot module.

    BASE/initspawn-PID/         one per supervisor, removed with it
        SANDBOX/                one per sandbox
            TASK/               one per task: what is killed, and later limited
                main/           where its processes live

Version 2 without controllers is enough for `cgroup.kill`. Where we may make no group, tasks run without,
and what they leave behind is ended as well as a subreaper can.
"""

from __future__ import annotations

import os
import sys

from initspawn.linux import cgroup

_PREFIX = "initspawn-"


def _base() -> str | None:
    """The cgroup we are in ourselves: where ours are made."""
    mount = cgroup.mount_point()
    return None if mount is None else mount.rstrip("/") + cgroup.own_path().rstrip("/")


class Groups:
    """The cgroups of one supervisor, made when a task first needs one.

    `root` is their directory, None before that, and where none can be made; `reason` then says why.
    """

    def __init__(self) -> None:
        self.root: str | None = None
        self.reason = ""

    def make(self, sandbox: str, task: str) -> str | None:
        """A new task's directory to be born in, None where there are no cgroups. Raises OSError."""
        if self.root is None and not self.reason:
            self._make_root()
        if self.root is None:
            return None
        group = f"{self.root}/{sandbox}/{task}"
        os.makedirs(f"{group}/main")
        return f"{group}/main"

    def end_leftovers(self) -> None:
        """End the tasks of supervisors that were killed and could not do it themselves."""
        base = _base()
        for name in os.listdir(base) if base else ():
            pid = name.removeprefix(_PREFIX)
            dead = pid != name and pid.isdecimal() and not os.path.exists(f"/proc/{pid}")
            if dead and not _holds_strangers(f"{base}/{name}"):
                left = Groups()
                left.root = f"{base}/{name}"
                try:
                    left.close()
                    print(f"initspawn: ended what a killed supervisor ({pid}) had left", file=sys.stderr)
                except OSError as error:
                    print(f"initspawn: {left.root} stays: {error.strerror}", file=sys.stderr)

    def _make_root(self) -> None:
        base = _base()
        if base is None:
            self.reason = "no cgroup v2 file system is mounted"
            return
        path = f"{base}/{_PREFIX}{os.getpid()}"
        try:
            os.mkdir(path)
        except OSError as error:
            self.reason = f"{base}: {error.strerror}"
            return
        if os.access(f"{path}/cgroup.kill", os.W_OK):
            self.root = path
        else:
            os.rmdir(path)
            self.reason = "this kernel has no cgroup.kill (it came with Linux 5.14)"

    def kill(self, main: str) -> None:
        """End every process of a task, at once and with certainty. Raises OSError."""
        cgroup.kill(os.path.dirname(main))

    def remove(self, main: str) -> bool:
        """Remove a task's directories; False while processes are still on their way out of them."""
        group = os.path.dirname(main)
        for path in (main, group):
            try:
                os.rmdir(path)
            except FileNotFoundError:
                pass
            except OSError:
                return False
        return True

    def close(self) -> None:
        """Kill what is left and remove everything. Raises OSError for what cannot be removed."""
        if self.root is None:
            return
        cgroup.kill(self.root)
        for path, directories, _ in os.walk(self.root, topdown=False):
            for name in directories:
                _rmdir(f"{path}/{name}")
        _rmdir(self.root)
        self.root = None


def _holds_strangers(root: str) -> bool:
    """Whether processes of another pid namespace live below: then the number in its name is not ours."""
    for path, _, _ in os.walk(root):
        try:
            with open(f"{path}/cgroup.procs", "rb") as file:
                if b"0" in file.read().split():  # cgroups(7): not visible to us
                    return True
        except OSError:
            pass
    return False


def _rmdir(path: str) -> None:
    from time import sleep  # only at the very end, when there is nobody left to serve

    for _ in range(100):
        try:
            os.rmdir(path)
            return
        except FileNotFoundError:
            return
        except OSError:
            sleep(0.01)  # killed processes leave their group a moment later
    os.rmdir(path)
