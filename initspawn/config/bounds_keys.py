"""What the keys of `bounds_schema` are for; part of the table in `keys`."""

from __future__ import annotations

from collections.abc import Mapping

from initspawn.config.command_keys import Key

BOUNDS: Mapping[str, Mapping[str, Key]] = {
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
    "LandlockPath": {
        "path": Key(
            "absolute path as commands see it; it must be there. `$NAME` is [expanded](#expansion)", "/data"
        ),
        "allow": Key("what may be done there, and in all that is below; see below", ["read", "execute"]),
    },
    "Landlock": {
        "restrict": Key(
            "which kinds of access need a rule; the others are not held back",
            ["write", "create", "remove", "move"],
            "all but `ioctl`",
        ),
        "paths": Key(
            "where they are allowed", [{"path": "/usr", "allow": ["read", "execute"]}], "nowhere"
        ),
        "bind": Key("TCP ports it may listen on; `[]`: none", 8080, "all"),
        "connect": Key("TCP ports it may connect to, on every machine; `[]`: none", [53, 443], "all"),
        "scope": Key(
            "what ends at the task: `abstract-sockets` (connecting to those of others), `signals` (sending"
            " them to others)",
            ["abstract-sockets", "signals"],
        ),
        "optional": Key("`true`: on a kernel that has only some of this, or none, that much is enough", True),
    },
}
