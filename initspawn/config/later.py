"""What a file may not say: one table of keys that are known but not built yet, one of misplaced keys.

A key that gets built moves from here to its class in `schema`; nothing else has to change for it.
"""

from __future__ import annotations

from collections.abc import Mapping

_OWN_SANDBOX = "it belongs to the sandbox; for a command of its own write a second sandbox"

# By the name of the schema's class: the key, and why it is refused.
LATER: Mapping[str, Mapping[str, str]] = {}

# The same for keys that belong to another object of the file.
MISPLACED: Mapping[str, Mapping[str, str]] = {
    "Command": dict.fromkeys(
        ("acls", "acl", "caps", "seccomp", "namespace", "envs", "envs_from", "cgroups", "landlock"),
        _OWN_SANDBOX,
    ),
}


def later(part: type) -> Mapping[str, str]:
    """The keys of a class of the schema that are known but not built yet, with the reason."""
    return LATER.get(part.__name__, {})


def misplaced(part: type) -> Mapping[str, str]:
    """The keys that belong elsewhere, with where."""
    return MISPLACED.get(part.__name__, {})
