"""What the kernel tells of the network: messages taken apart, and the state that they make."""

from __future__ import annotations

import socket
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initspawn.linux import netlink
from initspawn.supervisor.network import Network

UP = 0x1 | 0x40


def attribute(kind: int, value: bytes) -> bytes:
    whole = struct.pack("=HH", len(value) + 4, kind) + value
    return whole + bytes(-len(whole) % 4)


def link(index: int, name: str, flags: int = UP, family: int = 0) -> bytes:
    return struct.pack("=BxHiII", family, 1, index, flags, 0) + attribute(3, name.encode() + b"\0")


def address(index: int, flags: int = 0, scope: int = 0, wide: int | None = None) -> bytes:
    more = b"" if wide is None else attribute(8, struct.pack("=I", wide))
    return struct.pack("=BBBBI", 2, 24, flags, scope, index) + attribute(1, bytes(4)) + more


def route(index: int, prefix: int = 0, table: int = 254, kind: int = 1, wide: int | None = None) -> bytes:
    more = b"" if wide is None else attribute(15, struct.pack("=I", wide))
    return (
        struct.pack("=BBBBBBBBI", 2, prefix, 0, 0, table, 3, 0, kind, 0)
        + attribute(4, struct.pack("=I", index))
        + more
    )


def message(kind: int, number: int, body: bytes, flags: int = 0) -> bytes:
    whole = struct.pack("=IHHII", 16 + len(body), kind, flags, number, 0) + body
    return whole + bytes(-len(whole) % 4)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (link(2, "eth0"), (2, "eth0", True)),
        (link(2, "eth0", 0x1), (2, "eth0", False)),
        (link(2, "eth0", 0x40), (2, "eth0", False)),
        (link(1, "lo", UP | 0x8), None),
        (link(2, "eth0", family=7), None),
        (link(2, ""), None),
        (link(2, "eth0")[:10], None),
        (b"", None),
    ],
)
def test_links(body: bytes, found: Any) -> None:
    assert netlink.link(body) == found


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (address(2), 2),
        (address(2, scope=253), None),
        (address(2, scope=254), None),
        (address(2, flags=0x40), None),
        (address(2, flags=0x08), None),
        (address(2, flags=0x80), 2),
        (address(2, flags=0, wide=0x40), None),
        (address(2, flags=0x40, wide=0), 2),
        (address(2)[:7], None),
    ],
)
def test_addresses(body: bytes, found: Any) -> None:
    assert netlink.address(body) == found


HOPS = attribute(9, struct.pack("=HBBi", 8, 0, 0, 3) + struct.pack("=HBBi", 8, 0, 0, 4))


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (route(2), [2]),
        (route(2, prefix=24), []),
        (route(2, table=255), []),
        (route(2, kind=7), []),
        (route(2, table=0, wide=254), [2]),
        (route(2, table=254, wide=1000), []),
        (route(2)[:12] + HOPS, [3, 4]),
        (route(2)[:12], []),
        (b"", []),
    ],
)
def test_default_routes(body: bytes, found: list[int]) -> None:
    assert netlink.default_route(body) == found


@given(st.binary(max_size=300))
def test_whatever_comes_nothing_breaks(data: bytes) -> None:
    for _, _, _, body in [*netlink.messages(data), (0, 0, 0, data)]:
        netlink.link(body)
        netlink.address(body)
        netlink.default_route(body)


@given(st.lists(st.tuples(st.integers(0, 65535), st.binary(max_size=40)), max_size=5))
def test_whole_messages_are_found(bodies: list[tuple[int, bytes]]) -> None:
    data = b"".join(message(kind, 7, body) for kind, body in bodies)
    assert [(kind, body) for kind, _, _, body in netlink.messages(data)] == bodies


