"""A real gateway process in front of a fake supervisor, on a port of the kernel's choice."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Self

import pytest

from tests.gateway.fake_supervisor import PATIENCE, FakeSupervisor, until
from tests.gateway.raw_client import RawClient
from tests.support.certificates import Pair

STARTER = """
import sys, runpy, initspawn.gateway.bounds as bounds
vars(bounds).update(eval(sys.argv.pop(1)))
runpy.run_module("initspawn.gateway", run_name="__main__")
"""


class Gateway:
    """A gateway process and its supervisor. Use it in a `with` statement.

    `bounds` replaces finite defaults (gateway/bounds.py) that are too large to be waited for.
    """

    def __init__(
        self, *options: str, address: str = "127.0.0.1", tls: Pair | None = None, **bounds: float
    ) -> None:
        self.directory = tempfile.TemporaryDirectory(prefix="initspawn-gateway-")
        self.supervisor = FakeSupervisor(f"{self.directory.name}/control")
        self.options = options
        self.bounds = bounds
        self.tls = tls
        self.listener = socket.create_server((address, 0), backlog=64)
        self.port: int = self.listener.getsockname()[1]
        self.process: subprocess.Popen[bytes]
        self.errors = b""

    def __enter__(self) -> Self:
        self.supervisor.__enter__()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.listener.close()
        self.supervisor.__exit__()
        self.directory.cleanup()

    def start(self) -> None:
        """Start the process and wait for its hello."""
        number = self.listener.fileno()
        command = [sys.executable, "-c", STARTER, repr(self.bounds), "--listen-fd", str(number)]
        command += ["--control", self.supervisor.path, *self.options]
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.handover = ours
        command += ["--handover-fd", str(theirs.fileno())]
        if self.tls is not None:
            command.append("--tls")
            self.certify(0, self.tls)
        seen = len(self.supervisor.connections)
        self.process = subprocess.Popen(command, pass_fds=[number, theirs.fileno()], stderr=subprocess.PIPE)
        theirs.close()
        try:
            until(lambda: len(self.supervisor.connections) > seen, "the gateway's hello")
        except AssertionError:
            self.stop(signal.SIGKILL)
            pytest.fail(self.errors.decode() or "the gateway says nothing")

    def certify(self, number: int, pair: Pair) -> None:
        """Hand a certificate and its key over."""
        with open(pair.certificate, "rb") as certificate, open(pair.key, "rb") as key:
            socket.send_fds(self.handover, [b"tls %d" % number], [certificate.fileno(), key.fileno()])

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End the process; gives its exit status."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """The exit status of a process that ends by itself; what it wrote is in `errors`."""
        _, errors = self.process.communicate(timeout=PATIENCE)
        self.handover.close()
        self.errors += errors or b""
        return self.process.returncode

    def local(self, protocol: str, *, mask: bool = True, user: int = 0) -> RawClient:
        """A client of a unix socket, handed over as the supervisor does it."""
        client, peer = socket.socketpair()
        ours, theirs = socket.socketpair()
        socket.send_fds(self.handover, [f"{user} {protocol}".encode()], [peer.fileno(), theirs.fileno()])
        peer.close()
        theirs.close()
        self.supervisor.adopt(ours)
        return RawClient(self.port, mask=mask, connected=client)

    def client(self, *, mask: bool = True, receive_buffer: int = 0) -> RawClient:
        return RawClient(self.port, mask=mask, receive_buffer=receive_buffer)


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """One gateway for the tests of a module; at its end it must not have complained about anything."""
    with Gateway() as running:
        yield running
        assert running.stop() == 0
        assert running.errors == b""


@pytest.fixture
def client(gateway: Gateway) -> Iterator[RawClient]:
    """An open WebSocket."""
    with gateway.client() as connection:
        yield connection.open()


@pytest.fixture(params=[True, False], ids=["masked", "unmasked"])
def either(gateway: Gateway, request: pytest.FixtureRequest) -> Iterator[RawClient]:
    """An open WebSocket whose frames are masked (browsers) or not (C clients)."""
    with gateway.client(mask=request.param) as connection:
        yield connection.open()
