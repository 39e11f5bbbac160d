"""An encoder that is not ours: it runs in a process and a sandbox of its own, its plug-in host. Boot module.

`encoders.host` describes what is spoken over the socket between the two. One frame at a time is with the
host, and while it is there the command's output is not read: a slow plug-in makes the command wait, and
nobody else. What comes back is counted, must come in time, and is read like the output of any command. If
something is wrong with it, or the host ends, the stream ends with one {"encoder-error": TEXT} and the rest of
the output is discarded; the task goes on and its end is told.
"""

from __future__ import annotations

import _signal
import _socket
from _collections import deque

from initspawn.encoders.base import STDOUT, Encoder
from initspawn.errors import LaunchRefused, RequestError
from initspawn.limits import JSON_BYTES, PLUGIN_BYTES, PLUGIN_SECONDS
from initspawn.supervisor.eventlog import Reader
from initspawn.supervisor.reactor import READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from initspawn.encoders.values import Values
    from initspawn.supervisor.core import Supervisor
    from initspawn.supervisor.reactor import Timer
    from initspawn.supervisor.running import Task

_BEGIN, _STDOUT, _STDERR, _END = b"B", b"o", b"e", b"E"
_EVENT, _DONE, _REASON = b"e", b".", b"!"
_HEADER = 5
_DEPTH = 64  # brackets of an event
_WAITING = 64  # frames; the notes of a verbose task may come while the host is busy
_OURS = ("type", "pid")  # keys of an event's data that a plug-in cannot say


