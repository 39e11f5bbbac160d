"""The encoders with real commands, from a file to a WebSocket client."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.probes import NOBODY
from tests.system.server import Client, Server, serving, write

pytestmark = pytest.mark.needs("userns")

BOTH = "echo O; echo E >&2"
HELD = "/var/tmp"  # its parts are no links, and others may go through them


def shell(uid: str, line: str, encoder: Any) -> dict[str, Any]:
    """A command that runs a shell line."""
    program = {"cmdpath": "/bin/sh", "args": ["-c", line.replace("$", "$$")]}
    return {"uid": uid, "exec": program, "encoder": encoder}


def logs(place: Path, name: str) -> dict[str, Any]:
    return {"output": "log", "opts": {stream: f"{place}/{name}.{stream}" for stream in ("stdout", "stderr")}}


@pytest.fixture(scope="module")
def logged() -> Iterator[Path]:
    """A directory that the command's user may write, as an attacker would like it."""
    place = Path(tempfile.mkdtemp(prefix="initspawn-log-", dir=HELD))
    try:
        if os.geteuid() == 0:
            os.chown(place, NOBODY, NOBODY)
        (place / "link.stdout").symlink_to(place / "victim")
        yield place
    finally:
        shutil.rmtree(place)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, logged: Path) -> Iterator[Server]:
    ten = {"maxlen": 10}
    commands = [
        shell("text", "echo a; echo b >&2; exit 3", "text"),
        {"uid": "silent", "exec": {"cmdpath": "/bin/true"}},
        shell("line", "echo a; sleep 0.1; echo b >&2; sleep 0.1; printf last", "line"),
        shell("sync", "echo a; exit 4", "sync"),
        {"uid": "sync-silent", "exec": {"cmdpath": "/bin/true"}, "encoder": "sync"},
        shell("raw", r"printf 'a\r\nb'; echo e >&2", "raw"),
        shell("raw-cut", "printf 0123456; sleep 0.1; printf 789abc", {"output": "raw", "opts": ten}),
        shell("long", "printf '%s\\n' 0123456789abcdefghijklmnopq", {"output": "sync", "opts": ten}),
        shell("json", """printf '{"a":1}[1,'; sleep 0.1; printf '2] 12 "s" true null'; echo e >&2""", "json"),
        shell("json-bad", """echo abc; echo '{"ok":1}'; printf '{"a":[1'""", "json"),
        shell("log", BOTH, logs(logged, "$SANDBOX_UID-$COMMAND_UID")),
        shell("nowhere", f"{BOTH}; touch /tmp/never", logs(logged / "missing", "x")),
        shell("link", BOTH, logs(logged, "link")),
        shell("bytes", r"printf '\377\n\300\n'", "text"),
        shell("bytes-line", r"printf '\377\n'", "line"),
        shell("bytes-raw", r"printf '\377'", "raw"),
        shell("bytes-json", r"""printf '"\377"'""", "json"),
    ]  # fmt: skip
    acls = {"acls": {"user": "nobody"}} if os.geteuid() == 0 else {}
    box = {"uid": "box", "namespace": {}, **acls, "commands": commands}
    config = {"metadata": {"uid": "t", "api": "t"}, "sandboxes": box}
    place = tmp_path_factory.mktemp("encoders")
    (logged / "missing").mkdir()
    with serving(place, write(place, "t.json", config)) as running:
        (logged / "missing").rmdir()  # that it was never there, `check` would say
        yield running


def run(client: Client, verb: str) -> list[dict[str, Any]]:
    """The events of one run, without what all have in common."""
    reply = client.call(f"t/{verb}", {"action": "start"})
    response = reply["response"]
    assert response == {"api": "t", "sandbox": "box", "command": verb, "pid": response["pid"]}
    client.final(response["pid"])
    return told(client, verb, response["pid"])


def told(client: Client, verb: str, pid: int) -> list[dict[str, Any]]:
    events = [dict(event) for event in client.events if event.get("pid") == pid]
    assert {event.pop("name") for event in events} == {f"t/{verb}"}
    for event in events:
        del event["pid"]
        event.pop("usage", None)
        if event["type"] == "data":
            del event["type"]
    return events


