"""Configurations that nobody wrote: each runs and is what its plan says, or is refused with a reason.

They are drawn from the schema's own types, with words for the keys that take text, always the same ones.
`make test` tries 240 for root and as many for an ordinary user, `make soak` thousands.
"""

from __future__ import annotations

import os
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from msgspec import inspect

from initspawn.config import schema
from initspawn.config.bounds_schema import LIMIT_NAMES
from initspawn.errors import ConfigError, PlanError
from initspawn.plan import NAMESPACES, Api, Plan, Sandbox
from initspawn.supervisor.groups import Groups
from tests.support.pace import IN_GUEST
from tests.system import boxes
from tests.system.conftest import root_and_a_user
from tests.system.harness import Person, bench

ALL, MANY = 240, 3000
COUNT = 60 if IN_GUEST else MANY if hypothesis.settings().max_examples > 100 else ALL
SLEEP = ("/bin/sleep", "60")

ME, HOME = "@ME", "@HOME"  # become the command's user, and a directory of that user
SPARE = st.sampled_from(["mkdir", "sync", "keyctl", "mknod", "mseal", "open_by_handle_at", "nosuchcall"])
ACTIONS = ["allow", "SCMP_ACT_ERRNO", "errno(EACCES)", "errno(13)", "trap", "log", "kill", "kill_process",
           "trace(3)", "notify"]  # fmt: skip
MORE_MOUNTS: list[dict[str, str]] = [
    {"target": "/proc", "mode": "procfs"},
    {"target": "/dev", "mode": "devfs"},
    {"target": "/dev", "mode": "dev"},
    {"target": "/tmp", "mode": "tmpfs"},
    {"target": "/tmp/deep", "mode": "tmpfs"},
    {"target": "/data", "mode": "rw", "source": HOME},
    {"target": "/data", "mode": "ro", "source": HOME},
    {"target": "/etc", "mode": "ro"},
    {"target": "/etc/hostname", "mode": "execfd", "source": "echo inside"},
    {"target": "/some/place", "mode": "anonymous"},
    {"target": "/other", "mode": "dir"},
    {"target": "/link", "mode": "symlink", "source": "/usr/bin"},
    {"target": "/new", "mode": "rw", "source": f"{HOME}/new/one"},
    {"target": "/nothing", "mode": "ro", "source": "/proc/nowhere"},
    {"target": "/dev/mqueue", "mode": "mqueue"},
    {"target": "/lock", "mode": "lock"},
]
SCHEMA_RULE = st.fixed_dictionaries(
    {"syscall": SPARE | st.lists(SPARE, min_size=1, max_size=2), "action": st.sampled_from(ACTIONS)}
)


