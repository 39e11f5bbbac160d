"""What docs/image.md says about the guest: the kernel it has, and what works there."""

from __future__ import annotations

import pytest

from qemu.guest import Guest
from qemu.machine import GuestError
from qemu.qmp import QmpError
from qemu.testing import in_unit

FORKS = """
import os, signal
try:
    while True:
        if os.fork() == 0:
            signal.pause()
except BlockingIOError:
    print("no more")
"""


def test_it_boots_without_a_failed_unit(guest: Guest) -> None:
    assert guest.run("systemctl", "is-system-running", "--wait").out == "running\n"


def test_a_unit_gets_every_controller_to_hand_on(guest: Guest) -> None:
    script = """
        set -e
        cd /sys/fs/cgroup$(sed s/0:://p -n /proc/self/cgroup)
        cat cgroup.controllers
        mkdir main inner
        echo $$ >main/cgroup.procs
        echo "+cpu +io +memory +pids" >cgroup.subtree_control
        echo 20 >inner/pids.max; echo 10000 >inner/cpu.weight; echo 16M >inner/memory.max
        echo "259:0 rbps=1048576" >inner/io.max
        cat inner/cgroup.controllers inner/memory.max inner/io.max
        stat -f -c %T .
    """
    done = guest.run(*in_unit("sh", "-c", script))
    assert done.code == 0, done.err
    own, inner, memory, io, kind = done.out.splitlines()
    assert {"cpu", "io", "memory", "pids"} <= set(own.split())
    assert inner.split() == ["cpu", "io", "memory", "pids"]
    assert memory == str(16 << 20)
    assert io == "259:0 rbps=1048576 wbps=max riops=max wiops=max"
    assert kind == "cgroup2fs"
    kinds = {line.split()[2] for line in guest.read("/proc/mounts").decode().splitlines()}
    assert "cgroup" not in kinds


def test_memory_and_pid_limits_bite(guest: Guest) -> None:
    hog = "import sys; b = bytearray(200 << 20); print('got it')"
    limits = ("MemoryMax=32M", "MemorySwapMax=0", "TasksMax=8")
    done = guest.run(*in_unit("python3", "-c", hog, properties=limits))
    assert done.code != 0
    assert done.out == ""
    done = guest.run(*in_unit("python3", "-c", FORKS, properties=limits))
    assert done.out == "no more\n"


def test_security_modules(guest: Guest) -> None:
    """SELinux is compiled in and off by default, Smack is absent."""
    active = guest.read("/sys/kernel/security/lsm").decode().split(",")
    assert {"landlock", "yama", "apparmor"} <= set(active)
    assert not {"selinux", "smack"} & set(active)
    config = guest.shell("cat /boot/config-$(uname -r)")
    assert "CONFIG_SECURITY_SELINUX=y" in config
    assert "CONFIG_SECURITY_SMACK=y" not in config


def test_file_systems(guest: Guest) -> None:
    text = guest.shell("""
        set -e
        mkdir -p /run/t/lower /run/t/tmp /run/t/merged /run/t/image
        echo below >/run/t/lower/file
        mksquashfs /run/t/lower /run/t/squash -quiet -no-progress >/dev/null
        mount -o loop,ro /run/t/squash /run/t/image
        mount -t tmpfs none /run/t/tmp; mkdir /run/t/tmp/upper /run/t/tmp/work
        mount -t overlay -o lowerdir=/run/t/image,upperdir=/run/t/tmp/upper,workdir=/run/t/tmp/work \
            none /run/t/merged
        echo above >>/run/t/merged/file
        cat /run/t/merged/file /run/t/image/file
        umount /run/t/merged /run/t/tmp /run/t/image; rm -r /run/t
    """)
    assert text == "below\nabove\nbelow\n"


def test_a_network_that_leads_nowhere(guest: Guest) -> None:
    guest.check("/lib/systemd/systemd-networkd-wait-online", "--any", "--timeout=60")
    assert " 10.0.2.15/24 " in guest.check("ip", "-brief", "address")
    assert guest.check("ip", "route", "show", "default") == ""
    guest.check("modprobe", "wireguard")


def test_doctor_finds_everything(guest: Guest) -> None:
    done = guest.run("initspawn", "doctor")
    assert done.code == 0, done.out
    assert "Landlock                            ABI 2" in done.out


def test_qemu_answers_and_refuses(guest: Guest) -> None:
    assert guest.qmp.execute("query-status")["status"] == "running"
    with pytest.raises(QmpError, match=r"no-such-command: .*not been found"):
        guest.qmp.execute("no-such-command")
    with pytest.raises(GuestError, match="cannot be forwarded to port 0"):
        guest.forward(0)
