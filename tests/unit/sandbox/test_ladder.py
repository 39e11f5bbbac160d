"""Which steps a sandbox takes, in which order, and what each puts into the program."""

from __future__ import annotations

import errno
import os
import struct
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initspawn.linux import capabilities, landlock, prctl, process
from initspawn.linux.landlock import FS
from initspawn.linux.numbers import table
from initspawn.plan import NAMESPACES, IdMap, Landlock, Mount, Sandbox, Scheduling
from initspawn.sandbox import ladder
from initspawn.sandbox.ladder import compile_steps
from initspawn.sandbox.program import Program
from initspawn.sandbox.recipe import Recipe, Step
from initspawn.sandbox.steps import COMMAND_STEPS, FILTER_STEPS, READY, REAPER_STEPS

NAMES = {number: name for name, number in table().items()}
LAST = 40
ALL = (1 << LAST + 1) - 1
BASELINE: Any = SimpleNamespace(
    ignored=0, permitted=ALL, last_capability=LAST, landlock=2, lsm="", supervisor=4711
)
FIRST_MAP = IdMap(inside_uid=5, outside_uid=1000, inside_gid=6, outside_gid=1001, first=True)
LAST_MAP = FIRST_MAP.replace(first=False)
CHOWN, KILL, NET_ADMIN = (capabilities.NUMBERS[name] for name in ("CHOWN", "KILL", "NET_ADMIN"))


def sandbox(**fields: Any) -> Sandbox:
    """An ordinary user's, unless the fields say otherwise."""
    return Sandbox(**{"uid": "s", "user": 1000, "group": 1001, "groups": None, **fields})


def steps(**fields: Any) -> list[str]:
    return ladder.names(sandbox(**fields), BASELINE)


def compiled(recipe: Recipe, *names: str) -> list[tuple[Any, ...]]:
    """The calls of some steps, as (name, arguments)."""
    wanted = tuple(step for step in (*REAPER_STEPS, *COMMAND_STEPS, *FILTER_STEPS) if step.name in names)
    assert len(wanted) == len(names)
    program = compile_steps(wanted, recipe)
    return [(NAMES[call[0]], *call[1:6]) for call in program.calls]


def calls(name: str, baseline: Any = BASELINE, extra: int = 0, **fields: Any) -> list[tuple[Any, ...]]:
    return compiled(Recipe(sandbox(**fields), baseline, extra), name)


ALWAYS = [
    "descriptors", "own session", "reaper", "traceable", "session", "signals", "umask", "capabilities",
    "directory", "no new privileges", "parent death signal", "held", "exec",
]  # fmt: skip


# Which steps.


def test_the_least_a_command_gets() -> None:
    assert steps() == ALWAYS


def test_everything_an_ordinary_user_can_ask_for() -> None:
    assert steps(
        namespaces=NAMESPACES, id_map=FIRST_MAP, hostname="h", filters=(bytes(8),), limits=((4, 0, 0),)
    ) == [
        "namespaces", "descriptors", "own session", "identity map", "reaper", "mounts", "host name",
        "loopback", "traceable", "session", "signals", "limits", "cgroup namespace", "umask", "bounding set",
        "capabilities", "directory", "no new privileges", "parent death signal", "held", "seccomp", "exec",
    ]  # fmt: skip


