"""The control socket under bad input: each fault is told, its connection ends, all others go on."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from initspawn.control.client import Client
from initspawn.control.wire import CONTROL_BYTES, FrameReader, encode
from tests.support.users import Ordinary
from tests.system.server import PATIENCE, Server, serving, write

pytestmark = pytest.mark.needs("userns")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    acls = {"acls": {"user": "nobody"}} if os.geteuid() == 0 else {}
    command = {"uid": "true", "encoder": "sync", "exec": {"cmdpath": "/bin/true"}}
    box = {"uid": "box", "namespace": {}, **acls, "commands": command}
    file = write(tmp_path, "test.json", {"metadata": {"uid": "t", "api": "t"}, "sandboxes": box})
    with serving(tmp_path, file) as running:
        yield running


def talk(path: Path, data: bytes) -> list[dict[str, Any]]:
    """Everything the server says to these bytes until it closes."""
    frames = FrameReader()
    answers: list[dict[str, Any]] = []
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(str(path))
        sock.sendall(data)
        while received := sock.recv(65536):
            answers += [json.loads(body) for body in frames.feed(received)]
    return answers


FAULTS = {
    "empty frame": bytes(4),
    "too large": (CONTROL_BYTES + 1).to_bytes(4, "little"),
    "largest number": b"\xff" * 4,
    "not JSON": b"\x03\0\0\0{x}",
    "not UTF-8": b"\x02\0\0\0\xff\xfe",
    "not an object": b"\x02\0\0\0[]",
    "deep": len(b"[" * 100000).to_bytes(4, "little") + b"[" * 100000,
    "no id": encode({"call": "t/ping"}),
    "a text as id": encode({"id": "1", "call": "t/ping"}),
    "a truth as id": encode({"id": True, "call": "t/ping"}),
    "a huge id": encode({"id": 2**60, "call": "t/ping"}),
    "a number as procedure": encode({"id": 1, "call": 1}),
    "a number as token": encode({"id": 1, "call": "t/ping", "token": 1}),
    "an unknown key": encode({"id": 1, "call": "t/ping", "user": 0}),
}


@pytest.mark.parametrize("door", ["control", "gateway/door"])
def test_faults(server: Server, door: str) -> None:
    with Client(str(server.run_dir / "control"), PATIENCE) as other:
        for name, data in FAULTS.items():
            answers = talk(server.run_dir / door, data)
            assert [list(answer) for answer in answers] == [["fault"]], name
            assert other.call("t/ping").response.startswith("pong="), name


def test_what_came_before_a_fault_is_answered(server: Server) -> None:
    good = encode({"id": 7, "call": "t/nope"})
    for name in ("not JSON", "empty frame", "too large"):
        answers = talk(server.run_dir / "control", good * 3 + FAULTS[name])
        assert answers[:-1] == [{"id": 7, "status": "unknown-verb", "code": -4}] * 3, name
        assert list(answers[-1]) == ["fault"], name


def test_a_peer_that_leaves_in_the_middle(server: Server) -> None:
    whole = encode({"id": 1, "call": "t/true"})
    for cut in range(len(whole) + 1):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(server.run_dir / "control"))
            sock.sendall(whole[:cut])
    with Client(str(server.run_dir / "control"), PATIENCE) as other:
        assert other.call("t/true").response["status"] == {"exit": 0}


def test_the_gateways_door_trusts_nobody(server: Server) -> None:
    with Client(str(server.run_dir / "gateway" / "door"), PATIENCE) as stranger:
        for token in (None, "", "x", "\u00e9" * 1000):
            with pytest.raises(Exception, match="insufficient-scope"):
                stranger.call("t/true", None, token)
        assert stranger.call("t/true", None, server.token).response["status"] == {"exit": 0}
        assert stranger.call("t/ping").response  # the token holds for the connection


@pytest.mark.root
def test_other_users_do_not_reach_the_control_socket(server: Server, as_user: Ordinary) -> None:
    path = str(server.run_dir / "control")

    def connect() -> str:
        with socket.socket(socket.AF_UNIX) as sock:
            try:
                sock.connect(path)
            except OSError as error:
                return type(error).__name__
        return "connected"

    assert as_user.call(connect) == "PermissionError"
