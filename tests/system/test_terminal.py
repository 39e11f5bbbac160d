"""Commands with a terminal of their own, the whole way: what they have, what callers write, every end."""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.system.server import Client, Server, serving, wait_for, write
from tests.system.test_serve import config, shell

pytestmark = pytest.mark.needs("userns")

LOOK = """
import fcntl, os, struct, termios
print([os.isatty(fd) for fd in range(3)], os.environ["TERM"], tuple(os.get_terminal_size()))
(session,) = struct.unpack("i", fcntl.ioctl(0, 0x5429, bytes(4)))  # TIOCGSID
print(session == os.getsid(0) == os.getpid(), os.tcgetpgrp(0) == os.getpgrp())
print(sorted(os.listdir("/proc/self/fd"))[:3], oct(os.fstat(0).st_mode), os.fstat(0).st_uid == os.getuid())
with open("/dev/tty", "w") as own:
    own.write("by its name\\n")
with open("/dev/stdout", "w") as own:
    own.write("once more\\n")
"""
TYPES = """
import fcntl, sys, termios
def attempt(name, *arguments):
    try:
        fcntl.ioctl(*arguments)
        print(name, "done")
    except OSError as error:
        print(name, error.errno)
for letter in b"typed\\n":
    attempt("TIOCSTI", 0, termios.TIOCSTI, bytes([letter]))
attempt("TIOCLINUX", 0, 0x541C, b"\\x02")
print("over", flush=True)
sys.stdin.readline()
"""
OWN_TREE = [
    {"source": "/usr", "target": "/usr", "mode": "ro"},
    {"source": "usr/bin", "target": "/bin", "mode": "symlink"},
    {"source": "usr/lib", "target": "/lib", "mode": "symlink"},
    {"source": "usr/lib64", "target": "/lib64", "mode": "symlink"},
    {"target": "/proc", "mode": "procfs"}, {"target": "/dev", "mode": "devfs"},
]  # fmt: skip
PYTHON = {"cmdpath": os.path.realpath(sys.executable)}


def python(uid: str, script: str, **keys: Any) -> dict[str, Any]:
    """A command that runs a script with the terminal."""
    run = {**PYTHON, "args": ["-I", "-S", "-c", script.replace("$", "$$").replace("%", "%%")]}
    return {"uid": uid, "terminal": True, "encoder": "line", "exec": run, **keys}


COMMANDS = [
    python("look", LOOK),
    python("types", TYPES),
    {"uid": "cat", "terminal": True, "exec": {"cmdpath": "/bin/cat"}},
    {"uid": "bytes", "terminal": True, "encoder": {"output": "stream", "opts": {"base64": True}},
     "exec": {"cmdpath": "/bin/cat"}},
    shell("size", "trap 'stty size' WINCH; stty size; while :; do sleep 0.05; done",
          terminal={"rows": 3, "columns": 7}, encoder="line"),
    shell("asks", "printf 'name: '; read x; echo hello $x", terminal=True),
    shell("closes", "exec <&- >&- 2>&-; sleep 0.3; exit 5", terminal=True),
    shell("orphan", "sleep 60 & echo out; exit 7", terminal=True, encoder="line"),
    shell("raw", "stty raw -echo; echo ready; head -c 3 | od -An -tx1", terminal=True, encoder="line"),
    shell("deaf", "stty raw -echo; echo ready; exec sleep 100", terminal=True, encoder="line"),
    shell("much", "stty -echo; echo ready; exec wc -c", terminal=True, encoder="line"),
    {"uid": "sleep", "terminal": True, "exec": {"cmdpath": "/bin/sleep", "args": "100"}},
    {"uid": "sync", "terminal": True, "encoder": "sync", "exec": {"cmdpath": "/bin/echo", "args": "x"}},
    {"uid": "piped", "stdin": True, "exec": {"cmdpath": "/bin/sleep", "args": "100"}},
    {"uid": "plain", "exec": {"cmdpath": "/bin/sleep", "args": "100"}},
]  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = tmp_path_factory.mktemp("terminal")
    made = config(*COMMANDS, prefix="")
    (box,) = [made["sandboxes"]]
    own = {**box, "uid": "own", "prefix": "own", "namespace": {"mounts": OWN_TREE}, "commands": COMMANDS[:1]}
    term = {"name": "TERM", "value": "vt100"}
    other = {**box, "uid": "other", "prefix": "other", "envs": [term], "commands": COMMANDS[:1]}
    with serving(place, write(place, "test.json", {**made, "sandboxes": [box, own, other]})) as running:
        yield running


