"""Who may talk before a command is ready, as seen from the other end of a cable."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from initspawn.control.client import Client as LocalClient
from initspawn.control.client import ErrorReply
from tests.system.server import PATIENCE, Server, lets_in, serving, wait_for, write
from tests.system.test_autostart import until
from tests.system.test_network import alone, cable, ip
from tests.system.test_reload import reloaded
from tests.system.test_serve import config, shell

__all__ = ["alone"]
pytestmark = pytest.mark.needs("root")

SO_MARK = 36
MARK = 0xCA6C
PEER = "192.0.2.2"
PORT = 51820
ETH_P_IP = 0x0800


class Outside:
    """The other end of the cable: what has left by it."""

    def __init__(self) -> None:
        cable("wan")
        ip("link", "set", "wan", "up")
        ip("address", "add", "192.0.2.1/24", "dev", "wan")
        ip("neighbour", "add", PEER, "lladdr", "02:00:00:00:00:01", "dev", "wan")
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP))
        self._socket.bind(("wan-other", ETH_P_IP))
        self._socket.setblocking(False)

    def got(self, mark: int, port: int, address: str = PEER) -> bool:
        """Whether a datagram that is sent with this mark to this port comes out there."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.setsockopt(socket.SOL_SOCKET, SO_MARK, mark)
            text = os.urandom(8)
            try:
                sender.sendto(text, (address, port))
            except PermissionError:  # what the rules drop is refused at once
                pass
        seen = False  # a cable loses nothing and delivers within the call
        while True:
            try:
                seen = text in self._socket.recv(2048) or seen
            except BlockingIOError:
                return seen

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def outside(alone: None) -> Iterator[Outside]:
    made = Outside()
    yield made
    made.close()


def guarded(
    line: str, *more: dict[str, Any], guard: dict[str, Any] | None = None, **start: Any
) -> dict[str, Any]:
    """A configuration whose guard is closed until a shell line is ready."""
    command = shell("up", line, autostart={"stage": "early", "ready": "exited", **start})
    entries = [{"mark": MARK, "endpoint": f"{PEER}:{PORT}"}, {"endpoint": f"{PEER}:7"}]
    rules = {"until": "up", "allow": entries, **(guard or {})}
    return {**config(command, *more, acls={"user": "root"}), "guard": rules}


def state(server: Server) -> str:
    with server.local() as client:
        return str(about(client)["state"])


def about(client: LocalClient) -> dict[str, Any]:
    found: dict[str, Any] = client.call("initspawn/info").response["guard"]
    return found


def marks(client: LocalClient) -> list[tuple[str, float]]:
    """What the time line tells of it, in its order."""
    found = client.call("initspawn/timeline").response["marks"]
    ours = [(mark["what"], mark["time"]) for mark in found if mark["what"].startswith("guard ")]
    return sorted(ours, key=lambda one: one[1])


def table() -> bool:
    done = subprocess.run(["nft", "list", "table", "inet", "initspawn"], capture_output=True, check=False)
    return done.returncode == 0


def closed(outside: Outside) -> bool:
    """Nobody talks but the tunnel, which must."""
    assert outside.got(MARK, PORT), "the tunnel's own"
    assert outside.got(0, 7), "an endpoint without a mark"
    foreign = [outside.got(0, PORT), outside.got(MARK, PORT + 1), outside.got(0, 53)]
    assert len(set(foreign)) == 1, foreign
    return not foreign[0]


def test_nobody_talks_before_the_tunnel_is_up(tmp_path: Path, outside: Outside) -> None:
    assert not closed(outside), "there is no guard yet"
    go = tmp_path / "go"
    line = f"while ! test -e {go}; do sleep 0.05; done"
    other = shell("other", "echo hi", autostart={"stage": "early", "ready": "exited"})
    with serving(tmp_path, write(tmp_path, "test.json", guarded(line, other))) as server:
        assert state(server) == "closed"
        assert closed(outside)
        with server.local() as client:  # the loopback and sandboxes are as ever
            until(client, "other", "done")
            go.touch()
            until(client, "up", "done")
            wait_for(lambda: state(server) == "open", "the guard to open")
        assert not closed(outside)
        assert not table()
        with server.local() as client:
            assert [what for what, _ in marks(client)] == ["guard closed", "guard open"]
            (_, at_first), (_, opened) = marks(client)
            found = client.call("initspawn/timeline").response
            (up,) = (record for record in found["services"] if record["command"] == "test/up")
            (early,) = (mark["time"] for mark in found["marks"] if mark["what"] == "stage early")
            assert at_first <= early <= up["started"] <= up["ready"] <= opened
        _, said = server.stop()
        assert "guard: closed" in said
        assert "guard: open" in said
    assert not table(), "what had ended well by itself is not undone by our end"


def test_a_supervisor_that_is_killed_leaves_it_closed_and_the_next_one_takes_over(
    tmp_path: Path, outside: Outside
) -> None:
    go = tmp_path / "go"
    file = write(tmp_path, "test.json", guarded(f"while ! test -e {go}; do sleep 0.05; done"))
    with serving(tmp_path, file) as server:
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        assert closed(outside)
    with serving(tmp_path, file) as server:
        assert state(server) == "closed"
        assert closed(outside)
        go.touch()
        wait_for(lambda: state(server) == "open", "the guard to open")
        assert not closed(outside)


