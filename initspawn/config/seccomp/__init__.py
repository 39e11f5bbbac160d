"""The system call filters of a sandbox: its own rules, named profiles, or a ready file (seccomp(2)).

Each profile is a filter of its own; of several filters the kernel takes the strictest answer. Rules of the
configuration that allow go into the profiles' filters, all others make one more, loaded last.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Sequence

from initspawn.errors import InitspawnError

try:
    import pyseccomp
except RuntimeError as error:  # it looks for the library as soon as it is imported
    raise InitspawnError("libseccomp is not found: install it, 2.5 or newer (Debian: libseccomp2)") from error

from initspawn.config import bpf
from initspawn.config.expand import ExpandFault, Names, expand
from initspawn.config.identity import Person
from initspawn.config.schema import Seccomp
from initspawn.config.seccomp import profiles
from initspawn.config.seccomp.filter import Rule, architecture, assemble, number_of
from initspawn.config.seccomp.handler import check_handler
from initspawn.config.seccomp.rules import read_action, read_condition, read_rules
from initspawn.config.spot import Report, Spot, nearest, shown
from initspawn.late import is_late
from initspawn.linux.capabilities import NUMBERS

_DEFAULT = "SCMP_ACT_KILL"

# What `locked` takes away: ways into another process's memory and kernel objects. PR_SET_DUMPABLE,
# which would keep others out of this one, does not survive the command's exec.
LOCKED = ("ptrace", "process_vm_readv", "process_vm_writev", "kcmp")

_EXECVE_HINT = (
    "write `default: SCMP_ACT_ALLOW`, or a rule for each system call the command needs, execve among them"
)
_STARTS = (pyseccomp.ALLOW, pyseccomp.LOG)  # with these an execve is carried out


def compile_filters(
    seccomp: str | Seccomp | None, names: Names, supervisor: Person, capabilities: int, spot: Spot
) -> tuple[bytes, ...]:
    """The filters in the order they are loaded. What is wrong is noted at `spot`.

    capabilities: those that the command holds; profiles allow what goes with them.
    """
    if seccomp is None:
        return ()
    if isinstance(seccomp, str):
        for key in ("profile", 0):  # written as one word: its place is that of the whole
            spot.report.written((*spot.path, key), spot.path)
        seccomp = Seccomp(profile=[seccomp])
    arch = architecture(names.target.machine)
    check_handler(seccomp, spot)
    if seccomp.rulespath is not None:
        filters = _ready(seccomp, names, supervisor, arch, spot)
    elif seccomp.profile:
        filters = _from_profiles(seccomp, arch, capabilities, spot)
    else:
        filters = _from_rules(seccomp, arch, spot)
    if seccomp.foreign == "allow" and (seccomp.rulespath is None or seccomp.locked):
        spot["foreign"].refuse(
            "`allow` goes only with `rulespath`, without `locked`",
            "rules are for one numbering of the calls; another one would be a way around them",
        )
    if filters and seccomp.locked:
        # First, because the other one may not allow a further filter to be loaded.
        denied = pyseccomp.ERRNO(errno.EPERM)
        found = [(name, number_of(name, arch)) for name in LOCKED]
        rules = [Rule(name, number, denied) for name, number in found if number is not None]
        filters = [assemble(pyseccomp.ALLOW, rules, arch), *filters]
    return tuple(filters)


def _from_rules(seccomp: Seccomp, arch: int, spot: Spot) -> list[bytes]:
    """The filter that `default` and `rules` make; empty if it is refused."""
    default = read_action(seccomp.default or _DEFAULT, None, spot["default"])
    rules = read_rules(seccomp.rules or (), arch, default, spot["rules"])
    if default is None or not spot.clean or not _starts(default, rules, spot):
        return []
    return _assembled(default, rules, arch, spot)


def _starts(default: int, rules: Sequence[Rule], spot: Spot) -> bool:
    """Whether a command can be executed under a filter; noted if not."""
    for_execve = [rule.action for rule in rules if rule.syscall == "execve" and not rule.conditions]
    if (for_execve or [default])[0] in _STARTS:
        return True
    spot.refuse("`execve` is not allowed, so no command could ever start", _EXECVE_HINT)
    return False


def _assembled(
    default: int, rules: Sequence[Rule], arch: int, spot: Spot, newer: int | None = None
) -> list[bytes]:
    """One filter, or none with the reason noted."""
    try:
        program = assemble(default, rules, arch, newer)
    except OSError as error:
        spot["rules"].refuse(f"libseccomp makes no filter of these rules: {error.strerror or error}")
        return []
    fault = bpf.fault(program)
    if fault:
        spot["rules"].refuse(f"the filter of these rules {fault}", "write fewer rules")
        return []
    return [program]


def _from_profiles(seccomp: Seccomp, arch: int, capabilities: int, spot: Spot) -> list[bytes]:
    """A filter for each profile, and one for what the rules take away; empty if they are refused."""
    rules = read_rules(seccomp.rules or (), arch, None, spot["rules"])
    taken = [rule for rule in rules if rule.action != pyseccomp.ALLOW]
    _starts(pyseccomp.ALLOW, taken, spot)
    found: dict[str, profiles.Profile] = {}
    for index, name in enumerate(seccomp.profile):
        try:
            found[name] = profiles.profile(name)
        except KeyError:
            place = spot["profile"][index]
            place.refuse(f"there is no profile {shown(name)}", nearest(name, profiles.names()))
    default = _other_default(seccomp, found.values(), spot["default"])
    filters: list[bytes] = []
    for one in found.values():
        given = read_action(one.default, None, spot["profile"])
        newer = None if one.newer is None else read_action(one.newer, None, spot["profile"])
        assert given is not None  # profiles are ours, and tested
        lists = given != pyseccomp.ALLOW
        answer = default if lists and default is not None else given
        own = _widened(_rules_of(one, arch, capabilities), rules, lists, spot)
        if spot.clean:
            filters += _assembled(answer, own, arch, spot, newer)
    if taken and spot.clean:
        filters += _assembled(pyseccomp.ALLOW, taken, arch, spot)
    return filters if spot.clean else []


def _other_default(seccomp: Seccomp, found: Collection[profiles.Profile], spot: Spot) -> int | None:
    """What is to happen instead of a profile's own refusal; None if nothing else was asked for."""
    if seccomp.default is None:
        return None
    default = read_action(seccomp.default, None, spot)
    if default == pyseccomp.ALLOW:
        spot.refuse("would take the profile away", "write SCMP_ACT_LOG to see what it would refuse")
    elif default == pyseccomp.NOTIFY:
        spot.refuse("a profile's refusals are not notified", "write rules with SCMP_ACT_NOTIFY")
    elif found and all(one.default == "allow" for one in found):
        spot.refuse("these profiles refuse only what they name: nothing is left to `default`", "remove it")
    return default


