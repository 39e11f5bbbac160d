"""The same sandbox by both back ends: what initspawn builds is what bubblewrap builds.

Generated configurations, all of them valid, are started natively and through bubblewrap, and what the
kernel says of the two commands is compared: mounts, identity, capabilities, namespaces, /dev, environment
and the rest. What differs by design is named in BY_DESIGN, and in docs/configuration.md, section bubblewrap.
`make test` compares some for root and for an ordinary user, `make soak` all of them.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from initspawn.plan import NAMESPACES, Sandbox
from tests.system import boxes
from tests.system.conftest import root_and_a_user
from tests.system.harness import Person, bench
from tests.system.test_generated import HOME, settle

ALL, SOME = 240, 40
COUNT = ALL if hypothesis.settings().max_examples > 100 else SOME
SLEEP = ("/bin/sleep", "60")
BWRAP = "/usr/bin/bwrap"

BY_DESIGN = {
    "environment: PWD": "bubblewrap sets it",
    "session": "bubblewrap's PID 1 leads the session, natively the command itself",
    "/dev/core": "bubblewrap makes this link to /proc/kcore",
    "/dev: noexec": "bubblewrap lets programs there be executed",
    "/proc/sys and others, for user 0: noexec, propagation": "bubblewrap binds them from the machine's /proc",
    "without `mounts`: nosuid": "bubblewrap binds the machine's tree anew",
    "/: root": "bubblewrap's root is a directory of a file system, initspawn's a file system",
    "file: root": "a file of `execfd` has another name where it is made, and bubblewrap removes that",
}

STATUS = ("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp",
          "Seccomp_filters", "Umask", "SigBlk", "SigIgn", "SigCgt", "TracerPid", "THP_enabled")  # fmt: skip
FRESH = [
    {"target": "/proc", "mode": "procfs"},
    {"target": "/dev", "mode": "devfs"},
    {"target": "/tmp", "mode": "tmpfs"},
]
MOUNTS = [
    {"target": "/tmp/deep", "mode": "tmpfs"},
    {"target": "/data", "mode": "rw", "source": HOME},
    {"target": "/data", "mode": "ro", "source": HOME},
    {"target": "/etc/ssl", "mode": "ro", "source": "/usr"},
    {"target": "/etc/hostname", "mode": "execfd", "source": "echo inside"},
    {"target": "/some/place", "mode": "anonymous"},
    {"target": "/other", "mode": "dir"},
    {"target": "/link", "mode": "symlink", "source": "/usr/bin"},
    {"target": "/new", "mode": "rw", "source": f"{HOME}/new"},
]
SHARE = st.sampled_from(["default", "disable", "enable"])
SANDBOX = st.fixed_dictionaries(
    {
        "namespace": st.fixed_dictionaries(
            {
                "opts": st.fixed_dictionaries(
                    {"autocreate": st.just(True)},
                    optional={"hostname": st.just("inside"), "writable_root": st.booleans()},
                ),
                "shares": st.fixed_dictionaries(
                    {"users": st.sampled_from(["disable", "default"])},
                    optional=dict.fromkeys(("all", "cgroups", "net", "ipc"), SHARE)
                    | {"pid": st.sampled_from(["default", "disable"])},
                ),
            },
            optional={
                "mounts": st.tuples(
                    st.sampled_from([FRESH, FRESH, FRESH[:1], FRESH[:2]]),
                    st.lists(st.sampled_from(MOUNTS), max_size=5, unique_by=lambda mount: mount["target"]),
                ).map(lambda parts: [*parts[0], *parts[1]])
            },
        )
    },
    optional={
        "envs": st.lists(
            st.fixed_dictionaries(
                {"name": st.sampled_from(["FOO", "HOME", "PWD"]), "value": st.sampled_from(["", "ä\n="])},
                optional={"mode": st.sampled_from(["set", "unset"])},
            ),
            max_size=3,
        ),
        "caps": st.lists(
            st.fixed_dictionaries(
                {"cap": st.sampled_from(["KILL", "NET_RAW", "CHOWN", "SYS_ADMIN"]), "mode": st.just("set")}
            ),
            max_size=2,
        ),
        "seccomp": st.sampled_from(
            ["default", "no-network", "no-new-process", {"profile": ["default", "no-network"]}]
        ),
        "limits": st.fixed_dictionaries({}, optional={"nofile": st.just(64), "core": st.just(0)}),
        "scheduling": st.fixed_dictionaries({"nice": st.integers(0, 19)}),
    },
)
ACLS = st.fixed_dictionaries(
    {}, optional={"umask": st.sampled_from(["022", "077"]), "chdir": st.sampled_from(["/", "/usr"])}
)


def generated(count: int) -> list[tuple[dict[str, Any], bool]]:
    """So many sandboxes, the same ones at each call; with each, whether root's commands run as root."""
    found: list[tuple[dict[str, Any], bool]] = []

    @settings(
        max_examples=count, derandomize=True, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(SANDBOX, ACLS, st.booleans())
    def collect(sandbox: dict[str, Any], acls: dict[str, Any], as_root: bool) -> None:
        found.append(({**sandbox, "acls": acls}, as_root))

    collect()
    return found


def both(
    who: Person, raw: dict[str, Any], uid: str, as_root: bool, roots: Path
) -> tuple[Sandbox, Sandbox]:
    """A generated sandbox as initspawn builds it, and as bubblewrap does. `roots`: a directory of root's."""
    home = roots if who.root and as_root else who.home
    made_for: Any = SimpleNamespace(home=home, command_uid=who.command_uid)
    raw = settle(raw, made_for) | {"uid": uid}
    shares = raw["namespace"]["shares"]
    if who.root:
        user = 0 if as_root else who.command_uid
        raw["acls"] |= {"user": user, "group": user}
        shares["users"] = "disable"  # bubblewrap drops root's rights nowhere else
    opts = raw["namespace"]["opts"]
    other = raw | {"uid": f"{uid}b", "namespace": raw["namespace"] | {"opts": opts | {"bwrap": BWRAP}}}
    return boxes.compiled(who, raw), boxes.compiled(who, other)


def dumps(sandboxes: list[Sandbox]) -> list[dict[str, Any]]:
    """What each of them gives a command, seen from outside; or why it was refused."""
    here = {name: os.readlink(f"/proc/self/ns/{name}") for name in NAMESPACES}
    answers = []
    with bench(*sandboxes) as made:
        for box in sandboxes:
            run = made.start(*SLEEP, sandbox=box)
            made.until(lambda run=run: run.started or run.ended, "the start")  # type: ignore[misc]
            if run.refusal is not None:
                answers.append({"refused": run.refusal.info})
                continue
            status = f"/proc/{run.pid}/status"
            made.until(lambda status=status: "State:\tS" in _text(status), "its sleep")  # type: ignore[misc]
            answers.append(seen(str(run.pid), here, not box.new_root))
            run.stop(9).end()
    return answers


def seen(pid: str, here: dict[str, str], whole_tree: bool) -> dict[str, Any]:
    """What /proc says of a process, without what is no two processes' own."""
    proc = f"/proc/{pid}"
    status = dict(line.split(":\t", 1) for line in _text(f"{proc}/status").splitlines())
    words = _text(f"{proc}/stat").rpartition(") ")[2].split()
    own = {name for name in NAMESPACES if os.readlink(f"{proc}/ns/{name}") != here[name]}
    return {
        **{name: status.get(name) for name in STATUS},
        "pid inside": status["NSpid"].split()[1:],
        "maps": [_text(f"{proc}/{name}").split() for name in ("uid_map", "gid_map", "setgroups")],
        "own namespaces": own,
        "limits": _text(f"{proc}/limits"),
        "nice": words[16],
        "environment": {item for item in _text(f"{proc}/environ").split("\0") if item[:4] != "PWD="},
        "arguments": _text(f"{proc}/cmdline"),
        "directory": os.readlink(f"{proc}/cwd"),
        "descriptors": sorted(os.listdir(f"{proc}/fd")),
        "mounts": mounts(_text(f"{proc}/mountinfo"), whole_tree),
        "/": listing(f"{proc}/root"),
        "/dev": {name: kind for name, kind in listing(f"{proc}/root/dev").items() if name != "core"},
    }


def mounts(text: str, whole_tree: bool) -> set[tuple[str, ...]]:
    """Mount point, file system and its root, options, whether it propagates: in no order."""
    found = set()
    for line in text.splitlines():
        words = line.split(" ")
        dash = words.index("-")
        root, point, options = words[3], words[4], {*words[5].split(",")}
        if point == "/" or root == "/execfd" or root.endswith("//deleted"):
            root = "(see BY_DESIGN)"
        if whole_tree:
            options.discard("nosuid")
        if point == "/dev" or point.startswith("/proc/"):
            options.discard("noexec")
        tags = {tag.partition(":")[0] for tag in words[6:dash] if not point.startswith("/proc/")}
        found.add((point, words[dash + 1], root, *sorted(options), *sorted(tags)))
    return found


def listing(directory: str) -> dict[str, tuple[Any, ...]]:
    """Each name with type and permissions, device number, and where a link leads."""
    found: dict[str, tuple[Any, ...]] = {}
    if not os.path.isdir(directory):
        return found
    for entry in os.scandir(directory):
        about = entry.stat(follow_symlinks=False)
        link = os.readlink(entry.path) if entry.is_symlink() else ""
        number = about.st_rdev if stat.S_ISCHR(about.st_mode) else 0
        found[entry.name] = (stat.filemode(about.st_mode), number, link)
    return found


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


@root_and_a_user
@pytest.mark.needs("userns", "seccomp", "bwrap")
def test_both_back_ends_build_the_same(who: Person, tmp_path: Path) -> None:
    drawn = enumerate(generated(COUNT))
    pairs = [both(who, raw, f"box{at}", as_root, tmp_path) for at, (raw, as_root) in drawn]
    found = who.call(dumps, [box for pair in pairs for box in pair])
    for (box, _), ours, theirs in zip(pairs, found[::2], found[1::2], strict=True):
        assert "refused" not in ours, (ours, box)
        assert "refused" not in theirs, (theirs, box)
        differences = {name: _apart(ours[name], theirs[name]) for name in ours if ours[name] != theirs[name]}
        assert not differences, box


def _apart(ours: Any, theirs: Any) -> tuple[Any, Any]:
    """What only one of them has."""
    return (ours - theirs, theirs - ours) if isinstance(ours, set) else (ours, theirs)


def test_they_are_many_and_differ() -> None:
    found = generated(ALL)
    assert len(found) == ALL >= 200
    assert len({repr(one) for one in found}) > ALL * 3 / 4
    assert generated(ALL) == found
    used = {key for sandbox, _ in found for key in sandbox}
    assert used == {"namespace", "acls", "envs", "caps", "seccomp", "limits", "scheduling"}
