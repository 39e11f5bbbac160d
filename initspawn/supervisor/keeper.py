"""A command of the supervisor's own that shall always run: restarted with growing pauses. Boot module."""

from __future__ import annotations

from initspawn.errors import RequestError
from initspawn.say import say
from initspawn.supervisor.eventlog import Reader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from initspawn.plan import Api, Command
    from initspawn.supervisor.core import Supervisor
    from initspawn.supervisor.running import Task

FIRST_PAUSE = 0.1  # seconds; doubled by each failure
LONGEST_PAUSE = 10.0
RAN_WELL = 10.0  # seconds after which the next pause is the first again
_LINES = 32  # that it may say at once
_REST = 0.1  # seconds until the next: our own stderr may be a slow console, and it may have been taken over


class Keeper:
    """Keeps one command alive. What it writes goes to our own stderr, line by line, as plain text. `before`
    is called before each start.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        api: Api,
        command: Command,
        descriptors: tuple[int, ...],
        before: Callable[[], None] = lambda: None,
    ) -> None:
        self._supervisor = supervisor
        self._api = api
        self._command = command
        self._descriptors = descriptors
        self._before = before
        self._pause = FIRST_PAUSE
        self._wanted = False
        self._alive = False
        self.task: Task | None = None
        self.starts = 0

    @property
    def serving(self) -> bool:
        """Whether it runs, or is on its way to it, and shall go on."""
        return self._alive and self._wanted

    def start(self) -> None:
        """Start it, now and whenever it ends, until `stop` or the supervisor closes."""
        if not self._wanted:
            self._wanted = True
            self._pause = FIRST_PAUSE
            self._run()

    def stop(self) -> None:
        """End it, until the next `start`."""
        self._wanted = False
        if self._alive and self.task is not None:
            self._supervisor.stop(self.task)

    def _run(self) -> None:
        if self._supervisor.closing or self._alive or not self._wanted:
            return
        self._before()
        argv = (self._command.path, *("".join(text for _, text in item) for item in self._command.arguments))
        self._alive = True
        try:
            self.task = self._supervisor.start(
                self._api, self._command, argv,
                on_start=self._on_start, on_end=self._on_end, descriptors=self._descriptors,
            )  # fmt: skip
            self.starts += 1
        except (RequestError, OSError) as error:
            self._alive = False
            self._say(str(error))
            self._again()

    def _on_start(self, task: Task) -> None:
        if task.refusal is not None:
            self._say(task.refusal.info)
            return
        _Voice(self._supervisor, task, self._say)

    def _on_end(self, task: Task) -> None:
        self._alive = False
        if self._supervisor.closing or not self._wanted:
            return
        if task.refusal is None:
            ending = ", ".join(f"{name} {value}" for name, value in (task.status or {}).items())
            self._say(f"ended ({ending}), it is started again")
        if task.ended - task.began > RAN_WELL:
            self._pause = FIRST_PAUSE
        self._again()

    def _again(self) -> None:
        self._supervisor.reactor.after(self._pause, self._run)
        self._pause = min(self._pause * 2, LONGEST_PAUSE)

    def _say(self, line: str) -> None:
        shown = "".join(letter if letter.isprintable() else "?" for letter in line)
        say(f"{self._command.uid}: {shown}")


class _Voice:
    """What one task writes, passed on line by line, a few at a time; it waits meanwhile."""

    def __init__(self, supervisor: Supervisor, task: Task, say: Callable[[str], None]) -> None:
        self._supervisor = supervisor
        self._reader = Reader(task.log, self._hear)
        self._say = say
        self._left = _LINES

    def _hear(self) -> None:
        while self._left and (event := self._reader.take()) is not None:
            for stream in ("stdout", "stderr"):
                if stream in event.data:
                    self._say(event.data[stream])
            self._left -= 1
            if not self._left and self._supervisor.closing:  # no end waits for what is left
                self._reader.close()
            elif not self._left:
                self._supervisor.reactor.after(_REST, self._rested)

    def _rested(self) -> None:
        self._left = _LINES
        self._hear()
