"""A JavaScript client in Node: calls, events, tokens, and a connection that is lost and made again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.system.server import PATIENCE, serving, wait_for, write
from tests.system.test_serve import config, shell

pytestmark = pytest.mark.needs("userns", "node")

CLIENT = Path(__file__).parents[1] / "support" / "afb.mjs"


class Node:
    """A script that says one JSON value a line; a line that it is sent is what `said()` gives it."""

    def __init__(self, script: str, url: str, token: str) -> None:
        begin = (
            f'import {{Afb}} from "{CLIENT}";\nimport {{createInterface}} from "node:readline";\n'
            "const lines = createInterface({input: process.stdin})[Symbol.asyncIterator]();\n"
            "const said = async () => (await lines.next()).value;\n"
            "const say = (value) => console.log(JSON.stringify(value));\n"
            f"const afb = new Afb({url!r}, {token!r});\n"
        )
        command = [
            "node",
            "--experimental-websocket",
            "--input-type=module",
            "-e",
            begin + script + "\nprocess.exit(0);",
        ]
        pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        self.process = subprocess.Popen(command, text=True, **pipes)

    def heard(self) -> Any:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, self.process.communicate(timeout=PATIENCE)[1]
        return json.loads(line)

    def tell(self, line: str = "go") -> None:
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def end(self) -> None:
        assert self.process.wait(timeout=PATIENCE) == 0
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe
            pipe.close()


def test_calls_events_and_a_stop(tmp_path: Path) -> None:
    ticking = shell("tick", "while :; do echo tick; sleep 0.05; done", encoder="line")
    with serving(tmp_path, write(tmp_path, "t.json", config(ticking))) as server:
        node = Node(
            """
            const events = [];
            afb.on("*", (event) => events.push(event));
            await afb.open();
            say((await afb.call("test/ping", null)).response);
            say((await afb.call("test/nope", null).catch((reply) => reply)).request);
            const {pid} = (await afb.call("test/tick", {})).response;
            const pause = () => new Promise((done) => setTimeout(done, 10));
            while (events.length < 3) await pause();
            say(events[0]);
            await afb.call("test/tick", {action: "stop", args: {pid, signal: "SIGTERM"}});
            while (events.at(-1).data.type !== "final-event") await pause();
            say([pid, events.at(-1)]);
            """,
            server.open_url,
            server.token,
        )
        assert node.heard() == "pong=1"
        assert node.heard()["status"] == "unknown-verb"
        first = node.heard()
        assert (first["jtype"], first["event"], first["data"]["stdout"]) == ("afb-event", "test/tick", "tick")
        pid, last = node.heard()
        assert (last["data"]["pid"], last["data"]["status"]) == (pid, {"signal": "Terminated"})
        node.end()


def test_a_wrong_token_and_then_the_right_one(tmp_path: Path) -> None:
    with serving(tmp_path, write(tmp_path, "t.json", config())) as server:
        node = Node(
            """
            await afb.open();
            say((await afb.call("test/ping", null).catch((reply) => reply)).request.status);
            afb.token = await said();
            say((await afb.call("test/ping", null)).request.status);
            """,
            server.open_url,
            "HELLO",
        )
        assert node.heard() == "insufficient-scope"
        node.tell(server.token)
        assert node.heard() == "success"
        node.end()


def test_a_lost_connection_is_made_again(tmp_path: Path) -> None:
    """The gateway is killed while a call waits: the call fails, the next connection has the same token."""
    with serving(
        tmp_path, write(tmp_path, "t.json", config(shell("nap", "exec sleep 1000", encoder="sync")))
    ) as server:
        node = Node(
            """
            await afb.open();
            const lost = new Promise((done) => { afb.closed = done; });
            const nap = afb.call("test/nap", null).catch((reply) => reply);
            await afb.call("test/ping", null);
            say("waiting");
            await lost;
            say((await nap).request.status);
            await afb.reopen();
            say((await afb.call("test/nap", {action: "stop"})).response);
            """,
            server.open_url,
            server.token,
        )
        assert node.heard() == "waiting"
        with server.local() as local:
            wait_for(
                lambda: any(t["state"] == "running" for t in local.call("initspawn/tasks").response),
                "the nap",
            )
            (task,) = local.call("initspawn/tasks").response
        os.kill(server.gateway(), signal.SIGKILL)
        assert node.heard() == "disconnected"
        assert node.heard() == [task["id"]]
        node.end()
