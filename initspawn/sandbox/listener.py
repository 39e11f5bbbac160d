"""The listener of a filter that notifies calls, fetched before the exec closes it. Boot module.

The kernel makes it close-on-exec in the command, which cannot hand it over: behind the filter its next call
is the execve. So the command, which is traced anyway, stops at its system calls from the word to go on, and
the supervisor takes the listener as soon as it is there (seccomp_unotify(2), pidfd_getfd(2), ptrace(2)).
"""

from __future__ import annotations

import os

from initspawn.linux import process, ptrace, seccomp


def fetch(pid: int, pidfd: int) -> int:
    """The listener that a stopped command has, as a descriptor of ours; -1 if it has none. Raises OSError."""
    for name in os.listdir(f"/proc/{pid}/fd"):
        if os.readlink(f"/proc/{pid}/fd/{name}") == seccomp.LISTENER:
            return process.pidfd_getfd(pidfd, int(name))
    return -1


def go_on(pid: int, pidfd: int, signal: int) -> int:
    """Let a stopped command go on: to its exec if its listener is there, which is then returned, else to its
    next system call. Raises OSError.
    """
    found = fetch(pid, pidfd)
    (ptrace.cont_to_call if found < 0 else ptrace.cont)(pid, signal)
    return found
