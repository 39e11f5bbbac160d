"""The state of the network: which links are up, have an address, lead anywhere. Loaded where that matters.

Whatever changes, everything is read anew, for the kernel does not tell all that follows from a change: routes
go silently with their link. It tells that something has changed; nobody asks in between.
"""

from __future__ import annotations

from initspawn.limits import EVENTS_PER_WAKE
from initspawn.linux import netlink
from initspawn.plan import ADDRESS, LINK, ROUTE
from initspawn.supervisor.reactor import READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable

    from initspawn.supervisor.reactor import Reactor, Timer

ANY = "*"
_SETTLE = 0.05  # seconds from a change to the next look: changes come together
_RETRY = 1.0  # seconds until the kernel is asked again that has not answered
_DUMPS = (netlink.RTM_GETLINK, netlink.RTM_GETADDR, netlink.RTM_GETROUTE)


class Network:
    """The state, once it is `known`; `on_change` is called whenever it has become another one."""

    def __init__(self, reactor: Reactor, on_change: Callable[[], None]) -> None:
        """Raises OSError where the kernel has no netlink."""
        self.known = False
        self.states: dict[str, frozenset[str]] = {}  # the names of the links by what they have
        self._reactor = reactor
        self._on_change = on_change
        self._socket: _socket.socket = netlink.open_socket()  # before the first dump: no change is missed
        self._number = 0  # of the dump that is answered now
        self._left: list[int] = []  # the dumps to be made after it
        self._dirty = False
        self._torn = False  # the answers may not fit together
        self._timer: Timer | None = reactor.after(0, self._begin)
        self._links: dict[int, tuple[str, bool]] = {}
        self._addressed: set[int] = set()
        self._routed: set[int] = set()
        reactor.watch(self._socket.fileno(), READ, lambda _: self._read())

    def has(self, what: str, name: str) -> bool:
        """Whether a link has it (it is up, has an address, carries a default route); `*`: whether any has."""
        names = self.states.get(what, frozenset())
        return bool(names) if name == ANY else name in names

    def close(self) -> None:
        """Follow it no more."""
        self._reactor.forget(self._socket.fileno())
        self._socket.close()
        if self._timer is not None:
            self._timer.cancel()

    def _begin(self) -> None:
        """Read everything anew."""
        self._dirty = self._torn = False
        self._links, self._addressed, self._routed = {}, set(), set()
        self._left = list(_DUMPS)
        self._timer = self._reactor.after(_RETRY, self._begin)  # unless it is answered
        self._ask()

    def _ask(self) -> None:
        self._number += 1
        try:
            netlink.ask(self._socket, self._left.pop(0), self._number)
        except OSError:  # short of memory; the timer asks again
            pass

    def _read(self) -> None:
        for _ in range(EVENTS_PER_WAKE):
            try:
                found = netlink.receive(self._socket)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS: some were lost
                self._torn = True
                self._look_again()
                return
            for kind, flags, number, body in found:
                self._take(kind, flags, number, body)

    def _take(self, kind: int, flags: int, number: int, body: bytes) -> None:
        if number != self._number:
            if not number:
                self._dirty = True
                self._look_again()
            return
        if flags & netlink.NLM_F_DUMP_INTR or kind == netlink.NLMSG_ERROR:
            self._torn = True
        if kind == netlink.RTM_NEWLINK:
            link = netlink.link(body)
            if link is not None:
                self._links[link[0]] = link[1:]
        elif kind == netlink.RTM_NEWADDR:
            index = netlink.address(body)
            if index is not None:
                self._addressed.add(index)
        elif kind == netlink.RTM_NEWROUTE:
            self._routed.update(netlink.default_route(body))
        elif kind in (netlink.NLMSG_DONE, netlink.NLMSG_ERROR):
            if self._left:
                self._ask()
            else:
                self._finish()

    def _finish(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._number += 1  # nothing is asked for
        if self._dirty or self._torn:
            self._look_again()
        if self._torn:
            return
        up = {index: name for index, (name, is_up) in self._links.items() if is_up}
        states = {
            LINK: frozenset(up.values()),
            ADDRESS: frozenset(name for index, name in up.items() if index in self._addressed),
            ROUTE: frozenset(name for index, name in up.items() if index in self._routed),
        }
        if states != self.states or not self.known:
            self.states, self.known = states, True
            self._on_change()

    def _look_again(self) -> None:
        if self._timer is None:
            self._timer = self._reactor.after(_SETTLE, self._begin)
