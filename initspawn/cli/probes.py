"""Trying out what the kernel lets this user do: each probe for real, in a child that is waited for."""

from __future__ import annotations

import errno
import marshal
import os
import select
import signal
import struct
import subprocess
from collections.abc import Callable
from typing import Any

from initspawn.errors import InitspawnError, RequestError
from initspawn.linux import cgroup, landlock, mount, namespaces, nftables, process, ptrace, seccomp
from initspawn.linux.libc import syscall
from initspawn.linux.prctl import PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, prctl

NOBODY = 65534
SECONDS = 20.0
_ALLOW_ALL = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)  # BPF_RET | BPF_K, SECCOMP_RET_ALLOW
# What rules of a guard are made of.
_RULES = """table inet initspawn {
chain output { type filter hook output priority filter; policy drop; meta mark 1 counter accept; }
chain input { type filter hook input priority filter; policy drop; ct state established accept; }
}"""
_NO_DESCRIPTOR = 0xFFFFFFFF


class ProbeError(InitspawnError):
    """A probe's child could not say what it found."""


def in_child(probe: Callable[[], Any], *, user: int | None = None) -> Any:
    """What a probe returns in a forked child, as `user` if that is given.

    Values must be what marshal can hold. Raises OSError as the child did, ProbeError for any other end.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _answer(probe, user, writer)
    os.close(writer)
    try:
        data = _read(reader)
    finally:
        os.close(reader)
        os.kill(pid, signal.SIGKILL)  # ours until it is waited for
        os.waitpid(pid, 0)
    if not data:
        raise ProbeError("the probe ended without an answer")
    number, text, value = marshal.loads(data)
    if number:
        raise OSError(number, os.strerror(number))
    if text:
        raise ProbeError(text)
    return value


def _answer(probe: Callable[[], Any], user: int | None, writer: int) -> None:
    """The child's part: does not return."""
    answer: tuple[int, str, Any]
    try:
        if user is not None:
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
        answer = (0, "", probe())
    except OSError as error:
        answer = (error.errno or errno.EIO, "", None)
    except RequestError as error:  # a refused start: its step and errno
        answer = (0, error.info or error.status, None)
    except BaseException as error:
        answer = (0, f"{type(error).__name__}: {error}", None)
    try:
        os.write(writer, marshal.dumps(answer))
    finally:
        os._exit(0)


def _read(fd: int) -> bytes:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    data = b""
    while poll.poll(SECONDS * 1000):
        part = os.read(fd, 65536)
        if not part:
            break
        data += part
    return data


def reason_not(probe: Callable[[], Any], *, user: int | None = None) -> str:
    """Empty if the probe succeeds in a child, else why it does not."""
    try:
        in_child(probe, user=user)
    except (OSError, ProbeError) as error:
        return (error.strerror if isinstance(error, OSError) else None) or str(error)
    return ""


# Probes, to be run in a child: they change it, or raise OSError.


def make_namespace(name: str) -> None:
    """A namespace of that kind, in a new user namespace where this user cannot do without."""
    flags = namespaces.FLAGS[name]
    if os.geteuid() != 0:
        flags |= process.CLONE_NEWUSER
    syscall("unshare", flags)


def use_mount_calls() -> None:
    """Everything a sandbox's file tree is made with (Linux 5.2 to 5.12)."""
    make_namespace("mnt")
    slave = mount.MS_REC | mount.MS_SLAVE
    syscall("mount", b"none", b"/", None, slave)
    how = mount.OPEN_TREE_CLONE | mount.OPEN_TREE_CLOEXEC | mount.AT_RECURSIVE
    tree = syscall("open_tree", mount.AT_FDCWD, b"/", how)
    value = struct.pack("=4Q", mount.MOUNT_ATTR_NODEV, 0, 0, 0)
    syscall("mount_setattr", tree, b"", mount.AT_EMPTY_PATH | mount.AT_RECURSIVE, value, len(value))
    context = syscall("fsopen", b"tmpfs", mount.FSOPEN_CLOEXEC)
    syscall("fsconfig", context, mount.FSCONFIG_CMD_CREATE, None, None, 0)
    made = syscall("fsmount", context, mount.FSMOUNT_CLOEXEC, mount.MOUNT_ATTR_NOSUID)
    syscall("move_mount", made, b"", mount.AT_FDCWD, b"/tmp", mount.MOVE_MOUNT_F_EMPTY_PATH)


def open_below_root() -> None:
    """openat2(2), Linux 5.6."""
    root = os.open("/", os.O_PATH)
    mount.open_in_root(root, "/proc", os.O_PATH)


def use_clone3() -> None:
    """clone3(2), Linux 5.3: with no arguments at all it is refused as invalid, if it is there."""
    try:
        syscall("clone3", 0, 0)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise


def use_close_range() -> None:
    """close_range(2), Linux 5.9, over nothing."""
    syscall("close_range", _NO_DESCRIPTOR, _NO_DESCRIPTOR, 0)


def use_pidfd() -> None:
    """pidfd_open(2), Linux 5.3, and pidfd_send_signal(2)."""
    process.pidfd_send_signal(process.pidfd_open(os.getpid()), 0)


def trace_a_grandchild() -> None:
    """ptrace(2) of a descendant that is not our child, as the supervisor holds a command."""
    theirs, ours = os.pipe()
    waiting, end = os.pipe()
    child = os.fork()
    if child == 0:
        grandchild = os.fork()
        if grandchild == 0:
            os.close(end)
            prctl(PR_SET_DUMPABLE, 1)
            os.write(ours, struct.pack("=i", os.getpid()))
            os.read(waiting, 1)
            os._exit(0)
        os.close(end)
        os.waitpid(grandchild, 0)
        os._exit(0)
    grandchild = struct.unpack("=i", os.read(theirs, 4))[0]
    try:
        ptrace.seize(grandchild)
    except OSError:
        os.close(end)
        os.waitpid(child, 0)
        raise
    os.close(end)
    os.waitpid(grandchild, process.WALL)  # a tracer is told first, then the parent
    os.waitpid(child, 0)


def load_filter() -> None:
    """A seccomp filter that allows everything."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    program = seccomp.program(_ALLOW_ALL)
    import ctypes

    syscall("prctl", PR_SET_SECCOMP, seccomp.MODE_FILTER, ctypes.addressof(program), 0, 0)


def landlock_version() -> int:
    """The Landlock ABI. Raises OSError where there is none."""
    version = landlock.version()
    if not version:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    return version


def guard_a_network(nft: str) -> None:
    """The rules of a guard and its watch, in a network of their own. Raises RequestError: what nft says."""
    make_namespace("net")
    nftables.Watch(nftables.INET, "initspawn").close()
    done = subprocess.run(
        [nft, _RULES], stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS / 2, check=False
    )
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").splitlines()
        raise RequestError("not-available", f"nft ended with {done.returncode}: {' '.join(said[:1])}")


def make_group() -> list[str]:
    """A cgroup below our own, removed at once. Returns what its cgroup.kill lacks: nothing, or a reason.

    Raises OSError where none can be made.
    """
    base = (cgroup.mount_point() or "").rstrip("/") + cgroup.own_path().rstrip("/")
    path = f"{base}/initspawn-doctor-{os.getpid()}"
    os.mkdir(path)
    try:
        return [] if os.access(f"{path}/cgroup.kill", os.W_OK) else ["no cgroup.kill (Linux 5.14)"]
    finally:
        os.rmdir(path)