def _text(*words: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(words)


# What a sleeping program can live with, and sometimes what no program can.
LIMIT = st.sampled_from([1 << 23, 1 << 25, "unlimited", {"soft": 1 << 23, "hard": 1 << 30}, 100, 0])

# Of the keys that take text, and of others whose usual values would only be refused.
GIVEN: dict[tuple[str, str], st.SearchStrategy[Any]] = {
    ("Sandbox", "uid"): st.just("box"),
    ("Sandbox", "info"): _text("some words"),
    ("Sandbox", "prefix"): _text("", "p", "a/b"),
    ("Sandbox", "privilege"): _text("urn:some"),
    ("Sandbox", "commands"): st.just([]),
    ("Sandbox", "allow_setuid"): st.sampled_from([False, False, True]),
    ("Env", "name"): _text("FOO", "PATH", "HOME", "LD_LIBRARY_PATH"),
    ("Env", "value"): _text("", "text", "$SANDBOX_UID", "ä"),
    ("Acls", "user"): _text(ME, ME, ME, ME, ME, "nobody", 54322, "nosuchuser"),
    ("Acls", "group"): _text(ME, ME, ME, "nogroup", 54322),
    ("Acls", "umask"): _text("022", "077", "0", "27", "9"),
    ("Acls", "chdir"): _text("/", "/", "/usr", "/tmp", "/nowhere"),
    ("Acls", "timeout"): st.sampled_from([0, 60, "3600"]),
    ("Acls", "runmod"): _text("default", "default", "default", "user", "admin"),
    ("Acls", "path"): _text("/usr/bin:/bin"),
    ("Acls", "ldpath"): _text("/usr/lib"),
    ("Cap", "cap"): _text(
        "ALL", "LAST_CAP", "KILL", "cap_net_raw", "SYS_ADMIN", "SYS_PTRACE", "CHOWN", "NONE"
    ),
    ("Seccomp", "default"): _text("allow", "allow", "allow", "log", "kill"),
    ("Seccomp", "profile"): st.lists(_text("default", "no-network", "no-new-process"), max_size=3),
    ("Seccomp", "rules"): st.lists(SCHEMA_RULE, max_size=3),
    ("Seccomp", "rulespath"): _text("/nowhere.bpf"),
    ("Seccomp", "foreign"): _text("refuse", "refuse", "refuse", "allow"),
    **{("Limits", name): LIMIT for name in LIMIT_NAMES},
    ("LandlockPath", "path"): _text("/", "/", "/usr", "/tmp", HOME, "/nowhere"),
    ("NamespaceOpts", "hostname"): _text("inside", "a-b.c", "no name"),
    ("Namespace", "mounts"): st.lists(st.sampled_from(MORE_MOUNTS), max_size=6),
}
STRINGS = {("Sandbox", "seccomp"): _text("default", "no-network", "no-new-process", "nosuchprofile")}
# Half of them without what is refused for most neighbours: else hardly any would run.
RARE = {("Seccomp", "rulespath"), ("Sandbox", "allow_setuid"), ("Sandbox", "privilege")}


def drawn(kind: inspect.Type, key: tuple[str, str] = ("", "")) -> st.SearchStrategy[Any] | None:
    """Values for a type of the schema; None where it takes text and nobody has said which."""
    if key in GIVEN:
        return GIVEN[key]
    if isinstance(kind, inspect.StructType):
        fields = {}
        for field in kind.fields:
            found = drawn(field.type, (kind.cls.__name__, field.name))
            if found is not None:
                fields[field.name] = found
        needed = [field.name for field in kind.fields if field.required]
        if not fields.keys() >= set(needed):
            return None
        required = {name: fields.pop(name) for name in needed}
        return st.fixed_dictionaries(required, optional=fields)
    if isinstance(kind, inspect.ListType):
        item = drawn(kind.item_type)
        return None if item is None else st.lists(item, max_size=3)
    if isinstance(kind, inspect.UnionType):
        kinds = [drawn(one) for one in kind.types if not isinstance(one, inspect.NoneType)]
        told = [*(one for one in kinds if one is not None), *([STRINGS[key]] if key in STRINGS else [])]
        return st.one_of(told) if told else None
    if isinstance(kind, inspect.LiteralType):
        return st.sampled_from([str(word) for word in kind.values])
    if isinstance(kind, inspect.IntType):
        low = 0 if kind.ge is None else kind.ge
        return st.integers(low, 1 << 40 if kind.le is None else kind.le)
    return st.booleans() if isinstance(kind, inspect.BoolType) else None


def generated(count: int) -> list[dict[str, Any]]:
    """So many sandboxes, the same ones at each call."""
    found: list[dict[str, Any]] = []
    strategy = drawn(inspect.type_info(schema.Sandbox))
    assert strategy is not None

    @settings(
        max_examples=count, derandomize=True, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(strategy, st.sampled_from([0, 0, 1]))
    def collect(sandbox: dict[str, Any], odd: int) -> None:
        if not odd:
            for name in [name for part, name in RARE if part == "Sandbox"]:
                sandbox.pop(name, None)
            if isinstance(sandbox.get("seccomp"), dict):
                sandbox["seccomp"].pop("rulespath", None)
                sandbox["seccomp"].pop("foreign", None)
            sandbox.setdefault("acls", {})["user"] = ME
            sandbox["acls"]["group"] = ME
        found.append(sandbox)

    collect()
    return found


def settle(value: Any, who: Person) -> Any:
    """A generated value for this person, and mounts with what a program needs before them."""
    if isinstance(value, dict):
        made = {key: settle(item, who) for key, item in value.items()}
        if isinstance(made.get("mounts"), list):
            fresh = ("/proc", "/dev", "/tmp")
            made["mounts"] = [mount for mount in boxes.view() if mount["target"] not in fresh] + made[
                "mounts"
            ]
        return made
    if isinstance(value, list):
        return [settle(item, who) for item in value]
    if value == ME:
        return who.command_uid
    return value.replace(HOME, str(who.home)) if isinstance(value, str) else value


def started(sandboxes: list[Sandbox]) -> list[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    """For each: the refusal's step and reason, or `command` and its end if that came by itself, or what is
    seen of the command from outside; and what is seen of us.
    """
    here = seen("self")
    answers = []
    fitting = [fitted(box) for box in sandboxes]
    with bench(*[box for box in fitting if isinstance(box, Sandbox)]) as made:
        for box in fitting:
            if isinstance(box, str):
                answers.append(("plan", box, {}, here))
                continue
            run = made.start(*SLEEP, sandbox=box)
            made.until(lambda run=run: run.started or run.ended, "the start")  # type: ignore[misc]
            if run.refusal is not None:
                answers.append((run.refusal.step, run.refusal.info, {}, here))
                continue
            try:
                found = seen(str(run.pid))
            except (FileNotFoundError, ProcessLookupError):
                found = {}
            status = run.stop(9).end().status
            if status != {"signal": "Killed"} or not found:  # what it has got no program can live with
                assert box.limits or box.filters, (status, box)
                answers.append(("command", f"{status}", {}, here))
            else:
                answers.append(("", "", found, here))
    return answers


def fitted(box: Sandbox) -> Sandbox | str:
    """The sandbox as this machine can run it, or why not: its cgroups cannot be made."""
    groups = Groups()
    api = Api(uid="t", api="t", sandboxes=(box,))
    try:
        (made,) = groups.fit(Plan(user=os.geteuid(), group=os.getegid(), apis=(api,))).apis
    except PlanError as error:
        return str(error)
    groups.close()
    return made.sandboxes[0]


def seen(pid: str) -> dict[str, Any]:
    """What /proc says of a process."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file)
    spaces = {name: os.readlink(f"/proc/{pid}/ns/{name}") for name in NAMESPACES}
    return {"status": status, "ns": spaces, "cwd": os.readlink(f"/proc/{pid}/cwd")}


def check(box: Sandbox, found: dict[str, Any], here: dict[str, Any], who: Person) -> None:
    """That a process is what the plan says, read here once more, without the package's measurement."""
    status, mine = found["status"], here["status"]
    assert status["Uid"].split() == [str(box.user)] * 4
    assert status["Gid"].split() == [str(box.group)] * 4
    if box.groups is not None:
        assert [int(group) for group in status["Groups"].split()] == sorted(box.groups)
    sets = [int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")]
    assert sets == [box.capabilities] * 4
    if who.root or box.id_map is not None:
        assert int(status["CapBnd"], 16) == box.capabilities
    assert status["NoNewPrivs"] == str(int(box.no_new_privileges))
    assert int(status["Seccomp_filters"]) == int(mine["Seccomp_filters"]) + len(box.filters)
    assert int(status["Umask"], 8) == box.umask
    assert {name for name in NAMESPACES if found["ns"][name] != here["ns"][name]} == set(box.namespaces)
    assert found["cwd"] == box.directory or box.new_root
    assert status["TracerPid"] == "0"


@root_and_a_user
@pytest.mark.needs("userns", "seccomp")
def test_each_runs_as_planned_or_is_refused(who: Person) -> None:
    plans, reasons, refused = [], [], 0
    for raw in generated(COUNT):
        try:
            plans.append(boxes.compiled(who, {**settle(raw, who), "uid": f"box{len(plans)}"}))
        except ConfigError as error:
            reasons += [problem.message for problem in error.problems] or [""]
            refused += 1
    assert all(reasons)
    answers = who.call(started, plans)
    ran = ended = 0
    for box, (step, reason, found, here) in zip(plans, answers, strict=True):
        if step:
            assert step != "measurement", (reason, box)  # it would have been something else than its plan
            assert reason
            ended += step == "command"
        else:
            ran += 1
            check(box, found, here, who)
    assert refused + len(plans) == COUNT
    assert min(ran, refused) > COUNT / 8, (ran, refused)
    assert ended < COUNT / 50, ended  # those that were seen before are in `ran`


def test_they_are_the_same_ones_each_time_and_many() -> None:
    first = generated(ALL)
    assert len(first) == ALL >= 200
    assert generated(ALL) == first
    used = {key for sandbox in first for key in sandbox}
    assert used >= {"acls", "caps", "seccomp", "namespace", "limits", "scheduling", "envs", "allow_setuid"}
