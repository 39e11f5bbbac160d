"""The compiled form of a configuration: plain values, nothing left to parse. Boot module.

Made off-line or once at start by `config.compile`; read by everything that launches. Paths are
absolute, users and groups are numbers, capabilities a mask, seccomp filters ready BPF bytes, argument
templates lists of parts. Per call only the parts that name a request argument are filled.
"""

from __future__ import annotations

from initspawn.limits import STOP_GRACE_SECONDS
from initspawn.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar

# Parts of an argument template: (TEXT, literal), (REQUIRED, name), (OPTIONAL, name).
TEXT = "text"
REQUIRED = "required"
OPTIONAL = "optional"

# The encoder of a command whose output goes through a plug-in; its options are `host` (the uid of its host
# in `Plan.hosts`), `name` (what messages call it) and `options`.
PLUGIN = "plugin"
HOSTS = "encoders"  # the name of that hidden API

# Namespaces a sandbox can have of its own, by the names of /proc/PID/ns.
NAMESPACES = ("user", "pid", "mnt", "ipc", "uts", "net", "cgroup")


class Mount(Record):
    """One operation that builds the sandbox's file tree, in configuration order.

    operation: bind, overlay, image, tmpfs, proc, dev, mqueue, dir, symlink, file, lock.
    target: absolute path inside. source: bind, overlay and image, the host path; symlink, the link's text.
    device: image, the block device that the file is attached to, known to a supervisor only.
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
    device: str = ""


class IdMap(Record):
    """The single identity of a private user namespace (user_namespaces(7)): inside, outside."""

    inside_uid: int
    outside_uid: int
    inside_gid: int
    outside_gid: int
    # True: made before all other namespaces, which it then owns (an ordinary user has no other way).
    # False: made last, by a privileged supervisor, after the command's user was taken on.
    first: bool


class Scheduling(Record):
    """What a command is given before others, or after them; None: as its supervisor."""

    nice: int | None = None  # -20 to 19
    policy: int | None = None  # SCHED_*
    io: int | None = None  # as ioprio_set(2) takes it
    oom_score_adj: int | None = None  # -1000 to 1000


class Landlock(Record):
    """What a command may still do once the kernel has been told (landlock(7)); masks are the kernel's."""

    fs: int = 0  # file access that needs a rule
    net: int = 0  # use of TCP ports that needs one
    scopes: int = 0  # what ends at the task
    paths: tuple[tuple[str, int], ...] = ()  # without symbolic links; access to what is there and below
    ports: tuple[tuple[int, int], ...] = ()  # number, use
    optional: bool = False  # on a kernel that knows less, what it knows is enough


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
    writable_root: bool = False  # whether commands may write into the new root itself
    mounts: tuple[Mount, ...] = ()
    filters: tuple[bytes, ...] = ()  # seccomp BPF, in the order they are loaded
    handler: str = ""  # the verb of the command that answers what the last of them notifies; empty: none
    limits: tuple[tuple[int, int, int], ...] = ()  # (RLIMIT_*, soft, hard); -1: no limit
    label: str | None = None  # SELinux context or Smack label
    label_optional: bool = False  # where no module labels processes it runs without
    scheduling: Scheduling | None = None
    landlock: Landlock | None = None
    # Interface file of cgroup v2 and its value, as the kernel gives it back; None: no group is asked for.
    cgroup: tuple[tuple[str, str], ...] | None = None
    cgroup_shared: bool = False  # True: they bound all tasks of the sandbox together, not each
    cgroup_optional: bool = False  # True: where they cannot be applied, it runs without
    bwrap: str = ""  # path of the bubblewrap that makes namespaces and mounts; empty: initspawn does

    _nested: ClassVar[dict[str, type[Record]]] = {
        "id_map": IdMap, "mounts": Mount, "scheduling": Scheduling, "landlock": Landlock,
    }  # fmt: skip


