"""What programs of our own need that run as Python in a sandbox: its files, and a filter."""

from __future__ import annotations

import os
import sys
import sysconfig

from initspawn.tree import HERE, Tree

# What such a program has no use for, and an attacker has.
DENIED = (
    "add_key", "bpf", "delete_module", "finit_module", "init_module", "io_uring_enter",
    "io_uring_register", "io_uring_setup", "kexec_file_load", "kexec_load", "keyctl", "mount",
    "move_mount", "open_by_handle_at", "open_tree", "perf_event_open", "personality", "pivot_root",
    "request_key", "setns", "swapoff", "swapon", "umount2", "unshare", "userfaultfd",
)  # fmt: skip
_STANDARD = ("stdlib", "platstdlib")
_SYSTEM = ("/usr", "/bin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache")


def python_mounts(more: list[str]) -> list[dict[str, str]]:
    """The running interpreter, its standard library and these paths, each where it is, read-only."""
    python = os.path.dirname(os.path.realpath(sys.executable))
    wanted = [sys.base_prefix, sys.prefix, python, *more]
    wanted += [path for name, path in sysconfig.get_paths().items() if name in _STANDARD]
    return system_mounts(HERE, wanted)


def system_mounts(tree: Tree, wanted: list[str]) -> list[dict[str, str]]:
    """The system's libraries and programs as a machine has them, and these paths of it, read-only."""
    mounts: list[dict[str, str]] = []
    for path in _SYSTEM:
        link = tree.readlink(path)
        if link is not None:
            mounts.append({"target": path, "source": literal(link), "mode": "symlink"})
        elif tree.exists(path):
            mounts.append({"target": path, "mode": "ro"})
    bound = [mount["target"] for mount in mounts if mount["mode"] == "ro"]
    for path in sorted({os.path.abspath(path) for path in wanted}, key=len):
        if not any(path == above or path.startswith(f"{above}/") for above in bound):
            bound.append(path)
            mounts.append({"target": path, "source": literal(path), "mode": "ro"})
    return mounts


def literal(text: str) -> str:
    """Text that the expansion of `$NAME` leaves as it is."""
    return text.replace("$", "$$")
