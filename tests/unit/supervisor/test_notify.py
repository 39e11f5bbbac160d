"""What commands tell of themselves: the parser, and sockets that anybody may have sent anything to."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from initspawn.limits import NOTIFIES, NOTIFY_BYTES, NOTIFY_PERIOD
from initspawn.plan import NOTIFY_PATH, Api, Autostart, Command, Plan, Sandbox
from initspawn.supervisor.notify import Message, Notifications, parse
from initspawn.supervisor.reactor import Reactor


def said(message: Message | None) -> dict[str, Any]:
    """What of a message is not as in an empty one."""
    assert message is not None
    empty = Message()
    return {
        name: getattr(message, name)
        for name in Message.__slots__
        if getattr(message, name) != getattr(empty, name)
    }


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"READY=1", {"ready": True}),
        (b"READY=1\n", {"ready": True}),
        (b"READY=0", {}),
        (b"READY=11", {}),
        (b"ready=1", {}),
        (b"STOPPING=1\nSTATUS=going down", {"stopping": True, "status": "going down"}),
        (b"STATUS=", {"status": ""}),
        (b"STATUS=a=b", {"status": "a=b"}),
        ("STATUS=fertig \u2713".encode(), {"status": "fertig \u2713"}),
        (b"STATUS=\x1b[2Jx\ry", {"status": " [2Jx y"}),
        (b"STATUS=" + b"x" * 1000, {"status": "x" * 200}),
        (b"WATCHDOG=1", {"alive": True}),
        (b"WATCHDOG=trigger", {"failed": True}),
        (b"WATCHDOG=2", {}),
        (b"EXTEND_TIMEOUT_USEC=1500000", {"extend": 1.5}),
        (b"EXTEND_TIMEOUT_USEC=0", {}),
        (b"EXTEND_TIMEOUT_USEC=18446744073709551615", {"extend": 1e9}),
        (b"MAINPID=1\nFDSTORE=1\nBARRIER=1\nX_OWN=2", {}),
        (b"\n\nREADY=1", {"ready": True}),
    ],
)
def test_what_is_understood(data: bytes, found: dict[str, Any]) -> None:
    assert said(parse(data)) == found


@pytest.mark.parametrize(
    "data",
    [b"", b"READY", b"=1", b"READY=1\nnonsense", b"READY=1\0", b"\xff\xfe", b"STATUS=\xed\xa0\x80",
     b"x" * (NOTIFY_BYTES + 1), b"EXTEND_TIMEOUT_USEC=-1", b"EXTEND_TIMEOUT_USEC=",
     b"EXTEND_TIMEOUT_USEC=1e9", "EXTEND_TIMEOUT_USEC=\u0661".encode(), b"EXTEND_TIMEOUT_USEC=" + b"9" * 21],
)  # fmt: skip
def test_what_is_no_message(data: bytes) -> None:
    assert parse(data) is None


PIECES = st.sampled_from(
    [
        b"READY",
        b"STATUS",
        b"WATCHDOG",
        b"EXTEND_TIMEOUT_USEC",
        b"=",
        b"1",
        b"\n",
        b"trigger",
        b"\0",
        b"\xc3",
        b"9" * 30,
    ]
)


@given(st.one_of(st.binary(max_size=5000), st.lists(PIECES, max_size=40).map(b"".join)))
@example(b"READY=1\n" * 600)
def test_whatever_comes_is_a_message_or_none(data: bytes) -> None:
    message = parse(data)
    if message is not None:
        assert message.status is None or (len(message.status) <= 200 and message.status.isprintable())
        assert 0 <= message.extend <= 1e9


# The sockets.


class Served:
    """The socket of one sandbox of a plan, on a loop; `heard` is what came through it."""

    def __init__(self, directory: Path, *, new_root: bool) -> None:
        box = Sandbox(
            uid="box",
            user=1,
            group=1,
            new_root=new_root,
            environment=(("A", "b"), ("NOTIFY_SOCKET", "/run/other")),
        )
        commands = [
            Command(
                uid=name,
                verb=name,
                sandbox="box",
                path="/c",
                autostart=Autostart(ready="notify", watchdog=seconds),
            )
            for name, seconds in (("c", 0.0), ("d", 9.0), ("e", 4.5))
        ]
        other = Sandbox(uid="other", user=1, group=1)
        api = Api(uid="t", api="t", sandboxes=(other, box), commands=tuple(commands))
        self.reactor = Reactor()
        self.found = Notifications(str(directory))
        self.plan = Plan(user=0, group=0, apis=(api,))
        self.raw = box
        self.other, self.box = self.found.equip(self.plan).apis[0].sandboxes
        self.heard: list[tuple[tuple[str, str], int, dict[str, Any]]] = []
        self.found.serve(self.reactor, self._hear)
        given = dict(self.box.environment)["NOTIFY_SOCKET"]
        self.address = str(directory / "notify-0") if new_root else "\0" + given[1:]

    def _hear(self, place: tuple[str, str], pid: int, message: Message) -> str:
        self.heard.append((place, pid, said(message)))
        return ""

    def send(self, *datagrams: bytes, extra: Any = ()) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.connect(self.address)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
            for datagram in datagrams:
                sock.sendmsg([datagram], extra)
                self.reactor.turn(0.1)


@pytest.fixture(params=[True, False], ids=["path", "abstract"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    before = sorted(os.listdir("/proc/self/fd"))
    made = Served(tmp_path, new_root=request.param)
    yield made
    made.found.close(made.reactor)
    made.reactor.close()
    assert sorted(os.listdir("/proc/self/fd")) == before, "no descriptor is left"
    assert not list(tmp_path.iterdir())


def test_what_the_sandbox_gets(served: Served) -> None:
    environment = dict(served.box.environment)
    assert environment["A"] == "b"
    assert environment["WATCHDOG_USEC"] == "4500000", "the shortest of its commands'"
    assert [name for name, _ in served.box.environment].count("NOTIFY_SOCKET") == 1
    assert served.other == Sandbox(uid="other", user=1, group=1)
    if served.box.new_root:
        assert environment["NOTIFY_SOCKET"] == NOTIFY_PATH
        (entry,) = served.box.mounts
        assert (entry.operation, entry.target, entry.source, entry.read_only) == (
            "bind", NOTIFY_PATH, served.address, True,
        )  # fmt: skip
        assert os.stat(served.address).st_mode & 0o777 == 0o666
    else:
        assert served.box.mounts == ()


def test_a_message_comes_with_its_sender(served: Served) -> None:
    served.send(b"READY=1\nSTATUS=up")
    assert served.heard == [(("t", "box"), os.getpid(), {"ready": True, "status": "up"})]
    assert served.found.told() == {"heard": 1, "ignored": {}, "full": []}


def test_another_plan_has_the_same_socket_and_what_nobody_has_is_closed(served: Served) -> None:
    api = served.plan.apis[0]
    changed = api.replace(sandboxes=(served.raw.replace(umask=1),))
    (box,) = served.found.equip(Plan(user=0, group=0, apis=(changed,))).apis[0].sandboxes
    assert dict(box.environment)["NOTIFY_SOCKET"] == dict(served.box.environment)["NOTIFY_SOCKET"]
    assert [entry.source for entry in box.mounts] == [entry.source for entry in served.box.mounts]
    other = api.replace(api="u", sandboxes=(served.raw,))
    (second,) = served.found.equip(Plan(user=0, group=0, apis=(other,))).apis[0].sandboxes
    served.send(b"READY=1")
    count = len(os.listdir("/proc/self/fd"))
    served.found.keep([served.box], served.reactor)
    assert len(os.listdir("/proc/self/fd")) == count - 1
    served.send(b"READY=1")
    assert [place for place, _, _ in served.heard] == [("t", "box"), ("t", "box")]
    assert second != box
    served.found.keep([], served.reactor)
    with pytest.raises(OSError, match=r"refused|No such file"):
        served.send(b"READY=1")


def test_a_socket_that_is_made_later_is_heard(served: Served) -> None:
    api = served.plan.apis[0].replace(api="u", sandboxes=(served.raw,))
    (box,) = served.found.equip(Plan(user=0, group=0, apis=(api,))).apis[0].sandboxes
    given = dict(box.environment)["NOTIFY_SOCKET"]
    served.address = box.mounts[0].source if box.mounts else "\0" + given[1:]
    served.send(b"READY=1")
    assert [place for place, _, _ in served.heard] == [("u", "box")]


def test_a_plan_without_such_commands_stays_as_it_is(tmp_path: Path) -> None:
    plan = Plan(
        user=0, group=0, apis=(Api(uid="t", api="t", sandboxes=(Sandbox(uid="b", user=1, group=1),)),)
    )
    assert Notifications(str(tmp_path)).equip(plan) == plan
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("datagram", "why"),
    [(b"", "malformed"), (b"\xff\xfe\xfd", "malformed"), (b"STATUS=" + b"x" * NOTIFY_BYTES, "too long"),
     (b"READY=1\n" * (1 << 17), "too long")],
    ids=["empty", "no UTF-8", "a little too long", "1 MiB"],
)  # fmt: skip
def test_what_is_ignored_is_counted(served: Served, datagram: bytes, why: str) -> None:
    served.send(datagram, b"READY=1")
    assert [message for _, _, message in served.heard] == [{"ready": True}]
    assert served.found.told() == {"heard": 1, "ignored": {why: 1}, "full": []}


@pytest.mark.not_emulated("SCM_RIGHTS: it takes in what a message's buffer has no room for")
def test_descriptors_are_not_taken_in(served: Served) -> None:
    ours, theirs = os.pipe()
    before = len(os.listdir("/proc/self/fd"))
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("253i", *[theirs] * 253))
    served.send(b"READY=1\nFDSTORE=1", extra=[rights])
    assert len(os.listdir("/proc/self/fd")) == before
    assert served.heard[0][2] == {"ready": True}
    os.close(theirs)
    assert os.read(ours, 1) == b"", "nobody else holds it: what waits at such a barrier goes on"
    os.close(ours)


def test_without_credentials_nobody_is_the_sender(served: Served) -> None:
    for sock, _ in served.found._sockets.values():
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
    served.send(b"READY=1")
    assert served.heard == []
    assert served.found.told()["ignored"] == {"unknown sender": 1}


def test_a_queue_that_is_found_full_is_noted(served: Served) -> None:
    """Also where it is seldom looked at: who sends as the budget allows may still keep others out."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(served.address)
        sock.setblocking(False)
        for _ in range(served.found._queue - 1):
            sock.send(b"WATCHDOG=1")
        served.reactor.turn(0.1)
        assert served.found.full == {}
        served.reactor.after(NOTIFY_PERIOD, served.reactor.stop)
        served.reactor.run()
        with suppress(BlockingIOError):
            while True:
                sock.send(b"WATCHDOG=1")
        served.reactor.turn(0.1)
        assert list(served.found.full) == [("t", "box")]


def test_a_flood_does_not_keep_the_loop(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    ticks: list[float] = []

    def tick() -> None:
        ticks.append(time.monotonic())
        served.reactor.after(0.005, tick)

    tick()
    pid = os.fork()
    if pid == 0:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.connect(served.address)
                while True:
                    sock.send(b"WATCHDOG=1")
        finally:
            os._exit(0)
    try:
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            served.reactor.turn(0.05)
        count = len(served.heard)
        assert NOTIFIES < count <= 12 * NOTIFIES, "they are read, and not as fast as they come"
        assert len(ticks) > 20, "everything else goes on"
        assert served.found.told()["full"] == ["t/box"]
        assert end - 0.5 < served.found.full["t", "box"] <= served.reactor.clock()
        said = capsys.readouterr().err
        assert said == "initspawn: t/box: its socket for messages is full, watchdogs wait\n", "once"
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