def test_everything_root_can_ask_for() -> None:
    assert steps(groups=(), namespaces=NAMESPACES, id_map=LAST_MAP, hostname="h", filters=(bytes(8),)) == [
        "namespaces", "descriptors", "own session", "reaper", "proc", "mounts", "host name", "loopback",
        "traceable", "session", "signals", "cgroup namespace", "umask", "groups", "group", "user",
        "user namespace", "bounding set", "capabilities", "directory", "no new privileges",
        "parent death signal", "held", "seccomp", "exec",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "more"),
    [
        ({"groups": ()}, {"groups", "group", "user", "bounding set"}),
        ({"limits": ((4, 0, 0),)}, {"limits"}),
        ({"scheduling": Scheduling(nice=1)}, {"scheduling"}),
        ({"label": "x"}, {"proc", "label"}),
        ({"label": "x", "label_optional": True}, set()),
        ({"scheduling": Scheduling(oom_score_adj=1)}, {"scheduling", "oom score"}),
        ({"landlock": Landlock(fs=1)}, {"Landlock"}),
        ({"landlock": Landlock(fs=1, optional=True)}, {"Landlock"}),
        ({"landlock": Landlock(scopes=1, optional=True)}, set()),
        ({"filters": (bytes(8),)}, {"seccomp"}),
        ({"hostname": "h"}, {"host name"}),
        ({"namespaces": ("mnt",)}, {"namespaces", "mounts"}),
        ({"namespaces": ("net",)}, {"namespaces", "loopback"}),
        ({"namespaces": ("pid",)}, {"namespaces"}),
        ({"namespaces": ("cgroup",)}, {"cgroup namespace"}),
        ({"namespaces": ("user",), "id_map": LAST_MAP}, {"proc", "user namespace"}),
        ({"namespaces": ("user",), "id_map": FIRST_MAP}, {"namespaces", "identity map", "bounding set"}),
    ],
)
def test_what_adds_a_step(fields: dict[str, Any], more: set[str]) -> None:
    assert set(steps(**fields)) == {*ALWAYS, *more}


def test_only_allow_setuid_leaves_a_step_out() -> None:
    assert [*steps(no_new_privileges=False)] == [step for step in ALWAYS if step != "no new privileges"]


@pytest.mark.parametrize("name", NAMESPACES)
def test_clone_flags(name: str) -> None:
    flag = {
        "user": process.CLONE_NEWUSER, "pid": process.CLONE_NEWPID, "mnt": process.CLONE_NEWNS,
        "ipc": process.CLONE_NEWIPC, "uts": process.CLONE_NEWUTS, "net": process.CLONE_NEWNET,
        "cgroup": 0,
    }[name]  # fmt: skip
    assert ladder.clone_flags(sandbox(namespaces=(name,), id_map=FIRST_MAP)) == flag
    last = sandbox(namespaces=(name,), id_map=LAST_MAP)
    assert ladder.clone_flags(last) == (0 if name == "user" else flag)


@st.composite
def sandboxes(draw: st.DrawFn) -> Sandbox:
    """Whatever the configuration can come to."""
    privileged = draw(st.booleans())
    namespaces = tuple(draw(st.sets(st.sampled_from(NAMESPACES))))
    return sandbox(
        groups=draw(st.sampled_from([(), (7, 8)])) if privileged else None,
        namespaces=namespaces,
        id_map=(LAST_MAP if privileged else FIRST_MAP) if "user" in namespaces else None,
        hostname=draw(st.sampled_from([None, "h"])),
        filters=draw(st.sampled_from([(), (bytes(8),), (bytes(8), bytes(16))])),
        limits=draw(st.sampled_from([(), ((4, 0, -1),)])),
        capabilities=draw(st.integers(0, ALL)),
        no_new_privileges=draw(st.booleans()),
    )


@given(sandboxes())
def test_the_order_that_safety_rests_on(sandbox: Sandbox) -> None:
    taken = ladder.names(sandbox, BASELINE)
    everything = [
        "namespaces",
        "descriptors",
        *(step.name for step in (*REAPER_STEPS, *COMMAND_STEPS, *FILTER_STEPS)),
        "exec",
    ]
    assert taken == [name for name in everything if name in taken]
    assert set(ALWAYS) - {"no new privileges"} <= set(taken)
    # Held until it is traced, and behind the filter there is only the exec.
    assert taken[-2:] == (["seccomp", "exec"] if sandbox.filters else ["held", "exec"])
    at = {name: number for number, name in enumerate(taken)}
    for earlier, later in (
        ("mounts", "user"), ("groups", "user"), ("group", "user"), ("user", "capabilities"),
        ("bounding set", "capabilities"), ("user", "parent death signal"),
        ("no new privileges", "seccomp"), ("mounts", "directory"), ("proc", "mounts"),
        ("traceable", "held"), ("held", "seccomp"),
    ):  # fmt: skip
        if earlier in at and later in at:
            assert at[earlier] < at[later], f"{earlier} before {later}"


# What the steps do.