def ended(code: int = 0) -> dict[str, Any]:
    return {"type": "final-event", "status": {"exit": code}, "reason": "exit"}


def test_check_036_text(client: Client) -> None:
    for _ in range(100):
        assert run(client, "text") == [{"stdout": ["a"], "stderr": ["b"]}, ended(3)]


def test_check_037_text_without_output(client: Client) -> None:
    assert run(client, "silent") == [{}, ended()]


def test_check_038_line(client: Client) -> None:
    assert run(client, "line") == [{"stdout": "a"}, {"stderr": "b"}, {"stdout": "last"}, ended()]


def synchronous(client: Client, verb: str) -> dict[str, Any]:
    """What the reply says of the output; the one event before it is looked at here."""
    reply = client.call(f"t/{verb}")
    assert reply["request"]["status"] == "success"
    response = reply["response"]
    base = {"api": "t", "sandbox": "box", "command": verb}
    assert told(client, verb, response.pop("pid")) == [{"type": "initial-event", **base}]
    assert (response.pop("reason"), response.pop("usage")["seconds"] > 0) == ("exit", True)
    return {key: value for key, value in response.items() if base.get(key) != value}


def test_check_039_sync(client: Client) -> None:
    assert synchronous(client, "sync") == {"status": {"exit": 4}, "stdout": ["a"]}


def test_check_040_sync_without_output(client: Client) -> None:
    assert synchronous(client, "sync-silent") == {"status": {"exit": 0}}


def test_check_041_raw(client: Client) -> None:
    assert synchronous(client, "raw") == {"status": {"exit": 0}, "stdout": "a\r\nb", "stderr": "e\n"}


def test_check_044_raw_overflow(client: Client) -> None:
    expected = {"stdout": "0123456789", "stderr": "", "stdout-overflow": True}
    assert synchronous(client, "raw-cut") == {"status": {"exit": 0}, **expected}


def test_check_046_long_line(client: Client) -> None:
    lines = ["01234567\\", "89abcdef\\", "ghijklmn\\", "opq"]
    assert synchronous(client, "long") == {"status": {"exit": 0}, "stdout": lines}


def test_check_050_json(client: Client) -> None:
    values = [{"stdout": value} for value in ({"a": 1}, [1, 2], 12, "s", True)]
    assert run(client, "json") == [*values, {"stderr": "e"}, ended()]


def test_check_055_json_in_step_again(client: Client) -> None:
    assert run(client, "json-bad") == [
        {"json-error": "unexpected character", "line": "abc"},
        {"stdout": {"ok": 1}},
        {"json-error": "unexpected end of data", "line": '{"a":[1'},
        ended(),
    ]


def test_check_060_log(client: Client, logged: Path) -> None:
    for count in (1, 2):
        assert run(client, "log") == [ended()]
        assert (logged / "box-log.stdout").read_text() == "O\n" * count
        assert (logged / "box-log.stderr").read_text() == "E\n" * count


@pytest.mark.parametrize(("verb", "reason"), [("nowhere", "ENOENT"), ("link", "ELOOP")])
def test_check_062_log_that_cannot_be_opened(client: Client, logged: Path, verb: str, reason: str) -> None:
    reply = client.call(f"t/{verb}")
    assert reply["request"]["status"] == "internal-error"
    assert "start refused at 'log'" in reply["request"]["info"]
    assert reason in reply["request"]["info"]
    assert client.call("t/ping")["request"]["status"] == "success"
    assert not any(task["command"] == verb for task in client.call("initspawn/tasks")["response"])
    assert not (logged / "victim").exists()


def test_check_063_bytes_that_are_no_text(client: Client) -> None:
    assert run(client, "bytes") == [{"stdout": ["\\xff", "\\xc0"]}, ended()]
    assert run(client, "bytes-line") == [{"stdout": "\\xff"}, ended()]
    assert run(client, "bytes-json") == [{"stdout": "\\xff"}, ended()]
    assert synchronous(client, "bytes-raw")["stdout"] == "\\xff"