def _rules_of(found: profiles.Profile, arch: int, capabilities: int) -> list[Rule]:
    """A profile's rules for a command that holds these capabilities."""
    spot = Report("profile", {}).root()

    def held(names: Sequence[str]) -> bool:
        return any(capabilities >> NUMBERS[name] & 1 for name in names)

    rules = []
    for given in found.rules:
        if (given.caps and not held(given.caps)) or held(given.without):
            continue
        conditions = [read_condition(item, spot) for item in given.args]
        for word, calls in (("allow", given.allow), ("errno", given.refuse)):
            action = read_action(word, given.errno if word == "errno" else None, spot)
            for name in calls:
                number = number_of(name, arch)
                assert action is not None
                if number is not None:  # else an older libseccomp: it stays refused
                    rules.append(Rule(name, number, action, tuple(item for item in conditions if item)))
    assert spot.clean
    return rules


def _widened(own: list[Rule], given: Sequence[Rule], lists: bool, spot: Spot) -> list[Rule]:
    """A profile's rules with what the configuration allows besides. `lists`: what is allowed, not refused."""
    for rule in given:
        if rule.action not in (*_STARTS, pyseccomp.NOTIFY):
            continue
        allowed = rule._replace(action=int(pyseccomp.ALLOW))
        same = [other for other in own if other.syscall == rule.syscall]
        whole = [other for other in same if not other.conditions]
        if any(other.action == allowed.action for other in whole) or not (same or lists):
            if rule.conditions and rule.action == pyseccomp.ALLOW:
                spot["rules"].refuse(
                    f"`{rule.syscall}` is allowed by the profile already, whatever its arguments",
                    "write a rule that refuses the others",
                )
        elif not rule.conditions:
            own = [*(other for other in own if other.syscall != rule.syscall), allowed]
        elif lists:
            own = [*(other for other in own if other not in whole), allowed]
        else:
            spot["rules"].refuse(
                f"the profile refuses `{rule.syscall}` and allows it wholly or not at all", "remove `args`"
            )
    return own


def _ready(seccomp: Seccomp, names: Names, supervisor: Person, arch: int, spot: Spot) -> list[bytes]:
    """The filter of a file, behind one that keeps foreign calls out; empty if it is refused."""
    for key, default in (("rules", None), ("default", None), ("profile", [])):
        if getattr(seccomp, key) != default:
            spot[key].refuse("does not go together with `rulespath`, which is a whole filter", "remove one")
    place = spot["rulespath"]
    try:
        path = expand(seccomp.rulespath or "", names)
        if is_late(path):
            place.refuse("needs a value that only the running machine knows", "name a file of the image")
            return []
        names.target.note(path)
        program = bpf.read(path, (0, supervisor.user), names.target.tree)
    except (ExpandFault, bpf.FilterFault) as fault:
        place.refuse(str(fault))
        return []
    if not spot.clean:
        return []
    # `locked` brings a filter that keeps them out.
    guarded = seccomp.foreign == "allow" or seccomp.locked
    return [program] if guarded else [assemble(pyseccomp.ALLOW, (), arch), program]