class Kernel:
    """Answers dumps over a socket pair; a test says what there is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.ours.setblocking(False)
        theirs.setblocking(False)
        self.there: dict[int, list[bytes]] = {16: [], 20: [], 24: []}
        self.dumps = 0
        self.flags: list[int] = []  # of the ends of the next dumps
        self.asked: list[tuple[int, int]] = []
        self.time = 0.0
        self.timers: list[Any] = []
        self.changes: list[dict[str, frozenset[str]]] = []
        monkeypatch.setattr(netlink, "open_socket", lambda: theirs)
        monkeypatch.setattr(netlink, "ask", lambda _, what, number: self.asked.append((what, number)))
        monkeypatch.setattr(netlink, "receive", lambda sock: list(netlink.messages(sock.recv(65536))))
        self.network = Network(self, self._changed)  # type: ignore[arg-type]

    # The loop.

    def watch(self, fd: int, events: int, callback: Any) -> None:
        self.read = callback

    def forget(self, fd: int) -> None: ...

    def after(self, seconds: float, callback: Any) -> Any:
        timer = _Timer(self.time + seconds, callback)
        self.timers.append(timer)
        return timer

    def sleep(self, seconds: float) -> None:
        self.time += seconds
        for timer in [timer for timer in self.timers if timer.when <= self.time]:
            self.timers.remove(timer)
            if timer.callback is not None:
                timer.callback()

    def _changed(self) -> None:
        self.changes.append(self.network.states)

    # The kernel.

    def tell(self, *messages: bytes) -> None:
        self.ours.send(b"".join(messages))
        self.read(0)

    def answer(self) -> None:
        """Answer all that was asked for, and what is asked for then."""
        while self.asked:
            what, number = self.asked.pop(0)
            flags = self.flags.pop(0) if self.flags else 0
            kind = what - 2
            self.tell(
                *(message(kind, number, body) for body in self.there[kind]),
                message(3, number, bytes(4), flags),
            )

    def close(self) -> None:
        self.network.close()
        self.ours.close()


class _Timer:
    def __init__(self, when: float, callback: Any) -> None:
        self.when, self.callback = when, callback

    def cancel(self) -> None:
        self.callback = None


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Any:
    made = Kernel(monkeypatch)
    yield made
    made.close()


def look(kernel: Kernel) -> None:
    kernel.sleep(0.1)
    kernel.answer()


def test_the_state(kernel: Kernel) -> None:
    kernel.there = {
        16: [link(2, "eth0"), link(3, "wg0"), link(4, "off", 0)],
        20: [address(2), address(4)],
        24: [route(2), route(4)],
    }
    assert not kernel.network.known
    look(kernel)
    assert kernel.network.known
    for what, names in (("link", {"eth0", "wg0"}), ("address", {"eth0"}), ("route", {"eth0"})):
        assert {name for name in ("eth0", "wg0", "off", "lo") if kernel.network.has(what, name)} == names
        assert kernel.network.has(what, "*")


def test_nothing_there_is_a_state_too(kernel: Kernel) -> None:
    look(kernel)
    assert kernel.network.known
    assert not kernel.network.has("link", "*")
    assert len(kernel.changes) == 1


def test_a_change_is_read_anew_and_told_once(kernel: Kernel) -> None:
    look(kernel)
    kernel.there[16] = [link(2, "eth0")]
    for _ in range(100):
        kernel.tell(message(16, 0, link(2, "eth0")))
    assert kernel.asked == []
    look(kernel)
    assert kernel.network.has("link", "eth0")
    assert len(kernel.changes) == 2


def test_what_makes_no_difference_is_not_told(kernel: Kernel) -> None:
    look(kernel)
    kernel.tell(message(20, 0, address(1)))
    look(kernel)
    assert len(kernel.changes) == 1


def test_a_change_amid_the_answers_is_looked_at_afterwards(kernel: Kernel) -> None:
    kernel.sleep(0)
    kernel.tell(message(16, 0, link(2, "eth0")))
    kernel.answer()
    assert kernel.asked == []
    kernel.there[16] = [link(2, "eth0")]
    look(kernel)
    assert kernel.network.has("link", "eth0")


def test_torn_answers_count_for_nothing(kernel: Kernel) -> None:
    kernel.there[16] = [link(2, "eth0")]
    kernel.flags = [netlink.NLM_F_DUMP_INTR]
    kernel.sleep(0)
    kernel.answer()
    assert not kernel.network.known
    look(kernel)
    assert kernel.network.has("link", "eth0")


def test_old_answers_count_for_nothing(kernel: Kernel) -> None:
    kernel.sleep(0)
    (_, number), kernel.asked = kernel.asked[0], []
    kernel.sleep(1.1)  # it did not answer in time, and is asked anew
    kernel.tell(message(16, number, link(2, "eth0")), message(3, number, bytes(4)))
    kernel.answer()
    assert kernel.network.known
    assert not kernel.network.has("link", "eth0")


def test_lost_messages_are_made_up_for(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    look(kernel)
    kernel.there[16] = [link(2, "eth0")]

    def lost(_: Any) -> Any:
        raise OSError(105, "No buffer space available")

    with monkeypatch.context() as patch:
        patch.setattr(netlink, "receive", lost)
        kernel.read(0)
    look(kernel)
    assert kernel.network.has("link", "eth0")
