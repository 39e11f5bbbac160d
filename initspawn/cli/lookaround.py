"""What a program inside a sandbox sees and may do. `compare` runs this file there, with `python3 -c`.

It imports nothing of initspawn, which is not there. Each finding is made in a child of its own, so that a
filter that kills ends that child alone, and comes out as one line of JSON: [KIND, NAME, VALUE], where KIND
is `sees` or `tries`. What is tried is harmless where it is allowed: it is undone, or asks for something that
does not exist, which the kernel only finds out after it has looked at the right to ask.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

ALLOWED = "allowed"
CLONE_NEWUSER = 0x10000000  # unshare(2)
PTRACE_SEIZE = 0x4206  # ptrace(2)
SYSLOG_ACTION_SIZE_BUFFER = 10  # syslog(2)
ELSEWHERE = "192.0.2.1"  # no machine has it (RFC 5737); connecting a datagram socket sends nothing
DIRECTORIES = ("/", "/etc", "/usr", "/home", "/tmp", "/var/tmp", "/dev/shm", "/proc/sys/kernel/hostname")
PROCESSES = 3  # that are told by name
SCRATCH = ("/tmp", "/dev/shm", "/var/tmp", ".")


def call(name: str, *arguments: Any) -> None:
    """A function of the C library that answers -1 for an error. Raises OSError."""
    import ctypes

    # A number may be meant as a long: as an int its upper half would be left to chance.
    longs = [ctypes.c_long(item) if isinstance(item, int) else item for item in arguments]
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*longs) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def scratch() -> str:
    """A path that does not exist, where something could be made. Raises PermissionError."""
    for place in SCRATCH:
        if os.access(place, os.W_OK | os.X_OK):
            return os.path.join(place, f"initspawn-{os.urandom(8).hex()}")
    raise PermissionError(errno.EACCES, "no writable directory")


def make_directory() -> None:
    """mkdir(2), undone."""
    path = scratch()
    os.mkdir(path)
    os.rmdir(path)


def make_device() -> None:
    """mknod(2) of another /dev/null, undone."""
    path = scratch()
    os.mknod(path, 0o020600, os.makedev(1, 3))
    os.unlink(path)


def trace() -> None:
    """ptrace(2) of a child of our own, which ends with us."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writer)
        os.read(reader, 1)  # until the other side has ended
        os._exit(0)
    try:
        call("ptrace", PTRACE_SEIZE, child, None, None)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def bind_low_port() -> None:
    """A port that only NET_BIND_SERVICE may take (ip(7)), on the loopback, never listened on."""
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 1))