def test_reaper() -> None:
    made = calls("reaper", namespaces=("pid",))
    assert [call[1:3] for call in made[1:]] == [
        (prctl.PR_SET_CHILD_SUBREAPER, 1),
        (prctl.PR_SET_PDEATHSIG, 9),
        (prctl.PR_SET_DUMPABLE, 0),
    ]
    assert made[0][1] == prctl.PR_SET_NAME


def test_a_reaper_looks_whether_its_supervisor_died_before_it_could_be_told() -> None:
    reaper = tuple(step for step in REAPER_STEPS if step.name == "reaper")
    program = compile_steps(reaper, Recipe(sandbox(), BASELINE))
    at = [call[0] for call in program.calls].index(table()["getppid"])
    assert program.calls[at - 1][:3] == (table()["prctl"], prctl.PR_SET_PDEATHSIG, 9)
    assert program.calls[at][6] == BASELINE.supervisor


@pytest.mark.parametrize(("extra", "handshake"), [(0, 3), (2, 5)])
def test_the_handshake_is_behind_the_commands_descriptors(extra: int, handshake: int) -> None:
    assert calls("traceable", extra=extra)[-1][:4] == ("write", handshake, READY, 1)
    held = calls("held", extra=extra)
    assert [call[:2] for call in held] == [("read", handshake)]


def test_only_an_ordinary_user_must_let_itself_be_traced() -> None:
    assert calls("traceable")[0][:3] == ("prctl", prctl.PR_SET_DUMPABLE, 1)
    assert [call[0] for call in calls("traceable", groups=())] == ["write"]


def test_what_was_ignored_is_not() -> None:
    baseline = SimpleNamespace(ignored=1 << 0 | 1 << 12, permitted=0, last_capability=LAST)
    made = calls("signals", baseline)
    assert [call[:2] for call in made[:-1]] == [("rt_sigaction", 1), ("rt_sigaction", 13)]
    assert all(not any(call[2]) for call in made[:-1])  # SIG_DFL
    assert made[-1][:3] == ("rt_sigprocmask", 2, bytes(8))  # SIG_SETMASK, nothing


def test_limits() -> None:
    made = calls("limits", limits=((4, 0, -1), (7, 10, 20)))
    assert [(call[0], call[2], struct.unpack("=2q", call[3])) for call in made] == [
        ("prlimit64", 4, (0, -1)),
        ("prlimit64", 7, (10, 20)),
    ]


@pytest.mark.parametrize(("id_map", "paths"), [(FIRST_MAP, b"/proc/self/"), (LAST_MAP, b"self/")])
def test_identity_map(id_map: IdMap, paths: bytes) -> None:
    if id_map.first:
        made = calls("identity map", id_map=id_map)
    else:
        made = compiled(Recipe(sandbox(id_map=id_map, groups=()), BASELINE), "proc", "user namespace")
        assert ("unshare", process.CLONE_NEWUSER) in [call[:2] for call in made]
    opened = [call[2] for call in made if call[0] == "openat" and call[2] != b"/proc"]
    assert opened == [paths + b"setgroups", paths + b"uid_map", paths + b"gid_map"]
    assert [call[2] for call in made if call[0] == "write"] == [b"deny", b"5 1000 1", b"6 1001 1"]


def test_host_name() -> None:
    assert calls("host name", hostname="box")[0][:3] == ("sethostname", b"box", 3)


@pytest.mark.parametrize(("groups", "packed"), [((), b""), ((7, 8), struct.pack("=2I", 7, 8))])
def test_groups(groups: tuple[int, ...], packed: bytes) -> None:
    assert calls("groups", groups=groups)[0][:3] == ("setgroups", len(groups), packed)


def test_user_and_group_are_changed_for_good() -> None:
    assert calls("group", groups=())[0][:4] == ("setresgid", 1001, 1001, 1001)
    assert [call[:4] for call in calls("user", groups=())] == [
        ("prctl", prctl.PR_SET_KEEPCAPS, 1, 0),
        ("setresuid", 1000, 1000, 1000),
    ]


def capset(call: tuple[Any, ...]) -> tuple[int, int, int]:
    """The effective, permitted and inheritable masks of a capset call."""
    assert call[0] == "capset"
    words = struct.unpack("=6I", call[2])
    return tuple(words[at] | words[at + 3] << 32 for at in range(3))  # type: ignore[return-value]


