"""The spawner: a small process whose only work is to clone reapers. Boot module.

Forking costs what the forking process has in memory, and afterwards every page it touches. So the
supervisor forks once, early, and this copy stays as small as it was then. It clones with CLONE_PARENT:
reapers are the supervisor's own children. They hold a copy of this process, which knows the plan and
nothing else: no token, no output of other tasks.

A job is one packet on a socket pair: marshal of (sandbox, slot, whether a cgroup is among the descriptors,
whether stdin is, whether that is a terminal), with stdin, stdout, stderr, handshake, that cgroup, and the
command's further descriptors; without stdin it gets /dev/null. Nothing is answered: the reaper's pid and
every failure are in the ledger, and the handshake's end is the signal.
A number alone, a slot's, with a socket, asks for a spare spawner: a spawner that dies is not replaced by a
copy of the supervisor, which has seen tokens and output by then.
None, with a memory file, says which sandboxes there are from now on: the file holds the numbers of those
that remain, and those that are new by theirs. No number is given twice, so a job for a sandbox that is gone
fails, and a spawner that is told the same again is none the worse.
"""

from __future__ import annotations

import _signal
import _socket
import ctypes
import errno
import gc
import marshal
import os
import struct

from initspawn.linux import capabilities, prctl, process
from initspawn.linux.numbers import table
from initspawn.plan import Sandbox
from initspawn.sandbox import ladder, steps
from initspawn.sandbox.program import COMMAND, FILTERS, PLACING, REAPER, SPAWNER, Ledger, Slot, raw, run
from initspawn.sandbox.recipe import Recipe, environment, outside

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from initspawn.sandbox.measure import Baseline
    from initspawn.sandbox.program import Call

MAX_DESCRIPTORS = 32
MAX_JOBS = 512  # that are remembered
_SPACE = _socket.CMSG_SPACE(MAX_DESCRIPTORS * 4)
PACKET = 1 << 16  # longer arguments come in a memory file
IN_FILE = b"file"
_NUMBERS = table()


def send(sock: _socket.socket, packet: bytes, descriptors: list[int]) -> None:
    """Send a packet with descriptors; one that is too long goes as a memory file. Raises OSError."""
    if len(packet) > PACKET:
        fd = os.memfd_create("initspawn", os.MFD_CLOEXEC)
        try:
            os.write(fd, packet)
            return send(sock, IN_FILE, [fd, *descriptors])
        finally:
            os.close(fd)
    packed = struct.pack(f"{len(descriptors)}i", *descriptors)
    sock.sendmsg([packet], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, packed)] if descriptors else [])


class Prepared:
    """A sandbox's programs, put together once: what its reaper does, and what its command does.

    Raises OSError for what can be seen to fail already.
    """

    def __init__(
        self, sandbox: Sandbox, baseline: Baseline, extra: int, *, grouped: bool, terminal: bool
    ) -> None:
        sandbox = outside(sandbox, baseline)
        self.flags = ladder.clone_flags(sandbox) | process.CLONE_PARENT
        recipe = Recipe(sandbox, baseline, extra, grouped=grouped, terminal=terminal)
        self.handshake = recipe.handshake
        self.reaper = ladder.compile_steps(steps.REAPER_STEPS, recipe)
        self.clone_command = process.clone_arguments(cgroup=recipe.cgroup)
        self.command = ladder.compile_steps(steps.COMMAND_STEPS, recipe)
        self.filters = ladder.compile_steps(steps.FILTER_STEPS, recipe)
        self.private_pid = "pid" in sandbox.namespaces
        # Without a pid namespace the reaper must end what the command leaves, of whatever user.
        kill = 0 if self.private_pid else baseline.permitted & 1 << capabilities.NUMBERS["KILL"]
        self.reaper_rights = capabilities.capset_arguments(kill, kill, 0)
        self.environment = strings([*map(os.fsencode, environment(sandbox, terminal=terminal))])
        # Where a reaper reads what its command did not: not in its slot, which may be another task's by then.
        self.unread = ctypes.create_string_buffer(1)


def strings(items: list[bytes]) -> Any:
    """A NULL-terminated char *[] for execve(2)."""
    return (ctypes.c_char_p * (len(items) + 1))(*items, None)


class Job:
    """One packet, understood: all that a reaper and its command need."""

    __slots__ = ("arguments", "placing", "prepared", "slot")

    def __init__(self, prepared: Prepared, slot: Slot, placing: list[Call], arguments: bytes) -> None:
        self.prepared = prepared
        self.slot = slot
        self.placing = placing
        self.arguments = arguments


