"""What a file may not say: tables of keys that are known but not built yet, that are misplaced, and that are
called otherwise here.

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

# Words that others use for a key, which are not like it in their letters.
MEANT: Mapping[str, Mapping[str, str]] = {
    "Sandbox": {"capabilities": "did you mean `caps`?"},
    "Limits": dict.fromkeys(
        ("memory", "mem", "ram"),
        "did you mean `as`, of each process, or `cgroups: {mem: {max: 512M}}`, of all together?",
    ),
}


def later(part: type) -> Mapping[str, str]:
    """The keys of a class of the schema that are known but not built yet, with the reason."""
    return LATER.get(part.__name__, {})


def misplaced(part: type) -> Mapping[str, str]:
    """The keys that belong elsewhere, with where."""
    return MISPLACED.get(part.__name__, {})


def meant(part: type, key: str) -> str:
    """A hint for a word of others for one of the keys; empty if it is none."""
    return MEANT.get(part.__name__, {}).get(key.lower(), "")
