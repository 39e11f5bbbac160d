"""A stand-in for the supervisor: speaks the control protocol, does what the called verb's name says.

x/echo ARGS      answers ARGS                     x/token        answers the connection's credential
x/raw TEXT       answers with this JSON text      x/fail ARGS    answers with status, code, info, response
x/hang           never answers until released     x/stream N     answers, then sends N events
x/vanish         closes the connection            x/garbage      sends what is no frame
x/session        answers the connection's session x/quiet        whether it would hear no events
x/procedure...   answers the procedure's name     others         unknown-api
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from initspawn.control.wire import FrameReader, Request, decode_call, encode, pack

PATIENCE = 10.0  # the longest a condition may take to come true


def until(condition: Callable[[], Any], what: str) -> Any:
    """The first true value of a condition; fails the test after PATIENCE seconds."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.002)
    raise AssertionError(f"in {PATIENCE} s not: {what}")


class FakeSupervisor:
    """Listens at `path`; one thread per connection. Use it in a `with` statement."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.full = False  # whether connections are ended at once, with a fault
        self.calls: list[tuple[str, Any]] = []
        # Procedure to what is sent for a call of it; `id` is filled in where a message has it.
        self.script: dict[str, list[dict[str, Any]]] = {}
        self.connections: list[Connection] = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(64)
        self.threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> FakeSupervisor:
        self.threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.threads[0].join()
        self.listener.close()
        for connection in self.connections:
            connection.end()
        for thread in self.threads[1:]:
            thread.join()

    def alive(self) -> int:
        """Control connections that are open now."""
        return sum(not connection.ended for connection in self.connections)

    def ended(self) -> int:
        return sum(connection.ended for connection in self.connections)

    def called(self, procedure: str) -> list[Any]:
        """The arguments of the calls of one procedure so far."""
        return [args for name, args in self.calls if name == procedure]

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self.listener.accept()
            except OSError:
                return
            if self.full:
                accepted.sendall(encode({"fault": "too many connections"}))
                accepted.close()
                continue
            self.adopt(accepted)

    def adopt(self, accepted: socket.socket) -> Connection:
        """Serve one control connection."""
        connection = Connection(self, accepted)
        self.connections.append(connection)
        thread = threading.Thread(target=connection.run)
        self.threads.append(thread)
        thread.start()
        return connection


class Connection:
    """One control connection as the supervisor sees it."""

    def __init__(self, supervisor: FakeSupervisor, connection: socket.socket) -> None:
        self.supervisor = supervisor
        self.socket = connection
        self.token: str | None = None
        self.session: str | None = None
        self.quiet = False
        self.hanging: list[int] = []
        self.sent = 0  # events written completely
        self.ended = False

    def run(self) -> None:
        reader = FrameReader()
        with contextlib.suppress(OSError):
            while data := self.socket.recv(65536):
                for body in reader.feed(data):
                    self.handle(decode_call(body))
        self.ended = True
        self.socket.close()

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def answer(self, number: int, response: Any = None, **more: Any) -> None:
        message = {"id": number, "status": "success", "code": 0, "response": response} | more
        self.socket.sendall(encode(message))

    def release(self) -> None:
        """Answer every hanging call."""
        while self.hanging:
            self.answer(self.hanging.pop(0), "released")

    def handle(self, request: Request) -> None:
        number, procedure, args = request.number, request.procedure, request.args
        if request.order is not None:
            self.supervisor.calls.append((request.order, request.about))
            if request.about == "good":
                self.answer(number, "fresh")
            else:
                self.answer(number, status="invalid-token", code=-7)
            return
        before = self.token, self.session
        if request.single:
            self.token, self.session = request.token, request.session
        self.token = self.token if request.token is None else request.token
        self.session = self.session if request.session is None else request.session
        self.quiet = not request.events
        self.do(number, procedure, args)
        if request.single:
            self.token, self.session = before

    def do(self, number: int, procedure: str, args: Any) -> None:
        """What the procedure's name says."""
        self.supervisor.calls.append((procedure, args))
        if procedure in self.supervisor.script:
            for message in self.supervisor.script[procedure]:
                filled = {**message, "id": number} if "id" in message else message
                self.socket.sendall(encode(filled))
            return
        verb = procedure.partition("/")[2].partition("/")[0]
        action = getattr(self, f"do_{verb}", None)
        if action is None or not procedure.startswith("x/"):
            self.answer(number, status="unknown-api", code=-3)
        else:
            action(number, procedure, args)

    def do_echo(self, number: int, _: str, args: Any) -> None:
        self.answer(number, args)

    def do_token(self, number: int, _: str, args: Any) -> None:
        self.answer(number, self.token)

    def do_session(self, number: int, _: str, args: Any) -> None:
        self.answer(number, self.session)

    def do_quiet(self, number: int, _: str, args: Any) -> None:
        self.answer(number, self.quiet)

    def do_procedure(self, number: int, procedure: str, args: Any) -> None:
        self.answer(number, procedure)

    def do_raw(self, number: int, _: str, args: str) -> None:
        self.socket.sendall(pack(f'{{"id":{number},"status":"success","code":0,"response":{args}}}'.encode()))

    def do_fail(self, number: int, _: str, args: dict[str, Any]) -> None:
        self.answer(number, **args)

    def do_hang(self, number: int, _: str, args: Any) -> None:
        self.hanging.append(number)

    def do_vanish(self, number: int, _: str, args: Any) -> None:
        self.end()

    def do_garbage(self, number: int, _: str, args: Any) -> None:
        self.socket.sendall(b"\xff" * 8)

    def do_stream(self, number: int, procedure: str, args: int) -> None:
        self.answer(number)
        body = json.dumps("e" * 1000)
        for seq in range(1, args + 1):
            event = f'{{"event":"x/stream","task":"s/c@1","seq":{seq},"data":{{"n":{seq},"text":{body}}}}}'
            self.socket.sendall(pack(event.encode()))
            self.sent = seq
