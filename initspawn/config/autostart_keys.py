"""What the keys of `autostart_schema` are for; part of the table in `keys`."""

from __future__ import annotations

from collections.abc import Mapping

from initspawn.config.command_keys import Key

AUTOSTART: Mapping[str, Mapping[str, Key]] = {
    "Restart": {
        "policy": Key("`never`, `on-failure` or `always`, see below", "on-failure"),
        "pause": Key("seconds before it is started again; doubled by each failure", 0.5),
        "longest": Key("seconds that the pause never exceeds", 300),
        "jitter": Key(
            "each pause is shortened by chance, by up to so many percent: what has failed together does not "
            "come back together",
            50,
        ),
        "ran_well": Key("seconds that it must have been ready for the next pause to be the first again", 60),
        "tries": Key("failures in a row after which it has failed for good", 5, "any number"),
        "permanent": Key("exit codes after which it has failed for good; `[]`: none", [2, 125], "`[125]`"),
    },
    "TaskResult": {
        "command": Key("the command, named as in `after`", "reset"),
        "result": Key(
            "`success`: it has ended with exit code 0; `failure`: it has failed for good", "failure"
        ),
    },
    "Conditions": {
        "kernel_command_line": Key(
            "words that must be on the kernel's command line, `NAME` (also with a value) or `NAME=VALUE`, or "
            "`!` and a word that must not",
            ["!novpn", "mode=factory"],
        ),
        "path": Key(
            "absolute paths, on the host, that must be there, or `!` and one that must not", "/dev/ttyUSB0"
        ),
        "link": Key(
            "network links that must be up and have a carrier; `*`: any but the loopback. `!` and a name: one"
            " that must not",
            "wg0",
        ),
        "address": Key(
            "links, likewise, that must have an address that reaches others (of global scope, not tentative)",
            "*",
        ),
        "route": Key("links, likewise, that a default route must lead over", "!eth0"),
        "udev": Key(
            "devices that must be there, each an object of properties and patterns, see [devices](#devices)",
            {"SUBSYSTEM": "block", "ID_FS_LABEL": "data"},
        ),
        "task": Key(
            "what must have become of other commands, see below", {"command": "reset", "result": "success"}
        ),
        "otherwise": Key(
            "what becomes of it when its turn comes and they do not hold: `wait` for them, or `skip` it",
            "skip",
        ),
    },
    "Autostart": {
        "stage": Key(
            "when its turn comes at the earliest: `early`, `system`, `network` or `api`, see below",
            "early",
            "`system`, with `before` `early`",
        ),
        "before": Key(
            "`handover`: the real init waits for it, see [handover](#handover)", "handover", "nothing"
        ),
        "on_timeout": Key(
            "with `before`: what becomes of the boot when `start_timeout` is over, `boot`, `recovery` or "
            "`reboot`",
            "recovery",
            "`boot`",
        ),
        "on_failure": Key("the same when it has failed for good or been skipped", "reboot", "`boot`"),
        "after": Key(
            "commands that must be ready before, or have failed for good or been skipped: verbs of this "
            "file, or `API/VERB`",
            ["net/up"],
        ),
        "requires": Key(
            "the same, and they are started too. Unless they get ready this one is skipped; it is stopped "
            "when one of them is stopped or fails for good",
            ["storage"],
        ),
        "wants": Key("the same as `after`, and they are started too", ["splash"]),
        "args": Key("the arguments, as those of a request", {"interface": "wg0"}),
        "conditions": Key("what else must be so, see [conditions](#conditions)", {"path": "/dev/ttyUSB0"}),
        "ready": Key(
            "when it is ready: `started`, as soon as it runs; `notify`, when it says so, see "
            "[notifications](#notifications); `exited`, when it has ended with exit code 0",
            "notify",
        ),
        "start_timeout": Key(
            "seconds in which it must get ready, or it is stopped and has failed; `0`: any time. Not with "
            "`ready: started`",
            30,
            "`90` with `notify` or `before`, else any time",
        ),
        "watchdog": Key(
            "seconds; once it is ready it must say at least so often that it is alive, or it is stopped and "
            "has failed. Not with `ready: exited`",
            10,
            "it need not",
        ),
        "stop_timeout": Key(
            "seconds from the request to end (SIGTERM) until everything it has started is killed; `0`: at "
            "once. See [stop](#stop)",
            20,
        ),
        "restart": Key("whether it is started again, see [restart](#restart)", "on-failure"),
    },
}
