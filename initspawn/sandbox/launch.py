"""Starting a command: it waits, confined, before its exec; it is held there, measured, and let go.

    supervisor              reaper (PID 1 of the sandbox)        command (PID 2)
    prepare() --spawner-->  REAPER_STEPS, clone3------------->   COMMAND_STEPS: traceable,
    hear() <----------------------------- "ready" and its pid --- ...
            seize                                                held
    launch() ---------------------- "go", its arguments ----->   FILTER_STEPS, execve
    stopped() <------------------------- held by ptrace before its first instruction
            measure, compare, detach ------------------------>   runs
    hear() <---- closed --- waits for it, stores its status
            kill ---------->

Nothing blocks: the caller's loop says when the handshake is readable and when a wait status came.
ptrace is what makes the measurement true: at PTRACE_EVENT_EXEC the new program is loaded, its
credentials and filter are final, its close-on-exec descriptors are gone, and it has not run yet.
Boot module.
"""

from __future__ import annotations

import _signal
import _socket
import errno
import fcntl
import marshal
import os
import struct
import sys

from initspawn.errors import LaunchRefused
from initspawn.linux import cgroup, mount, process, ptrace
from initspawn.sandbox import ladder, listener, measure, steps
from initspawn.sandbox.program import COMMAND, PLACING, REAPER, SPAWNER
from initspawn.sandbox.recipe import environment
from initspawn.sandbox.spawner import send

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from initspawn.plan import Sandbox
    from initspawn.sandbox.launcher import Launcher
    from initspawn.sandbox.streams import Streams

