"""Commands and files in the guest."""

from __future__ import annotations

import signal

import pytest

from qemu.frames import ERR, OUT
from qemu.guest import Guest
from qemu.machine import GuestError


def test_output_and_exit_code(guest: Guest) -> None:
    done = guest.run("sh", "-c", "echo out; echo err >&2; exit 7")
    assert done == (7, "out\n", "err\n")
    assert guest.run("sh", "-c", "kill -KILL $$").code == -signal.SIGKILL
    done = guest.run("/no/such/program")
    assert (done.code, done.out) == (127, "")
    assert "No such file or directory: '/no/such/program'" in done.err


def test_environment_directory_and_input(guest: Guest) -> None:
    done = guest.run("sh", "-c", "pwd; echo $WORD; cat", cwd="/usr", env={"WORD": "x y"}, input=b"in\xff")
    assert done.out == "/usr\nx y\nin�"


def test_any_bytes_and_many_of_them(guest: Guest) -> None:
    data = bytes(range(256)) * 4096  # 1 MiB
    guest.write("/run/data", data, mode="600")
    assert guest.read("/run/data") == data
    assert guest.shell("stat -c '%a %s' /run/data; rm /run/data") == f"600 {len(data)}\n"
    with pytest.raises(GuestError, match="/run/data: No such file"):
        guest.read("/run/data")


def test_several_at_the_same_time(guest: Guest) -> None:
    heard: list[tuple[int, bytes]] = []
    first = guest.start("sh", "-c", "read line; echo got $line", listener=lambda *what: heard.append(what))
    loop = "trap 'echo stopped >&2; exit 3' TERM; echo ready; while :; do sleep 0.1; done"
    second = guest.start("sh", "-c", loop)
    guest.until(lambda: second.output[OUT] == b"ready\n", 60, "the second")
    assert guest.check("echo", "third") == "third\n"
    first.write(b"a word\n")
    assert first.wait() == (0, "got a word\n", "")
    assert heard == [(OUT, b"got a word\n")]
    second.signal(signal.SIGTERM)
    assert second.wait().code == 3
    assert second.output[ERR] == b"stopped\n"


def test_who_keeps_the_output_open_is_not_waited_for(guest: Guest) -> None:
    assert guest.run("sh", "-c", "sleep 300 & echo $! >/run/sleeper; echo done").out == "done\n"
    guest.shell("kill $(cat /run/sleeper); rm /run/sleeper")


def test_what_takes_too_long_is_killed_and_told(guest: Guest) -> None:
    with pytest.raises(GuestError, match=r"in vain for the end of 'sh -c echo begun(.|\n)*ends with:\nbegun"):
        guest.run("sh", "-c", "echo begun; exec sleep 301", timeout=2)
    assert guest.shell("sleep 0.5; pgrep -fx 'sleep 301' || echo none") == "none\n"
