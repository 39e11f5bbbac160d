"""The end of a machine, or of a container, whose init we are. Boot module.

reboot(2) in a pid namespace ends its init, by SIGHUP for a restart and by SIGINT for a power off, which tells
whoever made the namespace (pid_namespaces(7)). What is mounted there is for others to end.
"""

from __future__ import annotations

import _signal
import os
import time

from initspawn.linux import cgroup
from initspawn.linux.cmdline import option
from initspawn.linux.libc import syscall
from initspawn.linux.mount import unescaped
from initspawn.say import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from initspawn.boot.watchdog import Watchdog

INIT = b"initspawn-init"
_FIRST_NAMESPACE = 0xEFFFFFFC  # the inode of the machine's own pid namespace (include/linux/proc_ns.h)
_MAGIC = 0xFEE1DEAD, 0x28121969
_CAD_OFF = 0
WAYS = {"poweroff": 0x4321FEDC, "reboot": 0x01234567}
MS_RDONLY, MS_REMOUNT = 0x1, 0x20
_SECONDS = 3.0  # for those that nobody has ended
_LONGEST = 60  # seconds of all of this; then PID 1 does what it can


def main(arguments: list[str]) -> int:
    """End it: `poweroff` or `reboot`. Returns only if that failed: 0 in a container, whose init may just
    end, else 111; with a line on stderr.
    """
    try:
        (way,) = arguments
        number = WAYS[way]
    except (ValueError, KeyError):
        _tell("write poweroff or reboot")
        return 111
    if not _ours():
        _tell(f"PID 1 is not {INIT.decode()}")
        return 111
    machine = is_machine()
    if machine:
        _signal.alarm(_LONGEST)
        watchdog = _watchdog()
        _end_others(watchdog)
        if watchdog is not None:
            watchdog.leave(way)
        os.sync()
        _protect_disks()
    else:
        _leave_no_group()
    try:
        syscall("reboot", *_MAGIC, number, None)
    except OSError as error:  # a container without CAP_SYS_BOOT
        _tell(str(error.strerror))
    return 111 if machine else 0


def keep_keys() -> None:
    """From now on Ctrl-Alt-Del is a SIGINT for PID 1, not a restart at once; a container has no such keys."""
    if _ours() and is_machine():
        try:
            syscall("reboot", *_MAGIC, _CAD_OFF, None)
        except OSError as error:
            _tell(f"Ctrl-Alt-Del: {error.strerror}")


def _ours() -> bool:
    """Whether PID 1 is our shell script."""
    try:
        with open("/proc/1/cmdline", "rb") as file:
            _, script, *_ = file.read().split(b"\0")
    except (OSError, ValueError):
        return False
    return os.path.basename(script) == INIT


def is_machine() -> bool:
    """Whether our pid namespace is the machine's; False where that cannot be told."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino == _FIRST_NAMESPACE
    except OSError:
        return False


def _watchdog() -> Watchdog | None:
    """It is ours now."""
    if not option("watchdog"):
        return None
    from initspawn.boot.watchdog import last

    return last()


def _end_others(watchdog: Watchdog | None = None) -> None:
    """Whoever is left: the supervisor has ended its tasks, and what may have been of others is in the way of
    file systems. The watchdog may be in the hands of one of them.
    """
    if watchdog is not None:
        watchdog.feed()
    for number in (_signal.SIGTERM, _signal.SIGKILL):
        try:
            os.kill(-1, number)  # all but PID 1 and us
        except ProcessLookupError:
            return
        end = time.monotonic() + _SECONDS
        while _others() and time.monotonic() < end:
            if watchdog is not None:
                watchdog.feed()
            time.sleep(0.02)


def _others() -> bool:
    """Whether there are other programs than PID 1 and us; threads of the kernel have no command line."""
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) not in (1, os.getpid()):
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    if file.read(1):
                        return True
            except OSError:  # gone
                pass
    return False


def _leave_no_group() -> None:
    """A container may share the machine's control groups, where the supervisor's own would stay for ever."""
    from initspawn.boot.early import GROUP

    root = cgroup.mount_point()
    try:
        os.rmdir(f"{root}/{GROUP}")
    except OSError:  # none was made, or there is another container's supervisor in it
        pass


def _protect_disks() -> None:
    """Nothing is written any more to the root, nor to what has a device; the last mounted first."""
    with open("/proc/self/mounts", "rb") as file:
        mounts = [line.split() for line in file.read().splitlines()]
    for device, place, _, options, *_ in reversed(mounts):
        if (device.startswith(b"/dev/") or place == b"/") and b"rw" in options.split(b","):
            name = unescaped(place)
            try:
                syscall("mount", None, name, None, MS_REMOUNT | MS_RDONLY, None, target=os.fsdecode(name))
            except OSError as error:  # somebody writes: its journal has to do
                _tell(f"{error.filename} stays writable: {error.strerror}")


def _tell(line: str) -> None:
    say(f"halt: {line}")
