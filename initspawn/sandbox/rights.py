"""The steps in which a command gives up what it must not have. Boot module."""

from __future__ import annotations

import errno
import os
import struct

from initspawn.linux import capabilities, landlock, lsm, mount, prctl, seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from initspawn.sandbox.recipe import Recipe


def set_label(recipe: Recipe) -> None:
    """Take on the security label, with the exec or (Smack) at once."""
    program, label = recipe.program, os.fsencode(recipe.sandbox.label or "")
    path = f"self/{lsm.attribute(recipe.baseline.lsm)}".encode()
    fd = program.open("openat", recipe.proc, path, os.O_WRONLY | os.O_CLOEXEC, note=path.decode())
    program.call("write", fd, label, len(label), expect=len(label), note=label.decode(errors="replace"))
    program.close(fd)


def set_groups(recipe: Recipe) -> None:
    """Take on the further groups, and no others."""
    groups = recipe.sandbox.groups or ()
    packed = struct.pack(f"={len(groups)}I", *groups)
    recipe.program.call("setgroups", len(groups), packed, note=" ".join(map(str, groups)))


def set_group(recipe: Recipe) -> None:
    """Take on the group."""
    recipe.program.call("setresgid", *[recipe.sandbox.group] * 3, note=str(recipe.sandbox.group))


def set_user(recipe: Recipe) -> None:
    """Take on the user; the capabilities stay for the next steps."""
    # The next steps need the rights; exec clears the flag again.
    recipe.prctl(prctl.PR_SET_KEEPCAPS, 1, "keep capabilities")
    recipe.program.call("setresuid", *[recipe.sandbox.user] * 3, note=str(recipe.sandbox.user))


def _held_now(recipe: Recipe) -> int:
    """The capabilities a child has before it gives any up."""
    if recipe.sandbox.id_map is not None:
        return (1 << recipe.baseline.last_capability + 1) - 1
    return recipe.baseline.permitted


def _capset(recipe: Recipe, mask: int, inheritable: int) -> None:
    header, data = capabilities.capset_arguments(mask, mask, inheritable)
    recipe.program.call("capset", header, data, note=" ".join(capabilities.names(mask)) or "none")


def cut_bounding_set(recipe: Recipe) -> None:
    """What is not given can never be held."""
    _capset(recipe, _held_now(recipe), 0)  # a change of user took them out of the effective set
    for number in range(recipe.baseline.last_capability + 1):
        if not recipe.sandbox.capabilities >> number & 1:
            recipe.prctl(prctl.PR_CAPBSET_DROP, number, f"drop {capabilities.names(1 << number)[0]}")


def set_capabilities(recipe: Recipe) -> None:
    """Hold exactly what is given, across the exec too."""
    mask = recipe.sandbox.capabilities
    _capset(recipe, mask, mask)
    recipe.prctl(prctl.PR_CAP_AMBIENT, prctl.PR_CAP_AMBIENT_CLEAR_ALL, "none ambient")
    for number in range(mask.bit_length()):
        if mask >> number & 1:
            note = f"ambient {capabilities.names(1 << number)[0]}"
            recipe.prctl(prctl.PR_CAP_AMBIENT, prctl.PR_CAP_AMBIENT_RAISE, note, number)


def set_no_new_privileges(recipe: Recipe) -> None:
    """No program gives more rights from here on."""
    recipe.prctl(prctl.PR_SET_NO_NEW_PRIVS, 1, "no new privileges")


def landlock_handles(recipe: Recipe) -> tuple[int, int, int]:
    """What Landlock is to hold back: all that the plan says, or what this kernel knows if that is enough."""
    rules = recipe.sandbox.landlock
    if rules is None:
        return 0, 0, 0
    known = landlock.known(recipe.baseline.landlock) if rules.optional else (-1, -1, -1)
    return rules.fs & known[0], rules.net & known[1], rules.scopes & known[2]


def apply_landlock(recipe: Recipe) -> None:
    """Lay the Landlock rules on."""
    program, rules = recipe.program, recipe.sandbox.landlock
    assert rules is not None
    fs, net, scopes = landlock_handles(recipe)
    attributes = landlock.ruleset(fs, net, scopes)
    note = f"files {fs:#x}, ports {net:#x}, scopes {scopes:#x}"
    ruleset = program.open("landlock_create_ruleset", attributes, len(attributes), 0, note=note)
    for path, access in rules.paths:
        # As for bind sources: a link that somebody planted since the plan was made leads nowhere.
        how = struct.pack("=3Q", os.O_PATH | os.O_CLOEXEC, 0, mount.RESOLVE_NO_SYMLINKS)
        fd = program.open("openat2", mount.AT_FDCWD, os.fsencode(path), how, len(how), note=path)
        # What no single file can have is refused for one, which may not have been known beforehand.
        for part, ignore in ((landlock.OF_FILES, 0), (~landlock.OF_FILES, errno.EINVAL)):
            if allowed := access & fs & part:
                rule = landlock.path_rule(allowed, fd)
                kind = landlock.RULE_PATH_BENEATH
                program.call("landlock_add_rule", ruleset, kind, rule, 0, note=path, ignore=ignore)
        program.close(fd)
    for port, access in rules.ports:
        if allowed := access & net:
            rule = landlock.port_rule(allowed, port)
            program.call("landlock_add_rule", ruleset, landlock.RULE_NET_PORT, rule, 0, note=f"port {port}")
    program.call("landlock_restrict_self", ruleset, 0)
    program.close(ruleset)


def load_filters(recipe: Recipe) -> None:
    """Load the seccomp filters; where calls are notified, the last one with a listener."""
    program, last = recipe.program, len(recipe.sandbox.filters) - 1
    for number, bpf in enumerate(recipe.sandbox.filters):
        loaded = program.keep(seccomp.program(bpf))
        note = f"filter {number + 1}, {len(bpf) // seccomp.INSTRUCTION} instructions"
        if recipe.sandbox.handler and number == last:
            note += ", with a listener"
            program.open("seccomp", seccomp.SET_MODE_FILTER, seccomp.NEW_LISTENER, loaded, note=note)
        else:
            recipe.prctl(prctl.PR_SET_SECCOMP, seccomp.MODE_FILTER, note, loaded)
