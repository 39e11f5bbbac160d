"""The second back end: bubblewrap makes a sandbox's namespaces and mounts. Boot module.

Our own steps still come before it, those of `recipe.outside`: cgroup, limits, scheduling, umask, the
user. Then the child executes bubblewrap in place of the command.

    reaper --- bubblewrap --- its first child --- command
               (waits)        (PID 1, if the      (executes)
                               sandbox has own)

The one that is traced is always the youngest of them: at each fork the tracer lets the parent go and
keeps the child. The first exec is bubblewrap's; the next one must be the command's, which is held and
measured there as without bubblewrap. What differs by design: who leads the session, the variable PWD,
and that a command ended by signal N counts as exit 128+N, for that is what bubblewrap says of it.
"""

from __future__ import annotations

import os

from initspawn.errors import LaunchRefused
from initspawn.linux import capabilities, process, ptrace
from initspawn.sandbox.ladder import BWRAP
from initspawn.sandbox.launch import Start
from initspawn.sandbox.mounts import proc_covers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from initspawn.plan import Mount, Sandbox
    from initspawn.sandbox.launcher import Launcher
    from initspawn.sandbox.streams import Streams

_OPTIONS = {"proc": "--proc", "mqueue": "--mqueue", "dir": "--dir", "lock": "--lock-file"}
_UNSHARE = {"user": "--unshare-user", "pid": "--unshare-pid", "ipc": "--unshare-ipc",
            "uts": "--unshare-uts", "net": "--unshare-net", "cgroup": "--unshare-cgroup"}  # fmt: skip
_SAID = 4096  # bytes of what it writes when it fails

Files = list[tuple[int, str, bytes]]  # a descriptor's number, a name, what can be read from it


def options(sandbox: Sandbox, files: Files, first: int, *, every_capability: bool = False) -> list[str]:
    """What stands between `bwrap` and `--`. What it is to read from descriptors goes to `files`, numbered
    from `first` on.
    """
    words = [_UNSHARE[name] for name in sandbox.namespaces if name in _UNSHARE]
    if sandbox.id_map is not None:
        words += ["--uid", str(sandbox.id_map.inside_uid), "--gid", str(sandbox.id_map.inside_gid)]
    if sandbox.hostname is not None:
        words += ["--hostname", sandbox.hostname]
    if not sandbox.new_root:
        words += ["--dev-bind", "/", "/"]
    for index, entry in enumerate(sandbox.mounts):
        above = entry.target.rpartition("/")[0]
        if above and not any(f"{above}/".startswith(f"{made.target}/") for made in sandbox.mounts[:index]):
            words += ["--dir", above]  # else made for the sandbox's own user only
        words += _mount(sandbox, entry, files, first)
    if sandbox.new_root and not sandbox.writable_root:
        words += ["--remount-ro", "/"]
    for number, bpf in enumerate(sandbox.filters, 1):
        words += ["--add-seccomp-fd", _file(files, first, f"filter-{number}.bpf", bpf)]
    words += ["--chdir", sandbox.directory, "--clearenv"]
    for name, value in sandbox.environment:
        words += ["--setenv", name, value]
    names = [f"CAP_{name}" for name in capabilities.names(sandbox.capabilities)]
    words += ["--cap-drop", "ALL"]  # root's bubblewrap would keep them
    for name in ["ALL"] if every_capability else names:
        words += ["--cap-add", name]
    return [*words, "--new-session", "--die-with-parent"]


def _mount(sandbox: Sandbox, entry: Mount, files: Files, first: int) -> list[str]:
    kind, target = entry.operation, entry.target
    if kind in ("bind", "image"):  # an image is for who reads: `config.bwrap` refuses it
        return ["--ro-bind" if entry.read_only else "--bind", entry.source, target]
    if kind == "overlay":  # of bubblewrap 0.11, for who reads: `config.bwrap` refuses it
        return ["--overlay-src", entry.source, "--tmp-overlay", target]
    if kind == "symlink":
        return ["--symlink", entry.source, target]
    if kind == "file":
        number = _file(files, first, target.rpartition("/")[2] or "file", entry.data)
        return ["--perms", "0444", "--ro-bind-data", number, target]
    if kind == "tmpfs":
        return ["--perms", "1777", "--tmpfs", target]
    if kind == "dev":
        return ["--dev", target, "--chmod", "1777", f"{target}/shm"]
    words = [_OPTIONS[kind], target]
    if kind == "proc" and sandbox.user == 0:
        for name in proc_covers():  # it covers fewer of them itself
            words += ["--ro-bind", f"/proc/{name}", f"{target}/{name}"]
    return words


