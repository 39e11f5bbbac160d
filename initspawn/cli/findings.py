"""What one run in a sandbox found out, as named values that can stand beside those of another."""

from __future__ import annotations

import json
import os
import pwd
from typing import Any, NamedTuple

from initspawn.cli.sequence import Ran
from initspawn.linux import capabilities
from initspawn.plan import Sandbox
from initspawn.sandbox import describe

ABSENT = "-"  # a finding that one of them has not
_FEW = 10  # capabilities that are told by their absence
_EVERY_CAPABILITY = (1 << len(capabilities.NAMES)) - 1
_NAMESPACES = {
    "user": "users", "pid": "process numbers", "mnt": "mounts", "ipc": "IPC", "uts": "host name",
    "net": "network", "cgroup": "cgroup view",
}  # fmt: skip

# A value is a text, or a list of texts that are compared one by one.
Value = str | list[str]


class Finding(NamedTuple):
    """One thing and how it is in each sandbox; `section` groups them."""

    section: str
    name: str
    values: list[Value]

    @property
    def same(self) -> bool:
        """Whether it is alike everywhere."""
        return all(value == self.values[0] for value in self.values)


def findings(found: list[dict[tuple[str, str], Value]]) -> list[Finding]:
    """All that was found anywhere, side by side, in the order in which it was found."""
    keys = dict.fromkeys(key for one in found for key in one)
    order = list(dict.fromkeys(section for section, _ in keys))
    ranked = sorted(keys, key=lambda key: order.index(key[0]))
    return [Finding(*key, [one.get(key, ABSENT) for one in found]) for key in ranked]


def of_run(sandbox: Sandbox, ran: Ran, looked: Ran) -> dict[tuple[str, str], Value]:
    """What the command `ran` and the look around (`looked`) tell about a sandbox."""
    found: dict[tuple[str, str], Value] = {}
    told = _told(looked)
    for name, value in _held(ran.measurement or looked.measurement).items():
        found["is", name] = value
    if "users" in told["sees"]:
        found["is", "user, as it sees itself"] = _users(told["sees"].pop("users"))
    for name, value in _shared(ran.measurement or looked.measurement, ran.own_cgroup).items():
        found["has its own", name] = value
    found["sees", "mounts"] = describe.mounts(sandbox) or "the host's"
    for name, value in told["sees"].items():
        found["sees", name] = value if isinstance(value, (str, list)) else str(value)
    for name, value in told["tries"].items():
        found["may", name] = str(value)
    if looked.refusal or looked.status != {"exit": 0}:
        found["may", "(looking around)"] = looked.refusal or _ended(looked)
    for stream, lines in ran.output.items():
        found["the command", stream] = lines
    if ran.discarded:
        found["the command", "lines left out"] = str(ran.discarded)
    found["the command", "end"] = ran.refusal or _ended(ran)
    return found


def _told(looked: Ran) -> dict[str, dict[str, Any]]:
    """The lines of `lookaround`. Whatever else came is not from it, and is left out."""
    told: dict[str, dict[str, Any]] = {"sees": {}, "tries": {}}
    for line in looked.output["stdout"]:
        try:
            kind, name, value = json.loads(line)
            told[kind][name] = value
        except (ValueError, TypeError, KeyError):
            continue
    return told


def _held(measured: dict[str, Any]) -> dict[str, Value]:
    """Who the command is and what it holds, by the kernel's own account at its exec."""
    if not measured:
        return {}
    effective, bounding = measured["capabilities"][2:4]
    mode, filters = measured["seccomp"]
    return {
        "user": _name(measured["user"][0]),
        "group": str(measured["group"][0]),
        "further groups": [str(number) for number in measured["groups"]],
        "users of its own": _map(measured["identity"]),
        "capabilities": _capabilities(effective),
        "can ever hold": _capabilities(bounding),
        "no new privileges": "yes" if measured["no-new-privileges"] else "no: setuid programs work",
        "seccomp": {0: "off", 1: "strict"}.get(mode, f"{filters} filter{'s' if filters != 1 else ''}"),
        "umask": f"{measured['umask']:03o}",
        "directory": measured["directory"],
        "limits": [_limit(which, *pair) for which, pair in measured["limits"].items()],
        "scheduling": [f"{name} {value}" for name, value in measured["scheduling"].items()],
        "environment": list(measured["environment"]),
    }


def _shared(measured: dict[str, Any], own_cgroup: bool) -> dict[str, Value]:
    if not measured:
        return {}
    told: dict[str, Value] = {
        _NAMESPACES[name]: "yes" if state == "private" else "no, the host's"
        for name, state in measured["namespaces"].items()
    }
    return told | {"cgroup": "yes" if own_cgroup else "no, the supervisor's"}


def _name(number: int) -> str:
    try:
        return f"{number} ({pwd.getpwuid(number).pw_name})"
    except KeyError:
        return str(number)


def _users(ids: Any) -> str:
    if not isinstance(ids, list):
        return str(ids)
    user, group, further = ids[0], ids[3], ids[6:]
    return f"user {user}, group {group}" + (f", also {' '.join(map(str, further))}" if further else "")


def _map(identity: dict[str, str]) -> str:
    if not identity:
        return "no"
    user, outer_user, _ = identity["uid_map"].split()
    group, outer_group, _ = identity["gid_map"].split()
    return f"user {user} is {outer_user} outside, group {group} is {outer_group}"


def _capabilities(mask: int) -> Value:
    missing = capabilities.names(_EVERY_CAPABILITY & ~mask)
    if not missing:
        return ["all"]
    if len(missing) <= _FEW:
        return [f"all but {' '.join(missing)}"]
    return capabilities.names(mask) or ["none"]


def _limit(which: int, soft: int, hard: int) -> str:
    words = ["unlimited" if number < 0 else str(number) for number in (soft, hard)]
    name = describe.LIMIT_NAMES.get(which, which)
    return f"{name} {words[0]}" if soft == hard else f"{name} {words[0]} to {words[1]}"


def _ended(ran: Ran) -> str:
    status = dict(ran.status)
    if "exit" in status:
        return f"exit {status['exit']}"
    reason = {"timeout": " (its time was over)"}.get(str(status.get("info")), "")
    return f"signal: {status.get('signal', os.strerror(0))}{reason}"
