"""What all starts of one supervisor share: spawner and spare, slots, baseline. Boot module."""

from __future__ import annotations

import _signal
import _socket
import errno
import marshal
import os
import sys
from _collections import deque

from initspawn.errors import LaunchRefused
from initspawn.limits import OWN_TASKS, RESERVE_STARTS, TASKS
from initspawn.linux import mount
from initspawn.sandbox import measure
from initspawn.sandbox.launch import Start
from initspawn.sandbox.program import Ledger, Slot
from initspawn.sandbox.spawner import Prepared, Spawner, send
from initspawn.sandbox.streams import Streams
from initspawn.say import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from initspawn.plan import Sandbox

_JOBS_BYTES = 1 << 20  # of jobs on their way; the kernel gives what it allows (net.core.wmem_max)
_FULL_PAUSE = 0.002  # seconds until the next attempt
_SPARE_PAUSE = 10.0
_FORK_PAUSE = 0.5
_RENEWED = marshal.dumps(None)
_SOCKET_KIND = _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC


class Launcher:
    """What all starts of one supervisor share: the spawner, the slots it answers in, /dev/null, and what
    an unconfined child would have. `later` calls back once after so many seconds. Raises OSError.
    """

    def __init__(
        self, sandboxes: list[Sandbox], later: Callable[[float, Callable[[], None]], object]
    ) -> None:
        self.baseline = measure.Baseline()
        self.ledger = Ledger(TASKS + OWN_TASKS + 2 * RESERVE_STARTS + 1)  # and one for the spare spawner
        self._sandboxes = dict(enumerate(sandboxes))  # by numbers, of which none is given twice
        self._numbers = len(sandboxes)
        self._null = mount.open_null()
        self._prepared: dict[tuple[int, int, bool, bool], Prepared] = {}
        self._socket: _socket.socket | None = None
        self._spare: _socket.socket | None = None
        self._spare_slot: Slot | None = None
        self._later = later
        self.starts: set[Start] = set()  # that are not closed yet, whatever has become of them
        self._waiting: deque[tuple[bytes, list[int]]] = deque()  # jobs, with copies of their descriptors
        self._sending = False  # whether a timer for them runs
        self.spawner_pid = 0  # 0: it has died, and there is no other yet
        try:
            self.fork()
            self.renew_spare()
        except BaseException:
            self.close()
            raise

    def fork(self) -> None:
        """Make a spawner out of ourselves. Raises OSError."""
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _SOCKET_KIND)
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            raise
        if pid == 0:
            # An orphaned end would keep the spawner waiting for a supervisor that is gone.
            ours.close()
            Spawner(theirs, self._sandboxes, self.baseline, self.ledger, self._null).live()
        theirs.close()
        self._take(ours, pid)

    def replace(self) -> None:
        """The spawner has died: its spare, which has seen as little as it had, takes its place."""
        if self._spare is None or self._spare_slot is None or not self._spare_slot.pid:
            self.fork()  # both are gone: then a copy of what we are now
        else:
            spare, slot = self._spare, self._spare_slot
            self._spare = self._spare_slot = None
            self._take(spare, slot.pid)
            self.ledger.give_back(slot)
        self._renew_spare_soon()

    def _replace_missing(self) -> None:
        """Now, or when there is a process for it."""
        if self._null >= 0 and not self.spawner_pid:
            try:
                self.replace()
            except (OSError, MemoryError):
                self._later(_FORK_PAUSE, self._replace_missing)

    def renew_spare(self) -> None:
        """Have the spawner make a spare of itself, for when it dies. Raises OSError."""
        if self._spare is not None:
            self._spare.close()
            self._spare = None
        if self._spare_slot is None:
            self._spare_slot = self.ledger.take()
        self._spare_slot.clear()
        self._spare, theirs = _socket.socketpair(_socket.AF_UNIX, _SOCKET_KIND)
        self._spare.setblocking(False)
        try:
            self._send(marshal.dumps(self._spare_slot.index), [theirs.fileno()])
        finally:
            theirs.close()

    def _renew_spare_soon(self) -> None:
        """Now, or when there are descriptors for it."""
        try:
            self.renew_spare()
        except OSError as error:
            say(f"the spawner has no spare: {error.strerror}")
            self._later(_SPARE_PAUSE, self._renew_missing_spare)

    def _renew_missing_spare(self) -> None:
        if self._null >= 0 and not self.spare_pid:
            self._renew_spare_soon()

    @property
    def spare_pid(self) -> int:
        """The spare spawner's pid; 0 before it is made."""
        return self._spare_slot.pid if self._spare_slot is not None else 0

    def _take(self, sock: _socket.socket, pid: int) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = sock
        self._socket.setblocking(False)
        self._socket.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF, _JOBS_BYTES)
        self.spawner_pid = pid
        if self._waiting:
            self._send_soon()

    def prepare(
        self,
        sandbox: Sandbox,
        *,
        cgroup: str | None = None,
        descriptors: tuple[int, ...] = (),
        streams: Streams | None = None,
        ceiling: int = sys.maxsize,
    ) -> Start:
        """Have a reaper cloned that builds the sandbox and waits for `Start.launch`. `cgroup` is the
        directory of the group the command is born in; `descriptors` are given to it as 3, 4, ...;
        `streams`: its standard input, output and error, not yet open; by default it reads /dev/null.
        `ceiling`: the first descriptor that this start may not take. Raises LaunchRefused.
        """
        start = self._kind(sandbox)(self, sandbox, cgroup, descriptors, streams or Streams())
        start.ceiling = ceiling
        try:
            self.starts.add(start)
            start.send()
        except BaseException as error:
            start.close()
            if isinstance(error, OSError):
                raise LaunchRefused(start.step, error.errno or 0) from error
            raise
        return start

    def forget(self, start: Start, slot: Slot) -> None:
        """It has been closed, and its slot is free."""
        self.starts.discard(start)
        self.ledger.give_back(slot)

    def _kind(self, sandbox: Sandbox) -> type[Start]:
        if not sandbox.bwrap:
            return Start
        from initspawn.sandbox.bwrap import BwrapStart

        return BwrapStart

    def send(self, job: bytes, descriptors: list[int]) -> None:
        """Hand a job to the spawner, now or when it has done some of those before it. Raises OSError."""
        if not self.spawner_pid:
            self.replace()
        try:
            self._send(job, descriptors)
        except (BrokenPipeError, ConnectionResetError):  # it has died, and nobody has noticed yet
            self.replace()
            self._send(job, descriptors)

    def _send(self, job: bytes, descriptors: list[int]) -> None:
        assert self._socket is not None
        if not self._waiting:
            try:
                return send(self._socket, job, descriptors)
            except BlockingIOError:
                self._send_soon()
        copies: list[int] = []
        try:
            for fd in descriptors:
                copies.append(os.dup(fd))
            self._waiting.append((job, copies))
        except BaseException:
            for fd in copies:
                os.close(fd)
            raise

    def _send_soon(self) -> None:
        if not self._sending:
            self._later(_FULL_PAUSE, self._send_waiting)
            self._sending = True

    def _send_waiting(self) -> None:
        """Send what had no room on the socket, as far as there is some now."""
        self._sending = False
        while self._waiting and self._socket is not None:
            job, descriptors = self._waiting[0]
            try:
                send(self._socket, job, descriptors)
            except OSError:  # it is full still; or has died, and is replaced when it has been waited for
                if self.spawner_pid:  # else nobody reads; whoever is the next sends them
                    self._send_soon()
                return
            self._forget_waiting()

    def _forget_waiting(self) -> None:
        for fd in self._waiting.popleft()[1]:
            os.close(fd)

    def number(self, sandbox: Sandbox) -> int:
        """The number the spawner knows a sandbox by. Raises OSError for one it does not know."""
        for number, known in self._sandboxes.items():
            if known is sandbox:
                return number
        raise OSError(errno.ESTALE, "not one of this launcher's sandboxes", sandbox.uid)

    def renew(self, sandboxes: list[Sandbox]) -> None:
        """From now on these can be built; those that were there before keep all that was made for them. Jobs
        that are on their way come first. Raises OSError, and nothing has changed then.
        """
        wanted = {id(sandbox) for sandbox in sandboxes}
        kept = {number: known for number, known in self._sandboxes.items() if id(known) in wanted}
        known = {id(sandbox) for sandbox in kept.values()}
        fresh = [sandbox for sandbox in sandboxes if id(sandbox) not in known]
        new = dict(enumerate(fresh, self._numbers))
        file = os.memfd_create("initspawn", os.MFD_CLOEXEC)
        try:
            with os.fdopen(os.dup(file), "wb") as stream:
                plain = {number: sandbox.to_brief() for number, sandbox in new.items()}
                stream.write(marshal.dumps((tuple(kept), plain)))
            self.send(_RENEWED, [file])
            self._renew_that_of_the_spare(file)
        finally:
            os.close(file)
        self._numbers += len(fresh)
        self._sandboxes = kept | new
        self._prepared = {key: made for key, made in self._prepared.items() if key[0] in known}
        self.baseline.keep(known)

    def _renew_that_of_the_spare(self, file: int) -> None:
        try:
            if self._spare is not None:  # behind the request that it be made, if it is not there yet
                send(self._spare, _RENEWED, [file])
        except OSError:  # it does not read, or has died
            try:
                self.renew_spare()
            except OSError as error:  # the spawner knows already, so there is no way back
                say(f"the spawner has no spare: {error.strerror}")

    def prepared(self, sandbox: Sandbox, extra: int, *, grouped: bool, terminal: bool) -> Prepared:
        """The programs of a sandbox as the spawner makes them, to say what they do. Raises OSError."""
        key = (id(sandbox), extra, grouped, terminal)
        if key not in self._prepared:
            self._prepared[key] = Prepared(
                sandbox, self.baseline, extra, grouped=grouped, terminal=terminal
            )
        return self._prepared[key]

    def on_child(self, pid: int, *, closing: bool) -> None:
        """A child has been waited for that belongs to no start: see whether a spawner is to be replaced."""
        if pid == self.spawner_pid and closing:
            self.spawner_pid = 0  # the number may soon be another's
        elif pid == self.spawner_pid:
            self.spawner_pid = 0
            self._replace_missing()
            how = "its spare takes its place" if self.spawner_pid else "nor can there be another now"
            say(f"the spawner died; {how}")
        elif pid == self.spare_pid and not closing:
            self._renew_spare_soon()

    def kill(self) -> None:
        """End a spawner that does not work any more; `replace` follows when it has been waited for."""
        if self.spawner_pid:  # else the number may be another's
            os.kill(self.spawner_pid, _signal.SIGKILL)

    def close(self) -> None:
        """End the spawners; what they have started runs on."""
        if self._null < 0:
            return
        pids = [pid for pid in (self.spawner_pid, self.spare_pid) if pid]
        for sock in (self._socket, self._spare):
            if sock is not None:
                sock.close()
        self._socket = self._spare = None
        while self._waiting:
            self._forget_waiting()
        os.close(self._null)
        self._null = -1
        for pid in pids:
            try:
                if os.waitpid(pid, os.WNOHANG)[0] == 0:  # it lives, so the number is its own
                    os.kill(pid, _signal.SIGKILL)  # it may be stopped, and would not notice our end
                    os.waitpid(pid, 0)
            except ChildProcessError:  # a loop that waits for every child was faster
                pass