def _file(files: Files, first: int, name: str, data: bytes) -> str:
    number = first + len(files)
    files.append((number, name, data))
    return str(number)


class BwrapStart(Start):
    """One start through bubblewrap."""

    def __init__(
        self,
        launcher: Launcher,
        sandbox: Sandbox,
        cgroup: str | None,
        extra: tuple[int, ...],
        streams: Streams,
    ) -> None:
        super().__init__(launcher, sandbox, cgroup, extra, streams)
        # PWD as bubblewrap sets it: in its place, or at the end.
        variables = dict(sandbox.environment) | {"PWD": sandbox.directory}
        self.environment = tuple(f"{name}={value}" for name, value in variables.items())
        self.ends_all = False  # the namespace's PID 1 is bubblewrap's: our reaper waits for it
        self._running = False
        self._leader = (0, -1)
        self._first = 3 + len(extra)  # the number of the descriptor with the options

    def send(self) -> None:
        """The same, with what bubblewrap reads from descriptors. Raises OSError."""
        files: Files = []
        # In a file and not in its argv: that one everybody on the machine may read, environment included.
        # The lock is ours to hold, as ever.
        mounts = tuple(entry for entry in self.sandbox.mounts if entry.operation != "lock")
        words = options(self.sandbox.replace(mounts=mounts), files, self._first + 1)
        text = b"".join([os.fsencode(word) + b"\0" for word in words])
        own: list[int] = []
        try:
            for data in (text, *(data for _, _, data in files)):
                own.append(os.memfd_create(BWRAP, os.MFD_CLOEXEC))
                os.write(own[-1], data)
                os.lseek(own[-1], 0, os.SEEK_SET)
            self.handed = (*self.extra, *own)
            super().send()
        finally:
            for fd in own:
                os.close(fd)

    @property
    def words(self) -> tuple[str, ...]:
        """What the child executes: bubblewrap, and in it the command."""
        return (self.sandbox.bwrap, "--args", str(self._first), "--", *self.argv)

    @property
    def leader(self) -> tuple[int, int]:
        """Bubblewrap's first child: the command itself, or the PID 1 whose session that shares."""
        return self._leader

    def stopped(self, status: int) -> bool:
        """The same; what stops on the way to the command's exec goes on, or is left to its child."""
        event = ptrace.stop_event(status)
        try:
            if event in ptrace.CHILD_EVENTS:
                self._hand_over()
                return False
            if event == ptrace.PTRACE_EVENT_EXEC and not self._running:
                self._running = True  # bubblewrap; whatever is executed from here on is measured
                ptrace.follow(self.command_pid)
                ptrace.cont(self.command_pid)
                return False
        except OSError as error:
            raise LaunchRefused(BWRAP, error.errno or 0) from error
        return super().stopped(status)

    def _hand_over(self) -> None:
        parent, self.command_pid = self.command_pid, ptrace.child_of(self.command_pid)
        pidfd = process.pidfd_open(self.command_pid)
        os.close(self.command_pidfd)
        self.command_pidfd = pidfd
        if not self._leader[0]:
            self._leader = (self.command_pid, os.dup(pidfd))
        ptrace.detach(parent)
        try:
            ptrace.cont(self.command_pid)  # its first stop may have been heard of already
        except ProcessLookupError:
            pass  # and otherwise will be

    def refusal(self, status: int | None) -> LaunchRefused:
        """The same; where bubblewrap itself gave up, with what it wrote."""
        found = super().refusal(status)
        if found.step != "child":
            return found
        try:
            said = os.read(self.streams.stderr, _SAID).decode("utf-8", "replace").strip()
        except OSError:
            said = ""
        return LaunchRefused(BWRAP, 0, said.rpartition("\n")[2] or "it ended without a word")

    def usage(self) -> dict[str, float]:
        """What its cgroup knows; nothing without one, for nobody of ours waits for the command itself."""
        return super().usage() if self.cgroup is not None else {}

    def close(self) -> None:
        """The same."""
        super().close()
        if self._leader[1] >= 0:
            os.close(self._leader[1])
            self._leader = (self._leader[0], -1)
