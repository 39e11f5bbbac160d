"""One client of the control socket, with its identity, its subscriptions and its bounded output.

What a client does not read stays where it is: its events in the tasks' logs, its further calls in its socket.
"""

from __future__ import annotations

import errno
import os

from initspawn.control import wire
from initspawn.control.visitor import Visitor
from initspawn.errors import STATUS_CODES
from initspawn.limits import OUT_BYTES, READ_CHUNK, RETURN_SECONDS
from initspawn.supervisor.eventlog import DROPPED, Reader
from initspawn.supervisor.reactor import READ, WRITE
from initspawn.verbs.access import NOBODY, OUTPUT, SEE, Identity, allowed
from initspawn.verbs.answer import Answer
from initspawn.verbs.builtin import MONITOR
from initspawn.verbs.monitor import DISCONNECTED

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable
    from typing import Any

    from initspawn.control.server import Door
    from initspawn.event import Event
    from initspawn.supervisor.input import Writer
    from initspawn.supervisor.running import Task

_EVENTS_AT_ONCE = 256  # events encoded for one client before others get their turn
_NO_MEMORY = "the supervisor has no memory for this call"
_PENDING = 256  # calls of one client that wait for their answer


class Connection:
    """One client. It is the `Caller` of the verbs. Its door watches the socket for it."""

    def __init__(self, door: Door, sock: _socket.socket, identity: Identity) -> None:
        self.identity = identity
        self.session = ""
        self.door = door.name
        self.client = self
        self._base = identity  # who it is without a token
        self._door = door
        self._socket = sock
        self._fd = sock.fileno()
        self._frames = wire.FrameReader()
        self._waiting: list[bytes] = []  # bodies that wait for their turn
        self._out = bytearray()
        self._readers: dict[Task, tuple[Reader, Identity]] = {}  # each with who has subscribed
        self._pending = 0
        self._scheduled = False
        self._mask = READ
        self.closed = False

    def subscribe(self, task: Task, first: int | None = None, identity: Identity | None = None) -> None:
        """Send this client the task's events from that number on; None: from the first that is kept.

        Who hears them already goes on as it is: what it has asked for it has had, or will get.
        """
        if self.closed:
            return
        who = identity or self.identity
        self._out += wire.encode({"subscribed": task.event_name})
        if task not in self._readers:
            self._readers[task] = (Reader(task.log, self._wake, first or 1), who)
        if first is not None:
            self._readers[task][0].name = who.name
            task.log.returned(who.name)
        self._wake()

    def unsubscribe(self, task: Task) -> None:
        """Send no more of them."""
        if self._forget(task) and all(other.event_name != task.event_name for other in self._readers):
            self._out += wire.encode({"unsubscribed": task.event_name})
            self._wake()

    def _leave(self, task: Task) -> None:
        """What was sent may never arrive: the place of who may come back is kept for a while."""
        reader, _ = self._readers.pop(task)
        if task.log.lost(reader):
            self._door.reactor.after(RETURN_SECONDS, reader.close)

    def watch(self, watchers: dict[Writer, Callable[[str], None]], identity: Identity | None = None) -> None:
        """Send this client `monitor/disconnected` with the name of an imported API that has gone."""
        who = identity or self.identity

        def tell(name: str) -> None:
            if not self._busy() and allowed(self._door.tokens.current(who), SEE, None):
                self._send(wire.encode({"event": f"{MONITOR}/{DISCONNECTED}", "data": name}))

        if not self.closed:
            watchers[self] = tell

    def _forget(self, task: Task) -> bool:
        found = self._readers.pop(task, None)
        if found is not None:
            found[0].close()
        return found is not None

    def close(self) -> None:
        """Forget the client; its tasks run on, unless their command says otherwise."""
        if self.closed:
            return
        self.closed = True
        self._door.reactor.forget(self._fd)
        self._door.connections.discard(self)
        for task in list(self._readers):
            self._leave(task)
        self._socket.close()
        self._door.registry.watchers.pop(self, None)
        self._door.registry.supervisor.disconnected(self)

    # In.

    def on_ready(self, events: int) -> None:
        """The socket can be read or written, or has gone; `events` as epoll has them."""
        if events & WRITE:
            self._flush()
        if events & READ and not self.closed:
            self._read()
        elif events & ~(READ | WRITE) and not self.closed and not events & WRITE:
            self.close()

    def _read(self) -> None:
        try:
            data = self._socket.recv(READ_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        try:
            self._waiting += self._frames.feed(data)
        except MemoryError:  # nobody knows where the next frame begins
            self._fault(_NO_MEMORY)
            return
        self._serve()

    def _serve(self) -> None:
        """Take the calls that came, as long as their answers have room."""
        while self._waiting and not self._busy() and not self.closed:
            body = self._waiting.pop(0)
            try:
                request = self._decode(body)
            except wire.WireError as error:
                self._fault(str(error))
                return
            if request is None:
                continue
            if request.order is not None:
                self._obey(request)
                continue
            self._pending += 1
            caller = self._caller(request)
            unknown = request.token is not None and caller.identity.kind == "nobody"
            answer = self._answer_for(request.number, unknown=unknown)
            self._door.registry.call(caller, request.procedure, request.args, answer)
        if self._frames.fault is not None and not self._waiting and not self.closed:
            self._fault(self._frames.fault)
            return
        self._update()

    def _decode(self, body: bytes) -> wire.Request | None:
        """A client's message; None: there is no memory for it, and it has been answered. Raises WireError."""
        for _ in range(2):
            try:
                return wire.decode_call(body)
            except MemoryError:
                pass
            if not self._door.reactor.room.lack(errno.ENOMEM):
                break
        number = wire.first_number(body)
        if number is None:
            raise wire.WireError(_NO_MEMORY)
        self._pending += 1
        self._answer_for(number)(Answer(status="not-available", info=_NO_MEMORY))
        return None

    def _obey(self, request: wire.Request) -> None:
        """What is no call of a verb."""
        tokens = self._door.tokens
        if request.order == wire.UNSUBSCRIBE:
            for task in [task for task in self._readers if task.event_name == request.about]:
                self.unsubscribe(task)
            return
        self._pending += 1
        answer = self._answer_for(request.number)
        if request.order == wire.LOGOUT:
            tokens.log_out(request.about)
            answer(Answer())
            return
        fresh = tokens.log_in(request.about)
        if fresh is None:
            answer = self._answer_for(request.number, unknown=tokens.identity(request.about).kind == "nobody")
        answer(Answer(response=fresh) if fresh else Answer(status="invalid-token"))

    def _caller(self, request: wire.Request) -> Connection | Visitor:
        """Whose call this is: this client's from now on, or that of one who is here for this call."""
        if request.single:
            identity = self._who(request.token, request.behalf)
            return Visitor(identity, self, request.events, request.session or "")
        if request.token is not None:
            self._identify(self._who(request.token))
        if request.session is not None:
            self.session = request.session
        return self

    def _who(self, token: str | None, behalf: int | None = None) -> Identity:
        """Who shows this token; one that is none of ours changes nothing for whom this door trusts anyway.

        Who acts for somebody else is trusted no more than that one would be.
        """
        base = self._base
        if base.kind == "local" and behalf not in (None, 0, os.geteuid()):
            base = NOBODY
        if token is None or base.kind == "local":
            return base
        found = self._door.tokens.identity(token)
        return base if found.kind == "nobody" else found

    def _identify(self, identity: Identity) -> None:
        """From now on the client is another one, and reads only what that one may."""
        self.identity = identity
        for task in list(self._readers):
            self._check(task, identity)

    def recheck(self) -> None:
        """The valid tokens have changed: who has shown another one is nobody any more."""
        current = self._door.tokens.current(self.identity)
        if current != self.identity:
            self.identity = self._base if current.kind == "nobody" else current
        for task, (_, identity) in list(self._readers.items()):
            self._check(task, self._door.tokens.current(identity))

    def _check(self, task: Task, identity: Identity) -> None:
        """Go on with a task's events only if this one may read them."""
        if not allowed(identity, OUTPUT, task.privilege, task.owner):
            self.unsubscribe(task)

    def _busy(self) -> bool:
        return self._pending >= _PENDING or len(self._out) > OUT_BYTES

    def _fault(self, reason: str) -> None:
        """Say why, behind the answers that are ready, and close; nothing of it is waited for."""
        self._out += wire.encode({"fault": reason})
        try:
            self._socket.send(self._out)
        except OSError:
            pass
        self.close()

    # Out.

    def _answer_for(self, number: int, *, unknown: bool = False) -> Callable[[Answer], None]:
        def answer(result: Answer) -> None:
            self._pending -= 1
            message: dict[str, Any] = {
                "id": number, "status": result.status, "code": STATUS_CODES[result.status],
            }  # fmt: skip
            if result.info is not None:
                message["info"] = result.info
            if result.response is not None:
                message["response"] = result.response
            if unknown:
                message["unknown"] = True
            self._send(_encode_answer(message))

        return answer

    def _send(self, frame: bytes) -> None:
        """An answer, behind the events that came before it: a synchronous command's initial event."""
        if self.closed:
            return
        self._collect()
        self._out += frame
        self._wake()

    def _wake(self) -> None:
        """There is something to send: do it once, after everything that happens now."""
        if not self._scheduled and not self.closed:
            self._scheduled = True
            self._door.reactor.after(0, self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        if self.closed:
            return
        self._collect()
        if self._out:
            try:
                sent = self._socket.send(self._out)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.close()
                return
            del self._out[:sent]
        self._update()
        if self._waiting and not self._busy():
            self._serve()

    def _collect(self) -> None:
        """Events into the output, from all subscribed tasks in turn, as far as there is room."""
        budget = _EVENTS_AT_ONCE
        for task, (reader, _) in list(self._readers.items()):
            while len(self._out) < OUT_BYTES:
                if not budget:
                    self._wake()
                    return
                event = reader.take()
                if event is None:
                    if not task.life.alive:
                        self._leave(task)
                    break
                self._out += _encode_event(task, event)
                budget -= 1

    def _update(self) -> None:
        """Wait for what can go on: input unless we are behind, room for output if some is left."""
        if self.closed:
            return
        mask = (0 if self._busy() or self._waiting else READ) | (WRITE if self._out else 0)
        if mask != self._mask:
            self._mask = mask
            self._door.reactor.change(self._fd, mask)


def _encode_event(task: Task, event: Event) -> bytes:
    if not event.frame:
        message = {"event": task.event_name, "task": task.id, "seq": event.seq, "data": event.data}
        try:
            event.frame = wire.encode(message)
        except ValueError:  # larger than any frame may be
            dropped = {"type": DROPPED, "pid": task.pid, "count": 1}
            event.frame = wire.encode({**message, "data": dropped})
    return event.frame


def _encode_answer(message: dict[str, Any]) -> bytes:
    try:
        return wire.encode(message)
    except ValueError as error:
        failed = {"id": message["id"], "status": "internal-error", "code": STATUS_CODES["internal-error"]}
        return wire.encode({**failed, "info": f"the answer is too large: {error}"})
