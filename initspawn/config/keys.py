"""What each key of the configuration is for: a sentence, an example, and its default where that needs words.

The types are in `schema`, which says which keys there are. The tables of docs/configuration.md and the JSON
Schema are made from both. A sentence is Markdown; other spellings of a key (`aliases`) are not told in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Key(NamedTuple):
    """`example` is a value of the key; `default` is in words, empty where the schema's own says it."""

    sentence: str
    example: Any
    default: str = ""


# By the name of the schema's class, in its order.
KEYS: Mapping[str, Mapping[str, Key]] = {
    "Config": {
        "metadata": Key("the API itself, see [metadata](#metadata)", {"uid": "demo", "api": "demo"}),
        "plugins": Key(
            "[encoder plug-ins](#plugins)", {"uid": "sample", "libs": "/etc/initspawn/blkcount.py"}
        ),
        "sandboxes": Key("one [sandbox](#sandboxes) or a list of them", [{"uid": "box"}]),
        "onload": Key(
            "[calls](#calls-of-its-own) to make when the server starts",
            {"uid": "up", "action": "api://net#vpn/up"},
        ),
        "onstart": Key(
            "more of them: they come after those of `onload`", {"uid": "x", "action": "api://net#x"}
        ),
        "events": Key(
            "[calls](#calls-of-its-own) to make when events come",
            {"uid": "net/vpn/*", "action": "api://net#log"},
        ),
        "extra": Key(
            "[verbs](#calls-of-its-own) that call others", {"uid": "off", "action": "api://net#vpn/up"}
        ),
    },
    "Metadata": {
        "uid": Key("name of this configuration, shown by `info`", "demo"),
        "api": Key(
            "name of the API, different in every file; not `monitor` or `initspawn`, no white space, "
            "control characters or any of ``\" # % & ' / ? ` @ \\``",
            "demo",
        ),
        "version": Key("shown by `info`", "1.0"),
        "info": Key("what the API is for", "what sandboxes do to a program"),
        "author": Key("who wrote it", "Ada"),
        "date": Key("when; for readers only", "2026-11-21"),
        "require": Key(
            "names of other APIs that must be loaded together with this one, separated by spaces or "
            "as a list",
            "net storage",
        ),
        "page": Key(
            "directory of [a page of your own](api.md#a-page-of-your-own), with an `index.html`; "
            "relative to this file, `$NAME` is [expanded](#expansion). Of several files only one may "
            "bring a page",
            "www",
            "the test page",
        ),
    },
    "Sandbox": {
        "uid": Key("name of the sandbox, different from all others of the file", "box"),
        "info": Key("what it is for", "sees only itself"),
        "prefix": Key("what comes before its commands in their verbs", "admin", "see below"),
        "verbose": Key("how much its tasks tell of themselves, 0 to 9, see [verbose](#verbose)", 2),
        "privilege": Key("permission that callers need", "urn:acme:permission:shell"),
        "allow_setuid": Key(
            "lets programs gain privileges when they start another (set-user-ID, file capabilities). "
            "Otherwise no-new-privileges is always on. Not together with `seccomp`",
            True,
        ),
        "envs_from": Key(
            "`clean`, or `server` to begin with initspawn's own environment, see [envs](#envs)", "server"
        ),
        "envs": Key("environment, see [envs](#envs)", {"name": "LANG", "value": "de_DE.UTF-8"}),
        "acls": Key("who runs, see [acls](#acls)", {"user": "nobody"}),
        "caps": Key("capabilities, see [caps](#caps)", {"cap": "NET_RAW", "mode": "set"}),
        "seccomp": Key("system calls, see [seccomp](#seccomp)", {"default": "SCMP_ACT_ALLOW"}),
        "namespace": Key(
            "own view of the machine, see [namespace](#namespace)", {"shares": {"all": "disable"}}
        ),
        "limits": Key("resource limits, see [limits](#limits)", {"nofile": 64}),
        "scheduling": Key("before or after others, see [scheduling](#scheduling)", {"nice": 10}),
        "commands": Key("see [commands](#commands)", {"uid": "id", "exec": {"cmdpath": "/usr/bin/id"}}),
    },
    "Env": {
        "name": Key("the variable's name, without `=`", "LANG"),
        "value": Key(
            "what it becomes; `$NAME` is [expanded](#expansion)", "hello from $SANDBOX_UID", "empty"
        ),
        "mode": Key("`set` or `unset`", "unset"),
    },
    "Acls": {
        "user": Key("name or number of who the commands run as", "nobody", "see below"),
        "group": Key("name or number of their group", "video", "the user's primary group"),
        "umask": Key("permissions that new files do not get: octal, in quotes", "027", '`"022"`'),
        "chdir": Key(
            "absolute path of the working directory, as commands see it; it must be there. `$NAME` is"
            " [expanded](#expansion)",
            "/tmp",
            "`/`",
        ),
        "timeout": Key("seconds until a command is ended; each command may say another", 60, "`0`: none"),
        "runmod": Key("`admin` refuses the file for an ordinary user, `user` for root", "admin"),
        "path": Key(
            "the variable `PATH`; `$NAME` is [expanded](#expansion)",
            "/opt/acme/bin:/usr/bin",
            "see [envs](#envs)",
        ),
        "ldpath": Key("the variable `LD_LIBRARY_PATH`; `$NAME` is [expanded](#expansion)", "/opt/acme/lib"),
    },
    "Cap": {
        "cap": Key(
            "name from capabilities(7), with or without `CAP_`; `ALL` is every one there is, "
            "`LAST_CAP` the highest",
            "NET_BIND_SERVICE",
        ),
        "mode": Key("`set` or `unset`", "set"),
    },
    "Seccomp": {
        "default": Key("what a call does that no rule names", "SCMP_ACT_ALLOW", "`SCMP_ACT_KILL`"),
        "rules": Key(
            "one rule or a list of them, see below", {"syscall": "mkdir", "action": "SCMP_ACT_ERRNO"}
        ),
        "rulespath": Key(
            "a ready filter instead of `default` and `rules`: absolute path of a file; `$NAME` is "
            "[expanded](#expansion)",
            "/etc/acme/filter.bpf",
        ),
        "locked": Key(
            "also denies (EPERM) looking into other processes: `ptrace`, `process_vm_readv`, "
            "`process_vm_writev`, `kcmp`",
            True,
        ),
    },
    "SeccompRule": {
        "syscall": Key("name of the system call", "mkdir"),
        "action": Key("what it does, see below", "SCMP_ACT_ERRNO"),
        "errno": Key("with SCMP_ACT_ERRNO: name or number of the error", "EACCES", "`EPERM`"),
        "args": Key(
            "only calls whose arguments compare so: one comparison, or a list, all of which must hold",
            {"index": 0, "op": "!=", "value": 1},
        ),
    },
    "Comparison": {
        "index": Key("which argument, 0 to 5", 0),
        "op": Key("`==`, `!=`, `<`, `<=`, `>`, `>=`, or libseccomp's names such as `SCMP_CMP_EQ`", "=="),
        "value": Key("a whole number; arguments are 64 bits wide and unsigned", 1),
        "mask": Key(
            "with `==`: only these bits are compared. `op: SCMP_CMP_MASKED_EQ` needs it", "0xff", "all"
        ),
    },
    "NamespaceOpts": {
        "autocreate": Key(
            "makes directories that bind mounts name as `source` and that are missing: mode 0755, for"
            " the command's user",
            True,
        ),
        "hostname": Key("host name inside; gives the sandbox an own uts namespace", "box", "initspawn's"),
    },
    "Shares": {
        "all": Key(
            "speaks for `users`, `cgroups`, `net`, `ipc` and `uts` where they say nothing",
            "disable",
            "nothing",
        ),
        "users": Key(
            "user and group numbers; an ordinary user may not say `enable`",
            "disable",
            "shared; own for an ordinary user",
        ),
        "cgroups": Key("the view of cgroups", "disable", "shared"),
        "net": Key("network; own: nothing but a localhost of its own", "disable", "shared"),
        "ipc": Key("System V IPC and POSIX message queues", "disable", "shared"),
        "pid": Key("processes", "enable", "own"),
        "uts": Key("the host name", "disable", "shared, but own if there is a `hostname`"),
    },
    "MountEntry": {
        "target": Key("absolute path inside; not expanded", "/data"),
        "source": Key("what is put there; `$NAME` is [expanded](#expansion)", "/var/lib/acme", "the target"),
        "mode": Key("how, see below", "ro", "required"),
    },
    "Namespace": {
        "opts": Key("see [namespace.opts](#namespaceopts)", {"hostname": "box"}),
        "shares": Key("see [namespace.shares](#namespaceshares)", {"all": "disable"}),
        "mounts": Key(
            "its own file tree, see [namespace.mounts](#namespacemounts)",
            [{"target": "/usr", "mode": "ro"}],
            "the host's files",
        ),
    },
    "Limit": {
        "soft": Key("what counts; the command may raise it up to `hard`", 64),
        "hard": Key("what it can never exceed", "unlimited"),
    },
    "Limits": {
        "cpu": Key("seconds of processor time; SIGXCPU at the first value, SIGKILL at the second", 60),
        "fsize": Key("bytes of a file that it writes; SIGXFSZ", "100M"),
        "data": Key("bytes of its data segment", "512M"),
        "stack": Key("bytes of its stack", "8M"),
        "core": Key("bytes of a core file", 0, "`0`: core files are off"),
        "rss": Key("nothing since Linux 2.4.30", "512M"),
        "nproc": Key("processes and threads of its user, all tasks and others counted together", 100),
        "nofile": Key("descriptors: the number that none may reach", 64),
        "memlock": Key("bytes it may keep from being swapped out", "64K"),
        "as": Key("bytes of its address space", "1G"),
        "locks": Key("nothing since Linux 2.4.25", 10),
        "sigpending": Key("signals that wait for its user", 100),
        "msgqueue": Key("bytes in POSIX message queues of its user", "800K"),
        "nice": Key("how far it may lower its nice value: to 20 minus this", 20),
        "rtprio": Key("its highest realtime priority", 0),
        "rttime": Key("microseconds that a realtime process may run without waiting", 100000),
    },
    "Scheduling": {
        "nice": Key("its nice value, -20 (first) to 19 (last)", 10, "initspawn's own"),
        "cpu": Key(
            "its scheduling policy: `other`, `batch` (long computations) or `idle` (only when nobody else "
            "wants to run)",
            "batch",
            "initspawn's own",
        ),
        "io": Key("its class at disks: `realtime`, `best-effort` or `idle`", "idle", "as `nice` says"),
        "io_priority": Key("which of the class, 0 (first) to 7 (last); `idle` has none", 6, "`4`"),
        "oom_score_adj": Key(
            "how soon the kernel ends it when memory is short, -1000 (never) to 1000 (first)",
            500,
            "initspawn's own",
        ),
    },
    "Exec": {
        "cmdpath": Key(
            "absolute path of the program as commands see it; no search path, no shell. `$NAME` is "
            "[expanded](#expansion)",
            "/bin/ls",
        ),
        "args": Key(
            "one argument or a list of them. Numbers, true and false are written as they are, objects"
            " and lists as JSON. `$NAME`, `%name%` and `?name?` are [expanded](#expansion)",
            ["-l", "--", "%dir%"],
        ),
    },
    "Plugin": {
        "uid": Key("what `encoder.plugin` calls it", "sample"),
        "info": Key("what it is for; for readers only", "lines in blocks"),
        "spath": Key(
            "directories to look in, separated by `:`; `$NAME` is [expanded](#expansion)",
            "/etc/initspawn/plugins:/usr/lib/initspawn",
        ),
        "libs": Key(
            "a file's name, with or without `.py`, or its full path, or the name of an entry point; of "
            "several the first that is there",
            "blkcount.py",
            "`uid`",
        ),
    },
    "EncoderOpts": {
        "maxlen": Key(
            "bytes of a line, 6 to 65536; a longer one is cut into several, all but the last with a "
            "`\\` at the end. Of `json`: of the lines of stderr, and of a faulty line that is told. Of"
            " `raw`: bytes kept of a stream, where the default is what fits in a reply, about half a "
            "megabyte; the rest is discarded and marked",
            1024,
            "512",
        ),
        "maxline": Key("lines kept of a stream, 1 to 65536; the rest is discarded and marked", 1000, "128"),
        "maxdepth": Key(
            "how many brackets of a JSON value may be open, 1 to 128; `1` takes `[1]` and not `[[1]]`",
            8,
            "32",
        ),
        "base64": Key("`true`: `raw` tells the streams in base64, byte for byte", True, "`false`"),
        "stdout": Key(
            "full path of the file that `log` appends stdout to, byte for byte; `$NAME` is "
            "[expanded](#expansion)",
            "/var/log/acme/$COMMAND_UID.out",
            "initspawn's own",
        ),
        "stderr": Key("the same for stderr; it may be the same file", "/dev/null", "initspawn's own"),
    },
    "Encoder": {
        "output": Key("the encoder's name, in any case", "json"),
        "plugin": Key(
            "where it comes from: the `uid` of one of [plugins](#plugins); `builtins` are those of the next "
            "table",
            "builtins",
            "`builtins`",
        ),
        "opts": Key("its options, see below; of a plug-in whatever it takes", {"maxlen": 1024}),
    },
    "Command": {
        "uid": Key("name of the command", "ls"),
        "exec": Key("the program, see [exec](#exec)", {"cmdpath": "/bin/ls", "args": ["-l"]}),
        "info": Key("what it does", "list a directory"),
        "timeout": Key(
            "seconds until it is ended; `0`: none, also where the sandbox has one", 60, "`acls.timeout`"
        ),
        "single": Key("refuses a second run while one is alive", True),
        "warm": Key(
            "how many confined processes wait in its sandbox for their arguments, from the start on and up "
            "to 64, see [warm](#warm)",
            2,
            "one, for a minute after each start",
        ),
        "verbose": Key(
            "how much its tasks tell of themselves, 0 to 9, see [verbose](#verbose)", 2, "the sandbox's"
        ),
        "dash": Key(
            "`allow`: a request's value may begin an argument with `-`, see "
            "[arguments](#arguments-of-a-request)",
            "allow",
        ),
        "encoder": Key("how its output is told, see [encoder](#encoder)", "line", "`text`"),
        "usage": Key("anything; shown by `info` as help for arguments", {"dir": "/etc"}),
        "sample": Key("anything; shown by `info`, test pages offer it", [{"args": {"dir": "/etc"}}]),
        "privilege": Key(
            "permission that callers need, instead of the sandbox's",
            "urn:acme:permission:reboot",
            "the sandbox's",
        ),
    },
    "Action": {
        "uid": Key("a name; of `events`, which events; of `extra`, the verb", "up"),
        "action": Key(
            "`api://API#VERB`: a command, `ping` or `info` of an API that is served together with "
            "this one",
            "api://net#vpn/up",
        ),
        "info": Key("what it is for; for readers only", "connect at start"),
        "args": Key(
            "the query, as a caller would send it, of any type", {"args": {"interface": "wg0"}}, "`{}`"
        ),
        "privileges": Key(
            "of `extra` only: permission that callers need, besides what the called verb asks for",
            "urn:acme:vpn",
        ),
    },
}