def test_bounding_set() -> None:
    made = calls("bounding set", groups=(), capabilities=1 << CHOWN | 1 << KILL)
    assert capset(made[0]) == (ALL, ALL, 0)
    dropped = [call[2] for call in made[1:]]
    assert all(call[1] == prctl.PR_CAPBSET_DROP for call in made[1:])
    assert dropped == [number for number in range(LAST + 1) if number not in (CHOWN, KILL)]


def test_only_what_is_held_is_asked_for() -> None:
    baseline = SimpleNamespace(ignored=0, permitted=1 << KILL, last_capability=LAST)
    assert capset(calls("bounding set", baseline, groups=())[0])[0] == 1 << KILL
    in_own = calls("bounding set", baseline, id_map=FIRST_MAP, namespaces=("user",))
    assert capset(in_own[0])[0] == ALL  # a new user namespace gives all


def test_a_newer_kernel_has_more_to_drop() -> None:
    """Capabilities without a name here are dropped, or held, like the others."""
    last = 63
    every = (1 << last + 1) - 1
    baseline = SimpleNamespace(ignored=0, permitted=every, last_capability=last)
    made = calls("bounding set", baseline, capabilities=1 << 50, groups=())
    assert capset(made[0])[0] == every
    assert [call[2] for call in made[1:]] == [number for number in range(last + 1) if number != 50]
    held = calls("capabilities", baseline, capabilities=1 << 50)
    assert capset(held[0]) == (1 << 50,) * 3
    assert [call[3] for call in held[2:]] == [50]


@pytest.mark.parametrize("mask", [0, 1 << CHOWN, 1 << KILL | 1 << NET_ADMIN | 1 << 38])
def test_capabilities(mask: int) -> None:
    made = calls("capabilities", capabilities=mask)
    assert capset(made[0]) == (mask, mask, mask)
    assert made[1][:3] == ("prctl", prctl.PR_CAP_AMBIENT, prctl.PR_CAP_AMBIENT_CLEAR_ALL)
    raised = [call[3] for call in made[2:]]
    assert sum(1 << number for number in raised) == mask
    assert all(call[1:3] == (prctl.PR_CAP_AMBIENT, prctl.PR_CAP_AMBIENT_RAISE) for call in made[2:])


def test_filters_are_loaded_in_their_order() -> None:
    program = compile_steps(
        FILTER_STEPS,
        Recipe(sandbox(filters=(bytes(8), bytes(24))), BASELINE),
    )
    assert [call[1:3] for call in program.calls] == [(prctl.PR_SET_SECCOMP, 2)] * 2
    assert [note for _, note in program.notes] == [
        "prctl filter 1, 1 instructions",
        "prctl filter 2, 3 instructions",
    ]


def test_the_last_filter_has_the_listener() -> None:
    recipe = Recipe(sandbox(filters=(bytes(8), bytes(24)), handler="guard/answer"), BASELINE)
    first, last = compile_steps(FILTER_STEPS, recipe).calls
    assert first[1:3] == (prctl.PR_SET_SECCOMP, 2)
    assert last[0] == table()["seccomp"]
    assert last[1:3] == (1, 8)  # SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER
    assert last[6] == recipe.handshake + 1  # the lowest free descriptor


@pytest.mark.parametrize("bpf", [b"", bytes(7), bytes(8 * 4097)])
def test_a_filter_that_can_be_none(bpf: bytes) -> None:
    with pytest.raises(ValueError, match="a BPF program of"):
        calls("seccomp", filters=(bpf,))


