"""The compiled form of a configuration: plain values, nothing left to parse. Boot module.

Made off-line or once at start by `config.compile`; read by everything that launches. Paths are
absolute, users and groups are numbers, capabilities a mask, seccomp filters ready BPF bytes, argument
templates lists of parts. Per call only the parts that name a request argument are filled.
"""

from __future__ import annotations

import marshal
import os
import stat

from initspawn.errors import PlanError
from initspawn.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar

FORMAT = 1
MAGIC = b"initspawn-plan\n"

# Parts of an argument template: (TEXT, literal), (REQUIRED, name), (OPTIONAL, name).
TEXT = "text"
REQUIRED = "required"
OPTIONAL = "optional"

# Namespaces a sandbox can have of its own, by the names of /proc/PID/ns.
NAMESPACES = ("user", "pid", "mnt", "ipc", "uts", "net", "cgroup")


class Mount(Record):
    """One operation that builds the sandbox's file tree, in configuration order.

    operation: bind, tmpfs, proc, dev, mqueue, dir, symlink, file, lock.
    target: absolute path inside. source: bind, the host path; symlink, the link's text.
    data: file, its content (mounted read-only over the target).
    """

    operation: str
    target: str
    source: str = ""
    read_only: bool = False
    data: bytes = b""


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
    """Everything a supervisor serves. `user` and `group` are who the plan was compiled for."""

    user: int
    group: int
    apis: tuple[Api, ...] = ()

    _nested: ClassVar[dict[str, type[Record]]] = {"apis": Api}

    @property
    def privileged(self) -> bool:
        """Whether it was compiled for a supervisor that runs as root."""
        return self.user == 0


def save(plan: Plan, path: str) -> None:
    """Write a plan for its owner only, whole or not at all. Raises OSError."""
    body = marshal.dumps((FORMAT, plan.to_plain()))
    temporary = f"{path}.{os.getpid()}.new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(MAGIC + _checksum(body) + body)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def load(path: str) -> Plan:
    """Read a plan that `save` wrote. Raises OSError, or PlanError if it is not to be trusted.

    Only a file of our own user that nobody else may write is unmarshalled: marshal is not made for
    hostile bytes, so owner, mode and checksum come first.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(file.fileno())
        if found.st_uid not in (0, os.geteuid()):
            raise PlanError(f"{path}: belongs to user {found.st_uid}, not to us or root")
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PlanError(f"{path}: others may write it (mode {stat.S_IMODE(found.st_mode):o})")
        raw = file.read()
    if not raw.startswith(MAGIC):
        raise PlanError(f"{path}: not a plan")
    sum_end = len(MAGIC) + _CHECKSUM_SIZE
    checksum, body = raw[len(MAGIC) : sum_end], raw[sum_end:]
    if checksum != _checksum(body):
        raise PlanError(f"{path}: damaged, its checksum does not match")
    try:
        version, plain = marshal.loads(body)
        if version != FORMAT:
            raise PlanError(f"{path}: format {version}, this initspawn reads {FORMAT}")
        return Plan.from_plain(plain)
    except (TypeError, ValueError, EOFError) as error:
        raise PlanError(f"{path}: written by another initspawn or Python: {error}") from error


_CHECKSUM_SIZE = 4


def _checksum(body: bytes) -> bytes:
    """CRC-32: finds damage. Trust comes from the file's owner and mode, not from this."""
    from zlib import crc32

    return crc32(body).to_bytes(_CHECKSUM_SIZE, "little")
