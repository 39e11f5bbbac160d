"""The ring of a task's events: cursors, gaps, and when a slow reader holds the command up."""

from __future__ import annotations

import bisect
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from initspawn.encoders.table import make
from initspawn.event import Event
from initspawn.limits import LOG_EVENTS, RETURNS
from initspawn.supervisor.eventlog import DROPPED, EventLog, Reader


def nothing() -> None:
    pass


def line(number: int) -> dict[str, Any]:
    return {"n": number}


def filled(log: EventLog, count: int) -> EventLog:
    for _ in range(count):
        log.append(line(log.next))
    return log


def taken(reader: Reader) -> list[Event]:
    events = []
    while (event := reader.take()) is not None:
        events.append(event)
    return events


def test_an_empty_log() -> None:
    log = EventLog()
    assert (log.first, log.next) == (1, 1)
    assert Reader(log, nothing).take() is None


def test_events_are_numbered_from_one() -> None:
    log = filled(EventLog(), 3)
    assert taken(Reader(log, nothing)) == [Event(seq=n, data=line(n)) for n in (1, 2, 3)]
    assert log.get(2).data == line(2)


def test_each_reader_has_its_own_place() -> None:
    log = filled(EventLog(), 2)
    first, late = Reader(log, nothing), Reader(log, nothing, start=3)
    assert len(taken(first)) == 2
    filled(log, 1)
    assert [event.seq for event in taken(first)] == [3]
    assert [event.seq for event in taken(late)] == [3]


def test_readers_are_woken_by_each_event() -> None:
    log, woken = EventLog(), []
    Reader(log, lambda: woken.append("a"))
    gone = Reader(log, lambda: woken.append("b"))
    filled(log, 1)
    gone.close()
    gone.close()
    filled(log, 1)
    assert woken == ["a", "b", "a"]


def test_a_reader_may_leave_while_it_is_woken() -> None:
    log, woken = EventLog(), []
    first = Reader(log, lambda: first.close())
    Reader(log, lambda: woken.append(log.next))
    filled(log, 2)
    assert woken == [2, 3]


def test_the_oldest_go_when_there_are_too_many() -> None:
    log = filled(EventLog(events_limit=3), 5)
    assert (log.first, log.next) == (3, 6)
    assert [event.data for event in taken(Reader(log, nothing, start=3))] == [line(3), line(4), line(5)]


def test_who_was_left_behind_is_told_how_far() -> None:
    log = filled(EventLog(events_limit=3), 5)
    marker, *rest = taken(Reader(log, nothing))
    assert marker == Event(seq=2, data={"type": DROPPED, "count": 2})
    assert [event.seq for event in rest] == [3, 4, 5]


def test_a_gap_is_told_each_time() -> None:
    log = filled(EventLog(events_limit=2), 1)
    reader = Reader(log, nothing)
    assert [event.seq for event in taken(reader)] == [1]
    filled(log, 5)  # 2 to 4 are gone
    assert [event.data for event in taken(reader)] == [{"type": DROPPED, "count": 3}, line(5), line(6)]
    filled(log, 3)
    assert reader.take() == Event(seq=7, data={"type": DROPPED, "count": 1})


def test_the_oldest_go_when_they_are_too_large() -> None:
    log = EventLog(bytes_limit=1800)
    for _ in range(5):
        log.append({"text": "x" * 300})
    assert (log.first, log.next) == (4, 6)


def test_the_newest_stays_however_large() -> None:
    log = filled(EventLog(bytes_limit=100), 3)
    log.append({"text": "x" * 1000})
    assert (log.first, log.next) == (4, 5)
    filled(log, 1)
    assert (log.first, log.next) == (5, 6)


@pytest.mark.parametrize(
    "data", [{"a": ["x" * 50] * 10}, {"a": {"b": "x" * 500}}, {"a": ("x" * 250, "x" * 250)}, {"x" * 500: 1}]
)
def test_text_counts_wherever_it_is(data: dict[str, Any]) -> None:
    log = EventLog(bytes_limit=1000)
    log.append(data)
    log.append(data)
    assert log.first == 2


@pytest.mark.parametrize("value", [[], {}, ()])
def test_what_is_empty_costs_memory_all_the_same(value: Any) -> None:
    """Brackets are cheap to write: 5000 pairs of them are 300 kB of objects."""
    log = EventLog(bytes_limit=500_000)
    for _ in range(2):
        log.append({"stdout": [value] * 5000})
    assert log.first == 2


