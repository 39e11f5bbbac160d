"""What a command holds after its exec, and what its children hold, is exactly what `caps` come to."""

from __future__ import annotations

from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from initspawn.linux.capabilities import NAMES, bounding, last_cap
from initspawn.plan import Sandbox
from tests.support.pace import IN_GUEST
from tests.system import boxes
from tests.system.conftest import root_and_a_user
from tests.system.harness import Person, bench

KNOWN = NAMES[: last_cap() + 1]
LACKING = {
    name for bit, name in enumerate((*KNOWN, "LAST_CAP")) if not bounding() >> min(bit, len(KNOWN) - 1) & 1
}
SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
# grep is another program that the shell starts: it says what is handed on.
LOOK = ("/bin/sh", "-c", "grep ^Cap /proc/$$/status; grep ^Cap /proc/self/status")

ENTRIES = st.lists(
    st.tuples(st.sampled_from((*KNOWN, "ALL", "LAST_CAP")), st.sampled_from(["set", "set", "unset"])),
    max_size=12,
) | st.permutations(KNOWN).flatmap(
    lambda order: st.integers(0, len(KNOWN)).map(
        lambda count: [("ALL", "set"), *((name, "unset") for name in order[:count])]
    )
)
SPELLINGS = st.sampled_from([str, str.lower, lambda name: f"CAP_{name}", lambda name: number.get(name, name)])
number = {name: str(index) for index, name in enumerate(KNOWN)}


def held(entries: list[tuple[str, str]]) -> int:
    """The entries applied one after the other to nothing."""
    found: set[str] = set()
    for name, mode in entries:
        names = set(KNOWN) if name == "ALL" else {KNOWN[-1]} if name == "LAST_CAP" else {name}
        found = found | names if mode == "set" else found - names
    return sum(1 << KNOWN.index(name) for name in found)


def kinds(who: Person) -> dict[str, dict[str, Any]]:
    """Sandboxes whose commands can hold capabilities: without namespaces those of the machine, as root."""
    own = {"own users": {"shares": {"users": "disable"}}, "all": {"shares": {"all": "disable"}}}
    if who.root:
        return {**own, "none": {}, "no users": {"shares": {"all": "disable", "users": "enable"}}}
    return own


def looked(boxes_: list[Sandbox]) -> list[tuple[str, str, str]]:
    with bench(*boxes_) as made:
        results = [made.run(*LOOK, sandbox=box) for box in boxes_]
    return [(result.step, result.err, result.out) for result in results]


def check(who: Person, cases: list[list[tuple[str, str]]], spell: Any = str) -> None:
    # All cases in one supervisor, the kinds of sandboxes taking turns.
    taken = list(kinds(who).values())
    sandboxes = []
    for number, entries in enumerate(cases):
        caps = [{"cap": spell(name), "mode": mode} for name, mode in entries]
        # What root was started without it has only over users of its own; `ALL` leaves it out.
        lacking = who.root and any(mode == "set" and name in LACKING for name, mode in entries)
        kind = taken[number % (2 if lacking else len(taken))]
        keys = {"uid": f"box{number}", "caps": caps, "namespace": kind}
        sandboxes.append(boxes.compiled(who, keys))
    limit = bounding() if who.root else -1
    for entries, box, (step, err, out) in zip(cases, sandboxes, who.call(looked, sandboxes), strict=True):
        assert (step, err) == ("", "")
        wanted = held(entries) & (limit if box.id_map is None else -1)
        lines = [line.split(":\t") for line in out.splitlines()]
        assert [name for name, _ in lines] == [*SETS, *SETS]
        assert [int(value, 16) for _, value in lines] == [wanted] * 10, (entries, box.namespaces)


@root_and_a_user
@pytest.mark.needs("userns")
def test_each_capability_alone_all_of_them_and_all_but_one(who: Person) -> None:
    alone = [[(name, "set")] for name in KNOWN]
    without = [[("ALL", "set"), (name, "unset")] for name in KNOWN]
    check(who, [[], [("ALL", "set")], [("LAST_CAP", "set")], [("ALL", "unset")], *alone, *without])


SOME = 3 if hypothesis.settings().max_examples <= 100 or IN_GUEST else 100  # `make soak` has the many


@root_and_a_user
@pytest.mark.needs("userns")
@settings(
    max_examples=SOME,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(ENTRIES, min_size=20, max_size=20), SPELLINGS)
def test_any_list(who: Person, cases: list[list[tuple[str, str]]], spell: Any) -> None:
    check(who, cases, spell)
