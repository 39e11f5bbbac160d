"""Tests of this repository, run inside the guest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from qemu.guest import Guest, Listener
from qemu.image import PLACE

JUNIT = "/run/junit.xml"
# A transient unit with a delegated cgroup, as initspawn has under systemd; not the agent's own.
UNIT = (
    "systemd-run", "--quiet", "--wait", "--pipe", "--collect", "--service-type=exec",
    "--property=Delegate=yes", "--property=TasksMax=infinity", "--property=LimitCORE=0",
    "--property=LimitNOFILE=65536",
    f"--working-directory=/{PLACE}", "--setenv=INITSPAWN_GUEST=1", "--setenv=INITSPAWN_MUST_WORK=1",
    "--setenv=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "--setenv=LANG=C.UTF-8",
)  # fmt: skip


def in_unit(*argv: str, properties: Sequence[str] = ()) -> list[str]:
    """The command line that runs this one in such a unit, until it ends, with its exit code."""
    settings = [f"--property={one}" for one in properties]
    return [*UNIT, *settings, *(word.replace("$", "$$") for word in argv)]  # systemd expands what has one $


class Outcome(NamedTuple):
    """pytest's exit code, its output, and its results as JUnit XML (empty if it did not get that far)."""

    code: int
    output: str
    junit: bytes


def run_tests(
    guest: Guest, arguments: Sequence[str], timeout: float, listener: Listener | None = None
) -> Outcome:
    """Run pytest with these arguments as root. Raises GuestError when it takes too long."""
    pytest = ("python3", "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={JUNIT}", *arguments)
    done = guest.run(*in_unit(*pytest), timeout=timeout, listener=listener)
    found = guest.run("test", "-e", JUNIT).code == 0
    return Outcome(done.code, done.out + done.err, guest.read(JUNIT) if found else b"")