class Spawner:
    """The spawner's life, in the forked process. `null` is a descriptor on /dev/null."""

    def __init__(
        self,
        sock: _socket.socket,
        sandboxes: dict[int, Sandbox],
        baseline: Baseline,
        ledger: Ledger,
        null: int,
    ) -> None:
        self._socket = sock
        self._sandboxes = sandboxes
        self._baseline = baseline
        self._ledger = ledger
        self._null = null
        # By packet and descriptors: after each clone every page that is touched is copied, so what comes
        # again, as most jobs do, is not thought out again.
        self._jobs: dict[tuple[bytes | int, ...], Job] = {}
        self._prepared: dict[tuple[int, int, bool, bool], Prepared] = {}

    def live(self) -> NoReturn:
        """Clone for every job until the supervisor is gone. Never returns to the supervisor's code."""
        try:
            prctl.prctl(prctl.PR_SET_PDEATHSIG, _signal.SIGKILL)
            if os.getppid() != self._baseline.supervisor:  # it died before that, and sends no signal
                os._exit(0)
            name = ctypes.create_string_buffer(b"initspawn-spawn")
            prctl.prctl(prctl.PR_SET_NAME, ctypes.addressof(name))
            # The supervisor's keys are not the commands' (session-keyring(7)); kernels may have none at all.
            raw(_NUMBERS["keyctl"], process.KEYCTL_JOIN_SESSION_KEYRING, None, 0, 0, 0)
            prctl.prctl(prctl.PR_SET_DUMPABLE, 0)
            self._close_others()
            gc.disable()  # nothing here makes cycles
            while self._serve():
                pass
        except BaseException as error:
            os.write(2, f"initspawn: spawner: {type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(111)

    def _close_others(self) -> None:
        first = 3
        for fd in sorted((self._socket.fileno(), self._null)):
            if fd > first:
                raw(_NUMBERS["close_range"], first, fd - 1, 0, 0, 0)
            first = fd + 1
        raw(_NUMBERS["close_range"], first, 0xFFFFFFFF, 0, 0, 0)

    def _serve(self) -> bool:
        """Wait for one job and do it; False when the supervisor has gone."""
        packet, messages, _, _ = self._socket.recvmsg(PACKET, _SPACE, _socket.MSG_CMSG_CLOEXEC)
        if not packet:
            return False
        fds = _descriptors(messages)
        try:
            job = self._jobs.get((packet, *fds)) or self._new(packet, fds)
            if job is not None:
                self._clone(job)
        finally:
            for fd in fds:
                os.close(fd)
        return True

    def _new(self, packet: bytes, fds: list[int]) -> Job | None:
        """A job that is not known yet, or None: it was none, or failed, which is noted."""
        found = marshal.loads(packet)
        if isinstance(found, int):
            self._spare(found, fds[0])
            return None
        if found is None:
            self._renew(fds[0])
            return None
        job = self._job(found, fds)
        if job is not None:
            if len(self._jobs) == MAX_JOBS:
                self._jobs.clear()
            self._jobs[(packet, *fds)] = job
        return job

    def _spare(self, slot_index: int, sock: int) -> None:
        """Clone another spawner, the supervisor's child as we are, to wait at the socket `sock`."""
        slot = self._ledger.slot(slot_index)
        arguments = process.clone_arguments(process.CLONE_PARENT, parent_tid=slot.pid_address)
        if raw(_NUMBERS["clone3"], arguments, len(arguments), 0, 0, 0) == 0:
            spare = _socket.socket(fileno=os.dup(sock))
            Spawner(spare, self._sandboxes, self._baseline, self._ledger, self._null).live()

    def _renew(self, file: int) -> None:
        """From now on there are the sandboxes that are told in `file`."""
        remaining, new = marshal.loads(os.pread(file, os.fstat(file).st_size, 0))
        kept = {number: self._sandboxes[number] for number in remaining if number in self._sandboxes}
        self._sandboxes = kept | {number: Sandbox.from_plain(plain) for number, plain in new.items()}
        self._prepared = {key: made for key, made in self._prepared.items() if key[0] in kept}
        self._jobs.clear()

    def _job(self, found: tuple[int, int, bool, bool, bool], fds: list[int]) -> Job | None:
        """Everything that can be thought out before the clone; None if it failed, which is noted."""
        index, slot_index, grouped, fed, terminal = found
        slot = self._ledger.slot(slot_index)
        stdin, stdout, stderr, handshake, *rest = fds if fed else [self._null, *fds]
        extra = rest[grouped:]
        try:
            key = (index, len(extra), grouped, terminal)
            if key not in self._prepared:
                sandbox = self._sandboxes.get(index)
                if sandbox is None:
                    raise OSError(errno.ESTALE, "no sandbox of that number")
                self._prepared[key] = Prepared(
                    sandbox, self._baseline, len(extra), grouped=grouped, terminal=terminal
                )
            prepared = self._prepared[key]
            kept = (handshake, *rest[:grouped])
            placing = ladder.descriptors((stdin, stdout, stderr, *extra), kept)
            for address, size in self._ledger.besides(slot):
                placing.call("munmap", address, size)
            arguments = process.clone_arguments(prepared.flags, parent_tid=slot.pid_address)
        except OSError as error:
            slot.fail(SPAWNER, 0, error.errno or 0)
            return None
        return Job(prepared, slot, placing.calls, arguments)

    def _clone(self, job: Job) -> None:
        pid = raw(_NUMBERS["clone3"], job.arguments, len(job.arguments), 0, 0, 0)
        if pid == 0:
            _reaper(job.prepared, job.placing, job.slot)
        if pid < 0:
            job.slot.fail(SPAWNER, 1, ctypes.get_errno())


def _descriptors(messages: list[tuple[int, int, bytes]]) -> list[int]:
    return [
        int.from_bytes(data[at : at + 4], "little")
        for _, _, data in messages
        for at in range(0, len(data) - len(data) % 4, 4)
    ]


def _reaper(prepared: Prepared, placing: list[Call], slot: Slot) -> NoReturn:
    """The reaper's life. Never returns to the spawner's code, whatever happens."""
    try:
        if run(placing, PLACING, slot) and run(prepared.reaper.calls, REAPER, slot):
            arguments = prepared.clone_command
            own = os.getpid()
            pid = raw(_NUMBERS["clone3"], arguments, len(arguments), 0, 0, 0)
            if pid == 0:
                _command(prepared, slot, own)
            if pid < 0:
                slot.fail(REAPER, len(prepared.reaper.calls), ctypes.get_errno())
            handshake, close_range = prepared.handshake, _NUMBERS["close_range"]
            raw(close_range, 0, handshake - 1, 0, 0, 0)
            raw(close_range, handshake + 1, 0xFFFFFFFF, 0, 0, 0)
            raw(_NUMBERS["capset"], *prepared.reaper_rights, 0, 0, 0)
            raw(_NUMBERS["prctl"], prctl.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            wait4, status, usage = _NUMBERS["wait4"], slot.status_address, slot.usage_address
            ended = 0
            while ended >= 0 and ended != pid:
                ended = raw(wait4, -1, status, 0, usage, 0)
            slot.words[4] = ended == pid
            # As PID 1 of its namespace it takes all others with it; otherwise it must end them.
            slot.words[6] = _nobody_left() or (not prepared.private_pid and _end_the_rest())
            if slot.words[6]:
                # Heard at once; our own end takes longer than anybody should wait for it, so it comes when
                # the other side has closed, or is no more.
                raw(_NUMBERS["shutdown"], handshake, _socket.SHUT_WR, 0, 0, 0)
                while raw(_NUMBERS["read"], handshake, prepared.unread, 1, 0, 0) > 0:
                    pass
    finally:
        os._exit(0)


def _command(prepared: Prepared, slot: Slot, reaper: int) -> NoReturn:
    """The command's life up to its exec. Never returns."""
    try:
        # A reaper that died before the command asked for its parent's death signal sends none.
        if run(prepared.command.calls, COMMAND, slot) and os.getppid() == reaper:
            path, argv = slot.path_address, slot.argv_address
            if not slot.words[7]:
                path, argv = _arguments(prepared.handshake)
            if run(prepared.filters.calls, FILTERS, slot):
                raw(_NUMBERS["execve"], path, argv, prepared.environment, 0, 0)
                slot.fail(FILTERS, len(prepared.filters.calls), ctypes.get_errno())
    finally:
        os._exit(127)


def _arguments(handshake: int) -> tuple[Any, Any]:
    """Arguments that are too long for the slot: path and argv from a packet, each item ended by a zero byte.

    Raises IndexError when nobody will send them.
    """
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, handshake)
    packet, messages, _, _ = sock.recvmsg(PACKET, _SPACE, _socket.MSG_CMSG_CLOEXEC)
    if packet == IN_FILE:
        (fd,) = _descriptors(messages)
        packet = os.pread(fd, os.fstat(fd).st_size, 0)
        os.close(fd)
    sock.detach()
    argv = strings(packet.split(b"\0")[:-1])
    return argv[0], argv


def _nobody_left() -> bool:
    """Whether we have no children any more, not even orphans of the command's."""
    found = 1
    while found > 0:
        found = raw(_NUMBERS["wait4"], -1, None, os.WNOHANG, None, 0)
    return found < 0


def _end_the_rest() -> bool:
    """Without a pid namespace of its own: orphans came to us as their subreaper; end them all."""
    try:
        while True:
            os.wait4(-1, os.WNOHANG)  # ChildProcessError: nobody is left
            for pid in _children():
                try:
                    os.kill(pid, _signal.SIGKILL)
                except (ProcessLookupError, PermissionError):
                    pass
            os.wait4(-1, 0)
    except ChildProcessError:
        return True


def _children() -> list[int]:
    # Our own children cannot be reaped by others, so the numbers are theirs.
    try:
        with open("/proc/thread-self/children", "rb") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []
