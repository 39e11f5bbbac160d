"""The compiled form of a configuration: plain values, nothing left to parse. Boot module.

Made off-line or once at start by `config.compile`; read by everything that launches. Paths are
absolute, users and groups are numbers, capabilities a mask, seccomp filters ready BPF bytes, argument
templates lists of parts. Per call only the parts that name a request argument are filled.
"""

from __future__ import annotations

import gc
import marshal
import os
import stat

from initspawn import __version__
from initspawn.errors import PlanError
from initspawn.limits import PLAN_BYTES
from initspawn.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar

FORMAT = 2
MAGIC = b"initspawn-plan\n"

# Parts of an argument template: (TEXT, literal), (REQUIRED, name), (OPTIONAL, name).
TEXT = "text"
REQUIRED = "required"
OPTIONAL = "optional"

# The encoder of a command whose output goes through a plug-in; its options are `host` (the uid of its host
# in `Plan.hosts`), `name` (what messages call it) and `options`.
PLUGIN = "plugin"

# Namespaces a sandbox can have of its own, by the names of /proc/PID/ns.
NAMESPACES = ("user", "pid", "mnt", "ipc", "uts", "net", "cgroup")


class Mount(Record):
    """One operation that builds the sandbox's file tree, in configuration order.

    operation: bind, tmpfs, proc, dev, mqueue, dir, symlink, file, lock.
    target: absolute path inside. source: bind, the host path; symlink, the link's text.
    data: file, its content (mounted read-only over the target).
    late: what a start has left to do, empty for nothing. `line`: run `source` with a shell, its output is
    the content; `find`: look for the bind's source; `create`: and make it if it is missing.
    """

    operation: str
    target: str
    source: str = ""
    read_only: bool = False
    data: bytes = b""
    late: str = ""


class IdMap(Record):
    """The single identity of a private user namespace (user_namespaces(7)): inside, outside."""

    inside_uid: int
    outside_uid: int
    inside_gid: int
    outside_gid: int
    # True: made before all other namespaces, which it then owns (an ordinary user has no other way).
    # False: made last, by a privileged supervisor, after the command's user was taken on.
    first: bool


class Sandbox(Record):
    """A confinement recipe, complete: what is not listed here the command does not get."""

    uid: str
    info: str | None = None
    privilege: str | None = None
    verbose: int = 0
    prefix: str = ""  # what comes before a command's name in its verb
    timeout: float = 0.0  # seconds, for commands that say nothing; 0: none
    environment: tuple[tuple[str, str], ...] = ()
    user: int  # outside user and group number the command runs with
    group: int
    groups: tuple[int, ...] | None = ()  # None: kept, an ordinary user may not change them
    umask: int = 0o022
    directory: str = "/"
    capabilities: int = 0  # exactly what the command holds: a mask of 1 << CAP_*
    if_held: int = 0  # those of them that a late plan gives only where the supervisor has them (`ALL`)
    no_new_privileges: bool = True
    namespaces: tuple[str, ...] = ()
    id_map: IdMap | None = None  # set exactly when "user" is in namespaces
    hostname: str | None = None
    new_root: bool = False  # True: an empty root that `mounts` fills; False: the host's tree
    mounts: tuple[Mount, ...] = ()
    filters: tuple[bytes, ...] = ()  # seccomp BPF, in the order they are loaded
    limits: tuple[tuple[int, int, int], ...] = ()  # (RLIMIT_*, soft, hard); -1: no limit

    _nested: ClassVar[dict[str, type[Record]]] = {"id_map": IdMap, "mounts": Mount}


