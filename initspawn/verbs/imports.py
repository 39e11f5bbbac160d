"""APIs of other servers that a configuration's actions call, over their service sockets. Boot module.

Loaded only if a configuration imports one. A service may be absent, slow, or hostile: nothing waits for it,
what it sends is bounded, and it never sees more than the calls that the configuration makes.
"""

from __future__ import annotations

import _socket
import sys
from _collections import deque

from initspawn.errors import STATUS_CODES
from initspawn.limits import (
    EVENTS_PER_WAKE,
    IMPORT_BYTES,
    IMPORT_CALLS,
    IMPORT_LONGEST_PAUSE,
    IMPORT_SECONDS,
    OUT_BYTES,
    READ_CHUNK,
)
from initspawn.supervisor.reactor import READ, WRITE
from initspawn.verbs import wsapi
from initspawn.verbs.answer import Answer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from initspawn.supervisor.reactor import Reactor, Timer

DISCONNECTED = "disconnected"
FIRST_PAUSE = 0.1  # seconds until the next attempt to connect; doubled by each that fails
STEADY_SECONDS = 10.0  # that a connection must last for the next pause to be the first again
_INFO_CHARACTERS = 1000  # of a service's own explanation


class Imported:
    """One API of another server. `heard` is told of its events, by name and JSON; `lost` that it has gone."""

    def __init__(
        self, name: str, path: str, reactor: Reactor,
        heard: Callable[[str, bytes], None], lost: Callable[[], None],
    ) -> None:  # fmt: skip
        self.name = name
        self.path = path
        self.on_up: list[Callable[[], None]] = []  # calls to be made whenever it is there
        self.up = False  # it has welcomed us
        self.begun = False  # somebody has asked to connect
        self.problem = ""
        self._reactor = reactor
        self._heard = heard
        self._lost = lost
        self._socket: _socket.socket | None = None
        self._frames = wsapi.Frames()
        self._more = False  # whether not all frames that were read have been handed on
        self._ping: bytes | None = None  # the last one that is unanswered
        self._watched = 0
        self._since = 0.0  # when it has welcomed us
        self._out = bytearray()
        self._pause = FIRST_PAUSE
        self._number = 0
        self._failures = 0  # calls that did not go well
        self._pending: dict[int, tuple[Callable[[Answer], None], Timer]] = {}
        self._events: dict[int, str] = {}

    def about(self) -> dict[str, Any]:
        """What `info` says."""
        said = {"socket": self.path.replace("\0", "@"), "connected": self.up, "failures": self._failures}
        return {**said, "problem": self.problem} if self.problem else said

    def call(self, verb: str, arguments: Any, told: Callable[[Answer], None]) -> None:
        """Call a verb of it; `told` is called once, now or later."""

        def answer(result: Answer) -> None:
            self._failures += result.status != "success"
            told(result)

        if not self.up or len(self._pending) >= IMPORT_CALLS or len(self._out) > OUT_BYTES:
            reason = f"API `{self.name}` " + ("is not connected" if not self.up else "does not keep up")
            answer(Answer(status="not-available", info=reason))
            return
        number = self._number % 0xFFFF + 1
        while number in self._pending:
            number = number % 0xFFFF + 1
        self._number = number
        try:
            self._out += wsapi.call(number, verb, arguments)
        except ValueError as error:
            answer(Answer(status="invalid-request", info=str(error)))
            return
        late = Answer(status="timeout", info=f"API `{self.name}` has not answered in time")
        timer = self._reactor.after(IMPORT_SECONDS, lambda: self._answer(number, late))
        self._pending[number] = (answer, timer)
        self._flush()

    def connect(self) -> None:
        """Connect, now and whenever the connection is lost. A unix socket does so at once or not at all."""
        self.begun = True
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK)
        try:
            self._socket.connect(self.path)
        except OSError as error:
            self._end(error.strerror or str(error))
            return
        self._frames, self._more, self._ping = wsapi.Frames(), False, None
        self._out += wsapi.frame(wsapi.HELLO)
        self._watched = READ
        self._reactor.watch(self._socket.fileno(), READ, self._on_ready)
        mine = self._socket
        self._reactor.after(IMPORT_SECONDS, lambda: self._check_welcome(mine))
        self._flush()

    def _check_welcome(self, which: _socket.socket) -> None:
        if which is self._socket and not self.up:
            self._end("it does not answer as a service of AFB binders does")

    def _on_ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if self._socket is None or self._more or not events & ~WRITE:
            return
        try:
            data = self._socket.recv(READ_CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(error.strerror or str(error))
            return
        if not data:
            self._end("it has closed the connection")
            return
        self._hand_on(data)

    def _hand_on(self, data: bytes = b"") -> None:
        """As many frames as one wake-up may take; the others at the next: who waits beside has its turn."""
        try:
            frames = self._frames.feed(data, EVENTS_PER_WAKE)
            for opcode, payload in frames:
                self._take(opcode, payload)
        except wsapi.ServiceError as error:
            self._end(f"it sent {error}")
        mine = self._socket
        if mine is None:
            return
        self._more = len(frames) == EVENTS_PER_WAKE
        if self._more:
            self._reactor.after(0, lambda: self._hand_on() if mine is self._socket else None)
        elif self._ping is not None and len(self._out) <= OUT_BYTES:
            self._out += wsapi.frame(self._ping, wsapi.PONG)
            self._ping = None
        self._flush()

    def _take(self, opcode: int, payload: bytes) -> None:
        """One frame. Raises ServiceError."""
        if self._socket is None:
            return
        if opcode == wsapi.PING:
            self._ping = payload  # the last of a read is the only one that needs an answer (RFC 6455, 5.5.3)
        elif opcode == wsapi.CLOSE:
            self._end("it has closed the connection")
        elif opcode == wsapi.BINARY:
            message = wsapi.decode(payload)
            if message is not None:
                self._obey(message)
        elif opcode != wsapi.PONG:
            raise wsapi.ServiceError("a frame of another kind")

    def _obey(self, message: wsapi.Message) -> None:
        if message.kind == wsapi.WELCOME:
            self._welcome()
        elif message.kind == wsapi.REPLY:
            self._answer(message.number, _answer_of(message))
        elif message.kind == wsapi.EVENT:
            if len(self._events) >= wsapi.EVENTS:
                raise wsapi.ServiceError("more events than there may be")
            self._events[message.number] = message.name
        elif message.kind == wsapi.FORGET:
            self._events.pop(message.number, None)
        elif message.kind == wsapi.BROADCAST:
            self._heard(message.name, message.data)
        elif message.number in self._events:
            self._heard(self._events[message.number], message.data)

    def _welcome(self) -> None:
        if self.up:
            return
        self.up = True
        self._since = self._reactor.clock()
        if self.problem:
            self._tell("is there")
        self.problem = ""
        for make in self.on_up:
            make()

    def _answer(self, number: int, result: Answer) -> None:
        found = self._pending.pop(number, None)
        if found is not None:  # else it came too late, or was never asked for
            answer, timer = found
            timer.cancel()
            answer(result)

    def _flush(self) -> None:
        if self._socket is None:
            return
        try:
            sent = self._socket.send(self._out) if self._out else 0
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._end(error.strerror or str(error))
            return
        del self._out[:sent]
        wanted = (0 if self._more else READ) | (WRITE if self._out else 0)
        if wanted != self._watched:
            self._watched = wanted
            self._reactor.change(self._socket.fileno(), wanted)

    def _end(self, reason: str) -> None:
        """It is not there: say so once, answer what waits, try again later."""
        if self._socket is not None:
            self._reactor.forget(self._socket.fileno())
            self._socket.close()
        self._socket = None
        was_up, self.up = self.up, False
        self._out.clear()
        self._events.clear()
        if reason != self.problem:
            self.problem = reason
            self._tell(f"is not there: {reason}")
        for number in list(self._pending):
            self._answer(number, Answer(status="disconnected"))
        if was_up and self._reactor.clock() - self._since >= STEADY_SECONDS:
            self._pause = FIRST_PAUSE
        self._reactor.after(self._pause, lambda: self.connect())  # unless it is left meanwhile
        self._pause = min(self._pause * 2, IMPORT_LONGEST_PAUSE)
        if was_up:
            self._lost()

    def close(self) -> None:
        """Leave it, for good."""
        if self._socket is not None:
            self._reactor.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None
        self.connect = lambda: None  # type: ignore[method-assign]
        self.up = False
        for number in list(self._pending):
            self._answer(number, Answer(status="disconnected"))

    def _tell(self, text: str) -> None:
        print(f"initspawn: imported API {self.name}: {text}", file=sys.stderr, flush=True)


def _answer_of(message: wsapi.Message) -> Answer:
    """A reply; an error text that is none of the protocol's becomes `internal-error`, and its info."""
    response = wsapi.value(message.data)
    info = _plain(message.info) or None
    if not message.name:
        return Answer(info=info, response=response)
    if message.name in STATUS_CODES and STATUS_CODES[message.name] < 0:
        return Answer(status=message.name, info=info, response=response)
    said = _plain(message.name) + (f": {info}" if info else "")
    return Answer(status="internal-error", info=said[:_INFO_CHARACTERS], response=response)


def _plain(text: str) -> str:
    """A service's text, for terminals too."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:_INFO_CHARACTERS])


class Backlog:
    """Events that wait for their turn: at most IMPORT_BYTES of them; beyond that the oldest are lost."""

    def __init__(self) -> None:
        self.lost = 0
        self._events: deque[tuple[str, bytes]] = deque()
        self._bytes = 0

    def put(self, name: str, data: bytes) -> None:
        """Another one."""
        self._events.append((name, data))
        self._bytes += _weight(name, data)
        while self._bytes > IMPORT_BYTES:
            self._bytes -= _weight(*self._events.popleft())
            self.lost += 1

    def take(self) -> tuple[str, bytes] | None:
        """The oldest; None if there is none."""
        if not self._events:
            return None
        event: tuple[str, bytes] = self._events.popleft()
        self._bytes -= _weight(*event)
        return event


def _weight(name: str, data: bytes) -> int:
    return 4 * len(name) + len(data) + 256  # with what Python adds


def merged(own: Any, given: Any) -> Any:
    """A caller's (or event's) arguments with those of the configuration, which win."""
    if isinstance(own, dict) and isinstance(given, dict):
        return {**given, **own}
    return given if own is None else own
