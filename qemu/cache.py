"""What is slow to make is kept by its content, outside the repository."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

KEPT = 4  # of one kind
UNTOUCHED_SECONDS = 3600  # what was used within this time is kept in any case


def folder() -> Path:
    """`$XDG_CACHE_HOME/initspawn`, or `~/.cache/initspawn`; made if missing."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    place = Path(base) / "initspawn"
    place.mkdir(parents=True, exist_ok=True)
    return place


def key(*parts: str | bytes) -> str:
    """A short name for this content. Boundaries between parts count."""
    total = sha256()
    for part in parts:
        total.update(sha256(part.encode() if isinstance(part, str) else part).digest())
    return total.hexdigest()[:20]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait for the lock on this file and hold it."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def made(kind: str, name: str, make: Callable[[Path], None]) -> Path:
    """The directory KIND-NAME of the cache, filled by `make` if it is not there yet.

    Only one process makes one kind at a time, and nobody sees a directory that is not complete.
    """
    place = folder() / f"{kind}-{name}"
    with locked(folder() / f"{kind}.lock"):
        if not place.is_dir():
            partial = folder() / f"{kind}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            make(partial)
            partial.rename(place)
        os.utime(place)
        _prune(kind)
    return place


def _prune(kind: str) -> None:
    """Remove the oldest of a kind. A running guest keeps its files open, so they may go as well."""
    places = sorted(folder().glob(f"{kind}-*"), key=lambda place: place.stat().st_mtime, reverse=True)
    for place in places[KEPT:]:
        if time.time() - place.stat().st_mtime > UNTOUCHED_SECONDS:
            shutil.rmtree(place)