class Command(Record):
    """A configured thing that can run: an executable and its argument template in a sandbox."""

    uid: str
    verb: str  # the verb's full name, prefix included
    sandbox: str  # uid of its sandbox, in the same Api
    path: str
    arguments: tuple[tuple[tuple[str, str], ...], ...] = ()  # templates, without argv[0]
    info: str | None = None
    privilege: str | None = None  # its own, else the sandbox's
    timeout: float = 0.0  # seconds; 0: none
    once: bool = False
    verbose: int = 0  # how much a task tells of itself, where its request says nothing
    dash: bool = False  # a request's value may begin its item with `-`
    encoder: str = "text"
    encoder_options: dict[str, Any] = {}  # noqa: RUF012  # records never change their defaults
    usage: Any = None
    sample: Any = None


class Action(Record):
    """A call that the configuration itself makes, with its query; for `extra`, another name of a verb.

    uid: a name; of `events`, which events it waits for (`event.named_by`); of `extra`, the verb.
    """

    uid: str
    api: str
    verb: str
    query: Any = None
    privilege: str | None = None


class Api(Record):
    """One configuration file: an API with its sandboxes and commands, and what it calls itself."""

    uid: str
    api: str
    info: str | None = None
    version: str | None = None
    author: str | None = None
    page: str | None = None  # the directory of its own HTML page
    hidden: bool = False  # the supervisor's own: no door shows or calls it
    sandboxes: tuple[Sandbox, ...] = ()
    commands: tuple[Command, ...] = ()
    onload: tuple[Action, ...] = ()
    events: tuple[Action, ...] = ()
    extra: tuple[Action, ...] = ()

    _nested: ClassVar[dict[str, type[Record]]] = {
        "sandboxes": Sandbox, "commands": Command, "onload": Action, "events": Action, "extra": Action,
    }  # fmt: skip

    def sandbox(self, uid: str) -> Sandbox:
        """The sandbox of that uid. Raises KeyError."""
        for sandbox in self.sandboxes:
            if sandbox.uid == uid:
                return sandbox
        raise KeyError(uid)


class Plan(Record):
    """Everything a supervisor serves. `user` and `group` are who the plan was compiled for.

    machine: the processor it is for, as uname(2) calls it; empty: the one it was made on.
    late: it was made ahead, and `late.settle` has to fill in what only the running machine knows.
    sources: the files it was made of, each with its size and CRC-32.
    """

    user: int
    group: int
    apis: tuple[Api, ...] = ()
    machine: str = ""
    late: bool = False
    sources: tuple[tuple[str, int, int], ...] = ()
    hosts: Api | None = None  # what runs the encoder plug-ins: no door shows or calls it

    _nested: ClassVar[dict[str, type[Record]]] = {"apis": Api, "hosts": Api}

    def sandboxes(self) -> list[Sandbox]:
        """All there are, those of encoder plug-ins included."""
        apis = (*self.apis, self.hosts) if self.hosts else self.apis
        return [sandbox for api in apis for sandbox in api.sandboxes]

    @property
    def privileged(self) -> bool:
        """Whether it was compiled for a supervisor that runs as root."""
        return self.user == 0


def save(plan: Plan, path: str) -> None:
    """Write a plan for its owner only, whole or not at all. Raises OSError."""
    # Version 4 of marshal: every Python that we run on reads it, whichever wrote it.
    body = marshal.dumps(plan.to_brief(), 4)
    temporary = f"{path}.{os.getpid()}.new"
    try:
        os.unlink(temporary)
    except FileNotFoundError:
        pass
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(MAGIC + fingerprint() + b"\n" + _checksum(body) + body)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


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
        raise PlanError(f"{path}: written by another initspawn ({written[:60].decode('latin-1')!a})")
    checksum, body = rest[:_CHECKSUM_SIZE], rest[_CHECKSUM_SIZE:]
    if checksum != _checksum(body):
        raise PlanError(f"{path}: damaged, its checksum does not match")
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
    """A configuration file as `Plan.sources` holds it, under the name that the target knows it by.

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
    for name, *known in plan.sources:
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
    from zlib import crc32

    return crc32(body).to_bytes(_CHECKSUM_SIZE, "little")
