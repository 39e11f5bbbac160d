"""Amounts of bytes, as `limits` and `cgroups` write them, and the kernel's own files."""

from __future__ import annotations

import re

_UNITS = "KMGTPE"
_AMOUNT = re.compile(rf"([0-9]{{1,19}})([{_UNITS}]?)", re.IGNORECASE)
_IN_BYTES = re.compile(rf"([0-9]{{1,19}})\s?([{_UNITS}]?)(i?B)?", re.IGNORECASE)
_MOST = (1 << 63) - 1


def amount(text: str) -> int | None:
    """The number that a text such as `64M` says, K to E being powers of 1024 as memparse() of the kernel has
    them; None if it says none.
    """
    found = _AMOUNT.fullmatch(text)
    return int(found[1]) << (10 * f" {_UNITS}".index(found[2].upper() or " ")) if found else None


def is_too_much(number: int) -> bool:
    """Whether no file of the kernel takes it: more than 63 bits."""
    return number > _MOST


def amount_hint(text: str) -> str:
    """What to write in place of `64MB`, which could mean two numbers, `64MiB` or `64 M`; empty for others."""
    found = _IN_BYTES.fullmatch(text)
    if found is None:
        return ""
    return f"write `{found[1]}{found[2].upper()}`: K, M, G, T, P and E alone, powers of 1024"