def find_route() -> None:
    """Whether there is a way to another machine; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as tried:
        tried.connect((ELSEWHERE, 9))


def allow_core_files() -> None:
    """Raising a hard limit needs SYS_RESOURCE; where it is not limited there is nothing to raise."""
    if resource.getrlimit(resource.RLIMIT_CORE)[1] == resource.RLIM_INFINITY:
        return
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 1))
    except ValueError as error:  # so it is told here
        raise PermissionError(errno.EPERM, str(error)) from None


def read_one(path: str) -> None:
    """Open for reading; nothing is read."""
    os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))


def make_socket(family: int, kind: int, protocol: int = 0) -> None:
    """socket(2)."""
    socket.socket(family, kind, protocol).close()


# What is tried, and which errors mean that the right was there and only the thing was not.
TRIES: dict[str, tuple[Callable[[], object], tuple[int, ...]]] = {
    "make a directory": (make_directory, ()),
    "make a device (MKNOD)": (make_device, ()),
    "mount (SYS_ADMIN)": (
        lambda: call("mount", b"none", b"/", b"initspawn-no-such-type", 0, None), (errno.ENODEV,),
    ),
    "change the root (SYS_CHROOT)": (lambda: os.chroot("/"), ()),
    "make a user namespace": (lambda: call("unshare", CLONE_NEWUSER), ()),
    "set the host name (SYS_ADMIN)": (lambda: socket.sethostname(socket.gethostname()), ()),
    "become user 0 (SETUID)": (lambda: os.setuid(0), ()),
    "drop all groups (SETGID)": (lambda: os.setgroups([]), ()),
    "raise its priority (SYS_NICE)": (lambda: os.setpriority(os.PRIO_PROCESS, 0, -1), ()),
    "raise a hard limit (SYS_RESOURCE)": (allow_core_files, ()),
    "trace a process": (trace, ()),
    "read the kernel's log (SYSLOG)": (lambda: call("klogctl", SYSLOG_ACTION_SIZE_BUFFER, None, 0), ()),
    "open a unix socket": (lambda: make_socket(socket.AF_UNIX, socket.SOCK_STREAM), ()),
    "open an internet socket": (lambda: make_socket(socket.AF_INET, socket.SOCK_STREAM), ()),
    "open a raw socket (NET_RAW)": (lambda: make_socket(socket.AF_INET, socket.SOCK_RAW, 1), ()),
    "bind port 1 (NET_BIND_SERVICE)": (bind_low_port, (errno.EADDRINUSE, errno.EADDRNOTAVAIL)),
    "find a way to another machine": (find_route, ()),
    "read /etc/passwd": (lambda: read_one("/etc/passwd"), ()),
    "read /etc/shadow": (lambda: read_one("/etc/shadow"), ()),
    "read the environment of process 1": (lambda: read_one("/proc/1/environ"), ()),
}  # fmt: skip


def processes() -> list[str]:
    """`NUMBER NAME` of the first that /proc shows, this program left out, and how many more there are."""
    own = (os.getpid(), os.getppid())
    numbers = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
    found = []
    for number in [number for number in numbers if number not in own][:PROCESSES]:
        try:
            with open(f"/proc/{number}/comm", encoding="utf-8", errors="replace") as file:
                found.append(f"{number} {file.read().strip()}")
        except OSError:
            continue
    return [*found, "and others"] if len(numbers) > PROCESSES + len(own) else found


def devices() -> list[str]:
    """What is in /dev."""
    return sorted(os.listdir("/dev"))


SEES: dict[str, Callable[[], Any]] = {
    "users": lambda: [*os.getresuid(), *os.getresgid(), *os.getgroups()],
    "host name": socket.gethostname,
    "root directory": lambda: sorted(os.listdir("/")),
    "devices": devices,
    "processes": processes,
    "network devices": lambda: sorted(name for _, name in socket.if_nameindex()),
    "may write": lambda: [path for path in DIRECTORIES if os.access(path, os.W_OK, effective_ids=True)],
}


def attempt(name: str) -> str:
    """ALLOWED, or the name of the error."""
    function, fine = TRIES[name]
    try:
        function()
    except OSError as error:
        if error.errno not in fine:
            return errno.errorcode.get(error.errno or 0, str(error))
    return ALLOWED


def look(name: str) -> Any:
    """What there is to see, or why there is nothing."""
    try:
        return SEES[name]()
    except OSError as error:
        return f"({errno.errorcode.get(error.errno or 0, str(error))})"


def tell(kind: str, name: str, value: Any) -> None:
    """One line on stdout, whole."""
    os.write(1, f"{json.dumps([kind, name, value])}\n".encode())


def in_child(kind: str, name: str, function: Callable[[str], Any]) -> None:
    """Make one finding where it can do no harm to the others."""
    child = os.fork()
    if child == 0:
        try:
            tell(kind, name, function(name))
            os._exit(0)
        except BaseException as error:
            print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        tell(kind, name, f"killed by {signal.Signals(os.WTERMSIG(status)).name}")
    elif status:
        tell(kind, name, "(could not be found out)")


def main() -> int:
    """All findings, one line each."""
    for name in SEES:
        in_child("sees", name, look)
    for name in TRIES:
        in_child("tries", name, attempt)
    return 0


if __name__ == "__main__":
    sys.exit(main())
