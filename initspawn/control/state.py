"""What outlives a supervisor if its state directory does: the token file and the audit log."""

from __future__ import annotations

import errno
import os

from initspawn.control.audit import Audit
from initspawn.control.tokens import NAME, TokenFileError, read
from initspawn.limits import CALM_SECONDS
from initspawn.linux import inotify
from initspawn.linux.libc import missing
from initspawn.say import say
from initspawn.supervisor.reactor import READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from initspawn.supervisor.reactor import Reactor, Timer
    from initspawn.verbs.access import Tokens

AUDIT = "audit.jsonl"
_LOOK_SECONDS = 10.0  # the time of day may be set, and goes on while the machine sleeps and timers do not


class State:
    """Keeps `tokens` as the file in `directory` says, and writes the audit log there, or into `audit`. Raises
    OSError.
    """

    def __init__(
        self, directory: str, reactor: Reactor, tokens: Tokens, audit: Audit | None = None
    ) -> None:
        self._directory = directory
        self._reactor = reactor
        self._tokens = tokens
        self._timer: Timer | None = None
        self._again: Timer | None = None
        self._watch = inotify.watch(directory)  # before the first reading: no change is missed
        try:
            self.audit = audit or Audit(os.path.join(directory, AUDIT))
        except OSError:
            os.close(self._watch)
            raise
        reactor.watch(self._watch, READ, lambda _: self._changed())
        tokens.on_change.append(self._wait_for_expiry)
        self._read()

    def close(self, *, remove: bool, audit: bool = True) -> None:
        """Close everything, the audit log if not told otherwise; with `remove` the files go too."""
        self._reactor.forget(self._watch)
        os.close(self._watch)
        self._tokens.on_change.remove(self._wait_for_expiry)
        for timer in (self._timer, self._again):
            if timer is not None:
                timer.cancel()
        if audit:
            self.audit.close()
        for name in (NAME, f"{NAME}.lock", AUDIT, f"{AUDIT}.1") if remove else ():
            try:
                os.unlink(os.path.join(self._directory, name))
            except FileNotFoundError:
                pass

    def _changed(self) -> None:
        if inotify.changed(self._watch) & {NAME.encode(), b""}:
            self._read()

    def _read(self) -> None:
        """Take the file's tokens; of one that is damaged none."""
        number, reason, found = 0, "", []
        try:
            found = read(os.path.join(self._directory, NAME))
        except (TokenFileError, OSError, MemoryError) as error:
            number, reason = missing(error), str(error) or "no memory"
        if number and self._reactor.room.spend(number):
            self._read()
            return
        try:
            self._tokens.store(found)
        except MemoryError:  # not everybody has been told
            number = errno.ENOMEM
            raise
        finally:  # nobody else reads the file again
            if number and self._again is None:  # there may be room later
                self._again = self._reactor.after(CALM_SECONDS, self._read_again)
        if reason:
            say(f"no token of the file is valid: {reason}")

    def _read_again(self) -> None:
        self._again = None
        self._read()

    def _wait_for_expiry(self) -> None:
        """Tell the doors when the next token is over."""
        if self._timer is not None:
            self._timer.cancel()
        seconds = self._tokens.next_expiry()
        if seconds is not None:
            seconds = min(max(seconds, 0.0) + 0.01, _LOOK_SECONDS)
            self._timer = self._reactor.after(seconds, self._tokens.changed)
