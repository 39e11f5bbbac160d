"""One QEMU process and its lifetime: it ends with the `with` block, and with this process at the latest."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import IO, NamedTuple

from qemu import cache
from qemu.image import Image
from qemu.qmp import Qmp, QmpError

GUESTS = 2  # at most, of one user at one time; those on a terminal do not count
PORT = "initspawn.agent"
CPUINFO = Path("/proc/cpuinfo")
KVM = Path("/dev/kvm")
# panic=-1 with -no-reboot: a panic ends QEMU at once. printk.devkmsg=on: no rate limit for /dev/kmsg.
KERNEL = (
    "console=ttyS0 panic=-1 root=/dev/nvme0n1 rootfstype=ext4 rw printk.devkmsg=on"
    " cgroup_no_v1=all systemd.unified_cgroup_hierarchy=1 systemd.debug_shell=ttyS1"
)
# setpriv has QEMU killed when its parent ends; the shell notices if that was before.
UNTIL_PARENT_ENDS = ("setpriv", "--pdeathsig", "KILL", "sh", "-c", '[ "$PPID" = "$1" ] && shift && exec "$@"')


class GuestError(Exception):
    """The guest did not do what was asked: it ended, panicked, or took too long."""


class Shape(NamedTuple):
    """How a machine is made and booted.

    `append` comes after the usual kernel command line; `kernel_options` replaces it. `drives` are further
    raw disks (/dev/nvme1n1 and so on). With `terminal` the console is this process's terminal; else it
    goes to a file.
    """

    image: Image
    cpus: int = 1
    memory: int = 768  # MiB
    append: str = "quiet"
    kernel_options: str = KERNEL
    drives: tuple[Path, ...] = ()
    terminal: bool = False


def accelerator() -> list[str]:
    """The options for QEMU's accelerator: TCG, or KVM where INITSPAWN_KVM=1 asks for it and the processor
    has it (a /dev/kvm alone says little: some are for paravirtual guests only). Raises GuestError.
    """
    if os.environ.get("INITSPAWN_KVM", "") in ("", "0"):
        return ["-accel", "tcg,thread=multi", "-cpu", "max"]
    if not re.search(r"\b(svm|vmx)\b", CPUINFO.read_text(encoding="utf-8")):
        raise GuestError("INITSPAWN_KVM=1, but this processor has neither svm nor vmx")
    if not os.access(KVM, os.R_OK | os.W_OK):
        raise GuestError("INITSPAWN_KVM=1, but /dev/kvm cannot be opened")
    return ["-accel", "kvm", "-cpu", "host"]


def command_line(shape: Shape, place: Path, agent: int, qmp: int) -> list[str]:
    """QEMU's argv. `agent` and `qmp` are connected sockets that it inherits.

    The network is closed in both directions (`restrict=on`); `Machine.forward` opens single ports.
    """
    console = "stdio,signal=off" if shape.terminal else f"file,path={place / 'console'}"
    argv = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]
    argv += ["-machine", "q35", *accelerator(), "-smp", str(shape.cpus), "-m", str(shape.memory)]
    argv += ["-kernel", str(shape.image.kernel), "-append", f"{shape.kernel_options} {shape.append}"]
    for number, disk in enumerate((shape.image.disk, *shape.drives)):
        # snapshot=on: what the guest writes goes to a temporary file that has no name.
        argv += ["-drive", f"file={disk},format=raw,if=none,id=d{number},snapshot=on"]
        argv += ["-device", f"nvme,drive=d{number},serial=d{number}"]
    argv += ["-chardev", f"{console.partition(',')[0]},id=console,{console.partition(',')[2]}"]
    argv += ["-serial", "chardev:console"]
    argv += ["-serial", f"unix:{place / 'shell'},server=on,wait=off"]
    argv += ["-device", "virtio-serial-pci", "-chardev", f"socket,id=agent,fd={agent}"]
    argv += ["-device", f"virtserialport,chardev=agent,name={PORT}"]
    argv += ["-chardev", f"socket,id=qmp,fd={qmp}", "-mon", "chardev=qmp,mode=control"]
    argv += ["-netdev", "user,id=n0,restrict=on", "-device", "virtio-net-pci,netdev=n0,romfile="]
    return argv


class Machine:
    """A running QEMU. Use it in a `with` block; entering waits for one of the GUESTS slots.

    Who holds one must not wait for another: see tests/boot/conftest.py.
    """

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self._stack = ExitStack()

    def __enter__(self) -> Machine:
        with ExitStack() as stack:
            if not self.shape.terminal:
                stack.enter_context(_slot())
            self.place = Path(tempfile.mkdtemp(prefix="initspawn-guest-"))
            stack.callback(shutil.rmtree, self.place)
            self.agent, agent = socket.socketpair()
            stack.callback(self.agent.close)
            connection, qmp = socket.socketpair()
            self.qmp = Qmp(connection)
            stack.callback(self.qmp.close)
            with agent, qmp, (self.place / "qemu").open("wb") as said:
                argv = command_line(self.shape, self.place, agent.fileno(), qmp.fileno())
                self._process = subprocess.Popen(
                    [*UNTIL_PARENT_ENDS, "sh", str(os.getpid()), *argv],
                    pass_fds=(agent.fileno(), qmp.fileno()),
                    stdin=None if self.shape.terminal else subprocess.DEVNULL,
                    stdout=None if self.shape.terminal else said,
                    stderr=None if self.shape.terminal else subprocess.STDOUT,
                )
            stack.callback(self._kill)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def pid(self) -> int:
        """QEMU's process."""
        return self._process.pid

    @property
    def debug_shell(self) -> Path:
        """The unix socket of the second serial port: a root shell while systemd runs."""
        return self.place / "shell"

    def console(self) -> str:
        """What the console has shown so far."""
        path = self.place / "console"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def wait_console(self, pattern: str, timeout: float = 120.0) -> re.Match[str]:
        """Wait until the console has shown this. Raises GuestError."""
        end = time.monotonic() + timeout
        while True:
            ended = self.ended()
            if found := re.search(pattern, self.console()):
                return found
            if ended or time.monotonic() > end:
                raise self.failure(f"the console never showed {pattern!r}")
            time.sleep(0.05)

    def forward(self, port: int, here: int = 0) -> int:
        """Forward a port of this machine's loopback, by default a free one, to this port of the guest.

        Returns the port here. A connection is accepted even while nobody listens in the guest.
        Raises GuestError.
        """
        if refusal := self.qmp.monitor(f"hostfwd_add n0 tcp:127.0.0.1:{here}-:{port}").strip():
            raise GuestError(f"port {here} of 127.0.0.1 cannot be forwarded to port {port}: {refusal}")
        # TCP[HOST_FORWARD]  12       127.0.0.1 40123       10.0.2.15  1234     0     0
        table = self.qmp.monitor("info usernet")
        found = re.findall(rf"HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s+\S+\s+{port}\s", table)
        if not found:
            raise GuestError(f"port {port} is not among the forwarded ones:\n{table}")
        return int(found[-1])

    def ended(self) -> bool:
        """Whether QEMU has ended."""
        return self._process.poll() is not None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for QEMU's end; its exit code. Raises GuestError when it does not come."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise self.failure(f"it did not end within {timeout:.0f} s") from None

    def power_button(self) -> None:
        """Press the button of a well-behaved power-off (ACPI)."""
        try:
            self.qmp.execute("system_powerdown")
        except (QmpError, OSError) as error:
            raise self.failure("it cannot be switched off") from error

    def failure(self, what: str) -> GuestError:
        """An error that also shows the last lines of the console and of QEMU."""
        printed = self.place / "qemu"
        said = printed.read_text(encoding="utf-8", errors="replace") if printed.exists() else ""
        state = f" (QEMU ended with {self._process.returncode})" if self.ended() else ""
        last = "\n".join([*said.splitlines()[-10:], *self.console().splitlines()[-30:]])
        return GuestError(f"{what}{state}; the end of its console:\n{last}")


def _slot() -> IO[str]:
    """Wait for a free slot; closing the file frees it."""
    told = False
    while True:
        for number in range(GUESTS):
            file = (cache.folder() / f"guest-{number}.lock").open("w")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return file
            except BlockingIOError:
                file.close()
        if not told:
            print(f"qemu: {GUESTS} guests run already; waiting for one to end", file=sys.stderr, flush=True)
            told = True
        time.sleep(0.2)
