"""The file systems that an early supervisor needs, mounted as systemd mounts them. Boot module.

systemd leaves a mount point alone whatever its options are, so these are its own (mount-setup.c). What it
mounts besides is left to it.
"""

from __future__ import annotations

import os

from initspawn.linux.libc import syscall
from initspawn.linux.mount import MS_REC, NULL, make_null

MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_STRICTATIME = 0x2, 0x4, 0x8, 0x1000000
MS_SHARED = 0x100000
# Names in /dev that no file system makes by itself (dev-setup.c of systemd).
LINKS = (
    ("/dev/core", "/proc/kcore"),
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
)

# type, where, flags, options
TABLE = (
    ("proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, ""),
    ("sysfs", "/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC, ""),
    ("devtmpfs", "/dev", MS_NOSUID | MS_STRICTATIME, "mode=0755,size=4m,nr_inodes=1m"),
    ("tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV | MS_STRICTATIME, "mode=01777"),
    ("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "mode=0620,gid=5"),
    ("tmpfs", "/run", MS_NOSUID | MS_NODEV | MS_STRICTATIME, "mode=0755,size=20%,nr_inodes=800k"),
    ("cgroup2", "/sys/fs/cgroup", MS_NOSUID | MS_NODEV | MS_NOEXEC, "nsdelegate,memory_recursiveprot"),
)


def mount(kind: str, place: str, flags: int, options: str) -> None:
    """mount(2) of a file system without a device. Raises OSError."""
    syscall("mount", kind.encode(), place.encode(), kind.encode(), flags, options.encode(), target=place)


def mount_missing() -> list[str]:
    """Mount what is not mounted yet, and let mounts be passed on. Returns what went wrong, a line each."""
    failures = []
    for kind, place, flags, options in TABLE:
        try:
            if not _is_mounted(place):
                mount(kind, place, flags, options)
        except OSError as error:
            failures.append(f"{place}: {error.strerror}")
    try:
        if _is_mounted("/dev"):  # in memory: nothing is written to a disk
            make_null()
            _link()
    except OSError as error:
        failures.append(f"{error.filename2 or error.filename or NULL}: {error.strerror}")
    try:
        # Sandboxes made now are to see what systemd mounts later; it makes `/` shared too late for them.
        syscall("mount", None, b"/", None, MS_REC | MS_SHARED, None, target="/")
    except OSError as error:
        failures.append(f"/: cannot be shared: {error.strerror}")
    return failures


def _link() -> None:
    """Raises OSError."""
    for name, there in LINKS:
        try:
            os.symlink(there, name)
        except FileExistsError:
            pass


def _is_mounted(place: str) -> bool:
    """Whether something is mounted there; the directory is made if it is missing. Raises OSError."""
    try:
        found = os.stat(place)
    except FileNotFoundError:
        os.mkdir(place, 0o755)
        return False
    above = os.stat(os.path.dirname(place))
    return (found.st_dev, found.st_ino) == (above.st_dev, above.st_ino) or found.st_dev != above.st_dev