def test_the_rest() -> None:
    assert calls("own session")[0][0] == "setsid"
    assert calls("session")[0][0] == "setsid"
    assert calls("umask", umask=0o27)[0][:2] == ("umask", 0o27)
    assert calls("directory", directory="/é")[0][:2] == ("chdir", "/é".encode())
    assert calls("no new privileges")[0][1:3] == (prctl.PR_SET_NO_NEW_PRIVS, 1)
    assert calls("parent death signal")[0][1:3] == (prctl.PR_SET_PDEATHSIG, 9)
    assert calls("cgroup namespace", namespaces=("cgroup",))[0][:2] == ("unshare", process.CLONE_NEWCGROUP)
    assert [call[0] for call in calls("loopback", namespaces=("net",))] == ["socket", "ioctl", "close"]
    mounts = calls("mounts", namespaces=("mnt",), mounts=(Mount(operation="lock", target="/l"),))
    assert [call[0] for call in mounts] == ["umask", "mount", "openat", "openat2", "close", "close"]


def test_every_call_says_its_step() -> None:
    def add(recipe: Recipe) -> None:
        recipe.program.call("setsid")

    program = compile_steps(
        (Step("a", add), Step("left out", add, lambda _: False), Step("b", add)), Recipe(sandbox(), BASELINE)
    )
    assert program.notes == [("a", "setsid"), ("b", "setsid")]


@given(sandboxes())
def test_only_the_tracked_descriptors_are_open_at_the_end(sandbox: Sandbox) -> None:
    recipe = Recipe(sandbox, BASELINE)
    for steps in (REAPER_STEPS, COMMAND_STEPS, FILTER_STEPS):
        program = compile_steps(steps, recipe)
    expected = recipe.handshake + (2 if recipe.proc >= 0 else 1)
    assert program.open("openat") == expected


def test_the_cgroup_is_behind_the_handshake() -> None:
    recipe = Recipe(sandbox(), BASELINE, 2, grouped=True)
    assert (recipe.handshake, recipe.cgroup) == (5, 6)
    assert compile_steps((), recipe).open("openat") == 7


# Descriptors in their places.


@given(st.lists(st.integers(0, 12), min_size=5, max_size=8, unique=True))
def test_descriptors_end_up_where_they_belong(sources: list[int]) -> None:
    """Carried out on a table of what each number refers to."""
    *wanted, handshake, cgroup = sources
    program = ladder.descriptors(tuple(wanted), (handshake, cgroup))
    table = {fd: (f"file {fd}", True) for fd in range(20)}
    for call in program.calls:
        name, (source, target, flags) = NAMES[call[0]], call[1:4]
        if name == "dup3":
            assert source != target  # dup3(2): EINVAL
            table[target] = (table[source][0], bool(flags & os.O_CLOEXEC))
        else:
            assert name == "close_range"
            table = {fd: value for fd, value in table.items() if not source <= fd <= target}
    last = len(wanted)
    assert table == {
        **{number: (f"file {fd}", False) for number, fd in enumerate(wanted)},
        last: (f"file {handshake}", True),
        last + 1: (f"file {cgroup}", True),
    }


def test_descriptors_that_are_out_of_the_way_move_once() -> None:
    program: Program = ladder.descriptors((10, 11, 12), (13,))
    assert [call[1:3] for call in program.calls[:-1]] == [(10, 0), (11, 1), (12, 2), (13, 3)]


# Hints.


@pytest.mark.parametrize(
    ("step", "number", "words"),
    [
        ("exec", errno.ENOENT, "does not exist in the sandbox"),
        ("exec", errno.ENOEXEC, "begin with a line such as #!/bin/sh"),
        ("namespaces", errno.EPERM, "doctor"),
        ("namespaces", errno.ENOSPC, "doctor"),
        ("exec", errno.EACCES, ""),
        ("exec", errno.EAGAIN, ""),
        ("mounts", errno.ENOENT, ""),
    ],
)
def test_hints(step: str, number: int, words: str) -> None:
    hint = ladder.refusal_hint(step, number, sandbox())
    assert words in hint
    assert bool(hint) == bool(words)


@pytest.mark.parametrize(
    ("limit", "number", "name"),
    [(3, errno.E2BIG, "limits.stack"), (6, errno.EAGAIN, "limits.nproc"), (7, errno.EMFILE, "limits.nofile")],
)
def test_hints_name_the_limit_that_is_reached(limit: int, number: int, name: str) -> None:
    assert name in ladder.refusal_hint("exec", number, sandbox(limits=((limit, 1, 1),)))


