"""Encoder plug-ins with real commands: what they tell, what they may do, and what their failing costs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.users import Ordinary
from tests.system.server import Client, Server, children, read, serving, wait_for, write

pytestmark = pytest.mark.needs("userns")

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "configs" / "plugins" / "blkcount.py"

# Encoders that fail in every way, and one that looks around.
TEST_PLUGIN = '''
import os, socket, sys, time

class Base:
    def __init__(self, options):
        self.options = options
    def feed(self, stream, data):
        return None
    def finish(self):
        return None

class Echo(Base):
    def begin(self, task):
        yield {"begin": task, "options": self.options}
    def feed(self, stream, data):
        yield [stream, len(data)]
    def finish(self):
        return [{"type": "final-event", "pid": 1}, None, 12, "\\ud800 \\u00e9"]

class Raising(Base):
    def feed(self, stream, data):
        raise ValueError("it is " + data.decode().strip())

class Refusing(Base):
    def __init__(self, options):
        raise ValueError("no such option")

class Exiting(Base):
    def feed(self, stream, data):
        print("last words", file=sys.stderr, flush=True)
        os._exit(3)

class Hanging(Base):
    def feed(self, stream, data):
        time.sleep(100)

class Garbage(Base):
    def feed(self, stream, data):
        os.write(3, b"\\xff" * 100)

class NoJson(Base):
    def feed(self, stream, data):
        os.write(3, b"\\x03\\0\\0\\0e{]}")

class Flooding(Base):
    def feed(self, stream, data):
        while True:
            yield "x" * 1000

class NotANumber(Base):
    def feed(self, stream, data):
        yield float("nan")

class Looking(Base):
    def finish(self):
        status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines())
        facts = {name: status[name].strip() for name in ("Uid", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp")}
        facts["pids"] = len([name for name in os.listdir("/proc") if name.isdigit()])
        facts["root"] = sorted(os.listdir("/"))
        facts["nets"] = sorted(os.listdir("/sys/class/net")) if os.path.exists("/sys") else []
        facts["descriptors"] = sorted(map(int, os.listdir("/proc/self/fd")))[:4]
        facts["files"] = len(os.listdir(os.path.dirname(__file__)))
        facts["denied"] = []
        for path in ("/home", "/root", "/var", "/run"):
            if os.path.exists(path):
                facts["denied"].append(path)
        for what, attempt in (
            ("network", lambda: socket.create_connection(("127.0.0.1", self.options["port"]), 2)),
            ("write", lambda: open(__file__, "ab")),
            ("mount", lambda: os.unshare(0x00020000)),
        ):
            try:
                attempt()
            except Exception:
                continue
            facts["denied"].append(what)
        yield facts

ENCODERS = {
    "echo": Echo, "raising": Raising, "refusing": Refusing, "exiting": Exiting, "hanging": Hanging,
    "garbage": Garbage, "nojson": NoJson, "flooding": Flooding, "nan": NotANumber, "looking": Looking,
}
'''


def shell(uid: str, line: str, encoder: dict[str, Any]) -> dict[str, Any]:
    program = {"cmdpath": "/bin/sh", "args": ["-c", line.replace("$", "$$")]}
    return {"uid": uid, "exec": program, "encoder": encoder}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = tmp_path_factory.mktemp("plugins")
    os.chmod(place, 0o755)
    (place / "odd.py").write_text(TEST_PLUGIN)
    failing = ("raising", "refusing", "exiting", "hanging", "garbage", "nojson", "flooding", "nan")
    commands = [
        shell("count", "seq 1 7; sleep 0.1; echo x >&2; echo y >&2", {
            "plugin": "Sample", "output": "BlkCount", "opts": {"blkcount": 3},
        }),
        shell("echo", "echo O; sleep 0.1; echo E >&2", {
            "plugin": "odd", "output": "echo", "opts": {"a": [1, None]},
        }),
        shell("big", "head -c 300000 /dev/zero", {"plugin": "odd", "output": "echo"}),
        shell("looking", "true", {"plugin": "odd", "output": "looking", "opts": {"port": 1}}),
        shell("silent", "sleep 100", {"plugin": "odd", "output": "echo"}),
        *(shell(name, "echo bad; sleep 0.2; yes | head -c 200000; exit 7", {"plugin": "odd", "output": name})
          for name in failing),
    ]  # fmt: skip
    acls = {"acls": {"user": "nobody"}} if os.geteuid() == 0 else {}
    config = {
        "metadata": {"uid": "t", "api": "t"},
        "plugins": [
            {"uid": "sample", "spath": f"/nowhere:{SAMPLE.parent}", "libs": ["missing.so", "blkcount"]},
            {"uid": "odd", "libs": str(place / "odd.py")},
        ],
        "sandboxes": {"uid": "box", "namespace": {}, **acls, "commands": commands},
    }
    with serving(place, write(place, "t.json", config)) as running:
        yield running


def run(client: Client, verb: str) -> list[dict[str, Any]]:
    """The events of one run but for `pid` and their name; the last one is the final event."""
    pid = client.call(f"t/{verb}")["response"]["pid"]
    client.until(lambda event: event["type"] == "final-event" and event.get("pid") == pid)
    events = [dict(event) for event in client.events if event.get("pid") == pid]
    for event in events:
        del event["pid"], event["name"]
        event.pop("usage", None)
    return events


def data(**keys: Any) -> dict[str, Any]:
    return {"type": "data", **keys}


def ended(code: int = 0) -> dict[str, Any]:
    return {"type": "final-event", "status": {"exit": code}, "reason": "exit"}


def test_check_069_the_sample(client: Client) -> None:
    assert run(client, "count") == [
        data(data=["1", "2", "3"]),
        data(data=["4", "5", "6"]),
        data(err=1) | {"data": "x"},
        data(err=2) | {"data": "y"},
        data(data=["7"]),
        data(errcount=2, linecount=7),
        ended(),
    ]


def test_what_a_plugin_is_given_and_tells(client: Client) -> None:
    begin, *rest = run(client, "echo")
    pid = begin["begin"].pop("pid")
    assert pid > 0
    assert begin == data(begin={"api": "t", "sandbox": "box", "command": "echo"}, options={"a": [1, None]})
    assert rest == [
        data(data=["stdout", 2]),
        data(data=["stderr", 2]),
        data(data={"type": "final-event", "pid": 1}),
        data(data=None),
        data(data=12),
        data(data="\\ud800 \u00e9"),
        ended(),
    ]


def test_all_output_goes_through_it(client: Client) -> None:
    _, *told, _, _, _, _, last = run(client, "big")
    assert sum(event["data"][1] for event in told) == 300000
    assert all(event["data"][1] <= 8192 for event in told)
    assert last == ended()


@pytest.mark.parametrize(
    ("verb", "reason"),
    [
        ("raising", "odd: ValueError: it is bad"),
        ("refusing", "odd: ValueError: no such option"),
        ("exiting", "odd: it ended (exit 3): last words"),
        ("hanging", "odd: it has not answered for 10 s"),
        ("garbage", "odd: what it said is no frame"),
        ("nojson", "odd: an event of it is no JSON"),
        ("flooding", "odd: it said more than 1048576 bytes at once"),
        ("nan", "odd: ValueError: Out of range float values are not JSON compliant"),
    ],
)
def test_a_fault_ends_the_stream_and_nothing_else(
    client: Client, server: Server, verb: str, reason: str
) -> None:
    before = hosts(server)
    *told, error, last = run(client, verb)
    assert error["encoder-error"].startswith(reason)
    assert all("encoder-error" not in event for event in told)
    assert last == ended(7)
    assert client.call("t/ping")["request"]["status"] == "success"
    wait_for(lambda: hosts(server) == before, "the host's end")


def hosts(server: Server) -> int:
    """How many plug-in hosts run."""
    every = [pid for reaper in server.children() for pid in children(reaper)]
    return sum(b"host.py" in read(f"/proc/{pid}/cmdline") for pid in every)


def test_a_killed_host_is_told(client: Client, server: Server) -> None:
    pid = client.call("t/silent")["response"]["pid"]
    client.until(lambda event: event.get("pid") == pid and "begin" in event)
    every = [pid for reaper in server.children() for pid in children(reaper)]
    (host,) = [pid for pid in every if b"host.py" in read(f"/proc/{pid}/cmdline")]
    os.kill(host, 9)
    event = client.until(lambda event: event.get("pid") == pid and "encoder-error" in event)
    assert event["encoder-error"] == "odd: it ended (signal Killed)"
    assert client.call("t/silent", {"action": "stop", "args": {"pid": pid, "signal": "SIGKILL"}})
    assert client.final(pid)["status"] == {"signal": "Killed"}


def test_a_host_is_not_one_of_the_tasks(client: Client) -> None:
    run(client, "count")
    apis = client.call("monitor/get", {"apis": True})["response"]["apis"]
    assert sorted(apis) == ["monitor", "t"]
    assert {task["api"] for task in client.call("initspawn/tasks")["response"]} == {"t"}


def test_what_a_plugin_may_do(client: Client) -> None:
    facts, last = run(client, "looking")
    assert last == ended()
    assert (facts["CapEff"], facts["CapBnd"]) == ("0" * 16, "0" * 16)
    assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2")
    assert facts["pids"] == 2
    assert facts["denied"] == []
    assert facts["descriptors"] == [0, 1, 2, 3]
    assert facts["files"] == 1
    assert facts["nets"] == []


INSTALLED = '''
import os

from acme.words import PLEASANT

class Greeting:
    def __init__(self, options):
        self.who = options["who"]
    def feed(self, stream, data):
        yield f"{PLEASANT} {self.who}: {data.decode().strip()}"
    def finish(self):
        status = dict(line.split(":\t", 1) for line in open("/proc/self/status").read().splitlines())
        facts = {name: status[name] for name in ("CapEff", "NoNewPrivs", "Seccomp")}
        yield {**facts, "pids": len([name for name in os.listdir("/proc") if name.isdigit()])}

ENCODERS = {"greeting": Greeting}
'''


def test_an_entry_point_runs_for_an_ordinary_user(as_user: Ordinary) -> None:
    """A package that is installed beside initspawn, with a further module of its own."""
    library = as_user.home / "library"
    files = {
        "acme/__init__.py": "",
        "acme/words.py": "PLEASANT = 'hello'\n",
        "acme/encoders.py": INSTALLED,
        "acme-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: acme\nVersion: 1\n",
        "acme-1.dist-info/entry_points.txt": "[initspawn.encoders]\nacme = acme.encoders\n",
    }
    for name, text in files.items():
        (library / name).parent.mkdir(parents=True, exist_ok=True)
        (library / name).write_text(text)
    as_user.environment["PYTHONPATH"] += f":{library}"
    encoder = {"plugin": "acme", "output": "greeting", "opts": {"who": "you"}}
    config = {
        "metadata": {"uid": "t", "api": "t"},
        "plugins": {"uid": "acme"},
        "sandboxes": {"uid": "box", "namespace": {}, "commands": shell("greet", "echo morning", encoder)},
    }
    file = write(as_user.home, "t.json", config)
    with serving(as_user.home, file, user=as_user) as server, server.client() as client:
        greeting, confined, last = run(client, "greet")
        assert (greeting, last) == (data(data="hello you: morning"), ended())
        assert confined == data(CapEff="0" * 16, NoNewPrivs="1", Seccomp="2", pids=2)  # with the reaper
        assert server.stop() == (0, "")
