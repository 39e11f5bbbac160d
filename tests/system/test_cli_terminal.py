"""`run` and `attach` as a person uses them: from a terminal, which is a pseudo-terminal of the test."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.system.server import PATIENCE, Server, serving, wait_for, write
from tests.system.test_serve import config, shell
from tests.system.test_terminal import python

pytestmark = pytest.mark.needs("userns")

INITSPAWN = [sys.executable, "-m", "initspawn"]
ASK = """
import os, signal, sys
def size(*_):
    columns, rows = os.get_terminal_size()
    print(rows, columns, flush=True)
signal.signal(signal.SIGWINCH, size)
size()
print("ready", flush=True)
for line in sys.stdin:
    print("got", line.strip(), flush=True)
sys.exit(7)
"""
COMMANDS = [
    python("ask", ASK, encoder="stream"),
    {"uid": "sleep", "terminal": True, "exec": {"cmdpath": "/bin/sleep", "args": "100"}},
    shell("deaf", "stty raw -echo; echo ready; exec sleep 100", terminal=True),
    shell("colour", r"printf '\033[1mx'; exit 3", terminal=True),
    shell("lines", "echo one; read line; echo $line", terminal=True, encoder="line"),
    {"uid": "cat", "stdin": True, "encoder": "line", "exec": {"cmdpath": "/bin/cat"}},
    {"uid": "sum", "stdin": True, "encoder": "raw", "exec": {"cmdpath": "/usr/bin/md5sum"}},
    {"uid": "pieces", "encoder": "stream", "exec": {"cmdpath": "/usr/bin/printf", "args": "no line"}},
    {"uid": "true", "exec": {"cmdpath": "/bin/true"}},
]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("terminal"), "test.json", config(*COMMANDS, prefix=""))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, file: str) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server"), file) as running:
        yield running


class Screen:
    """A person's terminal, and a program that was started from it."""

    def __init__(self, *command: str) -> None:
        self.ours, self.theirs = os.openpty()
        self.size(30, 90)
        self.before = termios.tcgetattr(self.theirs)
        self.text = ""
        self.process = subprocess.Popen(
            command, stdin=self.theirs, stdout=self.theirs, stderr=self.theirs, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip

    def size(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def press(self, keys: str) -> None:
        os.set_blocking(self.ours, True)
        os.write(self.ours, keys.encode())

    def until(self, text: str) -> str:
        """Read until this has been shown; what was shown before and with it is forgotten."""
        os.set_blocking(self.ours, False)
        end = time.monotonic() + PATIENCE
        while text not in self.text:
            assert time.monotonic() < end, f"waited in vain for {text!r}: {self.text!r}"
            try:
                self.text += os.read(self.ours, 4096).decode()
            except BlockingIOError:
                time.sleep(0.01)
        seen, _, self.text = self.text.partition(text)
        return seen

    def raw(self) -> bool:
        return not termios.tcgetattr(self.theirs)[3] & termios.ICANON

    def end(self) -> int:
        """The exit code; the terminal must be as it was."""
        code = self.process.wait(PATIENCE)
        assert termios.tcgetattr(self.theirs) == self.before
        return code


@contextmanager
def screen(*command: str) -> Iterator[Screen]:
    made = Screen(*command)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.process.terminate()
        made.process.wait(PATIENCE)
        os.close(made.ours)
        os.close(made.theirs)


def run(file: str, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [*INITSPAWN, "run", file, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


def attach(server: Server, *words: str) -> list[str]:
    return [*INITSPAWN, "attach", "--socket", str(server.run_dir / "control"), *words]


# run


def test_run_connects_two_terminals(file: str) -> None:
    with screen(*INITSPAWN, "run", file, "ask", "--terminal") as person:
        person.until("30 90\r\nready\r\n")
        wait_for(person.raw, "every key")
        person.size(40, 100)
        person.until("40 100\r\n")
        person.press("word\r")
        person.until("word\r\ngot word\r\n")
        person.press("\x04")
        assert person.end() == 7


def test_keys_that_signal_are_the_commands(file: str) -> None:
    with screen(*INITSPAWN, "run", file, "sleep", "--terminal") as person:
        wait_for(person.raw, "every key")
        person.press("\x03")
        person.until("initspawn: the command was ended by signal: Interrupt\r\n")
        assert person.end() == 130


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_to_run_ends_the_command(file: str, number: int) -> None:
    with screen(*INITSPAWN, "run", file, "sleep", "--terminal") as person:
        wait_for(person.raw, "every key")
        person.process.send_signal(number)
        person.until("ended by signal: Hangup")
        assert person.end() == 129


def test_keys_that_nobody_reads_are_no_trouble(file: str) -> None:
    with screen(*INITSPAWN, "run", file, "deaf", "--terminal") as person:
        person.until("ready")
        wait_for(person.raw, "every key")
        for _ in range(6):
            person.press("x" * 1000)
        person.process.terminate()
        assert person.end() == 129


def test_what_is_no_terminal_session_stays_escaped(file: str) -> None:
    with screen(*INITSPAWN, "run", file, "colour") as person:
        person.until("\\x1b[1mx")
        assert person.end() == 3
    assert run(file, "colour").stdout == "\x1b[1mx"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["ask", "--terminal"], "no terminal"),
        (["cat", "--terminal"], "does not say `terminal`"),
        (["true", "--input", "/dev/null"], "does not say `stdin` or `terminal`"),
        (["ask", "--terminal", "--json"], "do not go together"),
        (["ask", "--terminal", "--input", "-"], "not allowed with"),
    ],
)
def test_run_says_what_does_not_go(file: str, words: list[str], reason: str) -> None:
    done = run(file, *words, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (100, "")
    assert reason in done.stderr


def test_run_hands_its_input_on(file: str, tmp_path: Path) -> None:
    lines = "".join(f"{number}\n" for number in range(100_000, 150_000))
    source = tmp_path / "lines"
    source.write_text(lines)
    for done in (run(file, "cat", "--input", str(source)), run(file, "cat", "--input", "-", input=lines)):
        assert (done.returncode, done.stdout == lines, done.stderr) == (0, True, "")
    with open(source) as opened:  # a file, which no epoll takes
        assert run(file, "cat", "--input", "-", stdin=opened).stdout == lines
    assert run(file, "sum", "--input", str(source)).stdout == subprocess.run(
        ["md5sum"], input=lines, capture_output=True, text=True, timeout=60
    ).stdout
    missing = run(file, "cat", "--input", str(tmp_path / "none"))
    assert (missing.returncode, missing.stdout) == (111, "")
    assert "none: No such file" in missing.stderr


def test_without_input_there_is_an_end_of_it(file: str) -> None:
    assert run(file, "cat").returncode == 0
    assert run(file, "ask", stdin=subprocess.DEVNULL).returncode == 7


def test_input_of_a_terminal(file: str) -> None:
    done = run(file, "ask", "--input", "-", input="word\n")
    assert done.returncode == 7
    assert "got word\n" in done.stdout


# attach


def test_attach_leaves_and_comes_back(server: Server) -> None:
    with screen(*attach(server, "test/ask", "--start")) as person:
        person.until("ready\r\n")
        wait_for(person.raw, "every key")
        person.size(41, 101)
        person.until("41 101\r\n")
        person.press("one\r")
        person.until("got one\r\n")
        person.press("tw\x1d")
        person.until("initspawn: test/ask goes on as pid ")
        assert person.end() == 0
    with server.local() as client, screen(*attach(server, "test/ask")) as person:
        person.until("ready\r\n")  # what was told before is told again
        person.until("got one\r\n")
        person.press("o\r\x04")
        person.until("got two\r\n")
        assert person.end() == 7
        assert client.call("initspawn/tasks").response[-1]["state"] == "ended"


def test_one_writes_until_another_takes_over(server: Server) -> None:
    with screen(*attach(server, "test/ask", "--start")) as first:
        first.until("ready\r\n")
        with screen(*attach(server, "test/ask")) as second:
            second.until(f"another client writes to it: user:{os.geteuid()}")
            assert second.end() == 125
        with screen(*attach(server, "test/ask", "--take")) as second:
            second.until("ready\r\n")
            wait_for(second.raw, "every key")
            first.press("mine\r")
            first.until("another client writes to it")
            assert first.end() == 125
            second.press("yours\r\x04")
            second.until("got yours\r\n")
            assert second.end() == 7


def test_attach_names_what_it_needs(server: Server) -> None:
    with server.local() as client:
        pids = [client.call("test/sleep").response["pid"] for _ in range(2)]
        for words, reason, code in (
            (["test/sleep"], "name the PID of box/sleep@", 100),
            (["test/sleep", "1"], "invalid pid", 100),
            (["test/sleep", "1", "--start"], "no PID yet", 100),
            (["sleep"], "no full name of a verb", 100),
            (["test/nothing"], "unknown-verb", 127),
            (["test/ask"], "nothing runs", 100),
        ):
            with screen(*attach(server, *words)) as person:
                person.until(reason)
                assert person.end() == code
        for verb in ("cat", "true"):
            before = len(client.call("initspawn/tasks").response)
            with screen(*attach(server, f"test/{verb}", "--start")) as person:
                person.until("it has no terminal")
                assert person.end() == 125
            assert len(client.call("initspawn/tasks").response) == before, "nothing was started"
        piped = client.call("test/cat").response["pid"]
        with screen(*attach(server, "test/cat")) as person:
            person.until("it has no terminal")
            assert person.end() == 125
        with screen(*attach(server, "test/sleep", str(pids[1]))) as person:
            wait_for(person.raw, "every key")
            client.call("test/sleep", {"action": "stop", "args": {"pid": pids[1]}})
            person.until("ended by signal: Hangup")
            assert person.end() == 129
        client.call("test/sleep", {"action": "stop"})
        client.call("test/cat", {"action": "input", "args": {"pid": piped, "eof": True}})
    done = subprocess.run(attach(server, "test/ask", "--start"), stdin=subprocess.DEVNULL, timeout=60,
                          capture_output=True, text=True)  # fmt: skip
    assert (done.returncode, "no terminal" in done.stderr) == (100, True)


def test_the_detach_key_works_when_nobody_reads(server: Server) -> None:
    with screen(*attach(server, "test/deaf", "--start")) as person:
        person.until("ready")
        wait_for(person.raw, "every key")
        for _ in range(20):
            person.press("x" * 1000)
        person.press("\x1d")
        person.until("goes on as pid")
        assert person.end() == 0
    with server.local() as client:
        client.call("test/deaf", {"action": "stop"})


def test_lines_of_another_encoder(server: Server) -> None:
    with screen(*attach(server, "test/lines", "--start")) as person:
        person.until("one\r\n")
        wait_for(person.raw, "every key")
        person.press("two\r")
        person.until("two\r\ntwo\r\n")
        assert person.end() == 0


def test_a_server_that_ends_gives_the_terminal_back(tmp_path: Path, file: str) -> None:
    with serving(tmp_path, file) as server, screen(*attach(server, "test/sleep", "--start")) as person:
        wait_for(person.raw, "every key")
        server.process.kill()
        person.until("initspawn: ")
        assert person.end() == 111


def test_pieces_are_no_lines(server: Server) -> None:
    command = [*INITSPAWN, "call", "--socket", str(server.run_dir / "control"), "test/pieces"]
    assert subprocess.run(command, capture_output=True, text=True, timeout=60).stdout == "no line"