@pytest.mark.parametrize("failure", ["closed", "open"])
def test_a_failure_leaves_it_as_the_setting_says(tmp_path: Path, outside: Outside, failure: str) -> None:
    made = guarded("exit 1", guard={"on_failure": failure}, restart={"policy": "on-failure", "tries": 2})
    with serving(tmp_path, write(tmp_path, "test.json", made)) as server:
        with server.local() as client:
            until(client, "up", "failed")
        wait_for(lambda: state(server) == failure, f"the guard to be {failure}")
        assert closed(outside) == (failure == "closed")
    assert table() == (failure == "closed")


READY = (
    "import os, socket, time; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); "
    "a = os.environ['NOTIFY_SOCKET'].replace('@', chr(0), 1); s.sendto(b'READY=1', a); time.sleep(1000)"
)


@pytest.mark.parametrize("failure", ["closed", "open"])
def test_a_tunnel_that_ends_afterwards_closes_it_again(
    tmp_path: Path, outside: Outside, failure: str
) -> None:
    line = f'exec /usr/bin/python3 -c "{READY}"'
    made = guarded(line, guard={"on_failure": failure}, ready="notify")
    file = write(tmp_path, "test.json", made)
    with serving(tmp_path, file) as server:
        with server.local() as client:
            pid = int(until(client, "up", "running")["task"].partition("@")[2])
            wait_for(lambda: state(server) == "open", "the guard to open")
            assert not closed(outside)
            os.kill(pid, signal.SIGKILL)
            until(client, "up", "failed")
        wait_for(lambda: state(server) == failure, f"the guard to be {failure}")
        assert closed(outside) == (failure == "closed")
    with serving(tmp_path, file) as server:
        wait_for(lambda: state(server) == "open", "the guard to open")
        server.stop()
    assert table() == (failure == "closed"), "our end is the tunnel's"


OPENS = {
    "flushed": "flush ruleset",
    "deleted": "delete table inet initspawn",
    "holed": "insert rule inet initspawn output accept",
    "asleep": "add table inet initspawn { flags dormant; }",
    "policy": "add chain inet initspawn output { policy accept; }\nflush chain inet initspawn output",
}


def test_rules_that_somebody_takes_away_are_put_back(tmp_path: Path, outside: Outside) -> None:
    """As Debian's nftables.service does at boot."""
    made = guarded("exit 1", guard={"on_failure": "closed"})
    with serving(tmp_path, write(tmp_path, "test.json", made)) as server:
        assert closed(outside)
        for number, (name, rules) in enumerate(OPENS.items(), 1):
            subprocess.run(["nft", rules], check=True, timeout=30)
            with server.local() as client:
                wait_for(lambda: about(client)["repairs"] == number, f"a repair of what is {name}")  # noqa: B023
                wait_for(lambda: about(client)["state"] == "closed", name)
                put_back = ["guard being put back", "guard closed"] * number
                assert [what for what, _ in marks(client)] == ["guard closed", *put_back]
            assert closed(outside), name
        subprocess.run(["nft", "add table inet other\ndelete table inet other"], check=True, timeout=30)
        assert state(server) == "closed"
        reloaded(server)
        flush = subprocess.Popen(["nft", "flush ruleset"])
        assert flush.wait(30) == 0
        wait_for(lambda: table() and closed(outside), "the guard to be there again")
        audit = (tmp_path / "run/audit.jsonl").read_text()
        _, said = server.stop()
    assert said.count("they are put back") == len(OPENS) + 1
    who = f"process {flush.pid} ('nft')"
    assert f"its rules were changed by {who}; they are put back" in said
    assert who in audit
    assert table()


@contextmanager
def started(place: Path, file: str) -> Iterator[LocalClient]:
    """A client of a server of which only the control socket is waited for."""
    run_dir = place / "run"
    options = ["serve", "--port", "0", "--run-dir", str(run_dir), file]
    process = subprocess.Popen(
        [sys.executable, "-m", "initspawn", *options], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: lets_in(run_dir / "control"), "the control socket")
        with LocalClient(str(run_dir / "control"), timeout=PATIENCE) as client:
            yield client
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)


@pytest.mark.parametrize("failure", ["closed", "open"])
def test_where_it_cannot_be_installed(tmp_path: Path, outside: Outside, failure: str) -> None:
    """Somebody holds the table, so nft fails."""
    holder = subprocess.Popen(
        ["nft", "-i"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True
    )
    assert holder.stdin
    holder.stdin.write("add table inet initspawn { flags owner; }\n")
    holder.stdin.flush()
    wait_for(table, "the table")
    own = {"uid": "own", "namespace": {"shares": {"net": "disable"}}, "acls": {"user": "nobody"}}
    private = {**own, "prefix": "", "commands": shell("private", "echo hi", encoder="sync")}
    made = guarded("echo up", shell("other", "echo hi", encoder="sync"), guard={"on_failure": failure})
    made["sandboxes"] = [{**made["sandboxes"], "prefix": ""}, private]
    try:
        with started(tmp_path, write(tmp_path, "test.json", made)) as client:
            told = client.call("initspawn/info").response["guard"]
            assert told["state"] == "not installed"
            assert "nft ended (exit 1)" in told["why"]
            until(client, "up", "failed" if failure == "closed" else "done")
            assert "hi" in str(client.call("test/private").response)
            if failure == "closed":
                with pytest.raises(ErrorReply, match="guard could not be installed"):
                    client.call("test/other")
            else:
                assert "hi" in str(client.call("test/other").response)
    finally:
        holder.communicate("quit\n", timeout=30)
