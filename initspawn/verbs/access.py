"""Who may do what: one function, asked by every door for every action. Boot module; pure.

Deny is the default: a caller that no rule below allows may do nothing, and is told nothing.
"""

from __future__ import annotations

from initspawn.record import Record

# What can be asked for.
SEE = "see"  # ping, info, the list of APIs
START = "start"
STOP = "stop"
OUTPUT = "output"  # a task's events: subscribe, unsubscribe
RECORDS = "records"  # the records of all tasks
EXECUTE = "exec"  # commands that no file holds
ACTIONS = (SEE, START, STOP, OUTPUT, RECORDS, EXECUTE)

EVERYTHING = "*"  # every action and privilege, but for EXECUTE: that has to be granted by its name


class Identity(Record):
    """Who a caller is, as far as we could verify it. `scopes` are what its token grants."""

    kind: str  # "local": a unix peer we trust by its user; "token"; "nobody"
    user: int = -1
    scopes: frozenset[str] = frozenset()


NOBODY = Identity(kind="nobody")


def allowed(identity: Identity, action: str, privilege: str | None) -> bool:
    """Whether this caller may do this. `privilege` is the scope a command asks for, if it asks."""
    if action not in ACTIONS:
        return False
    if identity.kind == "local":
        return True
    if identity.kind != "token":
        return False
    if action == EXECUTE and EXECUTE not in identity.scopes:
        return False
    if EVERYTHING in identity.scopes:
        return True
    return privilege in identity.scopes if privilege is not None else action in identity.scopes


class Tokens:
    """The tokens that are valid, stored as their SHA-256, and what each grants."""

    def __init__(self, hashes: dict[str, frozenset[str]]) -> None:
        self._hashes = hashes

    def identity(self, token: str | None) -> Identity:
        """Who shows this token; NOBODY if it is none of ours. Takes the same time for every token."""
        if token is None or not self._hashes:
            return NOBODY
        shown = digest(token)
        from _operator import _compare_digest

        found = NOBODY
        for known, scopes in self._hashes.items():
            if _compare_digest(shown, known):
                found = Identity(kind="token", scopes=scopes)
        return found


def digest(token: str) -> str:
    """How a token is stored: it is long and random, so a plain hash is enough."""
    # The C implementation under its names before and since Python 3.12: hashlib would load OpenSSL.
    try:
        from _sha2 import sha256
    except ImportError:
        from _sha256 import sha256
    return str(sha256(token.encode("utf-8", "surrogatepass")).hexdigest())
