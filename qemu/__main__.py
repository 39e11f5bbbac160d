"""`python -m qemu image|boot|test`: make the image, boot it for a person, run tests in it."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from qemu.guest import Guest
from qemu.image import BuildError, build
from qemu.machine import GuestError, Machine, Shape
from qemu.testing import run_tests

EARLY = "init=/usr/sbin/initspawn-init"  # before systemd; `--append initspawn=off` for systemd alone


def main() -> int:
    """The command line. 0: done; 1: tests failed; 2: no image, no machine, or wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m qemu", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("image", help="make the image if it is not in the cache, and print where it is")
    boot = commands.add_parser("boot", help="boot it with the console on this terminal")
    boot.add_argument("--port", type=int, default=1234, help="of the web page, there and here (default 1234)")
    boot.add_argument("--append", default="", help="more for the kernel's command line")
    test = commands.add_parser("test", help="run pytest in it")
    test.add_argument("--junit", type=Path, help="write the results to this file")
    test.add_argument("--timeout", type=float, default=3600.0, help="seconds for the tests (default 3600)")
    test.add_argument("pytest", nargs="*", default=["tests/system"], help="arguments of pytest, after --")
    for one in (boot, test):
        one.add_argument("--cpus", type=int, default=2)
        one.add_argument("--memory", type=int, default=1024, metavar="MiB")
    arguments = parser.parse_args()
    try:
        return int({"image": _image, "boot": _boot, "test": _test}[arguments.command](arguments))
    except (BuildError, GuestError, OSError) as error:
        print(f"qemu: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _image(_: argparse.Namespace) -> int:
    image = build()
    print(f"disk    {image.disk}\nkernel  {image.kernel}")
    return 0


def options(port: int) -> str:
    """For the kernel's command line of `boot`: initspawn is PID 1, and serves its demonstration later."""
    return f"initspawn.demo={port} {EARLY} quiet systemd.show_status=auto"


def _boot(arguments: argparse.Namespace) -> int:
    append = f"{options(arguments.port)} {arguments.append}"
    shape = Shape(build(), arguments.cpus, arguments.memory, append, terminal=True)
    with Machine(shape) as machine:
        port = machine.forward(arguments.port, arguments.port)
        print(
            f"Port {port} of 127.0.0.1 leads into the guest: in some seconds it prints an address with a\n"
            "token, to be opened in a browser on this machine.\n"
            f"Another root shell: socat -,raw,echo=0 unix:{machine.debug_shell}\n"
            "`poweroff` in the guest ends it; killing this program does, too.",
            flush=True,
        )
        return machine.wait()


def _test(arguments: argparse.Namespace) -> int:
    with Guest(Shape(build(), arguments.cpus, arguments.memory)) as guest:
        guest.wait_agent()
        outcome = run_tests(guest, arguments.pytest, arguments.timeout, lambda _, data: _write(data))
    if arguments.junit:
        arguments.junit.write_bytes(outcome.junit)
    return outcome.code


def _write(data: bytes) -> None:
    os.write(sys.stdout.fileno(), data)


if __name__ == "__main__":
    sys.exit(main())
