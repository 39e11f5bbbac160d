"""A second machine: SELinux with a small policy, and at last the power button."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from qemu import selinux
from qemu.guest import Guest
from qemu.image import Image
from qemu.machine import Shape

CONFINED = "everybody:anything:confined_t"
# What a label does to a command: with whatever privileges, and with the right to gain them given up.
TAKE_LABEL = """
import ctypes, errno, os, sys
if sys.argv[1] == "nnp":
    assert ctypes.CDLL(None).prctl(38, 1, 0, 0, 0) == 0
try:
    with open("/proc/self/attr/exec", "w") as file:
        file.write(sys.argv[2])
    line = "cat /proc/self/attr/current; echo; echo x 2>/dev/null >/run/file; cat /run/file"
    os.execv("/bin/sh", ["sh", "-c", line])
except OSError as error:
    print(errno.errorcode[error.errno])
"""


@pytest.fixture(scope="module")
def labelled(image: Image) -> Iterator[Guest]:
    """A guest that enforces qemu/selinux/minimal.cil."""
    with Guest(Shape(image, append=f"quiet {selinux.APPEND}")) as machine:
        selinux.enforce(machine.wait_agent())
        yield machine


@pytest.mark.parametrize("how", ["plain", "nnp"])
def test_a_label_is_taken_and_confines(labelled: Guest, how: str) -> None:
    labelled.write("/run/file", b"untouched\n")
    assert labelled.read("/proc/self/attr/current").rstrip(b"\0") == b"everybody:anything:kernel_t"
    done = labelled.run("python3", "-c", TAKE_LABEL, how, CONFINED)
    assert done.out.replace("\0", "").split() == [CONFINED, "untouched"]


def test_labels_that_cannot_be_taken(labelled: Guest) -> None:
    for name, error in (("forbidden_t", "EACCES"), ("unknown_t", "EINVAL")):
        label = f"everybody:anything:{name}"
        assert labelled.check("python3", "-c", TAKE_LABEL, "plain", label) == f"{error}\n"


LABELLED = """
metadata: {uid: labels, api: labels}
sandboxes:
  - uid: confined
    acls: {user: root, label: "everybody:anything:confined_t"}
    namespace: {}
    commands: {uid: look, exec: {cmdpath: /bin/sh, args: [/run/look]}}
  - uid: "everybody:anything:confined_t"
    prefix: named
    acls: {user: root}
    namespace: {opts: {selinux: true}}
    commands: {uid: look, exec: {cmdpath: /bin/sh, args: [/run/look]}}
  - uid: forbidden
    acls: {user: root, label: "everybody:anything:forbidden_t"}
    commands: {uid: look, exec: {cmdpath: /bin/true}}
"""
LOOK = b"cat /proc/self/attr/current; echo; echo x >/run/file || cat /run/file"


def test_a_sandbox_takes_a_label_on(labelled: Guest) -> None:
    labelled.write("/run/file", b"untouched\n")
    labelled.write("/run/look", LOOK)
    labelled.write("/run/labels.yaml", LABELLED.encode())
    for verb in ("confined/look", "named/look"):
        done = labelled.run("initspawn", "run", "/run/labels.yaml", verb)
        assert done.out.replace("\0", "").split()[:2] == [CONFINED, "untouched"], done
    done = labelled.run("initspawn", "run", "/run/labels.yaml", "forbidden/look")
    assert done.code != 0
    assert "label" in done.out + done.err or "exec" in done.out + done.err, done


def test_without_a_label_everything_goes_on(labelled: Guest) -> None:
    assert labelled.run("systemctl", "is-system-running", "--wait").out == "running\n"
    done = labelled.run("initspawn", "doctor")
    assert done.code == 0, done.out


def test_power_button(labelled: Guest) -> None:
    """The last one: systemd ends everything in order, and QEMU ends by itself."""
    labelled.power_off()
    assert labelled.wait() == 0
    assert "reboot: Power down" in labelled.console()