def start(client: Client, verb: str) -> int:
    """Start a command; its pid."""
    reply = client.call(f"test/{verb}")
    assert reply["request"]["status"] == "success", reply
    return int(reply["response"]["pid"])


def give(client: Client, verb: str, pid: int, **args: Any) -> dict[str, Any]:
    """The reply to an input."""
    return client.call(f"test/{verb}", {"action": "input", "args": {"pid": pid, **args}})


def resize(client: Client, verb: str, pid: int, rows: int, columns: int) -> dict[str, Any]:
    args = {"pid": pid, "rows": rows, "columns": columns}
    return dict(client.call(f"test/{verb}", {"action": "resize", "args": args})["request"])


def told(client: Client, pid: int) -> str:
    """All that a task has written so far."""
    return "".join(event.get("stdout", "") for event in client.events if event["pid"] == pid)


def until(client: Client, pid: int, text: str) -> None:
    """Wait until it has written that."""
    while text not in told(client, pid):
        client.receive()


def lines(client: Client, pid: int) -> list[str]:
    """The lines of a task that ends by itself."""
    client.final(pid)
    return [event["stdout"] for event in client.events if event["pid"] == pid and "stdout" in event]


def test_what_a_command_has(client: Client) -> None:
    for verb, term in (("look", "xterm"), ("own/look", "xterm"), ("other/look", "vt100")):
        assert lines(client, start(client, verb)) == [
            f"[True, True, True] {term} (80, 24)",
            "True True",
            "['0', '1', '2'] 0o20600 True",
            "by its name",
            "once more",
        ]


def test_what_is_measured(client: Client) -> None:
    found = {}
    for verb in ("sleep", "plain"):
        pid = start(client, verb)
        (task,) = [task for task in client.call("initspawn/tasks")["response"] if task["pid"] == pid]
        found[verb] = task["measurement"]["terminal"]
        client.call(f"test/{verb}", {"action": "stop"})
        client.final(pid)
    assert found["plain"] == [0, -1]
    assert found["sleep"][0] >= 136 << 8  # a slave of devices.txt
    assert found["sleep"][1] > 0


def test_a_prompt_comes_before_its_line_ends(client: Client) -> None:
    pid = start(client, "asks")
    first = client.until(lambda event: event["type"] == "data")
    assert (first["stdout"], first["piece"]) == ("name: ", "text")
    assert give(client, "asks", pid, data="you\n")["response"] == {"taken": 4}
    assert client.final(pid)["status"] == {"exit": 0}
    assert told(client, pid) == "name: you\r\nhello you\r\n"


def test_the_end_of_the_input_can_be_typed(client: Client) -> None:
    pid = start(client, "cat")
    give(client, "cat", pid, data="a\n")
    until(client, pid, "a\r\na\r\n")
    give(client, "cat", pid, data="half", eof=True)
    assert client.final(pid)["status"] == {"exit": 0}
    assert told(client, pid) == "a\r\na\r\nhalfhalf"


def test_bytes_come_as_they_are(client: Client) -> None:
    pid = start(client, "bytes")
    give(client, "bytes", pid, base64=base64.b64encode(b"\xc3(\n").decode(), eof=True)
    client.final(pid)
    data = [event for event in client.events if event["type"] == "data"]
    assert {event["piece"] for event in data} == {"base64"}
    assert b"".join(base64.b64decode(event["stdout"]) for event in data) == b"\xc3(\r\n" * 2


def test_every_key_reaches_a_program_that_asks_for_them(client: Client) -> None:
    pid = start(client, "raw")
    client.until(lambda event: event.get("stdout") == "ready")
    give(client, "raw", pid, data="\x03\x04\x1a")
    assert lines(client, pid)[-1].split() == ["03", "04", "1a"]


def test_ctrl_c(client: Client) -> None:
    pid = start(client, "sleep")
    give(client, "sleep", pid, data="\x03")
    final = client.final(pid)
    assert (final["status"], final["reason"]) == ({"signal": "Interrupt"}, "signal")


