"""The sandboxes of these tests, as a compiled configuration would have them."""

from __future__ import annotations

import os
import resource
import struct
import sys
from typing import Any

from initspawn.config.compile import compile_raw
from initspawn.linux.numbers import table
from initspawn.plan import NAMESPACES, IdMap, Mount, Sandbox, Scheduling
from tests.system.harness import PYTHON, Person

PATH = "/usr/bin:/bin:/usr/sbin:/sbin"
ENVIRONMENT = (("PATH", PATH), ("LANG", "C.UTF-8"), ("EMPTY", ""), ("ODD", "ä b\n="))
HOSTNAME = "inside-the-box"
FILE = b"root:x:0:0::/:\nsomebody:x:4711:4711::/:\n"

# linux/filter.h, linux/seccomp.h
_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000


def sandbox(who: Person, *namespaces: str, **values: Any) -> Sandbox:
    """A sandbox for this person's commands. A user's namespaces are owned by one of its own."""
    own = {*namespaces}
    if own and not who.root:
        own.add("user")
    if "user" in own and "id_map" not in values:
        values["id_map"] = id_map(who)
    given = {
        "uid": "box",
        "environment": ENVIRONMENT,
        "user": who.command_uid,
        "group": who.command_gid,
        "groups": () if who.root else None,
        "namespaces": tuple(name for name in NAMESPACES if name in own),
    }
    return Sandbox(**{**given, **values})


def id_map(who: Person, inside: int | None = None) -> IdMap:
    """The one identity of a user namespace."""
    return IdMap(
        inside_uid=who.command_uid if inside is None else inside,
        outside_uid=who.command_uid,
        inside_gid=who.command_gid if inside is None else inside,
        outside_gid=who.command_gid,
        first=not who.root,
    )


def bind(source: str, target: str = "", *, write: bool = False) -> Mount:
    return Mount(operation="bind", source=source, target=target or source, read_only=not write)


def programs() -> tuple[Mount, ...]:
    """What is needed to run a shell and Python."""
    mounts = [bind("/usr")]
    for name in ("/bin", "/sbin", "/lib", "/lib64"):
        if os.path.islink(name):
            mounts.append(Mount(operation="symlink", target=name, source=os.readlink(name)))
        elif os.path.isdir(name):
            mounts.append(bind(name))
    if not PYTHON.startswith("/usr/"):
        mounts.append(bind(os.path.realpath(sys.base_prefix)))
    return tuple(mounts)


def tree(who: Person) -> tuple[Mount, ...]:
    """A file tree with an entry of every kind; the person's home is /data, writable."""
    return (
        *programs(),
        Mount(operation="proc", target="/proc"),
        Mount(operation="dev", target="/dev"),
        Mount(operation="tmpfs", target="/tmp"),
        Mount(operation="mqueue", target="/dev/mqueue"),
        Mount(operation="dir", target="/home/deep/er"),
        bind(str(who.home), "/data", write=True),
        Mount(operation="file", target="/etc/passwd", data=FILE),
    )


def full(who: Person, **values: Any) -> Sandbox:
    """Everything a sandbox can have."""
    given: dict[str, Any] = {
        "hostname": HOSTNAME,
        "new_root": True,
        "mounts": tree(who),
        "directory": "/data",
        "umask": 0o027,
        "filters": (bpf({"ptrace": ERRNO | 1}), bpf({"personality": ERRNO | 95})),
        "limits": ((resource.RLIMIT_NOFILE, 64, 128), (resource.RLIMIT_CORE, 0, 0)),
        "scheduling": Scheduling(nice=3, policy=3, io=2 << 13 | 6, oom_score_adj=600),
    }
    return sandbox(who, *NAMESPACES, **{**given, **values})


def bpf(actions: dict[str, int], default: int = ALLOW) -> bytes:
    """A filter by system call name, written by hand: seccomp(2) has an example."""
    code = [(_LOAD, 0, 0, 0)]  # the number: the first word of struct seccomp_data
    for name, action in actions.items():
        code += [(_JUMP_EQUAL, 0, 1, _number(name)), (_RETURN, 0, 0, action)]
    code.append((_RETURN, 0, 0, default))
    return b"".join(struct.pack("=HBBI", *line) for line in code)


# Calls that only the tests need (x86-64; the list that all newer machines share).
_MORE = {"ptrace": (101, 117), "personality": (135, 92), "getppid": (110, 173), "execveat": (322, 281)}


def _number(name: str) -> int:
    if name in _MORE:
        return _MORE[name][os.uname().machine != "x86_64"]
    return table()[name]


def compiled(who: Person, keys: dict[str, Any]) -> Sandbox:
    """What a configuration's sandbox becomes when this person serves it."""
    acls = {"user": who.command_uid, "group": who.command_gid} if who.root else {}
    config = {
        "metadata": {"uid": "test", "api": "test"},
        "sandboxes": {"uid": "box", "acls": acls, "commands": [], **keys},
    }
    # Who serves is `uid`; the group is the one that this process is given as that person.
    made = compile_raw(config, file="test", user=who.uid, group=who.gid, environ={})
    return made.sandboxes[0]


def view(*more: dict[str, Any]) -> list[dict[str, Any]]:
    """The mounts of a full sandbox in a configuration: the machine's programs, and everything else fresh."""
    modes = {"bind": "ro", "symlink": "symlink"}
    mounts = [
        {"target": mount.target, "mode": modes[mount.operation], "source": mount.source}
        for mount in programs()
    ]
    fresh = (("/proc", "procfs"), ("/dev", "devfs"), ("/tmp", "tmpfs"))
    return [*mounts, *({"target": target, "mode": mode} for target, mode in fresh), *more]


def profiled(who: Person, profile: Any = "default", **keys: Any) -> Sandbox:
    """The full sandbox of docs/benchmarks.md: everything of its own, no capability, a seccomp profile."""
    namespace = {"shares": {"all": "disable"}, "mounts": view()}
    return compiled(who, {"seccomp": profile, "namespace": namespace, **keys})
