"""The loop: descriptors, timers, signals and children, one callback after the other. Boot module.

A callback may not block. One that raises is reported and the loop goes on, as it does when the loop itself
fails: nothing a task or a client does ends the supervisor. Only SystemExit does. One that has found no memory
or no descriptor is heard of in `room` alone, and is called again: a descriptor is still ready, a timer is set
anew unless it has seen to that itself, and news of a child, or a signal, are kept.
"""

from __future__ import annotations

import _signal
import errno
import heapq
import os
import select
import sys
import time

from initspawn.limits import EVENTS_PER_WAKE, OWN_BYTES
from initspawn.linux import process
from initspawn.linux.libc import missing
from initspawn.supervisor.room import Room

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
_PRUNE_AT = 64  # timers
_PAUSE = 0.01  # seconds after a failure of the loop's own, or for want of room: the next may be the same
_LOOK_AGAIN_SECONDS = 0.1


class Timer:
    """A callback to come. `cancel` may be called at any time, also when it has run."""

    __slots__ = ("callback", "when")

    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """It will not run."""
        self.callback = None

    def __lt__(self, other: Timer) -> bool:
        return self.when < other.when


class Reactor:
    """One per process. `clock` gives seconds that only grow (CLOCK_MONOTONIC)."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.on_child: Callable[[int, int, Any], None] = lambda pid, status, usage: None
        self._epoll = select.epoll(select.EPOLL_CLOEXEC)
        self._callbacks: dict[int, Callable[[int], object]] = {}
        self._silent: dict[int, int] = {}  # and what they are to wait for as soon as there is room
        self._timers: list[Timer] = []
        self._prune_at = _PRUNE_AT
        self._signals: dict[int, Callable[[], None]] = {}
        self._signal_fd = -1
        self._running = False
        self._overlooked = False  # there may be news of children that nobody has taken in
        self._unheard: list[tuple[int, int, Any]] = []  # that have been, and found no room
        self.room = Room(clock, self.after)

    def watch(self, fd: int, events: int, callback: Callable[[int], object]) -> None:
        """Call back with the ready events of a descriptor, until `forget`. Raises OSError."""
        self._epoll.register(fd, events)
        self._callbacks[fd] = callback

    def change(self, fd: int, events: int) -> None:
        """Wait for other events of a watched descriptor; 0: for nothing, not even for its end."""
        if fd in self._silent:
            self._silent[fd] = events
            if events:
                self._wake()
        elif events:
            self._epoll.modify(fd, events)
        else:  # epoll would go on to report the end, again and again
            self._silent[fd] = 0
            self._epoll.unregister(fd)

    def _wake(self) -> None:
        """Wait for silent ones that are wanted again, now or when the kernel has room for that: it needs
        memory and a watch (fs.epoll.max_user_watches).
        """
        for fd, events in [*self._silent.items()]:
            if events:
                try:
                    self._epoll.register(fd, events)
                except OSError as error:
                    if error.errno in (errno.ENOMEM, errno.ENOSPC):
                        if not self._comes(self._wake):
                            self.after(_LOOK_AGAIN_SECONDS, self._wake)
                        return
                    self._silent[fd] = 0
                    raise
                del self._silent[fd]

    def forget(self, fd: int) -> None:
        """No more callbacks for this descriptor; to be called before it is closed."""
        if self._callbacks.pop(fd, None) is not None:
            if fd in self._silent:
                del self._silent[fd]
            else:
                self._epoll.unregister(fd)

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call back once, not before so many seconds have passed."""
        if len(self._timers) > self._prune_at:  # cancelled ones would stay until they are due
            self._timers = [timer for timer in self._timers if timer.callback is not None]
            heapq.heapify(self._timers)
            self._prune_at = max(_PRUNE_AT, 2 * len(self._timers))
        timer = Timer(self.clock() + seconds, callback)
        heapq.heappush(self._timers, timer)
        return timer

    def signals(self, handlers: dict[int, Callable[[], None]]) -> None:
        """Block these signals and SIGCHLD, and call back for each from the loop. To be called once,
        before any child is made: children then know what to unblock.
        """
        self._signals = handlers
        numbers = (*handlers, _signal.SIGCHLD)
        _signal.pthread_sigmask(_signal.SIG_BLOCK, numbers)
        self._signal_fd = process.signalfd(numbers)
        self.watch(self._signal_fd, READ, lambda _: self._on_signal())

    def run(self) -> None:
        """Serve until `stop`."""
        self._running = True
        while self._running:
            try:
                while self._running:
                    self.turn(None)
            except SystemExit:
                raise
            except BaseException as error:
                if not self._starved(error):
                    sys.excepthook(*sys.exc_info())
                    time.sleep(_PAUSE)

    def turn(self, longest: float | None = 0.0) -> None:
        """One wake-up: what is ready now, or the first that comes within `longest` seconds."""
        if self._overlooked:
            self._overlooked = False
            self.reap()
        try:
            ready = self._epoll.poll(self._patience(longest), EVENTS_PER_WAKE)
        except InterruptedError:
            return
        self.room.fits(OWN_BYTES)  # if not, what is held is let go for these callbacks
        # An earlier callback may have forgotten it, and the number may be another's by then.
        meant = [(fd, events, self._callbacks.get(fd)) for fd, events in ready]
        for fd, events, callback in meant:
            if callback is not None and self._callbacks.get(fd) is callback:
                self._guard(callback, events)
        now = self.clock()
        while self._timers and self._timers[0].when <= now:
            timer = heapq.heappop(self._timers)
            due = timer.callback
            if due is not None and self._guard(due) and not self._comes(due):
                timer.when = self.clock() + _PAUSE
                heapq.heappush(self._timers, timer)

    def stop(self) -> None:
        """Let `run` return after this wake-up."""
        self._running = False

    def reap(self) -> None:
        """Take in all news of children that wait; SIGCHLD says that there may be some."""
        self._hear_again()
        for _ in range(EVENTS_PER_WAKE):
            found = process.wait_any()
            if found is None:
                return
            self._hear(found)
        self.after(0, self.reap)  # the rest at the next wake-up: others wait too

    def _hear_again(self) -> None:
        """Tell what was kept, until one finds no room still: the others are first, the next time."""
        while self._unheard:
            first = self._unheard[0][0]
            if self._guard(self.on_child, *self._unheard[0]):
                self._unheard.sort(key=lambda news: news[0] == first)
                self._overlooked = True
                return
            del self._unheard[0]

    def _hear(self, news: tuple[int, int, Any]) -> None:
        """Tell news of a child; one that is kept waits for those before it of the same number."""
        kept = any(pid == news[0] for pid, *_ in self._unheard)
        if kept or self._guard(self.on_child, *news):
            self._unheard.append(news)
            self._overlooked = True

    def _comes(self, callback: Callable[[], None]) -> bool:
        """Whether a timer with this callback runs."""
        return any(timer.callback == callback for timer in self._timers)

    def close(self) -> None:
        """Give the loop's own descriptors back."""
        if self._signal_fd >= 0:
            self.forget(self._signal_fd)
            os.close(self._signal_fd)
            self._signal_fd = -1
        self._epoll.close()
        self.room.close()

    def _patience(self, longest: float | None) -> float | None:
        while self._timers and self._timers[0].callback is None:
            heapq.heappop(self._timers)
        if self._overlooked:  # at the next turn
            return 0.0
        if not self._timers:
            return longest
        # epoll counts milliseconds and must not wake before the time is there.
        until = max(0.0, self._timers[0].when - self.clock()) + 0.001
        return until if longest is None else min(until, longest)

    def _on_signal(self) -> None:
        numbers = process.read_signals(self._signal_fd)
        if _signal.SIGCHLD in numbers:
            self.reap()
        for number in numbers:
            if number in self._signals and self._guard(self._signals[number]):
                self.after(_PAUSE, self._signals[number])

    def _guard(self, callback: Callable[..., object], *arguments: Any) -> bool:
        """Call it. True when it is to be called again: it has found no room."""
        try:
            callback(*arguments)
        except SystemExit:
            raise
        except BaseException as error:
            if self._starved(error):
                return True
            sys.excepthook(*sys.exc_info())
            if self._signal_fd >= 0:  # a SIGCHLD that was read may not have been followed
                self.after(_LOOK_AGAIN_SECONDS, self.reap)
        return False

    def _starved(self, error: BaseException) -> bool:
        """Whether it has failed for want of room, which will be there, or asked for again, in a moment."""
        number = missing(error)
        if not number:
            return False
        self._overlooked = self._signal_fd >= 0  # a SIGCHLD that was read may not have been followed
        said = self.room.said
        self.room.spend(number)
        if said != self.room.said:  # where, once: not at every turn
            sys.excepthook(type(error), error, error.__traceback__)
        time.sleep(_PAUSE)
        return True
