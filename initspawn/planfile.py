"""A plan as a file: written whole, read only where it can be trusted. Boot module."""

from __future__ import annotations

import gc
import marshal
import os
import stat

from initspawn import __version__
from initspawn.errors import PlanError
from initspawn.limits import PLAN_BYTES
from initspawn.plan import Plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from initspawn.record import Record

FORMAT = 2
LAST = ".last"  # after a plan's name: the one that it replaced
MAGIC = b"initspawn-plan\n"


def save(plan: Plan, path: str, *, keep: bool = False) -> None:
    """Write a plan for its owner only, whole or not at all. `keep`: what it replaces stays as `PATH.last`
    if it is another plan and can be loaded, and both outlast a loss of power. Raises OSError.
    """
    # Version 4 of marshal: every Python that we run on reads it, whichever wrote it.
    body = marshal.dumps(plan.to_brief(), 4)
    raw = MAGIC + fingerprint() + b"\n" + _checksum(body) + body
    if keep and (old := _good(path)) not in (b"", raw):
        _write(old, f"{path}{LAST}", lasting=True)
    _write(raw, path, lasting=keep)


def forget_last(path: str) -> None:
    """Remove what `save` has kept of a plan before this one, if it is a plan. Raises OSError."""
    if is_plan(f"{path}{LAST}"):
        os.unlink(f"{path}{LAST}")


def _good(path: str) -> bytes:
    """The bytes of a plan that can be loaded; nothing for any other file."""
    try:
        load(path)
        return _bytes(path)
    except (OSError, PlanError):
        return b""


def _write(raw: bytes, path: str, *, lasting: bool) -> None:
    """Write a file at once. `lasting`: it is on the disk before anything else happens. Raises OSError."""
    temporary = f"{path}.{os.getpid()}.new"
    try:
        os.unlink(temporary)
    except FileNotFoundError:
        pass
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        error.filename = path  # the name that the caller knows
        raise
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(raw)
            if lasting:
                file.flush()
                os.fsync(fd)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    if lasting:
        _sync(os.path.dirname(path) or ".")


def _sync(directory: str) -> None:
    """Its names are on the disk. Raises OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def load(path: str) -> Plan:
    """Read a plan that `save` wrote. Raises OSError, or PlanError if it is not to be trusted.

    Only a file that nobody but root and our own user can have written is unmarshalled: marshal is not
    made for hostile bytes, so owner, mode, directories, version and checksum come first.
    """
    raw = _bytes(path)
    if not raw.startswith(MAGIC):
        raise PlanError(f"{path}: not a plan")
    written, _, rest = raw[len(MAGIC) :].partition(b"\n")
    if written != fingerprint():
        writer = written[:60].decode("latin-1")
        raise PlanError(f"{path}: written by another initspawn ({writer!a}): compile it again")
    checksum, body = rest[:_CHECKSUM_SIZE], rest[_CHECKSUM_SIZE:]
    if checksum != _checksum(body):
        raise PlanError(f"{path}: damaged, its checksum does not match: compile it again")
    collects = gc.isenabled()
    gc.disable()  # nothing of a plan is garbage, and to look for some takes longer than the rest
    try:
        return Plan.from_plain(marshal.loads(body))
    except (TypeError, ValueError, EOFError, AttributeError, RecursionError, MemoryError) as error:
        raise PlanError(f"{path}: holds no plan: {error}") from error
    finally:
        if collects:
            gc.enable()


def is_plan(path: str) -> bool:
    """Whether a file begins as a plan does. Says nothing about whether it can be trusted."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError):
        return False
    try:
        return stat.S_ISREG(os.fstat(fd).st_mode) and os.read(fd, len(MAGIC)) == MAGIC
    finally:
        os.close(fd)


def fingerprint() -> bytes:
    """What a plan of this initspawn begins with: its version, and a sum over all records with defaults."""
    shapes = {
        kind.__name__: [(name, getattr(kind, name, None)) for name in kind._fields] for kind in _kinds(Plan)
    }
    return f"{FORMAT} {__version__} {_checksum(repr(shapes).encode()).hex()}".encode()


def _kinds(kind: type[Record]) -> list[type[Record]]:
    """A record and all that it holds."""
    return [kind, *(found for inner in kind._nested.values() for found in _kinds(inner))]


def source(path: str, name: str) -> tuple[str, int, int]:
    """A file as `Plan.sources` and `Plan.further` hold it, under the name that the target knows it by.

    Raises OSError; what is no plain file has no content.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        found = os.fstat(fd)
        content = _read(fd, found.st_size + 1) if stat.S_ISREG(found.st_mode) else b""
    finally:
        os.close(fd)
    return name, len(content), int.from_bytes(_checksum(content), "little")


def stale(plan: Plan) -> str | None:
    """A file that the plan was made of and that is another one by now; None: all are as they were.

    A file that is not there tells nothing: an image needs only the plan.
    """
    for name, *known in (*plan.sources, *plan.further):
        try:
            if os.stat(name).st_size == known[0] and source(name, name)[1:] == tuple(known):
                continue
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:  # there, but not to be read: nothing is known of it
            pass
        return name
    return None


def _bytes(path: str) -> bytes:
    """The bytes of a file that only root and we can have written."""
    directory, name = os.path.split(os.path.abspath(path))
    directory = os.path.realpath(directory)
    fd = os.open(os.path.join(directory, name), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise PlanError(f"{path}: no plain file")
        _trust(path, found, (0, os.geteuid()))
        _trust_directories(directory)
        raw = _read(fd, min(found.st_size, PLAN_BYTES) + 1)
    finally:
        os.close(fd)
    if len(raw) > PLAN_BYTES:
        raise PlanError(f"{path}: larger than {PLAN_BYTES >> 20} MiB")
    return raw


def _read(fd: int, most: int) -> bytes:
    """What is in a plain file, `most` bytes of it."""
    content = b""
    while len(content) < most and (piece := os.read(fd, most - len(content))):
        content += piece
    return content


def _trust_directories(directory: str) -> None:
    """Whoever may write a directory on the way may have put another file, or way, there."""
    # Who owns `/` is trusted: without a mapping for it, a user namespace shows root as another.
    owners = (0, os.geteuid(), os.stat("/").st_uid)
    _trust(directory, os.stat(directory), owners)
    while directory != "/":
        directory = os.path.dirname(directory)
        found = os.stat(directory)
        # Farther up a sticky bit is enough: what is ours there, others can neither remove nor rename.
        _trust(directory, found, owners, sticky=bool(found.st_mode & stat.S_ISVTX))


def _trust(path: str, found: os.stat_result, owners: tuple[int, ...], *, sticky: bool = False) -> None:
    if found.st_uid not in owners:
        raise PlanError(f"{path}: belongs to user {found.st_uid}, not to us or root")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky:
        mode = stat.S_IMODE(found.st_mode)
        raise PlanError(f"{path}: others may write it (mode {mode:o}): chmod go-w {path}")


_CHECKSUM_SIZE = 4


def _checksum(body: bytes) -> bytes:
    """CRC-32: finds damage. Trust comes from the file's owner and mode, not from this."""
    from binascii import crc32  # as of zlib, which a Python may be without

    return crc32(body).to_bytes(_CHECKSUM_SIZE, "little")
