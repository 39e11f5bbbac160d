"""The configuration file as types: every key there is, its type and its bounds.

`check` reads these types; nothing else decides what a file may say, but for the keys that are not built
yet, in `later`. Limits, scheduling and Landlock rules are in `bounds_schema`, cgroups in `cgroups_schema`,
what starts by itself in `autostart_schema`, who may talk before that in `guard_schema`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, field

from initspawn.config.autostart_schema import Autostart
from initspawn.config.bounds_schema import Landlock, Limits, Scheduling
from initspawn.config.cgroups_schema import Cgroups
from initspawn.config.guard_schema import Guard
from initspawn.config.part import Natural, Part
from initspawn.encoders.table import MAXDEPTH, MAXLINE, RAW_BYTES
from initspawn.limits import TASKS, TERMINAL_SIZE

_TEN_YEARS = 315_360_000

Seconds = Annotated[int, Meta(ge=0, le=_TEN_YEARS)]
Verbosity = Annotated[int, Meta(ge=0, le=9)]
Id = Annotated[int, Meta(ge=0, le=0xFFFFFFFE)]  # (uid_t)-1 means "leave as it is" to the kernel
Size = Annotated[int, Meta(ge=1, le=TERMINAL_SIZE)]
Uid = Annotated[str, Meta(min_length=1, max_length=64)]
Word = Literal["default", "enable", "disable"]
MountMode = Literal[
    "ro", "read", "rw", "write", "symlink", "anonymous", "dir", "tmpfs", "procfs", "devfs", "dev",
    "mqueue", "lock", "execfd", "overlay",
]  # fmt: skip


class Metadata(Part):
    """What the API is called and says about itself."""

    noun = "metadata"

    uid: str
    api: Annotated[str, Meta(min_length=1, max_length=255)]
    version: str | None = None
    info: str | None = None
    author: str | None = None
    date: str | None = None
    require: list[str] = []
    page: Annotated[str, Meta(min_length=1)] | None = None


class Env(Part):
    """One environment variable, set or taken away."""

    aliases = {"key": "name"}
    noun = "environment entry"
    form = "write {name: NAME, value: TEXT}"

    name: Annotated[str, Meta(min_length=1)]
    value: str = ""
    mode: Literal["set", "unset"] = "set"


class Label(Part):
    """A security label that need not be there."""

    noun = "label"
    form = "write {name: TEXT, optional: true}"

    name: Annotated[str, Meta(min_length=1, max_length=4095)]
    optional: bool = False


class Acls(Part):
    """Who the commands run as, where, and for how long."""

    noun = "acls"
    form = "write {user: NAME}"

    user: str | Id | None = None
    group: str | Id | None = None
    groups: list[str | Id] = []
    umask: str | None = None
    chdir: str | None = None
    timeout: Seconds | None = None
    runmod: Literal["default", "user", "admin"] = "default"
    path: str | None = None
    ldpath: str | None = None
    label: str | Label | None = None


class Cap(Part):
    """One capability, given or taken away."""

    noun = "capability entry"
    form = "write {cap: NAME, mode: set}"

    cap: str
    mode: Literal["set", "unset"]


class Comparison(Part):
    """One condition on an argument of a system call."""

    noun = "comparison"
    form = "write {index: 0, op: ==, value: 1}"

    index: Annotated[int, Meta(ge=0, le=5)]
    op: str
    value: Natural
    mask: Natural | None = None


class SeccompRule(Part):
    """What one system call does instead of the default, always or with certain arguments."""

    noun = "rule"
    form = "write {syscall: NAME, action: SCMP_ACT_KILL}"

    syscall: list[str]
    action: str
    errno: str | int | None = None
    args: list[Comparison] = []


class Seccomp(Part):
    """The system call filter."""

    noun = "seccomp"
    form = "write a profile's name, or {profile: default}"

    profile: list[str] = []
    default: str | None = None
    rules: list[SeccompRule] | None = None
    handler: Annotated[str, Meta(min_length=1)] | None = None
    rulespath: Annotated[str, Meta(min_length=1)] | None = None
    foreign: Literal["refuse", "allow"] = "refuse"
    locked: bool = False


class NamespaceOpts(Part):
    """How the namespaces are made."""

    aliases = {"brwap": "bwrap"}
    noun = "opts"

    autocreate: bool = False
    bwrap: Annotated[str, Meta(min_length=1)] | None = None
    hostname: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    writable_root: bool = False
    selinux: bool = False


class Shares(Part):
    """Which of the supervisor's namespaces the commands share."""

    aliases = {"user": "users", "cgroup": "cgroups"}
    noun = "shares"

    all: Word = "default"
    users: Word = "default"
    cgroups: Word = "default"
    net: Word = "default"
    ipc: Word = "default"
    pid: Word = "default"
    uts: Word = "default"


class MountEntry(Part):
    """One thing in the sandbox's file tree."""

    noun = "mount"

    target: Annotated[str, Meta(min_length=1)]
    source: Annotated[str, Meta(min_length=1)] | None = None
    mode: MountMode | None = None


