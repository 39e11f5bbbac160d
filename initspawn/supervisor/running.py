"""One task: a command on its way, its output, its end. Boot module."""

from __future__ import annotations

import errno
import os

from initspawn.encoders.base import STDERR, STDOUT
from initspawn.encoders.log import Log
from initspawn.encoders.table import make
from initspawn.event import DATA, FINAL, INITIAL
from initspawn.limits import DRAIN_SECONDS, STALL_SECONDS
from initspawn.sandbox.streams import Streams, pending
from initspawn.supervisor import verbosity
from initspawn.supervisor.eventlog import EventLog
from initspawn.supervisor.input import Input
from initspawn.supervisor.logfiles import LogFiles
from initspawn.supervisor.plugin import PluginEncoder
from initspawn.supervisor.reactor import READ
from initspawn.supervisor.status import status_object, why
from initspawn.supervisor.task import QUEUED, Life

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from initspawn.encoders.base import Encoder
    from initspawn.errors import LaunchRefused, RequestError
    from initspawn.plan import Api, Command, Sandbox
    from initspawn.sandbox.launch import Start
    from initspawn.supervisor.reactor import Reactor, Timer

_SHOWN = 200  # items of argv, and characters of each, in a task's record
_LONG = ("arguments", "environment")
_READERS, _ENCODER, _ROOM = "readers", "encoder", "room"  # whom, or what, the command's output waits for
_ROOM_PAUSE = 0.1  # seconds
_READS_AT_END = 64  # of what was left in a pipe, before others get their turn


