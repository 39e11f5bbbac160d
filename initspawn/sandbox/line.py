"""Which starts have their sandbox built now, and which wait. Boot module.

Hundreds that are built at once keep one another from being done in time on a slow machine, and then all are
refused. So a bounded number is under way, of one sandbox a part of them: one that hangs keeps no other from
being built.
"""

from __future__ import annotations

import errno
import os

from initspawn.limits import BUILDS, BUILDS_EACH
from initspawn.sandbox.program import SPAWNER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from initspawn.sandbox.launch import Start
    from initspawn.sandbox.program import Slot


class _Job:
    """A start that waits, with copies of its descriptors. `moved`: one that it waits for has been built since
    somebody asked.
    """

    __slots__ = ("descriptors", "moved", "packet", "slot", "start")

    def __init__(self, start: Start, slot: Slot, packet: bytes, descriptors: list[int]) -> None:
        self.start = start
        self.slot = slot
        self.packet = packet
        self.descriptors = descriptors
        self.moved = False


class Line:
    """`send` hands a packet with descriptors to the spawner, `later` calls back after so many seconds."""

    def __init__(
        self, send: Callable[[bytes, list[int]], None], later: Callable[[float, Callable[[], None]], object]
    ) -> None:
        self._send = send
        self._later = later
        self._building: set[Start] = set()
        self._same: dict[int, int] = {}  # how many of them by id of their sandbox, which they keep
        self._waiting: list[_Job] = []  # oldest first
        self._called = False  # whether `_next` is to be

    def hand(self, start: Start, slot: Slot, packet: bytes, descriptors: list[int]) -> None:
        """Have it built, now or when others are; one that is urgent, now. Raises OSError; `start.step` says
        if it is not the spawner's.
        """
        if start.urgent or (not self._waiting and self._room(start)):
            self._send(packet, descriptors)
            self._enter(start)
            return
        job = _Job(start, slot, packet, [])
        try:
            for fd in descriptors:
                job.descriptors.append(os.dup(fd))
                if job.descriptors[-1] >= start.ceiling:
                    start.step = "room"
                    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            self._waiting.append(job)
            self._soon()
        except BaseException:
            self._drop(job)
            raise

    def leave(self, start: Start, *, built: bool = False) -> None:
        """It is built, or nobody wants it any more. One that waits is never begun, and its handshake ends."""
        if start in self._building:
            self._building.discard(start)
            key = id(start.sandbox)
            self._same[key] -= 1
            if not self._same[key]:
                del self._same[key]
            for job in self._waiting:  # a full sandbox waits for its own only
                job.moved |= built and self._same.get(id(job.start.sandbox), 0) < BUILDS_EACH
            self._soon()
        elif (waiting := self._job(start)) is not None:
            self._drop(waiting)

    def waits(self, start: Start) -> bool:
        """Whether nobody has begun with it."""
        return self._job(start) is not None

    def moves(self, start: Start) -> bool:
        """Whether it waits, and one that it waits for has been built since this was asked last."""
        job = self._job(start)
        moved = job is not None and job.moved
        if job is not None:
            job.moved = False
        return moved

    def close(self) -> None:
        """Nobody is to be built any more."""
        while self._waiting:
            self._drop(self._waiting[-1])

    def _job(self, start: Start) -> _Job | None:
        return next((job for job in self._waiting if job.start is start), None)

    def _room(self, start: Start) -> bool:
        return len(self._building) < BUILDS and self._same.get(id(start.sandbox), 0) < BUILDS_EACH

    def _enter(self, start: Start) -> None:
        self._building.add(start)
        self._same[id(start.sandbox)] = self._same.get(id(start.sandbox), 0) + 1

    def _soon(self) -> None:
        if self._waiting and not self._called:
            self._later(0.0, self._next)
            self._called = True

    def _next(self) -> None:
        """As many as there is room for; who cannot be begun fails."""
        self._called = False
        for job in self._waiting[:]:
            if len(self._building) >= BUILDS:
                break
            if self._room(job.start):
                try:
                    self._send(job.packet, job.descriptors)
                    self._enter(job.start)
                except OSError as error:
                    job.slot.fail(SPAWNER, 0, error.errno or errno.EAGAIN)
                self._drop(job)

    def _drop(self, job: _Job) -> None:
        if job in self._waiting:
            self._waiting.remove(job)
        while job.descriptors:
            os.close(job.descriptors.pop())
