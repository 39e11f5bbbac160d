"""The configuration file as types: every key there is, its type and its bounds.

`check` reads these types; nothing else decides what a file may say. Five class variables go with a
type: `aliases` are other spellings of its keys, `later` are keys that are known but not built yet,
each with the reason, `noun` is what messages call it, `code` what they begin with, and `form` shows
how one is written. A field of type
`list[X]` takes one X as well as a list of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta, Struct, field

from initspawn.encoders.table import MAXDEPTH, MAXLINE, RAW_BYTES

Words = Mapping[str, str]

_LIMITS = "limits come with a later version"
_PLUGINS = "plug-ins come with a later version"
_ACTIONS = "actions come with a later version"
_LABELS = "security labels come with a later version"
_BWRAP = "initspawn makes namespaces itself and runs no bwrap"

_TEN_YEARS = 315_360_000

Seconds = Annotated[int, Meta(ge=0, le=_TEN_YEARS)]
Verbosity = Annotated[int, Meta(ge=0, le=9)]
Id = Annotated[int, Meta(ge=0, le=0xFFFFFFFE)]  # (uid_t)-1 means "leave as it is" to the kernel
Uid = Annotated[str, Meta(min_length=1, max_length=64)]
Word = Literal["default", "enable", "disable"]
MountMode = Literal[
    "ro", "read", "rw", "write", "symlink", "anonymous", "dir", "tmpfs", "procfs", "devfs", "dev",
    "mqueue", "lock", "execfd",
]  # fmt: skip


class Part(Struct, kw_only=True, forbid_unknown_fields=True):
    """Base of all objects of the file."""

    aliases: ClassVar[Words] = {}
    later: ClassVar[Words] = {}
    noun: ClassVar[str] = "object"
    code: ClassVar[str] = ""
    form: ClassVar[str] = ""


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


class Env(Part):
    """One environment variable, set or taken away."""

    aliases = {"key": "name"}
    noun = "environment entry"
    form = "write {name: NAME, value: TEXT}"

    name: Annotated[str, Meta(min_length=1)]
    value: str = ""
    mode: Literal["set", "unset"] = "set"


class Acls(Part):
    """Who the commands run as, where, and for how long."""

    later = {
        "label": _LABELS,
        "runmod": "whether it runs as root is decided by who starts it",
        "path": "say `envs: [{name: PATH, value: ...}]`",
        "ldpath": "say `envs: [{name: LD_LIBRARY_PATH, value: ...}]`",
    }
    noun = "acls"
    form = "write {user: NAME}"

    user: str | Id | None = None
    group: str | Id | None = None
    umask: str | None = None
    chdir: str | None = None
    timeout: Seconds | None = None


class Cap(Part):
    """One capability, given or taken away."""

    noun = "capability entry"
    form = "write {cap: NAME, mode: set}"

    cap: str
    mode: Literal["set", "unset"]


class SeccompRule(Part):
    """What one system call does instead of the default."""

    noun = "rule"

    syscall: str
    action: str
    errno: str | int | None = None


class Seccomp(Part):
    """The system call filter."""

    later = {"rulespath": "ready-made filters come with a later version; write `rules`"}
    noun = "seccomp"

    default: str = "SCMP_ACT_KILL"
    rules: list[SeccompRule] = []
    locked: bool = False


class NamespaceOpts(Part):
    """How the namespaces are made."""

    aliases = {"brwap": "bwrap"}
    later = {"bwrap": _BWRAP, "selinux": _LABELS}
    noun = "opts"

    autocreate: bool = False
    hostname: Annotated[str, Meta(min_length=1, max_length=64)] | None = None


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


class Namespace(Part):
    """The sandbox's own view of the machine."""

    noun = "namespace"

    opts: NamespaceOpts = field(default_factory=NamespaceOpts)
    shares: Shares = field(default_factory=Shares)
    mounts: list[MountEntry] | None = None


class Exec(Part):
    """The program and its arguments."""

    noun = "exec"
    form = "write {cmdpath: /PATH, args: [TEXT]}"

    cmdpath: Annotated[str, Meta(min_length=1)]
    args: Any = None


class EncoderOpts(Part):
    """Bounds of what an encoder keeps. Which encoder has which, and how far, is in `encoders.table`."""

    later = dict.fromkeys(("stdout", "stderr", "blkcount"), "it belongs to an encoder of a later version")
    noun = "encoder options"
    code = "INVALID_OPTIONS"

    maxlen: Annotated[int, Meta(ge=RAW_BYTES[0], le=RAW_BYTES[-1])] | None = None
    maxline: Annotated[int, Meta(ge=MAXLINE[0], le=MAXLINE[-1])] | None = None
    maxdepth: Annotated[int, Meta(ge=MAXDEPTH[0], le=MAXDEPTH[-1])] | None = None
    base64: bool | None = None


class Encoder(Part):
    """How output becomes events."""

    noun = "encoder"
    code = "INVALID_SPECIFIER"

    output: str
    plugin: str | None = None
    opts: EncoderOpts = field(default_factory=EncoderOpts)


class Command(Part):
    """A configured thing that can run."""

    aliases = {"once": "single", "samples": "sample"}
    later = dict.fromkeys(
        ("acls", "caps", "seccomp", "namespace", "envs", "cgroups"),
        "confinement belongs to the sandbox; write a second sandbox",
    )
    noun = "command"
    form = "write {uid: NAME, exec: {cmdpath: /PATH}}"

    uid: Uid
    exec: Exec
    info: str | None = None
    timeout: Seconds | None = None
    single: bool = False
    verbose: Verbosity | None = None
    dash: Literal["allow", "refuse"] = "refuse"
    encoder: str | Encoder | None = None
    usage: Any = None
    sample: Any = None
    privilege: Annotated[str, Meta(min_length=1)] | None = None


class Sandbox(Part):
    """A confinement recipe and the commands that run in it."""

    aliases = {"acl": "acls"}
    later = {"cgroups": _LIMITS}
    noun = "sandbox"

    uid: Uid
    info: str | None = None
    prefix: str | None = None
    verbose: Verbosity = 0
    privilege: Annotated[str, Meta(min_length=1)] | None = None
    allow_setuid: bool = False
    envs: list[Env] = []
    acls: Acls = field(default_factory=Acls)
    caps: list[Cap] = []
    seccomp: Seccomp | None = None
    namespace: Namespace | None = None
    commands: list[Command] = []


class Config(Part):
    """One file: one API."""

    aliases = {"sandbox": "sandboxes"}
    later = {
        "plugins": _PLUGINS,
        "onload": _ACTIONS,
        "onstart": _ACTIONS,
        "events": _ACTIONS,
        "extra": _ACTIONS,
    }
    noun = "configuration"

    metadata: Metadata
    sandboxes: list[Sandbox] = []