class Task:
    """The record of one run. `on_start(task)` is called when it runs or was refused, `on_end(task)` when
    all is told; both exactly once, on_start first.
    """

    def __init__(
        self,
        *,
        reactor: Reactor,
        api: Api,
        command: Command,
        sandbox: Sandbox,
        argv: tuple[str, ...],
        on_start: Callable[[Task], None],
        on_end: Callable[[Task], None],
        verbose: int = 0,
        encoder: Encoder | None = None,
    ) -> None:
        self.api = api
        self.command = command
        self.sandbox = sandbox
        self.privilege = command.privilege or sandbox.privilege  # as the plan says now
        self.argv = argv
        self.verbose = verbose
        self.on_start = on_start
        self.on_end = on_end
        self.life = Life()
        self.log = EventLog(waits=not command.drop)
        self.encoder = encoder or make(command.encoder, command.encoder_options)
        self.files: LogFiles | None = None
        self.input: Input | None = None  # of one that runs and reads a pipe
        self.start: Start | None = None
        self.spared = False  # its reaper waited in the reserve: what it built may be out of date
        self.retried = False
        self.pid = 0
        self.status: dict[str, Any] = {}
        self.usage: dict[str, float] = {}
        self.measurement: dict[str, Any] = {}
        self.handler: Task | None = None  # what answers its notified calls
        self.refusal: LaunchRefused | RequestError | None = None
        self.ticket = 0  # its number in the queue, if it has ever waited
        self.owner = ""  # the name of whoever started it; empty: we ourselves
        self.client: object = None  # whose connection it was
        self.reason = ""  # why it is being ended: timeout or stop; at the end, why it has
        self.command_status: int | None = None  # its wait status, if we saw it as its tracer
        self.began = reactor.clock()
        self.ended = 0.0
        self.let_go = 0.0  # when the command began to run
        self.timers: list[Timer] = []
        self._reactor = reactor
        self.reading: dict[int, str] = {}  # what has not come to its end
        self._draining = False
        self._left: dict[int, int] = {}  # bytes that were in each pipe when the command ended, not yet read
        self._stall: Timer | None = None
        self._held: set[str] = set()  # why the streams are not read
        self._amid_line = False  # its standard error has begun a line and not ended it

    @property
    def id(self) -> str:
        """`sandbox/command@pid`, as clients know it; `sandbox/command#N` as long as it waits in the queue."""
        if self.life.state == QUEUED:
            return f"{self.sandbox.uid}/{self.command.uid}#{self.ticket}"
        return f"{self.sandbox.uid}/{self.command.uid}@{self.pid}"

    @property
    def event_name(self) -> str:
        """The name its events go by: `api/verb`."""
        return f"{self.api.api}/{self.command.verb}"

    @property
    def worth_another(self) -> bool:
        """Whether a start that came to nothing may do better when all is built for it."""
        if self.life.started or self.reason or self.start is None:
            return False
        return self.spared or (self.start.unheard and self.refusal is None and not self.retried)

    def streams(self) -> Streams:
        """What its command gets as standard input, output and error, not yet open."""
        return Streams(fed=self.command.stdin, size=self.command.terminal)

    def describe(self) -> dict[str, str | int]:
        """What the reply to its start says."""
        return {
            "api": self.api.api,
            "sandbox": self.sandbox.uid,
            "command": self.command.uid,
            "pid": self.pid,
        }

    def record(self) -> dict[str, Any]:
        """Everything known about it, for those who may see it."""
        known: dict[str, Any] = {"id": self.id, "state": self.life.state, **self.describe()}
        if self.life.state == QUEUED:
            known["queued"] = self.ticket
        known["argv"] = [item[:_SHOWN] for item in self.argv[:_SHOWN]]
        known["seconds"] = round((self.ended or self._reactor.clock()) - self.began, 6)
        known["events"] = self.log.next - 1
        for name in ("status", "reason", "usage"):
            if getattr(self, name):
                known[name] = getattr(self, name)
        measured = self._measured()
        return {**known, "measurement": measured} if measured else known

    def _measured(self) -> dict[str, Any]:
        """Without what may be long and is equal to the plan anyway, or the task would not have run."""
        return {name: value for name, value in self.measurement.items() if name not in _LONG}

    def open(self) -> None:
        """Open the files its output goes to, or start the plug-in host. Raises RequestError."""
        if isinstance(self.encoder, Log):
            self.files = LogFiles(self.encoder.paths, self.sandbox.user)
            self.encoder.write = self.files.write
        elif isinstance(self.encoder, PluginEncoder):
            self.encoder.tell, self.encoder.ready = self._heard, lambda: self._release(_ENCODER)
            self.encoder.open()

    def close(self) -> None:
        """Give back what `open` opened, and wait for nothing more."""
        for timer in self.timers:
            timer.cancel()
        if self.files is not None:
            self.files.close()
        if isinstance(self.encoder, PluginEncoder):
            self.encoder.close()

    def read(self) -> None:
        """The command runs: say so where the reply comes later, and read what it writes."""
        self.let_go = self._reactor.clock()
        if self.encoder.synchronous:
            self.log.append({"type": INITIAL, **self.describe()})
        if isinstance(self.encoder, PluginEncoder):
            self.encoder.begin(self.describe())
        for line in verbosity.at_start(self.verbose, self.command, self.id, self.argv, self._measured()):
            self._tell(line)
        assert self.start is not None
        ours = self.start.streams
        if ours.fed:
            self.input = Input(self._reactor, ours)
        for stream, fd in ((STDOUT, ours.stdout), (STDERR, ours.stderr)):
            if fd >= 0:
                self.reading[fd] = stream
                self._reactor.watch(fd, READ, lambda _, fd=fd: self._readable(fd))  # type: ignore[misc]
        if self.encoder.busy:
            self._hold(_ENCODER)

    def note(self, what: str, text: str) -> None:
        """Tell what a caller does with it, if it is to tell that much."""
        # A reader that is behind is not to lose output by what other callers do.
        if self.verbose >= verbosity.CONTROL and not self.ended and _READERS not in self._held:
            self._tell(verbosity.line(what, self.command, f"{self.id} {text}".rstrip()))

    def conclude(self) -> None:
        """The command and all it started are gone: how it ended, why, and what it used."""
        start = self.start
        assert start is not None
        ended = start.status()
        ended = self.command_status if ended is None else ended
        self.status = status_object(ended, self.reason)
        self.reason = self.reason or why(ended, out_of_memory=start.out_of_memory())
        seconds = self._reactor.clock() - self.let_go
        self.usage = {name: round(value, 6) for name, value in {"seconds": seconds, **start.usage()}.items()}

    def drain(self) -> None:
        """The command has ended: take what is left, and wait only a little for who else holds a pipe."""
        self._draining = True
        if self.input is not None:
            self.input.close()
        if not self.reading:
            self.finish()
            return
        for fd in list(self.reading):
            for _ in range(_READS_AT_END):
                if self._held or not self._readable(fd):
                    break
        self._left = {fd: pending(fd) for fd in self.reading}
        if self.reading:
            self.timers.append(self._reactor.after(DRAIN_SECONDS, self._give_up_on_writers))

    def _readable(self, fd: int) -> bool:
        """Read once from a stream that may have something; False when there was nothing to read."""
        if fd not in self.reading:
            return False
        size = self._reactor.room.fits(self.encoder.chunk)
        if not size:  # it is safe in the pipe; what becomes of it would not be
            self._hold(_ROOM)
            self._reactor.after(_ROOM_PAUSE, lambda: self._release(_ROOM))
            return False
        try:
            data = os.read(fd, size)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            data = b""  # nobody has the terminal open any more
        if not data:
            self._close_stream(fd)
            return False
        if fd in self._left:
            self._left[fd] = max(0, self._left[fd] - len(data))
        self._feed(self.reading[fd], data)
        if self.log.crowded():
            self._pause()
        return True

    def _feed(self, stream: str, data: bytes) -> None:
        if stream == STDERR:
            self._amid_line = not data.endswith(b"\n")
        self._append(self.encoder.feed(stream, data))
        if self.encoder.busy:
            self._hold(_ENCODER)

    def _tell(self, line: str) -> None:
        """A line of ours in its standard error."""
        text = line.encode("utf-8", "surrogateescape") + b"\n"
        self._feed(STDERR, b"\n" + text if self._amid_line else text)

    def _append(self, records: list[dict[str, Any]]) -> None:
        for record in records:
            self.log.append({"type": DATA, "pid": self.pid, **record})

    def _heard(self, records: list[dict[str, Any]]) -> None:
        """What a plug-in tells, when it does."""
        self._append(records)
        if self.log.crowded():
            self._pause()

    def _hold(self, why: str) -> None:
        """Do not read the streams until this reason is gone: the command waits in write(2)."""
        if not self._held:
            for fd in self.reading:
                self._reactor.change(fd, 0)
        self._held.add(why)

    def _release(self, why: str) -> None:
        if self._held == {why}:
            for fd in self.reading:
                self._reactor.change(fd, READ)
        self._held.discard(why)

    def _pause(self) -> None:
        """A reader is slow: the command waits for it, everybody else goes on."""
        if _READERS in self._held:
            return
        self._hold(_READERS)
        if isinstance(self.encoder, PluginEncoder):
            self.encoder.pause()
        self._stall = self._reactor.after(STALL_SECONDS, self._give_up_on_readers)
        self.log.when_roomy = self._resume

    def _give_up_on_readers(self) -> None:
        """Who has read nothing for so long will find a marker in place of what it missed."""
        for reader in self.log.readers:
            reader.patient = False
        self.log.advanced()

    def _resume(self) -> None:
        self.log.when_roomy = None
        if self._stall is not None:
            self._stall.cancel()
        self._release(_READERS)
        if isinstance(self.encoder, PluginEncoder):
            self.encoder.resume()

    def _close_stream(self, fd: int) -> None:
        self._reactor.forget(fd)
        assert self.start is not None
        self.start.streams.close_stream(self.reading.pop(fd))
        self._left.pop(fd, None)
        if self._draining and not self.reading:
            self.finish()

    def _give_up_on_writers(self) -> None:
        """Somebody outside the task still holds a pipe open: what it writes is not waited for, but what the
        command wrote is told, however slowly it is read.
        """
        if self._held or any(self._left.values()):  # it is not a writer we wait for
            self.timers.append(self._reactor.after(DRAIN_SECONDS, self._give_up_on_writers))
            return
        for fd in list(self.reading):
            self._close_stream(fd)

    def finish(self) -> None:
        """Both streams are at their end and the command has been waited for: have the rest told."""
        for timer in (*self.timers, *([self._stall] if self._stall else [])):
            timer.cancel()
        if self.verbose >= verbosity.COMMAND_LINE:
            said = ", ".join(f"{name} {value}" for name, value in self.status.items())
            self._tell(verbosity.line("end", self.command, said))
        if isinstance(self.encoder, PluginEncoder):
            self.encoder.end(self._finished)
        else:
            self._append(self.encoder.finish())
            self._finished()

    def _finished(self) -> None:
        """The encoder has told all: tell the end."""
        if self._stall is not None:
            self._stall.cancel()
        if not self.encoder.synchronous:
            self.log.append({"type": FINAL, "pid": self.pid, **self._end()})
        self.ended = self._reactor.clock()
        self.on_end(self)

    def result(self) -> dict[str, Any]:
        """What the reply of a synchronous command says at its end."""
        return {**self.describe(), **self._end(), **self.encoder.result()}

    def _end(self) -> dict[str, Any]:
        return {"status": self.status, "reason": self.reason, "usage": self.usage}
