"""Which security module labels processes: SELinux or Smack. Boot module."""

from __future__ import annotations

import os

SELINUX, SMACK = "selinux", "smack"
# The file systems that they are spoken to through; a module that is compiled in and not active has none.
_PLACES = {SELINUX: "/sys/fs/selinux/enforce", SMACK: "/sys/fs/smackfs/load2"}


def labelling() -> str:
    """SELINUX, SMACK, or "" where processes have no labels."""
    return next((name for name, place in _PLACES.items() if os.path.exists(place)), "")


def attribute(module: str) -> str:
    """The file of /proc/PID that takes a label: SELinux has one for the next exec, Smack only its own."""
    return "attr/current" if module == SMACK else "attr/exec"