class Root(Part):
    """What the sandbox's root directory is made of."""

    noun = "root"
    form = "write {directory: /PATH} or {image: /FILE}"

    directory: Annotated[str, Meta(min_length=1)] | None = None
    image: Annotated[str, Meta(min_length=1)] | None = None
    overlay: bool = False


class Namespace(Part):
    """The sandbox's own view of the machine."""

    noun = "namespace"

    opts: NamespaceOpts = field(default_factory=NamespaceOpts)
    shares: Shares = field(default_factory=Shares)
    root: Root | None = None
    mounts: list[MountEntry] | None = None


class Exec(Part):
    """The program and its arguments."""

    noun = "exec"
    form = "write {cmdpath: /PATH, args: [TEXT]}"

    cmdpath: Annotated[str, Meta(min_length=1)]
    args: Any = None


class EncoderOpts(Part):
    """What an encoder keeps, and where. Which encoder has which, and how far, is in `encoders.table`."""

    noun = "encoder options"
    code = "INVALID_OPTIONS"

    maxlen: Annotated[int, Meta(ge=RAW_BYTES[0], le=RAW_BYTES[-1])] | None = None
    maxline: Annotated[int, Meta(ge=MAXLINE[0], le=MAXLINE[-1])] | None = None
    maxdepth: Annotated[int, Meta(ge=MAXDEPTH[0], le=MAXDEPTH[-1])] | None = None
    base64: bool | None = None
    stdout: Annotated[str, Meta(min_length=1)] | None = None
    stderr: Annotated[str, Meta(min_length=1)] | None = None


class Encoder(Part):
    """How output becomes events."""

    noun = "encoder"
    code = "INVALID_SPECIFIER"

    output: str
    plugin: str | None = None
    opts: Any = field(default_factory=dict)  # of a plug-in, whatever it takes; else EncoderOpts


class Queue(Part):
    """Starts that wait for their turn."""

    noun = "queue"
    form = "write {length: N}"

    length: Annotated[int, Meta(ge=1, le=TASKS)]
    full: Literal["refuse", "oldest-out"] = "refuse"


class Terminal(Part):
    """A pseudo-terminal's size to begin with."""

    noun = "terminal"
    form = "write true, or {rows: 24, columns: 80}"

    rows: Size = 24
    columns: Size = 80


class Command(Part):
    """A configured thing that can run."""

    aliases = {"once": "single", "samples": "sample"}
    noun = "command"
    form = "write {uid: NAME, exec: {cmdpath: /PATH}}"

    uid: Uid
    exec: Exec
    info: str | None = None
    timeout: Seconds | None = None
    stdin: bool = False
    terminal: bool | Terminal = False
    single: bool = False
    max: Annotated[int, Meta(ge=1, le=TASKS)] | None = None
    queue: Queue | None = None
    warm: Annotated[int, Meta(ge=0, le=64)] | None = None
    verbose: Verbosity | None = None
    dash: Literal["allow", "refuse"] = "refuse"
    kill_on_disconnect: bool = False
    slow_clients: Literal["pause", "drop"] = "pause"
    encoder: str | Encoder | None = None
    usage: Any = None
    sample: Any = None
    privilege: Annotated[str, Meta(min_length=1)] | None = None
    autostart: Autostart | None = None


class Sandbox(Part):
    """A confinement recipe and the commands that run in it."""

    aliases = {"acl": "acls"}
    noun = "sandbox"

    uid: Uid
    info: str | None = None
    prefix: str | None = None
    verbose: Verbosity = 0
    privilege: Annotated[str, Meta(min_length=1)] | None = None
    allow_setuid: bool = False
    envs_from: Literal["clean", "server"] = "clean"
    envs: list[Env] = []
    acls: Acls = field(default_factory=Acls)
    caps: list[Cap] = []
    cgroups: Cgroups | None = None
    seccomp: str | Seccomp | None = None
    namespace: Namespace | None = None
    limits: Limits = field(default_factory=Limits)
    scheduling: Scheduling | None = None
    landlock: Landlock | None = None
    commands: list[Command] = []


class Action(Part):
    """A call that the file itself wants made."""

    aliases = {"privilege": "privileges"}
    noun = "action"
    form = "write {uid: NAME, action: api://API#VERB}"

    uid: Annotated[str, Meta(min_length=1)]
    action: str
    info: str | None = None
    args: Any = None
    privileges: Annotated[str, Meta(min_length=1)] | None = None


class Plugin(Part):
    """Where encoders come from that are not built in."""

    noun = "plug-in"
    form = "write {uid: NAME, libs: /PATH.py}"

    uid: Uid
    info: str | None = None
    spath: str | None = None
    libs: list[Annotated[str, Meta(min_length=1)]] = []


class Config(Part):
    """One file: one API."""

    aliases = {"sandbox": "sandboxes"}
    noun = "configuration"

    metadata: Metadata
    plugins: list[Plugin] = []
    sandboxes: list[Sandbox] = []
    guard: Guard | None = None
    onload: list[Action] = []
    onstart: list[Action] = []
    events: list[Action] = []
    extra: list[Action] = []
