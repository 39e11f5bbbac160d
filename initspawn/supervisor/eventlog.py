"""A task's events, kept for those who read now and those who come later. Boot module; pure.

A bounded ring with sequence numbers. Each reader has a cursor; a reader the ring has left behind gets a
marker that says how many events it missed, never a silent gap.
"""

from __future__ import annotations

from _collections import deque

from initspawn.event import Event
from initspawn.limits import LOG_BYTES, LOG_EVENTS, RETURNS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

DROPPED = "dropped-event"
_HOLDER = 64  # bytes of an empty list or dictionary
_SLOT = 8  # of a pointer to a value
_NUMBER = 28  # of a number; true, false and null are counted as one
_OVERHEAD = 150  # that an event costs whatever its text: the objects, and its encoded form


class EventLog:
    """The ring of one task. `bytes_limit` counts what the events take of memory, roughly.

    `waits`: slow readers hold the command up; otherwise it is never crowded, and they miss what they miss.
    """

    def __init__(
        self, events_limit: int = LOG_EVENTS, bytes_limit: int = LOG_BYTES, *, waits: bool = True
    ) -> None:
        self.waits = waits
        self.first = 1  # sequence number of the oldest event kept
        self.next = 1  # of the event to come
        self.readers: list[Reader] = []
        self.when_roomy: Callable[[], None] | None = None  # called once, when no longer crowded
        self._events: deque[Event] = deque()
        self._sizes: deque[int] = deque()
        self._bytes = 0
        self._ended_limit: int | None = None
        self._events_limit = events_limit
        self._bytes_limit = bytes_limit

    def append(self, data: dict[str, Any]) -> None:
        """Add an event and wake the readers; the oldest go when the ring is full."""
        size = _size(data) + _OVERHEAD
        self._events.append(Event(seq=self.next, data=data))
        self._sizes.append(size)
        self._bytes += size
        self.next += 1
        while len(self._events) > 1 and (
            len(self._events) > self._events_limit or self._bytes > self._bytes_limit
        ):
            self._drop_oldest()
        for reader in list(self.readers):
            reader.wake()

    def _drop_oldest(self) -> None:
        self._events.popleft()
        self._bytes -= self._sizes.popleft()
        self.first += 1

    def crowded(self) -> bool:
        """Whether a reader that still holds the command up lacks more than half of what the ring takes."""
        if not self.waits:
            return False
        if len(self._events) <= self._events_limit // 2 and self._bytes <= self._bytes_limit // 2:
            return False
        cursors = [reader.cursor for reader in self.readers if reader.patient]
        if not cursors:
            return False
        behind = self.next - min(cursors)
        if behind > self._events_limit // 2:
            return True
        waiting = sum(size for size, _ in zip(reversed(self._sizes), range(behind), strict=False))
        return bool(waiting > self._bytes_limit // 2)

    def advanced(self) -> None:
        """A reader took something or left."""
        if self.when_roomy is not None and not self.crowded():
            resume, self.when_roomy = self.when_roomy, None
            resume()

    def lost(self, reader: Reader) -> bool:
        """The connection of this reader has ended. True: it may come back, and its place is kept until it
        is closed; what it was sent last as well, for that may never have reached it.
        """
        if not reader.name or sum(other.lost for other in self.readers) >= RETURNS:
            reader.close()
            return False
        reader.lost, reader.wake = True, _nothing
        reader.cursor = max(self.first, reader.cursor - self._events_limit // 4)
        return True

    def keeps(self, name: str) -> bool:
        """Whether the place of a reader of that name is kept."""
        return any(reader.lost and reader.name == name for reader in self.readers)

    def returned(self, name: str) -> None:
        """A reader of that name is back: the place of one that was lost is needed no more."""
        for reader in self.readers:
            if reader.lost and reader.name == name:
                reader.close()
                return

    def shrink(self, limit: int | None = None) -> None:
        """Nothing more will come: keep only the newest events of `limit` bytes, once nobody reads."""
        if limit is not None:
            self._ended_limit = limit
            for reader in list(self.readers):  # who has taken everything may leave
                reader.wake()
        if self._ended_limit is not None and not self.readers:
            while self._bytes > self._ended_limit and len(self._events) > 1:
                self._drop_oldest()

    def __len__(self) -> int:
        return len(self._events)

    def get(self, seq: int) -> Event:
        """The event of that number, which must be in the ring."""
        event: Event = self._events[seq - self.first]
        return event


class Reader:
    """One reader's place in a log. `wake` is called when there may be something to take.

    `patient`: the command waits for this reader rather than lose what it has not read.
    """

    def __init__(self, log: EventLog, wake: Callable[[], None], start: int = 1) -> None:
        self.log = log
        self.wake = wake
        self.cursor = start
        self.patient = True
        self.name = ""  # who may come back to this place when its connection is lost
        self.lost = False
        log.readers.append(self)

    def take(self) -> Event | None:
        """The next event, a marker in place of those that are gone, or None."""
        log = self.log
        if self.cursor < log.first:
            missed = log.first - self.cursor
            self.cursor = log.first
            return Event(seq=log.first - 1, data={"type": DROPPED, "count": missed})
        if self.cursor >= log.next:
            return None
        event = log.get(self.cursor)
        self.cursor += 1
        if log.next - self.cursor < len(log) // 4:  # it has caught up, and is waited for again
            self.patient = True
        log.advanced()
        return event

    def close(self) -> None:
        """This reader reads no more."""
        if self in self.log.readers:
            self.log.readers.remove(self)
            self.log.advanced()
            self.log.shrink()


def _nothing() -> None:
    pass


def _size(value: Any) -> int:
    """Roughly the bytes of memory that a value takes: of text what the interpreter says, for one character
    beyond Latin-1 makes it two or four bytes for each; what holds others takes something even when empty.
    """
    if isinstance(value, str):
        return value.__sizeof__() + _SLOT
    if isinstance(value, dict):
        return sum(_size(key) + _size(item) + _SLOT for key, item in value.items()) + _HOLDER
    if isinstance(value, (list, tuple)):
        return sum(_size(item) for item in value) + _HOLDER
    return _NUMBER + _SLOT