@pytest.mark.parametrize(
    ("limits", "signal", "words"),
    [
        (((9, 4096, 4096),), 9, "`as: 4096`"),
        (((3, 1, 1), (2, 0, 8)), 11, "`stack: 1`, `data: 0`"),
        (((9, -1, -1),), 9, ""),  # none at all
        (((7, 1, 1),), 9, ""),  # kills nobody
        (((9, 4096, 4096),), 15, ""),  # somebody else
        (((9, 4096, 4096),), None, ""),
    ],
)
def test_limits_that_end_an_exec(limits: Any, signal: int | None, words: str) -> None:
    said = ladder.ended_in_exec(sandbox(limits=limits), signal)
    assert said.endswith(words)
    assert bool(said) == bool(words)


# Landlock.


def test_landlock_rules_in_order() -> None:
    wanted = Landlock(fs=FS["read"] | FS["create"], paths=(("/a", FS["read"]),), net=1, ports=((80, 1),))
    made = calls("Landlock", landlock=wanted)
    assert [name for name, *_ in made] == [
        "landlock_create_ruleset", "openat2", "landlock_add_rule", "landlock_add_rule", "close",
        "landlock_add_rule", "landlock_restrict_self", "close",
    ]  # fmt: skip
    (ruleset, opened), rules = made[:2], [call for call in made if call[0] == "landlock_add_rule"]
    assert struct.unpack("=3Q", ruleset[1]) == (wanted.fs, 1, 0)
    assert opened[2] == b"/a"
    assert struct.unpack("=3Q", opened[3])[2] == 4  # RESOLVE_NO_SYMLINKS
    fd = 5  # behind the handshake, 3, and the ruleset, 4
    assert struct.unpack("=Qi", rules[0][3]) == (1 << 2, fd)  # READ_FILE, for files too
    assert struct.unpack("=Qi", rules[1][3]) == (1 << 3, fd)  # READ_DIR
    assert struct.unpack("=2Q", rules[2][3]) == (1, 80)


def test_only_what_the_kernel_knows_where_that_is_enough() -> None:
    wanted = Landlock(
        fs=FS["write"] | FS["ioctl"], paths=(("/a", FS["write"]), ("/b", FS["ioctl"])), net=3, scopes=3,
        ports=((80, 1),), optional=True,
    )  # fmt: skip
    made = calls("Landlock", landlock=wanted)  # ABI 2: no truncation, no ioctl, no ports, no scopes
    assert struct.unpack("=3Q", made[0][1]) == (1 << 1, 0, 0)
    assert [call[0] for call in made].count("landlock_add_rule") == 1
    # Where it is not enough, the kernel is asked for all, and says no itself.
    made = calls("Landlock", landlock=wanted.replace(optional=False))
    assert struct.unpack("=3Q", made[0][1]) == (wanted.fs, 3, 3)


@pytest.mark.parametrize(
    ("masks", "abi"),
    [
        ((0, 0, 0), 0), ((1, 0, 0), 1), ((FS["move"], 0, 0), 2), ((FS["write"], 0, 0), 3), ((1, 2, 0), 4),
        ((FS["ioctl"], 0, 0), 5), ((0, 0, 1), 6), ((0xFFFF, 3, 3), 6),
    ],
)  # fmt: skip
def test_which_landlock_knows_what(masks: tuple[int, int, int], abi: int) -> None:
    assert landlock.needed(*masks) == abi
    assert not any(wanted & ~has for wanted, has in zip(masks, landlock.known(abi), strict=True))
    assert landlock.known(99) == landlock.known(6)


@pytest.mark.parametrize(
    ("module", "file"), [("selinux", b"self/attr/exec"), ("smack", b"self/attr/current")]
)
def test_a_label_is_written_where_its_module_reads_it(module: str, file: bytes) -> None:
    baseline = SimpleNamespace(**vars(BASELINE) | {"lsm": module})
    recipe = Recipe(sandbox(label="a:b:c", label_optional=True), baseline)
    proc, opened, written, closed = compiled(recipe, "proc", "label")
    assert (proc[0], proc[2]) == ("openat", b"/proc")
    assert opened[:3] == ("openat", recipe.proc, file)
    assert written[2:4] == (b"a:b:c", 5)
    assert closed[0] == "close"
