"""What `keys` says of commands, what they run, how their output is told, and of calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Key(NamedTuple):
    """`example` is a value of the key; `default` is in words, empty where the schema's own says it."""

    sentence: str
    example: Any
    default: str = ""


COMMAND_KEYS: Mapping[str, Mapping[str, Key]] = {
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
        "base64": Key("`true`: `raw` and `stream` tell output in base64, byte for byte", True, "`false`"),
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
    "Queue": {
        "length": Key("how many may wait, 1 to 512", 10),
        "full": Key(
            "what becomes of a start that finds the queue full: `refuse` refuses it, `oldest-out` the one "
            "that has waited longest, whose place it takes",
            "oldest-out",
        ),
    },
    "Terminal": {
        "rows": Key("lines, 1 to 32767", 50),
        "columns": Key("characters of a line, 1 to 32767", 132),
    },
    "Command": {
        "uid": Key("name of the command", "ls"),
        "exec": Key("the program, see [exec](#exec)", {"cmdpath": "/bin/ls", "args": ["-l"]}),
        "info": Key("what it does", "list a directory"),
        "timeout": Key(
            "seconds until it is ended; `0`: none, also where the sandbox has one", 60, "`acls.timeout`"
        ),
        "stdin": Key(
            "its standard input is a pipe that [`input`](api.md#input) writes to; otherwise it is /dev/null",
            True,
        ),
        "terminal": Key(
            "`true`, or its size: standard input, output and error are a terminal of its own, see "
            "[terminal](#terminal)",
            True,
        ),
        "single": Key("the same as `max: 1`", True),
        "max": Key("how many of its tasks may be alive at once, up to 512", 4, "any number"),
        "queue": Key(
            "the starts beyond `max` wait for their turn, see [queue](#queue)", {"length": 10}, "refused"
        ),
        "warm": Key(
            "how many confined processes wait in its sandbox for their arguments, from the start on and up "
            "to 64, see [warm](#warm)",
            2,
            "two, for a minute after each start",
        ),
        "verbose": Key(
            "how much its tasks tell of themselves, 0 to 9, see [verbose](#verbose)", 2, "the sandbox's"
        ),
        "dash": Key(
            "`allow`: a request's value may begin an argument with `-`, see "
            "[arguments](#arguments-of-a-request)",
            "allow",
        ),
        "kill_on_disconnect": Key(
            "ends a task when the connection ends that has started it; otherwise it runs on", True
        ),
        "slow_clients": Key(
            "when a subscriber reads more slowly than the command writes: `pause` lets it wait, up to "
            "10 seconds for one that reads nothing; `drop` does not. What a subscriber misses is marked by a "
            "`dropped-event`",
            "drop",
        ),
        "encoder": Key("how its output is told, see [encoder](#encoder)", "line", "`text`"),
        "usage": Key("anything; shown by `info` as help for arguments", {"dir": "/etc"}),
        "sample": Key("anything; shown by `info`, test pages offer it", [{"args": {"dir": "/etc"}}]),
        "privilege": Key(
            "permission that callers need, instead of the sandbox's",
            "urn:acme:permission:reboot",
            "the sandbox's",
        ),
        "autostart": Key(
            "starts it without a caller, see [autostart](#autostart); `{}` will do",
            {"restart": "on-failure"},
            "callers start it",
        ),
    },
    "Action": {
        "uid": Key("a name; of `events`, which events; of `extra`, the verb", "up"),
        "action": Key(
            "`api://API#VERB`: a command, `ping` or `info` of an API that is served together with "
            "this one, or any verb of an [imported](#apis-of-other-servers) one",
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
