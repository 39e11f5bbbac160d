"""The caller of a single call, on a connection that others use too."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from initspawn.control.connection import Connection
    from initspawn.supervisor.input import Writer
    from initspawn.supervisor.running import Task
    from initspawn.verbs.access import Identity


class Visitor:
    """The `Caller` of a single call whose credential is for it alone."""

    def __init__(self, identity: Identity, connection: Connection, events: bool, session: str) -> None:
        self.identity = identity
        self.session = session
        self.door = connection.door
        self.client = connection
        self._connection = connection
        self._events = events

    def subscribe(self, task: Task, first: int | None = None) -> None:
        """Send the connection the events, as long as who has called may read them; if it hears any."""
        if self._events:
            self._connection.subscribe(task, first, self.identity)

    def unsubscribe(self, task: Task) -> None:
        """Send it no more of them."""
        if self._events:
            self._connection.unsubscribe(task)


    def watch(self, watchers: dict[Writer, Callable[[str], None]]) -> None:
        """Tell the connection of imported APIs that go, as long as who has called may see; if it hears."""
        if self._events:
            self._connection.watch(watchers, self.identity)