class PluginEncoder(Encoder):
    """One task's encoder. `busy` while it takes nothing; `tell(events)` and `ready()` are called later."""

    chunk = 8192  # with its header it always fits into an empty socket, so a send is whole

    def __init__(self, supervisor: Supervisor, options: dict[str, Any]) -> None:
        self.tell: Callable[[list[dict[str, Any]]], None] = lambda events: None
        self.ready: Callable[[], None] = lambda: None
        self._supervisor = supervisor
        self._reactor = supervisor.reactor
        self._host = options["host"]
        self._options = options["options"]
        self._name = options["name"]
        self._socket: _socket.socket | None = None
        self._theirs: _socket.socket | None = None  # the host's end, until it has been measured with it
        self._task: Task | None = None
        self._queue: deque[bytes] = deque()  # frames to send, the first one may be with the host
        self._asked = False  # a frame is with the host
        self._buffer = bytearray()
        self._ended = False
        self._received = 0  # since the frame was sent
        self._values: Values | None = None  # of an event that has begun
        self._found: list[Any] = []
        self._left = 0  # bytes of it that are still to come
        self._timer: Timer | None = None
        self._last = ""  # the last line the host wrote
        self._then: Callable[[], None] | None = None

    @property
    def busy(self) -> bool:
        """Whether the command's output is to wait."""
        return bool(self._queue)

    def open(self) -> None:
        """Start the host. Raises RequestError, LaunchRefused."""
        hosts = self._supervisor.plan.hosts
        assert hosts is not None
        command = next(command for command in hosts.commands if command.uid == self._host)
        argv = (command.path, *("".join(text for _, text in item) for item in command.arguments))
        kind = _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC
        try:
            self._socket, self._theirs = _socket.socketpair(_socket.AF_UNIX, kind)
        except OSError as error:
            self._reactor.room.lack(error.errno or 0)
            raise LaunchRefused("plug-in", error.errno or 0) from error
        self._socket.setblocking(False)
        self._reactor.watch(self._socket.fileno(), READ, lambda _: self._readable())
        try:
            self._task = self._supervisor.start(
                hosts, command, argv, on_start=self._on_start, on_end=self._on_end,
                descriptors=(self._theirs.fileno(),),
            )  # fmt: skip
        except RequestError:
            self.close()
            raise

    def begin(self, description: dict[str, Any]) -> None:
        """The command runs: say so to the host."""
        from json import dumps

        said = {"options": self._options, "task": description}
        self._ask(_BEGIN, dumps(said).encode())

    def feed(self, stream: str, data: bytes) -> list[dict[str, Any]]:
        """Hand bytes on. [] always: what comes of them is told later."""
        for at in range(0, len(data), self.chunk):
            self._ask(_STDOUT if stream == STDOUT else _STDERR, data[at : at + self.chunk])
        return []

    def end(self, then: Callable[[], None]) -> None:
        """Both streams have ended: `then` is called when the host has told the rest."""
        if self._socket is None:
            then()
            return
        self._then = then
        self._ask(_END)

    def pause(self) -> None:
        """Take no events until `resume`: whoever reads them is slow."""
        if self._socket is not None:
            self._cancel()
            self._reactor.change(self._socket.fileno(), 0)

    def resume(self) -> None:
        """Take events again."""
        if self._socket is not None:
            self._reactor.change(self._socket.fileno(), READ)
            if self._asked:
                self._wait()

    def close(self) -> None:
        """End the host and forget what it may still say."""
        self._cancel()
        self._queue.clear()
        if self._socket is not None:
            self._reactor.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None
        self._close_theirs()
        if self._task is not None:
            self._supervisor.stop(self._task, _signal.SIGKILL)

    def _close_theirs(self) -> None:
        if self._theirs is not None:
            self._theirs.close()
            self._theirs = None

    # What goes to the host.

    def _ask(self, kind: bytes, body: bytes = b"") -> None:
        if self._socket is None:
            return
        if len(self._queue) > _WAITING and kind != _END:  # of the command's own output there is one at most
            return
        self._queue.append(len(body).to_bytes(4, "little") + kind + body)
        self._send()

    def _send(self) -> None:
        if self._asked or not self._queue or self._socket is None:
            return
        frame = self._queue[0]
        try:
            whole = self._socket.send(frame) == len(frame)
        except OSError:
            whole = False
        if not whole:
            self._reactor.after(PLUGIN_SECONDS, self._gone)  # its end says more, if it is one
            return
        self._asked = True
        self._received = 0
        self._wait()

    def _wait(self) -> None:
        self._cancel()
        self._timer = self._reactor.after(PLUGIN_SECONDS, self._late)

    def _late(self) -> None:
        self._fail(f"it has not answered for {PLUGIN_SECONDS:g} s")

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # What comes from it.

    def _readable(self) -> bool:
        """Read once; False if nothing came, or nothing more will."""
        assert self._socket is not None
        if self._ended:
            return False
        try:
            data = self._socket.recv(self.chunk)  # small bites: others wait while they are read
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:  # it ends, and how it ended will be told
            self._ended = True
            self._reactor.change(self._socket.fileno(), 0)
            return False
        self._buffer += data
        while self._socket is not None and self._take():
            pass
        return True

    def _take(self) -> bool:
        if self._values is not None:
            return self._take_event(self._values)
        if len(self._buffer) < _HEADER:
            return False
        if not self._asked:
            self._fail("it speaks unasked")
            return False
        length, kind = int.from_bytes(self._buffer[:4], "little"), bytes(self._buffer[4:5])
        if length > JSON_BYTES or kind not in (_EVENT, _DONE, _REASON):
            self._fail("what it said is no frame")
            return False
        if kind != _EVENT and len(self._buffer) < _HEADER + length:
            return False
        self._received += _HEADER + length
        if self._received > PLUGIN_BYTES:
            self._fail(f"it said more than {PLUGIN_BYTES} bytes at once")
            return False
        if kind == _EVENT:
            self._begin_event(length)
            return True
        body = bytes(self._buffer[_HEADER : _HEADER + length])
        del self._buffer[: _HEADER + length]
        if kind == _REASON:
            self._fail(body.decode("utf-8", "backslashreplace"))
        else:
            self._done()
        return True

    def _begin_event(self, length: int) -> None:
        from initspawn.encoders.values import Values

        del self._buffer[:_HEADER]
        self._values, self._found, self._left = Values(_DEPTH, 80), [], length

    def _take_event(self, values: Values) -> bool:
        part = bytes(self._buffer[: self._left])
        del self._buffer[: self._left]
        self._left -= len(part)
        self._found += values.feed(part)
        if self._left:
            return False
        found, self._values = self._found + values.finish(), None
        self._event(found)
        return True

    def _event(self, found: list[Any]) -> None:
        if len(found) != 1 or len(found[0]) != 1:
            self._fail("an event of it is no JSON")
            return
        (value,) = found[0]
        plain = isinstance(value, dict) and not any(key in value for key in _OURS)
        self.tell([value if plain else {"data": value}])

    def _done(self) -> None:
        self._asked = False
        self._cancel()
        self._queue.popleft()
        if self._queue:
            self._send()
        elif self._then is not None:
            self._finish()
        else:
            self.ready()

    # Its end.

    def _on_start(self, task: Task) -> None:
        self._close_theirs()
        if task.refusal is not None:
            self._fail(task.refusal.info)
            return
        reader = Reader(task.log, lambda: self._hear(reader))

    def _hear(self, reader: Reader) -> None:
        while (event := reader.take()) is not None:
            self._last = event.data.get("stderr") or event.data.get("stdout") or self._last

    def _on_end(self, task: Task) -> None:
        self._task = None
        while self._socket is not None and self._readable():  # its last words, if they are not read yet
            pass
        if task.refusal is None:
            how = ", ".join(f"{name} {value}" for name, value in task.status.items())
            self._fail(f"it ended ({how})" + (f": {self._last}" if self._last else ""))

    def _gone(self) -> None:
        self._fail("it takes nothing")

    def _fail(self, reason: str) -> None:
        """The stream ends here."""
        if self._socket is None:
            return
        self.close()
        self.tell([{"encoder-error": f"{self._name}: {reason}"}])
        if self._then is not None:
            self._finish()
        else:
            self.ready()

    def _finish(self) -> None:
        then, self._then = self._then, None
        self.close()
        if then is not None:
            then()