# struct flock: type, whence, start, length, pid (fcntl(2))
_SHARED_LOCK = struct.pack("hh4xqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
_CREDENTIALS = "3i"  # struct ucred: pid, uid, gid (unix(7), SCM_CREDENTIALS)
_CREDENTIALS_SPACE = _socket.CMSG_SPACE(struct.calcsize(_CREDENTIALS))
_KIND = _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC

# What `Start.hear` says.
HELD = "held"  # the command waits before its exec, or is on its way to it
ALONE = "alone"  # nothing of the task is left but its reaper, which waits for its end
LOST = "lost"  # the reaper says no more: what became of the task is known when it has been waited for


class Start:
    """One start on its way, then the handle of what runs. Descriptors are -1 once closed."""

    def __init__(
        self,
        launcher: Launcher,
        sandbox: Sandbox,
        cgroup: str | None,
        extra: tuple[int, ...],
        streams: Streams,
    ) -> None:
        self.sandbox = sandbox
        self.argv: tuple[str, ...] = ()
        self.cgroup = cgroup
        self.extra = self.handed = extra  # the command's; what the child finds open from 3 on
        self.environment = environment(sandbox, terminal=streams.terminal)  # the command's
        self.ends_all = "pid" in sandbox.namespaces  # whether nobody of the task outlives its reaper
        self.step = "slot"
        self.held = False  # by us, as its tracer
        self.pidfd = -1
        self.command_pid = 0
        self.command_pidfd = -1
        self.streams = streams
        self.handshake: _socket.socket | None = None
        self.measurement: dict[str, Any] = {}
        self.used: dict[str, float] = {}  # what was accounted to a group that it has left
        self.listener = -1  # of what its filter notifies; whoever gives it on closes it
        self.ceiling = sys.maxsize  # the first descriptor that is not for this
        self._stored = False
        self._launcher = launcher
        self._locks: list[int] = []
        try:
            self._slot = launcher.ledger.take()
        except IndexError:
            raise LaunchRefused("slot", errno.EAGAIN, "too many tasks are alive already") from None

    @property
    def pid(self) -> int:
        """The reaper, our child; 0 before it is cloned, and if it could not be."""
        return self._slot.pid

    @property
    def leader(self) -> tuple[int, int]:
        """Who leads the command's session and process group: its pid, and a pidfd."""
        return self.command_pid, self.command_pidfd

    @property
    def words(self) -> tuple[str, ...]:
        """What the child executes: the command's argv."""
        return self.argv

    @property
    def limited(self) -> str:
        """The group that has the task's limits; empty without one."""
        return limited(self.cgroup, self.sandbox) if self.cgroup is not None else ""

    def send(self) -> None:
        """Make the streams and give the job to the spawner. Raises OSError; `step` says at what."""
        self.step = self.streams.kind
        theirs = self.streams.open(self.sandbox.user)
        try:
            self.handshake, child = _socket.socketpair(_socket.AF_UNIX, _KIND)
            theirs.append(child.detach())
            self.handshake.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)
            self.handshake.setblocking(False)
            if theirs[-1] >= self.ceiling:  # the lowest are given first, so all others are taken
                self.step = "room"
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            self.step = "cgroup"
            if self.cgroup is not None:
                theirs.append(os.open(self.cgroup, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
            self.step = "spawner"
            number, streams = self._launcher.number(self.sandbox), self.streams
            job = marshal.dumps(
                (number, self._slot.index, self.cgroup is not None, streams.fed, streams.terminal)
            )
            self._launcher.send(job, [*theirs, *self.handed])
        finally:
            for fd in theirs:
                os.close(fd)

    def launch(self, argv: tuple[str, ...]) -> None:
        """Let the command go to its exec, now or as soon as it is held; `argv[0]` is the executable."""
        self.argv = argv
        self._stored = self._slot.store_arguments(self.words)
        if self.held:
            try:
                self._go()
            except OSError:
                pass  # it has ended, which will be heard

    def _go(self) -> None:
        assert self.handshake is not None
        if self.sandbox.handler:
            ptrace.interrupt(self.command_pid)
        self.handshake.send(steps.GO)
        if not self._stored:
            send(self.handshake, b"".join([os.fsencode(item) + b"\0" for item in self.words]), [])

    def dismiss(self) -> None:
        """Nobody will launch this: its reaper ends when it has built its sandbox."""
        assert self.handshake is not None
        self.argv = ()
        self.handshake.shutdown(_socket.SHUT_WR)

    def hear(self) -> str:
        """The handshake is readable: hold the command, and let it go if it is to; or learn of the end.

        HELD, ALONE or LOST; after the last two nothing more will be heard. Raises LaunchRefused if the
        command cannot be held.
        """
        assert self.handshake is not None
        try:
            data, messages, _, _ = self.handshake.recvmsg(1, _CREDENTIALS_SPACE)
        except ConnectionResetError:  # it ended before it read all of ours
            data, messages = b"", []
        if data != steps.READY or self.held:
            return ALONE if self._slot.alone else LOST
        try:
            self.command_pid = struct.unpack(_CREDENTIALS, messages[0][2])[0]
            self.pidfd = process.pidfd_open(self.pid)  # our child: the number cannot be another's
            self.command_pidfd = process.pidfd_open(self.command_pid)
            ptrace.seize(self.command_pid)
            self.held = True
            if self.argv:
                self._go()
        except OSError as error:
            if self._slot.failure() is None:
                reason = "the command cannot be traced"
                raise LaunchRefused("measurement", error.errno or 0, reason) from error
            return HELD  # it was ready, but one of its next steps has failed already
        return HELD

    def stopped(self, status: int) -> bool:
        """The held command stopped with this wait status: True when it is at its exec and has been
        measured, compared and let go. Raises LaunchRefused for a mismatch.
        """
        try:
            if ptrace.stop_event(status) != ptrace.PTRACE_EVENT_EXEC:
                self._go_on(ptrace.stop_signal(status))
                return False
            if self.sandbox.handler and self.listener < 0:
                raise LaunchRefused("seccomp", 0, "its listener was not there before the exec")
            baseline = self._launcher.baseline
            self.measurement = baseline.measured(self)
            differences = measure.compare(self.measurement, baseline.expected(self))
            if differences:
                raise LaunchRefused("measurement", 0, "; ".join(differences))
            self._take_locks()
            ptrace.detach(self.command_pid)
        except OSError as error:
            raise LaunchRefused("measurement", error.errno or 0, str(error.filename or "")) from error
        except (KeyError, ValueError, IndexError) as error:  # it is dying: /proc shows only half of it
            raise LaunchRefused("measurement", 0, f"/proc cannot be read: {error}") from error
        return True

    def _go_on(self, signal: int) -> None:
        if self.sandbox.handler and self.listener < 0:
            self.listener = listener.go_on(self.command_pid, self.command_pidfd, signal)
        else:
            ptrace.cont(self.command_pid, signal)

    def _take_locks(self) -> None:
        # Held here, so for as long as the task lives: the command has none of our descriptors.
        for entry in self.sandbox.mounts:
            if entry.operation == "lock":
                root = os.open(f"/proc/{self.command_pid}/root", os.O_PATH | os.O_CLOEXEC)
                try:
                    self._locks.append(mount.open_file_in_root(root, entry.target))
                    fcntl.fcntl(self._locks[-1], fcntl.F_OFD_SETLK, _SHARED_LOCK)
                except OSError as error:
                    raise LaunchRefused("lock", error.errno or 0, entry.target) from error
                finally:
                    os.close(root)

    @property
    def unheard(self) -> bool:
        """Whether nobody has even begun with it: the spawner has died."""
        return not self.pid and self._slot.failure() is None

    @property
    def alone(self) -> bool:
        """Whether nothing of the task is left but its reaper, which waits for its end."""
        return self._slot.alone

    def refusal(self, status: int | None) -> LaunchRefused:
        """Why the start failed, once the reaper is gone. `status`: the command's, if it had one."""
        failure = self._slot.failure()
        if failure:
            step, detail = self._note(*failure[:2])
            number = failure[2]
            hint = ladder.refusal_hint(step, number, self.sandbox)
            return LaunchRefused(step, number, f"{detail}: {hint}" if detail and hint else detail or hint)
        ended = self._slot.status() if status is None else status
        if ended is not None and os.WIFSIGNALED(ended) and os.WTERMSIG(ended) == _signal.SIGSYS:
            return LaunchRefused(ladder.EXEC, 0, "the seccomp filter does not allow execve")
        if self.out_of_memory():
            return LaunchRefused("cgroup", 0, "its memory limit is too low for a command to begin")
        if low := ladder.ended_in_exec(self.sandbox, ended):
            return LaunchRefused(ladder.EXEC, 0, low)
        return LaunchRefused("child", 0, "it ended before its exec without a word")

    def _note(self, who: int, index: int) -> tuple[str, str]:
        """The step and the call that a failing process named."""
        if who == SPAWNER:
            return (ladder.NAMESPACES, "") if index else ("prepare", "")
        if who == PLACING:
            return ladder.DESCRIPTORS, ""
        grouped = self.cgroup is not None
        prepared = self._launcher.prepared(
            self.sandbox, len(self.handed), grouped=grouped, terminal=self.streams.terminal
        )
        if who == REAPER:
            notes, last = prepared.reaper.notes, ("clone", "the command")
        elif who == COMMAND:
            notes, last = prepared.command.notes, (ladder.EXEC, "")
        else:
            notes, last = prepared.filters.notes, (ladder.EXEC, self.words[0])
        return notes[index] if index < len(notes) else last

    def status(self) -> int | None:
        """The command's wait status as its reaper saw it, None if it did not live to see it."""
        return self._slot.status()

    def usage(self) -> dict[str, float]:
        """What the task used, as far as its cgroup or, without one, the wait for its command knows."""
        found = {} if self._slot.status() is None else self._slot.usage()
        group = self.cgroup and os.path.dirname(self.cgroup)
        return {**found, **cgroup.usage(group, self.used)} if group else found

    def out_of_memory(self) -> bool:
        """Whether the kernel ended it for the memory it used."""
        return self.cgroup is not None and cgroup.out_of_memory(os.path.dirname(self.cgroup))

    def signal(self, number: int) -> None:
        """Send a signal to the command's process group; nothing happens if it has ended."""
        pidfd = self.leader[1]
        if pidfd < 0:
            return
        try:
            process.pidfd_send_signal(pidfd, number, process.PIDFD_SIGNAL_PROCESS_GROUP)
        except (ProcessLookupError, PermissionError):  # ended, or it has become another user
            return
        except OSError as error:
            if error.errno != errno.EINVAL:  # Linux before 6.9 knows no groups here
                raise
            self._signal_group(number)

    def _signal_group(self, number: int) -> None:
        # A leader that nobody has waited for yet still has its number.
        pid, pidfd = self.leader
        try:
            process.pidfd_send_signal(pidfd, 0)
            os.killpg(pid, number)
        except (ProcessLookupError, PermissionError):
            pass

    def kill(self, *, reaper: bool) -> None:
        """End the command. `reaper`: and its reaper, with its pid namespace everything; otherwise the
        reaper lives on to end what the command leaves. To be called before the reaper was waited for.
        """
        process.pidfd_kill(self.command_pidfd, _signal.SIGKILL)
        process.pidfd_kill(self.pidfd, _signal.SIGKILL if reaper else _signal.SIGCONT)
        if reaper and self.pid and self.pidfd < 0:
            os.kill(self.pid, _signal.SIGKILL)  # our child, not waited for: the number is its own

    def close(self) -> None:
        """Close every descriptor; the processes are not touched."""
        self.drop_handshake()
        while self._locks:
            os.close(self._locks.pop())
        self.streams.close()
        for name in ("pidfd", "command_pidfd", "listener"):
            fd = getattr(self, name)
            if fd >= 0:
                setattr(self, name, -1)
                os.close(fd)
        self._launcher.forget(self, self._slot)

    def drop_handshake(self) -> None:
        """Close our end of the handshake. A reaper that waits at the other ends."""
        if self.handshake is not None:
            self.handshake.close()
            self.handshake = None


def limited(main: str, sandbox: Sandbox) -> str:
    """The group that has the limits of a task whose processes live in the group `main`."""
    group = os.path.dirname(main)
    return os.path.dirname(group) if sandbox.cgroup_shared else group
