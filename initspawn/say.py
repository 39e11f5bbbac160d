"""A line on standard error, which may be full, closed or gone. Boot module."""

from __future__ import annotations

import sys


def say(line: str, mark: str = "") -> None:
    """One line, behind a mark and our name. One that cannot be written is lost, and with it nothing else."""
    try:
        print(f"{mark}initspawn: {line}", file=sys.stderr, flush=True)
    except (OSError, ValueError, MemoryError):  # a file that is closed is a ValueError
        pass