# Stages of a boot in their order, and when a command that starts by itself is ready.
EARLY, SYSTEM, NETWORK, API = STAGES = ("early", "system", "network", "api")
# What may become of a boot.
BOOT, RECOVERY, REBOOT = ("boot", "recovery", "reboot")
STARTED, NOTIFY, EXITED = "started", "notify", "exited"
NOTIFY_PATH = "/.notify"  # where a sandbox with a root of its own finds the socket for its messages
# What a link can have: it is up, an address to speak to others with, a default route.
LINK, ADDRESS, ROUTE = "link", "address", "route"
# When it is started again.
NEVER, ON_FAILURE, ALWAYS = "never", "on-failure", "always"


class Restart(Record):
    """Whether and when a command is started again that has ended; times are seconds."""

    policy: str
    pause: float  # the first; doubled by each failure
    longest: float
    jitter: float  # by what part of it a pause is shortened at most
    ran_well: float  # ready for so long, the next pause is the first again
    tries: int = 0  # failures in a row before it has failed for good; 0: any number
    permanent: tuple[int, ...] = ()  # exit codes with which it has


class Autostart(Record):
    """How a command starts by itself. Other commands are named `API/VERB`."""

    stage: str = SYSTEM
    after: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    wants: tuple[str, ...] = ()
    arguments: Any = None
    words: tuple[str, ...] = ()  # of the kernel's command line; with `!`: that must not be there
    paths: tuple[str, ...] = ()  # likewise
    network: tuple[tuple[str, str], ...] = ()  # LINK and so on, and a link's name (`*`: any); `!` likewise
    # Devices that must be there, each as properties and patterns (see `watcher`).
    devices: tuple[tuple[tuple[str, str], ...], ...] = ()
    results: tuple[tuple[str, bool], ...] = ()  # of a command: whether it has succeeded, or failed for good
    skip: bool = False  # where these do not hold when its turn comes; otherwise it waits
    ready: str = STARTED
    start_timeout: float = 0.0  # seconds; 0: none
    watchdog: float = 0.0  # seconds within which it must say each time that it is alive; 0: need not
    stop_timeout: float = STOP_GRACE_SECONDS  # from the request to end to the end by force
    restart: Restart | None = None  # None: never
    # Whether the real init waits for it; what else may become of the boot when it is late, or fails for good.
    handover: bool = False
    on_timeout: str = BOOT
    on_failure: str = BOOT

    _nested: ClassVar[dict[str, type[Record]]] = {"restart": Restart}


def notifies(start: Autostart) -> bool:
    """Whether the command is to send messages."""
    return start.ready == NOTIFY or bool(start.watchdog)


def devices_of(apis: tuple[Api, ...]) -> list[tuple[tuple[str, str], ...]]:
    """All devices that commands of these wait for, each once, in the order that their watcher has them."""
    starts = [command.autostart for api in apis for command in api.commands]
    return list(dict.fromkeys(device for start in starts if start is not None for device in start.devices))


def device_text(device: tuple[tuple[str, str], ...]) -> str:
    """Such a device in words."""
    return ", ".join(f"{name}={pattern}" for name, pattern in device)


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
    stdin: bool = False  # its standard input is a pipe that callers write to; otherwise /dev/null
    terminal: tuple[int, int] | None = None  # rows and columns of the one it gets in place of all three
    most: int = 0  # tasks at once; 0: any number
    queue: int = 0  # starts beyond them that wait for their turn
    oldest_out: bool = False  # a start that finds the queue full takes the place of the oldest in it
    warm: int | None = None  # how many starts wait in its sandbox; None: one, while it is in use
    verbose: int = 0  # how much a task tells of itself, where its request says nothing
    dash: bool = False  # a request's value may begin its item with `-`
    kill_on_disconnect: bool = False  # a task ends with the connection that has started it
    drop: bool = False  # slow subscribers miss output; otherwise the command waits for them
    encoder: str = "text"
    encoder_options: dict[str, Any] = {}  # noqa: RUF012  # records never change their defaults
    usage: Any = None
    sample: Any = None
    autostart: Autostart | None = None
    executed: bool = False  # by `exec`: no file has it, whatever a file names like it

    _nested: ClassVar[dict[str, type[Record]]] = {"autostart": Autostart}

    @property
    def grace(self) -> float:
        """Seconds from the request to end to the end of all that it has started, by force."""
        return STOP_GRACE_SECONDS if self.autostart is None else self.autostart.stop_timeout


