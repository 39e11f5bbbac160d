"""Each door of a real supervisor: who gets in, and what comes of it."""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from initspawn.control.client import Client
from tests.system.server import PATIENCE, Server, serving, wait_for, write

pytestmark = pytest.mark.needs("userns")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> str:
    acls = {"acls": {"user": "nobody"}} if os.geteuid() == 0 else {}
    commands = [
        {"uid": "echo", "encoder": "sync", "exec": {"cmdpath": "/bin/echo", "args": "[%a%]"}},
        {"uid": "count", "encoder": "line", "exec": {"cmdpath": "/bin/sleep", "args": "100"}},
    ]
    box = {"uid": "box", "namespace": {}, **acls, "commands": commands}
    config = {"metadata": {"uid": "t", "api": "t"}, "sandboxes": box}
    return write(tmp_path_factory.mktemp("config"), "t.json", config)


@pytest.fixture
def server(tmp_path: Path, config: str) -> Iterator[Server]:
    with serving(tmp_path, config) as running:
        yield running


def request(server: Server, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    """Status and decoded body of one REST request; a body goes as JSON."""
    host = server.page.split("/")[2]
    connection = http.client.HTTPConnection(host, timeout=PATIENCE)
    data = None if body is None else json.dumps(body)
    kind = {} if body is None else {"Content-Type": "application/json"}
    connection.request(method, path, data, {**kind, **headers})
    response = connection.getresponse()
    text = response.read()
    connection.close()
    return response.status, json.loads(text) if text else None


def test_rest_needs_a_token(server: Server) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        for method, path in (("GET", "/api/t/echo?a=1"), ("POST", "/api/t/echo"), ("GET", "/api/no/such")):
            status, reply = request(server, method, path, **headers)
            assert (status, reply["request"]) == (403, {"status": "insufficient-scope", "code": -9})
    with Client(str(server.run_dir / "control"), PATIENCE) as local:
        assert local.call("initspawn/tasks").response == []


def test_rest_starts_and_does_not_listen(server: Server) -> None:
    shown = {"Authorization": f"Bearer {server.token}"}
    status, reply = request(server, "GET", f"/api/t/echo?a=x&token={server.token}")
    assert (status, reply["response"]["stdout"]) == (200, ["[x]"])
    status, reply = request(server, "POST", "/api/t/echo", {"args": {"a": "y"}}, **shown)
    assert (status, reply["response"]["stdout"]) == (200, ["[y]"])
    status, reply = request(server, "POST", "/api/t/count", None, **shown)
    pid = reply["response"]["pid"]
    assert request(server, "POST", "/api/t/count", {"action": "subscribe"}, **shown)[0] == 200
    status, reply = request(server, "POST", "/api/t/count", {"action": "stop"}, **shown)
    assert (status, reply["response"]) == (200, [f"box/count@{pid}"])
    with Client(str(server.run_dir / "control"), PATIENCE) as local:
        wait_for(
            lambda: all(task["state"] == "ended" for task in local.call("initspawn/tasks").response), "end"
        )


def test_an_allowed_host_and_no_other(tmp_path: Path, config: str) -> None:
    with serving(tmp_path, "--allow-host", "board.example", config) as server:
        path = f"/api/t/ping?token={server.token}"
        assert request(server, "GET", path, Host="board.example:80")[0] == 200
        assert request(server, "GET", path)[0] == 403
