"""What a configuration calls itself, on a real server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from initspawn.errors import RequestError
from tests.system.server import Client, serving, wait_for, write
from tests.system.test_serve import ROOT, config, shell

pytestmark = pytest.mark.needs("userns")


def action(uid: str, target: str, **keys: Any) -> dict[str, Any]:
    return {"uid": uid, "action": f"api://test#{target}", **keys}


def program(uid: str, *args: str, **keys: Any) -> dict[str, Any]:
    return {"uid": uid, "exec": {"cmdpath": "/bin/echo", "args": list(args)}, **keys}


def ended(client: Client, uid: str) -> list[dict[str, Any]]:
    """The records of the ended tasks of a command."""
    tasks = client.call("initspawn/tasks")["response"]
    return [task for task in tasks if task["command"] == uid and task["state"] == "ended"]


def test_check_131_onload_runs_once(tmp_path: Path) -> None:
    made = {**config(program("c", "up")), "onload": action("go", "c", args={"action": "start"})}
    with serving(tmp_path, write(tmp_path, "test.json", made)) as server, server.client() as client:
        (task,) = wait_for(lambda: ended(client, "c"), "the end of the task")
        assert task["status"] == {"exit": 0}
        assert len(client.call("initspawn/tasks")["response"]) == 1
        assert server.stop() == (0, "")


def test_a_failed_onload_is_told(tmp_path: Path) -> None:
    made = {**config(program("c", "%a%")), "onload": action("go", "c")}
    with serving(tmp_path, write(tmp_path, "test.json", made)) as server:
        told = "initspawn: test: onload `go`: invalid-request: argument `a` is missing"
        assert server.stop() == (0, told)


def test_check_135_events_of_another_api(tmp_path: Path) -> None:
    """Two files: the one starts a command of the other and hears of it."""
    listening = {
        **config(program("ev", "pid=%pid%", "?stdout?")),
        "onload": {"uid": "go", "action": "api://b#c", "args": {}},
        "events": action("b/c", "ev"),
    }
    heard = config(shell("c", "echo one; echo two; exit 3", encoder="line"))
    heard["metadata"] = {"uid": "b", "api": "b"}
    files = write(tmp_path, "a.json", listening), write(tmp_path, "b.json", heard)
    with serving(tmp_path, *files) as server, server.client() as client:
        tasks = wait_for(lambda: len(ended(client, "ev")) == 3 and ended(client, "ev"), "three events")
        (source,) = ended(client, "c")
        said = [task["argv"][1:] for task in tasks]
        pid = f"pid={source['pid']}"
        # They are told in their order; the three tasks end in any.
        assert sorted(said) == [[pid, ""], [pid, "one"], [pid, "two"]]
        assert server.stop() == (0, "")


def test_check_137_extra(tmp_path: Path) -> None:
    made = {
        **config(program("c", "%z%", encoder="line")),
        "extra": action("x1", "c", args={"args": {"z": "E"}}),
    }
    with serving(tmp_path, write(tmp_path, "test.json", made)) as server, server.client() as client:
        pid = client.call("test/x1", {})["response"]["pid"]
        client.final(pid)
        assert [event["stdout"] for event in client.events if event["type"] == "data"] == ["E"]
        assert {event["name"] for event in client.events} == {"test/c"}


def test_events_are_handled_in_their_order_and_to_the_last(tmp_path: Path) -> None:
    made = {
        **config(shell("many", "seq 300", encoder="line"), program("ev", "?stdout?", encoder="sync")),
        "onload": action("go", "many"),
        "events": action("test/many", "ev"),
    }
    with serving(tmp_path, write(tmp_path, "test.json", made)) as server, server.client() as client:
        wait_for(lambda: any(task["argv"][1:] == [""] for task in ended(client, "ev")), "the final event")
        tasks = ended(client, "ev")[-11:]
        assert [task["argv"][1] for task in tasks] == [*(str(number) for number in range(291, 301)), ""]
        assert os.path.exists(f"/proc/{server.process.pid}")


# Commands that are in no file.


def test_check_138_exec(tmp_path: Path) -> None:
    query = {"sandbox": "BOX", "exec": {"cmdpath": "/bin/echo", "args": ["%a%", "$HOME"]}, "encoder": "sync"}
    with serving(tmp_path, write(tmp_path, "test.json", config())) as server:
        with server.client() as client:  # its token grants everything else
            assert client.call("test/exec", query)["request"] == {"status": "insufficient-scope", "code": -9}
        with server.local() as local:
            with pytest.raises(RequestError, match="invalid sandbox uid"):
                local.call("test/exec", {**query, "sandbox": "nope"})
            told = local.call("test/exec", query).response
            assert (told["sandbox"], told["command"]) == ("box", "dynamic")
            assert (told["status"], told["stdout"]) == ({"exit": 0}, ["%a% $HOME"])


def test_exec_can_be_stopped(tmp_path: Path) -> None:
    query = {"sandbox": "box", "exec": {"cmdpath": "/bin/sleep", "args": 100}, "uid": "nap"}
    with serving(tmp_path, write(tmp_path, "test.json", config())) as server, server.local() as local:
        pid = local.call("test/exec", query).response["pid"]
        assert local.call("test/exec", {"action": "stop"}).response == [f"box/nap@{pid}"]
        last = next(event for event in local.events() if event.data["type"] == "final-event")
        assert (last.event, last.data["status"]) == ("test/nap", {"signal": "Interrupt"})


def test_without_tokens_exec_is_denied_all_the_same(tmp_path: Path) -> None:
    query = {"sandbox": "box", "exec": {"cmdpath": "/bin/true"}}
    file = write(tmp_path, "test.json", config())
    with serving(tmp_path, "--no-auth", file) as server, server.client() as client:
        assert client.call("test/ping")["response"] == "pong=1"
        assert client.call("test/exec", query)["request"]["status"] == "insufficient-scope"


def test_the_sample(tmp_path: Path) -> None:
    with serving(tmp_path, str(ROOT / "configs" / "autostart.yaml")) as server, server.client() as client:
        (first,) = wait_for(lambda: ended(client, "notice"), "the notice of the first line")
        (link,) = (task for task in client.call("initspawn/tasks")["response"] if task["command"] == "link")
        assert first["argv"][1:] == ["link", "data", str(link["pid"]), "wg0 up"]
        assert client.call("autostart/off")["response"] == [f"box/link@{link['pid']}"]
        tasks = wait_for(lambda: len(ended(client, "notice")) == 2 and ended(client, "notice"), "the last")
        assert tasks[-1]["argv"][1:] == ["link", "final-event", str(link["pid"]), ""]
        assert server.stop() == (0, "")
