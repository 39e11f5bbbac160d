"""What each key of the configuration is for: a sentence, an example, and its default where that needs words.

The types are in `schema`, which says which keys there are. The tables of docs/configuration.md and the JSON
Schema are made from both. A sentence is Markdown; other spellings of a key (`aliases`) are not told in it.
"""

from __future__ import annotations

from collections.abc import Mapping

from initspawn.config.autostart_keys import AUTOSTART
from initspawn.config.bounds_keys import BOUNDS
from initspawn.config.command_keys import COMMAND_KEYS, Key
from initspawn.config.guard_keys import GUARD

# By the name of the schema's class, in its order.
KEYS: Mapping[str, Mapping[str, Key]] = {
    "Config": {
        "metadata": Key("the API itself, see [metadata](#metadata)", {"uid": "demo", "api": "demo"}),
        "plugins": Key(
            "[encoder plug-ins](#plugins)", {"uid": "sample", "libs": "/etc/initspawn/blkcount.py"}
        ),
        "sandboxes": Key("one [sandbox](#sandboxes) or a list of them", [{"uid": "box"}]),
        "guard": Key(
            "who may talk before a tunnel is up, see [guard](#guard); of several files only one may have it",
            {"until": "up", "allow": {"mark": "0xca6c"}},
        ),
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
            "as a list; `unix:PATH/API` is the API of [another server](#apis-of-other-servers)",
            "net unix:/run/lights",
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
        "cgroups": Key("how much of the machine, see [cgroups](#cgroups)", {"mem": {"max": "512M"}}),
        "seccomp": Key("system calls: a profile's name, or see [seccomp](#seccomp)", "default"),
        "namespace": Key(
            "own view of the machine, see [namespace](#namespace)", {"shares": {"all": "disable"}}
        ),
        "limits": Key("resource limits, see [limits](#limits)", {"nofile": 64}),
        "scheduling": Key("before or after others, see [scheduling](#scheduling)", {"nice": 10}),
        "landlock": Key("what the kernel lets them reach, see [landlock](#landlock)", {"scope": "signals"}),
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
        "groups": Key(
            "names or numbers of further groups, for root only; `user` stands for all that the user is a "
            "member of",
            ["user", "dialout"],
        ),
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
        "label": Key("the security label, see below", "LSM_LABEL_SBOX"),
    },
    "Label": {
        "name": Key("as `label` itself", "LSM_LABEL_API"),
        "optional": Key("`true`: where no module labels processes, commands run without", True),
    },
    "Cap": {
        "cap": Key(
            "name from capabilities(7), with or without `CAP_`, or the number of one that is newer than "
            "initspawn; `ALL` is every one that the kernel knows, `LAST_CAP` the highest",
            "NET_BIND_SERVICE",
        ),
        "mode": Key("`set` or `unset`", "set"),
    },
    "Seccomp": {
        "profile": Key(
            "a profile's name, or a list of them, all of which hold, see [profiles](#seccomp-profiles)",
            "default",
        ),
        "default": Key(
            "what a call does that no rule names; with `profile: default`, what happens to the calls that it "
            "refuses",
            "SCMP_ACT_ALLOW",
            "`SCMP_ACT_KILL`, or the profile's",
        ),
        "rules": Key(
            "one rule or a list of them, see below", {"syscall": "mkdir", "action": "SCMP_ACT_ERRNO"}
        ),
        "handler": Key(
            "with SCMP_ACT_NOTIFY: the verb of the command that answers such calls, see "
            "[notified calls](#notified-calls)",
            "guard/answer",
        ),
        "rulespath": Key(
            "a ready filter instead of everything above: absolute path of a file; `$NAME` is "
            "[expanded](#expansion)",
            "/etc/acme/filter.bpf",
        ),
        "foreign": Key(
            "calls by another architecture's numbers end the process (`refuse`); with `rulespath` they can "
            "be left to that filter (`allow`)",
            "allow",
        ),
        "locked": Key(
            "also denies (EPERM) looking into other processes: `ptrace`, `process_vm_readv`, "
            "`process_vm_writev`, `kcmp`",
            True,
        ),
    },
    "SeccompRule": {
        "syscall": Key("name of the system call, or a list of them", "mkdir"),
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
    "Cset": {
        "cpus": Key("processors, numbers and ranges with commas", "0-1,4"),
        "mems": Key("memory nodes, written likewise", "0"),
    },
    "Mem": {
        "max": Key("what exceeds it ends the task", "512M"),
        "high": Key("above it the task is slowed down and its memory reclaimed", "256M"),
        "min": Key("so much is not taken from it when others need memory", "128K", "`0`"),
        "swap": Key("how much of it may be swapped out", 0),
    },
    "Cpu": {
        "weight": Key("share among groups that compete, 1 to 10000", 50, "`100`"),
        "max": Key(
            "microseconds in each period, of all processors together, and the period (100000 if it is not "
            "said); or percent of one processor",
            "50%",
        ),
    },
    "Pids": {"max": Key("processes and threads at the same time; at this number no more can be made", 64)},
    "Cgroups": {
        "cset": Key("processors, or an object, see below", "0-1", "all"),
        "mem": Key("memory, see below", {"max": "512M", "swap": 0}, "no limit"),
        "cpu": Key("processor time, see below", {"max": "50%"}, "no limit"),
        "io": Key(
            "block devices, each with limits in bytes and operations for each second: "
            "`rbps`, `wbps`, `riops`, `wiops`",
            "8:0 wbps=10M riops=100",
            "no limit",
        ),
        "pids": Key("processes and threads at the same time, or an object with `max`", 64, "no limit"),
        "scope": Key(
            "`task`: each task may use so much; `sandbox`: all tasks of the sandbox together", "sandbox"
        ),
        "optional": Key("runs without them where they cannot be applied, and says so", True),
        "mount": Key("where the hierarchy is; refused if it is elsewhere", "/sys/fs/cgroup", "found"),
    },
    "NamespaceOpts": {
        "autocreate": Key(
            "makes directories that bind mounts name as `source` and that are missing: mode 0755, for"
            " the command's user",
            True,
        ),
        "bwrap": Key(
            "full path of a bubblewrap that makes namespaces and mounts, see [bubblewrap](#bubblewrap)",
            "/usr/bin/bwrap",
            "initspawn makes them",
        ),
        "hostname": Key("host name inside; gives the sandbox an own uts namespace", "box", "initspawn's"),
        "writable_root": Key(
            "`true`: with `mounts`, commands may write into `/` itself and what `dir` made there; it is gone "
            "with them",
            True,
        ),
        "selinux": Key("`true`: the same as [`label: LSM_LABEL_SBOX`](#acls), where SELinux runs", True),
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
    "Root": {
        "directory": Key(
            "a directory of the machine; `$NAME` is [expanded](#expansion)", "/srv/debian", "`image` instead"
        ),
        "image": Key(
            "a squashfs image, for root only; `$NAME` is [expanded](#expansion)",
            "/srv/debian.squashfs",
            "`directory` instead",
        ),
        "overlay": Key("`true`: commands may write into it, in a layer of each task's own", True),
    },
    "Namespace": {
        "opts": Key("see [namespace.opts](#namespaceopts)", {"hostname": "box"}),
        "shares": Key("see [namespace.shares](#namespaceshares)", {"all": "disable"}),
        "root": Key("what `/` is, see [namespace.root](#namespaceroot)", {"directory": "/srv/debian"}),
        "mounts": Key(
            "its own file tree, see [namespace.mounts](#namespacemounts)",
            [{"target": "/usr", "mode": "ro"}],
            "the host's files",
        ),
    },
    **BOUNDS,
    **AUTOSTART,
    **GUARD,
    **COMMAND_KEYS,
}