class Action(Record):
    """A call that the configuration itself makes, with its query; for `extra`, another name of a verb.

    uid: a name; of `events`, which events it waits for (`event.named_by`); of `extra`, the verb.
    """

    uid: str
    api: str
    verb: str
    query: Any = None
    privilege: str | None = None


class Import(Record):
    """An API of another server that actions call: its name and its service socket, `\\0...` if abstract."""

    api: str
    path: str


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
    imports: tuple[Import, ...] = ()

    _nested: ClassVar[dict[str, type[Record]]] = {
        "sandboxes": Sandbox, "commands": Command, "onload": Action, "events": Action, "extra": Action,
        "imports": Import,
    }  # fmt: skip

    @property
    def own(self) -> bool:
        """Whether what it starts is the supervisor's own work. The hosts of encoder plug-ins are not:
        callers have them started, as many as they like.
        """
        return self.hidden and self.api != HOSTS

    def sandbox(self, uid: str) -> Sandbox:
        """The sandbox of that uid. Raises KeyError."""
        for sandbox in self.sandboxes:
            if sandbox.uid == uid:
                return sandbox
        raise KeyError(uid)


class Guard(Record):
    """Nobody talks before a command is ready, but for whom its rules let out.

    until: that command, `API/VERB`. api: a hidden one, whose commands `close` and `open` install the rules
    and take them away. open_on_failure: open when the command fails, otherwise closed.
    """

    until: str
    api: Api
    open_on_failure: bool = False

    _nested: ClassVar[dict[str, type[Record]]] = {"api": Api}


class Plan(Record):
    """Everything a supervisor serves. `user` and `group` are who the plan was compiled for.

    machine: the processor it is for, as uname(2) calls it; empty: the one it was made on.
    late: it was made ahead, and `late.settle` has to fill in what only the running machine knows.
    sources: the files it was made of, each with its size and CRC-32.
    further: what those named and was read, or looked into, to make it: filters, encoder plug-ins.
    doors: for the network, of the device it is for: `host`, `port`, `state`, `limits`, `unix` (paths and
    protocols); `gateway`, `up` and perhaps `tls` (see boot/supervise); None: no doors. Otherwise the
    hidden API `gateway` is among `apis`.
    """

    user: int
    group: int
    apis: tuple[Api, ...] = ()
    machine: str = ""
    late: bool = False
    sources: tuple[tuple[str, int, int], ...] = ()
    further: tuple[tuple[str, int, int], ...] = ()
    hosts: Api | None = None  # what runs the encoder plug-ins: no door shows or calls it
    guard: Guard | None = None
    watcher: Api | None = None  # what follows devices: its commands `kernel` and `udev`
    doors: Any = None

    _nested: ClassVar[dict[str, type[Record]]] = {
        "apis": Api, "hosts": Api, "guard": Guard, "watcher": Api,
    }  # fmt: skip

    def sandboxes(self) -> list[Sandbox]:
        """All there are, those of encoder plug-ins, the guard and the watcher included."""
        hidden = [self.hosts] if self.hosts else []
        hidden += [self.guard.api] if self.guard else []
        hidden += [self.watcher] if self.watcher else []
        return [sandbox for api in (*self.apis, *hidden) for sandbox in api.sandboxes]

    @property
    def privileged(self) -> bool:
        """Whether it was compiled for a supervisor that runs as root."""
        return self.user == 0