@pytest.mark.parametrize(
    "made",
    [
        *({"type": "data", "stdout": [text * 1000]} for text in ("x", "\xe9", "\u8a9e", "\U0001f600")),
        {"type": "data", "pid": 1, "stdout": "\U0001f600"},
        {"stdout": list(range(10**6, 10**6 + 1000))},
        {"stdout": {f"\u8a9e{number}": None for number in range(1000)}},
    ],
    ids=["ASCII", "Latin-1", "two bytes", "four bytes", "short", "numbers", "keys"],
)
def test_what_is_counted_is_what_is_taken(made: dict[str, Any]) -> None:
    text = json.dumps(made)

    def keeps_both(limit: int) -> bool:
        log = EventLog(bytes_limit=limit)
        log.append(json.loads(text))
        log.append(json.loads(text))
        return log.first == 1

    log = EventLog(events_limit=100)
    tracemalloc.start()
    try:
        for _ in range(50):
            log.append(json.loads(text))
        taken = tracemalloc.get_traced_memory()[0] / 50
    finally:
        tracemalloc.stop()
    counted = bisect.bisect_left(range(1 << 20), True, key=keeps_both) / 2
    assert taken * 0.8 <= counted <= taken * 1.5


@pytest.mark.parametrize("data", [b"\n", b"1\n"])
@pytest.mark.parametrize("encoder", ["line", "json"])
def test_the_ring_has_room_for_two_full_reads_beyond_what_may_wait(encoder: str, data: bytes) -> None:
    """Both streams may be read once more before the command is held up."""
    log = EventLog()
    reader = Reader(log, nothing)
    made = make(encoder)
    for _ in range(LOG_EVENTS // 2):
        log.append({"type": "data", "pid": 123456, "stdout": ""})
    assert not log.crowded()
    for stream in ("stdout", "stderr"):
        for record in made.feed(stream, data * (made.chunk // len(data))):
            log.append({"type": "data", "pid": 123456, **record})
    assert log.first == 1
    reader.close()


# Crowded: the command must wait.


def test_without_readers_nothing_is_crowded() -> None:
    assert not filled(EventLog(events_limit=4), 100).crowded()


def test_more_than_half_of_the_events() -> None:
    log = EventLog(events_limit=10)
    reader = Reader(log, nothing)
    filled(log, 5)
    assert not log.crowded()
    filled(log, 1)
    assert log.crowded()
    reader.take()
    assert not log.crowded()


def test_more_than_half_of_the_bytes() -> None:
    log = EventLog(bytes_limit=1800)
    reader = Reader(log, nothing)
    log.append({"text": "x" * 300})
    assert not log.crowded()
    log.append({"text": "x" * 300})
    assert log.crowded()
    reader.take()
    assert not log.crowded()


def test_the_slowest_reader_counts() -> None:
    log = EventLog(events_limit=10)
    slow, quick = Reader(log, nothing), Reader(log, nothing)
    filled(log, 6)
    taken(quick)
    assert log.crowded()
    slow.close()
    assert not log.crowded()


def test_who_gave_up_on_a_reader_does_not_wait_for_it() -> None:
    log = EventLog(events_limit=10)
    reader = Reader(log, nothing)
    filled(log, 6)
    reader.patient = False
    assert not log.crowded()
    reader.take()
    assert not reader.patient
    while reader.take() is not None:
        pass
    assert reader.patient


def test_room_is_told_once() -> None:
    log, told = EventLog(events_limit=10), []
    reader = Reader(log, nothing)
    filled(log, 7)
    log.when_roomy = lambda: told.append(reader.cursor)
    reader.take()
    assert told == []
    reader.take()
    assert told == [3]
    reader.take()
    assert told == [3]
    assert log.when_roomy is None


@pytest.mark.parametrize("how", ["leaves", "is given up"])
def test_room_without_reading(how: str) -> None:
    log, told = EventLog(events_limit=10), []
    reader = Reader(log, nothing)
    filled(log, 7)
    log.when_roomy = lambda: told.append(how)
    if how == "leaves":
        reader.close()
    else:
        reader.patient = False
        log.advanced()
    assert told == [how]


def test_room_may_be_asked_for_again_at_once() -> None:
    log = EventLog(events_limit=4)
    reader = Reader(log, nothing)

    def again() -> None:
        filled(log, 2)
        log.when_roomy = again if log.next < 20 else None

    filled(log, 3)
    log.when_roomy = again
    assert [event.seq for event in taken(reader)] == list(range(1, log.next))


# Who loses the connection and comes back.


def lost(log: EventLog, name: str = "somebody", start: int = 1) -> Reader:
    reader = Reader(log, nothing, start)
    reader.name = name
    return reader


def test_the_place_of_who_may_come_back_is_kept() -> None:
    log = EventLog(events_limit=16)
    reader = lost(log)
    filled(log, 10)
    taken(reader)
    assert log.lost(reader)
    assert reader.cursor == 7  # the last four may never have reached it
    filled(log, 5)
    assert log.crowded()  # the command waits as if it still read
    log.shrink(1)
    assert log.first == 1
    again = lost(log, start=8)
    log.returned("somebody")
    assert log.readers == [again]
    assert not log.crowded()
    assert [event.seq for event in taken(again)] == list(range(8, 16))


def test_one_place_for_each_who_is_back() -> None:
    log = EventLog()
    first, second, other = lost(log), lost(log), lost(log, "other")
    for reader in (first, second, other):
        assert log.lost(reader)
    log.returned("somebody")
    assert log.readers == [second, other]
    log.returned("nobody")
    assert log.readers == [second, other]
    log.returned("somebody")
    log.returned("somebody")
    assert log.readers == [other]


def test_a_lost_reader_is_not_woken() -> None:
    log, woken = EventLog(), []
    reader = Reader(log, lambda: woken.append(1))
    reader.name = "somebody"
    log.lost(reader)
    filled(log, 1)
    assert woken == []


def test_who_said_nothing_loses_its_place() -> None:
    log = EventLog()
    reader = Reader(log, nothing)
    assert not log.lost(reader)
    assert log.readers == []


def test_places_are_bounded() -> None:
    log = EventLog()
    assert sum(log.lost(lost(log, str(number))) for number in range(RETURNS + 5)) == RETURNS
    assert len(log.readers) == RETURNS


def test_a_log_that_waits_for_nobody() -> None:
    log = EventLog(events_limit=4, waits=False)
    reader = Reader(log, nothing)
    filled(log, 20)
    assert not log.crowded()
    assert taken(reader)[0].data == {"type": DROPPED, "count": 16}


@given(st.data())
def test_whoever_resumes_where_it_was_misses_and_doubles_nothing(data: st.DataObject) -> None:
    """Connections end at any time, with what is on its way; the client asks for what follows what it has."""
    limit = data.draw(st.integers(8, 40))
    log = EventLog(events_limit=limit)
    seen: list[int] = []
    for _ in range(data.draw(st.integers(1, 6))):
        reader = lost(log, start=len(seen) + 1)
        log.returned("somebody")
        for _ in range(data.draw(st.integers(0, 5))):
            while not log.crowded() and data.draw(st.booleans()):
                filled(log, 1)
            arrived = taken(reader)
            on_their_way = data.draw(st.integers(0, min(len(arrived), limit // 4)))
            seen += [event.seq for event in arrived[: len(arrived) - on_their_way]]
            if on_their_way:
                break
        log.lost(reader)
        while not log.crowded() and data.draw(st.booleans()):
            filled(log, 1)
    seen += [event.seq for event in taken(Reader(log, nothing, len(seen) + 1))]
    assert seen == list(range(1, log.next))


class Against(RuleBasedStateMachine):
    """A log with small limits against lists that keep everything."""

    def __init__(self) -> None:
        super().__init__()
        self.limit = 8
        self.log = EventLog(events_limit=self.limit)
        self.everything: list[dict[str, Any]] = []
        self.readers: list[tuple[Reader, list[Any]]] = []

    @rule(count=st.integers(1, 12))
    def append(self, count: int) -> None:
        for _ in range(count):
            self.everything.append(line(len(self.everything) + 1))
            self.log.append(self.everything[-1])

    @rule(data=st.data())
    def join(self, data: st.DataObject) -> None:
        start = data.draw(st.integers(1, len(self.everything) + 1))
        self.readers.append((Reader(self.log, nothing, start=start), [None] * (start - 1)))

    @rule(data=st.data(), count=st.integers(1, 10))
    def take(self, data: st.DataObject, count: int) -> None:
        if self.readers:
            reader, seen = data.draw(st.sampled_from(self.readers))
            for _ in range(count):
                event = reader.take()
                if event is None:
                    assert len(seen) == len(self.everything)
                elif event.data.get("type") == DROPPED:
                    seen += [None] * event.data["count"]
                    assert event.seq == len(seen)
                    assert len(self.everything) - len(seen) == self.limit
                else:
                    seen.append(event.data)
                    assert event.seq == len(seen)

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        if self.readers:
            entry = data.draw(st.sampled_from(self.readers))
            entry[0].close()
            self.readers.remove(entry)

    @invariant()
    def nothing_is_lost_silently(self) -> None:
        assert self.log.next == len(self.everything) + 1
        assert self.log.next - self.log.first == min(len(self.everything), self.limit)
        for _, seen in self.readers:
            for known, true in zip(seen, self.everything, strict=False):
                assert known in (None, true)

    @invariant()
    def crowded_is_half_a_ring(self) -> None:
        behind = [len(self.everything) - len(seen) for _, seen in self.readers]
        assert self.log.crowded() == (max(behind, default=0) > self.limit // 2)


TestAgainst = Against.TestCase
TestAgainst.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


@given(st.lists(st.integers(0, 300), max_size=30), st.integers(1, 10), st.integers(50, 600))
def test_the_bounds_hold(sizes: list[int], events: int, most: int) -> None:
    log = EventLog(events_limit=events, bytes_limit=most)
    for size in sizes:
        log.append({"text": "x" * size})
        kept = [log.get(seq).data["text"] for seq in range(log.first, log.next)]
        assert 1 <= len(kept) <= events
        assert len(kept) == 1 or sum(map(len, kept)) <= most
