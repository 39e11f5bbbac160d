"""The named profiles: the YAML files beside this one, each an allow-list or a deny-list."""

from __future__ import annotations

import os
from functools import cache

from msgspec import Struct, convert

from initspawn.config.load import load
from initspawn.config.schema import Comparison

_HERE = os.path.dirname(__file__)
_EXTENSION = ".yaml"


class ProfileRule(Struct, kw_only=True, forbid_unknown_fields=True):
    """Calls that are allowed, or refused with an error; see default.yaml."""

    allow: list[str] = []
    refuse: list[str] = []
    errno: str = "EPERM"
    args: list[Comparison] = []
    caps: list[str] = []
    without: list[str] = []


class Profile(Struct, kw_only=True, forbid_unknown_fields=True):
    """A profile: what a call does that no rule names, what one does that is newer than all, and the rules."""

    default: str
    newer: str | None = None
    rules: list[ProfileRule]


def names() -> list[str]:
    """The profiles there are."""
    return sorted(name.removesuffix(_EXTENSION) for name in os.listdir(_HERE) if name.endswith(_EXTENSION))


@cache
def profile(name: str) -> Profile:
    """A profile by its name. Raises KeyError."""
    if name not in names():
        raise KeyError(name)
    return convert(load(os.path.join(_HERE, name + _EXTENSION)).data, Profile)
