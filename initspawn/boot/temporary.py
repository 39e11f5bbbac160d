"""What was made for one run of `serve` goes with it. Boot module."""

from __future__ import annotations

import os

from initspawn.say import say


def clean(plan_file: str, run_dir: str, gateway: str, lock: str) -> None:
    """Remove the plan and the run directory, with the gateway's directory and the lock in it."""
    for path, remove in (
        (plan_file, os.unlink),
        (os.path.join(run_dir, gateway), os.rmdir),
        (os.path.join(run_dir, lock), os.unlink),
        (run_dir, os.rmdir),
    ):
        try:
            remove(path)
        except OSError as error:  # not ours alone: somebody put something there
            say(f"{path} stays: {error.strerror}")
