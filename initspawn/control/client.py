"""A blocking client of the control socket, for command lines and tests.

One connection, one thread, one call at a time; events that arrive meanwhile wait in the client. Imports
`_socket` rather than `socket`, whose enums and selectors cost a short-lived process more than its call.
"""

from __future__ import annotations

import struct
import time
from _socket import AF_UNIX, SO_PEERCRED, SOCK_CLOEXEC, SOCK_STREAM, SOL_SOCKET, socket
from collections import deque

from initspawn.control.wire import FrameReader, WireError, decode, encode
from initspawn.errors import RequestError
from initspawn.limits import LOG_EVENTS, READ_CHUNK
from initspawn.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Self


class Reply(Record):
    """The answer to a call that went well: `code` is 0 or positive."""

    code: int = 0
    info: str = ""
    response: Any = None


class TaskEvent(Record):
    """One event as the supervisor sent it: `event` is `api/verb`, `task` the task's name."""

    event: str
    task: str = ""
    seq: int = 0
    data: Any = None


class ErrorReply(RequestError):
    """The supervisor answered with an error. `code` is the one it sent, `response` what came with it."""

    def __init__(self, status: str, info: str, code: int, response: Any) -> None:
        super().__init__(status, info)
        self._code = code
        self.response = response

    @property
    def code(self) -> int:
        return self._code


class Client:
    """A connection to the control socket at `path`; usable in a `with` statement.

    `timeout` (seconds, None for no limit) bounds each call and each wait for an event. What is read but
    not yet asked for is bounded as well: when `LOG_EVENTS` events wait, the oldest goes and `missed` counts.
    Raises OSError if the socket cannot be reached.
    """

    def __init__(self, path: str, timeout: float | None = None) -> None:
        self.timeout = timeout
        self.missed = 0
        self.on_event: Callable[[TaskEvent], None] | None = None  # told of each event when it is read
        self._reader = FrameReader()
        self._messages: deque[dict[str, Any]] = deque()
        self._events: deque[TaskEvent] = deque()
        self._number = 0
        self._socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
        try:
            self._socket.settimeout(timeout)
            self._socket.connect(path)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection. May be called twice."""
        self._socket.close()

    def call(self, procedure: str, args: Any = None, token: str | None = None) -> Reply:
        """Call `api/verb` and wait for the answer. `token` stays the credential of later calls.

        Raises ErrorReply for an answer that says so, RequestError `timeout`, `disconnected`, or
        `invalid-request` for arguments that do not fit a frame. After `timeout` and `disconnected`
        the connection is closed, because an answer could come late.
        """
        self._number += 1
        message = {"id": self._number, "call": procedure, "args": args}
        if token is not None:
            message["token"] = token
        try:
            frame = encode(message)
        except ValueError as error:
            raise RequestError("invalid-request", str(error)) from None
        deadline = self._deadline()
        self._send(frame, deadline)
        while True:
            answer = self._next(deadline)
            if answer.get("id") == self._number:
                return _reply(answer)
            self._keep(answer)

    @property
    def user(self) -> int:
        """Whose process listens there (SO_PEERCRED, unix(7)). Raises OSError."""
        user: int = struct.unpack("3i", self._socket.getsockopt(SOL_SOCKET, SO_PEERCRED, 12))[1]
        return user

    def fileno(self) -> int:
        """The socket, for select(2): when it is readable, `receive` does not wait."""
        return self._socket.fileno()

    def post(self, procedure: str, args: Any = None) -> int:
        """Send a call. `receive` gives its answer, with the number returned here. Raises RequestError."""
        self._number += 1
        self._send(encode({"id": self._number, "call": procedure, "args": args}), self._deadline())
        return self._number

    def receive(self, *, wait: bool = True) -> Iterator[TaskEvent | tuple[int, Reply | ErrorReply]]:
        """What came, in order: what was read already, or else, unless not to `wait`, what one read gives;
        answers with the numbers of their calls. Raises RequestError `disconnected`.
        """
        read = wait and not self._events and not self._messages
        while self._events:
            yield self._events.popleft()
        if read:
            self._messages.appendleft(self._next(self._deadline()))
        while self._messages:
            answer = self._messages.popleft()
            if "id" in answer:
                yield answer["id"], _answer(answer)
            else:
                self._keep(answer)
                if self._events:
                    yield self._events.popleft()

    def events(self) -> Iterator[TaskEvent]:
        """The events of the connection's subscriptions, as they come, without end.

        Raises RequestError `timeout` if none comes for so long, `disconnected` when the supervisor closes.
        """
        while True:
            deadline = self._deadline()
            while not self._events:
                self._keep(self._next(deadline))
            yield self._events.popleft()

    def _keep(self, message: dict[str, Any]) -> None:
        """Put an event aside; a late or foreign answer is dropped. Raises RequestError for a fault."""
        if "fault" in message:
            raise self._broken("disconnected", str(message["fault"]))
        if "event" not in message:
            return
        if len(self._events) == LOG_EVENTS:
            self._events.popleft()
            self.missed += 1
        fields = {name: message[name] for name in TaskEvent._fields if name in message}
        event = TaskEvent(**fields)
        self._events.append(event)
        if self.on_event is not None:
            self.on_event(event)

    def _next(self, deadline: float | None) -> dict[str, Any]:
        """The next message of the supervisor. Raises RequestError."""
        while not self._messages:
            if self._reader.fault is not None:
                raise self._broken("disconnected", self._reader.fault)
            try:
                self._wait(deadline)
                data = self._socket.recv(READ_CHUNK)
                if not data:
                    raise self._broken("disconnected", "the supervisor closed the connection")
                self._messages.extend(map(decode, self._reader.feed(data)))
            except TimeoutError:
                raise self._broken("timeout", "no answer in time") from None
            except (OSError, WireError) as error:
                raise self._broken("disconnected", str(error)) from None
        return self._messages.popleft()

    def _send(self, frame: bytes, deadline: float | None) -> None:
        try:
            self._wait(deadline)
            self._socket.sendall(frame)
        except TimeoutError:
            raise self._broken("timeout", "the supervisor does not read") from None
        except OSError as error:
            raise self._broken("disconnected", str(error)) from None

    def _deadline(self) -> float | None:
        return None if self.timeout is None else time.monotonic() + self.timeout

    def _wait(self, deadline: float | None) -> None:
        """Let the next socket call wait until `deadline`. Raises TimeoutError if that has passed."""
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)

    def _broken(self, status: str, info: str) -> RequestError:
        """The error to raise for a connection that cannot be used any further."""
        self.close()
        return RequestError(status, info)


def _reply(answer: dict[str, Any]) -> Reply:
    found = _answer(answer)
    if isinstance(found, ErrorReply):
        raise found
    return found


def _answer(answer: dict[str, Any]) -> Reply | ErrorReply:
    code, status = answer.get("code", 0), str(answer.get("status", "success"))
    if code < 0:
        return ErrorReply(status, answer.get("info") or "", code, answer.get("response"))
    return Reply(code=code, info=answer.get("info") or "", response=answer.get("response"))