def test_another_size(client: Client) -> None:
    pid = start(client, "size")
    client.until(lambda event: event.get("stdout") == "3 7")
    assert resize(client, "size", pid, 50, 132)["status"] == "success"
    client.until(lambda event: event.get("stdout") == "50 132")
    client.call("test/size", {"action": "stop"})
    assert client.final(pid)["status"] == {"signal": "Hangup"}
    assert resize(client, "size", pid, 1, 1)["info"] == "invalid pid"


@pytest.mark.parametrize(("verb", "why"), [("piped", "no terminal"), ("plain", "no standard input")])
def test_no_size_without_a_terminal(client: Client, verb: str, why: str) -> None:
    pid = start(client, verb)
    answer = resize(client, verb, pid, 1, 1)
    assert answer["status"] == "bad-state"
    assert why in answer["info"]
    client.call(f"test/{verb}", {"action": "stop"})
    client.final(pid)


def test_the_size_is_the_writers(client: Client, server: Server) -> None:
    pid = start(client, "size")
    with server.client() as other:
        assert resize(other, "size", pid, 4, 8)["status"] == "success"
        give(client, "size", pid)
        assert resize(other, "size", pid, 4, 9)["status"] == "bad-state"
        give(client, "size", pid, detach=True)
        assert resize(other, "size", pid, 4, 9)["status"] == "success"
    client.until(lambda event: event.get("stdout") == "4 9")
    client.call("test/size", {"action": "stop"})
    client.final(pid)


def test_stop_hangs_up(client: Client) -> None:
    for verb in ("cat", "sleep"):
        pid = start(client, verb)
        assert client.call(f"test/{verb}", {"action": "stop"})["response"] == [f"box/{verb}@{pid}"]
        final = client.final(pid)
        assert (final["status"], final["reason"]) == ({"signal": "Hangup"}, "stop")
    pid = start(client, "sleep")
    client.call("test/sleep", {"action": "stop", "args": {"signal": "SIGTERM"}})
    assert client.final(pid)["status"] == {"signal": "Terminated"}


def test_a_terminal_that_nobody_has_open(client: Client) -> None:
    pid = start(client, "closes")
    assert client.final(pid)["status"] == {"exit": 5}


def test_a_terminal_that_somebody_has_open_at_the_end(client: Client, server: Server) -> None:
    pid = start(client, "orphan")
    assert lines(client, pid) == ["out"]
    assert client.final(pid)["status"] == {"exit": 7}
    wait_for(lambda: not [task for task in client.call("initspawn/tasks")["response"]
                          if task["state"] != "ended"], "the end of all")  # fmt: skip


def test_a_synchronous_one(client: Client) -> None:
    assert client.call("test/sync")["response"]["stdout"] == ["x"]


def test_much_input_waits_until_it_is_read(client: Client) -> None:
    pid = start(client, "much")
    client.until(lambda event: event.get("stdout") == "ready")
    text = "x" * 99 + "\n"
    assert give(client, "much", pid, data=text * 4000, eof=True)["response"] == {"taken": 400_000}
    assert lines(client, pid)[-1] == "400000"


def test_input_that_nobody_reads(client: Client) -> None:
    pid = start(client, "deaf")
    client.until(lambda event: event.get("stdout") == "ready")
    number = client.send("test/deaf", {"action": "input", "args": {"pid": pid, "data": "x" * 500_000}})
    assert client.call("test/ping")["request"]["status"] == "success"
    client.call("test/deaf", {"action": "stop"})
    reply = client.reply(number)
    assert reply["request"]["status"] == "bad-state"
    assert 0 < reply["response"]["taken"] < 500_000
    client.final(pid)


def test_what_a_program_types_comes_back_to_itself_alone(client: Client) -> None:
    """TIOCSTI, as far as this kernel has it, and TIOCLINUX: a neighbour of the same user gets nothing."""
    neighbour = start(client, "cat")
    pid = start(client, "types")
    until(client, pid, "over")
    said = [event["stdout"] for event in client.events if event["pid"] == pid]
    assert all(line.split()[1] != "done" for line in said if line.startswith("TIOCLINUX"))
    if not any(line == "TIOCSTI done" for line in said):  # dev.tty.legacy_tiocsti is 0
        give(client, "types", pid, data="\n")
    assert client.final(pid)["status"] == {"exit": 0}
    give(client, "cat", neighbour, eof=True)
    client.final(neighbour)
    assert told(client, neighbour) == ""
