"""Where a supervisor keeps its sockets and run-time state, and where clients look for it."""

from __future__ import annotations

import os
import stat

from initspawn.errors import InitspawnError

DEVICE = "/run/initspawn"  # root's, and that of a supervisor that was there before any other init
LONGEST = 90  # sun_path has 108 bytes (unix(7)), and the longest name of ours needs 13 of them


def default_run_dir() -> str:
    """/run/initspawn for root; else below XDG_RUNTIME_DIR, or in /tmp under the user's number."""
    user = os.geteuid()
    if user == 0:
        return DEVICE
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return os.path.join(runtime, "initspawn") if runtime else f"/tmp/initspawn-{user}"


def prepare_run_dir(path: str) -> None:
    """Make the directory, for its owner only. Raises InitspawnError if it is another's or open to others."""
    if len(os.fsencode(path)) > LONGEST:
        raise InitspawnError(f"the run directory's path is longer than {LONGEST} bytes, too long for sockets")
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except FileNotFoundError:
        raise InitspawnError(f"the run directory {path} cannot be made: make its parent first") from None
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        raise InitspawnError(f"the run directory {path} is no directory")
    if found.st_uid != os.geteuid():
        raise InitspawnError(f"the run directory {path} belongs to user {found.st_uid}, not to us")
    if found.st_mode & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        if mode & stat.S_ISVTX:  # everybody's, such as /tmp: not to be closed
            raise InitspawnError(f"the run directory {path} is everybody's: name one of your own inside it")
        raise InitspawnError(f"the run directory {path} is open to others (mode {mode:03o}): chmod 700 it")
