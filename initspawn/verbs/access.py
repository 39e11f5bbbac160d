"""Who may do what: one function, asked by every door for every action. Boot module.

Deny is the default: a caller that no rule below allows may do nothing, and is told nothing.
"""

from __future__ import annotations

import os
import time
from _collections import deque

from initspawn.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# What can be asked for.
SEE = "see"  # ping, info, the list of APIs
START = "start"
STOP = "stop"
INPUT = "input"  # to a task's standard input
OUTPUT = "output"  # a task's events: subscribe, unsubscribe
OTHERS = "others"  # any of these with a task that somebody else has started
RECORDS = "records"  # the records of all tasks
EXECUTE = "exec"  # commands that no file holds
CONFIGURE = "configure"  # the supervisor itself: no token can have it
ACTIONS = (SEE, START, STOP, INPUT, OUTPUT, OTHERS, RECORDS, EXECUTE)

EVERYTHING = "*"  # every action and privilege, but for EXECUTE: that has to be granted by its name
_APART = "#"  # `PRIVILEGE#ACTION` grants this action alone

_SESSIONS = 64  # log-ins of the page at once
SESSION_SECONDS = 12 * 3600.0


class Identity(Record):
    """Who a caller is, as far as we could verify it. `scopes` are what its token grants.

    `name` says who that is: the owner of what it starts. `key` tells tokens of the same name apart.
    """

    kind: str  # "local": a unix peer we trust by its user; "token"; "nobody"
    user: int = -1
    scopes: frozenset[str] = frozenset()
    name: str = ""
    key: str = ""


NOBODY = Identity(kind="nobody", name="nobody")


def allowed(identity: Identity, action: str, privilege: str | None, owner: str | None = None) -> bool:
    """Whether this caller may do this. `privilege` is the scope a command asks for, if it asks; `owner` whose
    task it is about, if it is about one.
    """
    if action not in (*ACTIONS, CONFIGURE):
        return False
    if identity.kind == "local" or action == CONFIGURE:
        return identity.kind == "local"
    if identity.kind != "token":
        return False
    if owner is not None and owner != identity.name and not _granted(identity.scopes, OTHERS, privilege):
        return False
    return _granted(identity.scopes, action, privilege)


def _granted(scopes: frozenset[str], action: str, privilege: str | None) -> bool:
    if action == EXECUTE and EXECUTE not in scopes:
        return False
    if EVERYTHING in scopes:
        return True
    if privilege is None:
        return action in scopes
    return (privilege in scopes and action != OTHERS) or privilege + _APART + action in scopes


class Token(Record):
    """A valid token, stored as its SHA-256."""

    name: str
    digest: str
    scopes: frozenset[str]
    expires: float | None = None  # seconds since the epoch; None: never

    def identity(self) -> Identity:
        """Who shows it."""
        return Identity(kind="token", scopes=self.scopes, name=f"token:{self.name}", key=self.digest)


class Tokens:
    """The tokens that are valid now, and what each grants. `fixed` ones last as long as we do."""

    def __init__(self, fixed: Iterable[Token] = (), clock: Callable[[], float] = time.time) -> None:
        self.on_change: list[Callable[[], None]] = []
        self._fixed = tuple(fixed)
        self._stored: tuple[Token, ...] = ()
        self._sessions: deque[tuple[str, Token]] = deque(maxlen=_SESSIONS)  # each with its token's digest
        self._clock = clock

    def identity(self, token: str | None) -> Identity:
        """Who shows this token; NOBODY if it is none of ours. Takes the same time for every token."""
        valid = self._valid()
        if token is None or not valid:
            return NOBODY
        shown = digest(token)
        from _operator import _compare_digest

        found = NOBODY
        for known in valid:
            if _compare_digest(shown, known.digest):
                found = known.identity()
        return found

    def current(self, identity: Identity) -> Identity:
        """Who that is now: NOBODY if the token has been revoked or is over."""
        if identity.kind != "token" or not identity.key:
            return identity
        return next((known.identity() for known in self._valid() if known.digest == identity.key), NOBODY)

    def store(self, tokens: Iterable[Token]) -> None:
        """From now on these are valid beside the fixed ones; who has shown another is nobody any more."""
        self._stored = tuple(tokens)
        self.changed()

    def changed(self) -> None:
        """What is valid is not what it was."""
        for tell in self.on_change:
            tell()

    def next_expiry(self) -> float | None:
        """Seconds until a token is over; None if none will be."""
        ends = [known.expires for known in self._valid() if known.expires is not None]
        return min(ends) - self._clock() if ends else None

    def log_in(self, token: str | None) -> str | None:
        """A new token of the same rights, which is over with its own time or with the one shown; None for
        one that is not valid, or is itself of this kind.
        """
        shown = digest(token or "")
        known = next((known for known in (*self._fixed, *self._stored) if known.digest == shown), None)
        if known is None or known not in self._valid():
            return None
        fresh = os.urandom(24).hex()
        until = self._clock() + SESSION_SECONDS
        if known.expires is not None:
            until = min(until, known.expires)
        self._sessions.append((shown, known.replace(digest=digest(fresh), expires=until)))
        self.changed()
        return fresh

    def log_out(self, token: str | None) -> None:
        """End such a token; another one stays."""
        shown = digest(token or "")
        for entry in list(self._sessions):
            if entry[1].digest == shown:
                self._sessions.remove(entry)
                self.changed()

    def _valid(self) -> list[Token]:
        now = self._clock()
        valid = [
            known for known in (*self._fixed, *self._stored) if known.expires is None or known.expires > now
        ]
        digests = {known.digest for known in valid}
        for parent, known in self._sessions:
            if parent in digests and known.expires is not None and known.expires > now:
                valid.append(known)
        return valid


def digest(token: str) -> str:
    """How a token is stored: it is long and random, so a plain hash is enough."""
    # The C implementation under its names before and since Python 3.12: hashlib would load OpenSSL.
    try:
        from _sha2 import sha256
    except ImportError:
        from _sha256 import sha256
    return str(sha256(token.encode("utf-8", "surrogatepass")).hexdigest())
