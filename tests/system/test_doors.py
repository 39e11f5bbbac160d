"""Each door of a real supervisor: who gets in, and what comes of it."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import unix_connect

from initspawn.control.client import Client
from initspawn.control.wire import encode
from initspawn.gateway.wsapi import nstr
from tests.support.users import Ordinary
from tests.system.server import PATIENCE, Server, serving, wait_for, write
from tests.system.server import Client as WebClient

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


def test_who_tries_many_tokens_is_stopped(tmp_path: Path, config: str) -> None:
    with serving(tmp_path, "--limit", "failures=3", "--limit", "calls=0", config) as server:
        wrong = [{"Authorization": f"Bearer {number}"} for number in range(6)]
        found = [request(server, "POST", "/api/t/ping", None, **headers) for headers in wrong]
        assert [status for status, _ in found] == [403, 403, 403, 429, 429, 429]
        right = {"Authorization": f"Bearer {server.token}"}
        assert request(server, "POST", "/login", None, **right)[0] == 429
        # No token, nothing to guess; and other addresses go on.
        assert request(server, "POST", "/api/t/ping")[0] == 403
        with server.local() as local:
            limits = local.call("initspawn/info").response["limits"]
            assert (limits["address_failures"], limits["address_calls"]) == (3, 0)
            assert limits["address_connections"] == 128


def test_wrong_tokens_are_counted_by_the_user_of_a_unix_socket(tmp_path: Path, config: str) -> None:
    path = str(tmp_path / "web")
    with serving(tmp_path, "--unix", path, "--limit", "failures=1", config) as server:
        for headers in ({"Authorization": "Bearer 1"}, {"Authorization": "Bearer 2"}):
            request(server, "POST", "/api/t/ping", None, **headers)
        assert request(server, "POST", "/api/t/ping", None, Authorization="Bearer 3")[0] == 429
        connection = UnixHTTP(path)
        for _ in range(3):  # it is trusted by its user, whatever it shows
            assert connection.get("/api/t/ping?token=4")[0] == 200
        connection.close()


@pytest.mark.parametrize("limit", ["calls", "calls=-1", "speed=3"])
def test_limits_that_serve_refuses(tmp_path: Path, config: str, limit: str) -> None:
    command = [sys.executable, "-m", "initspawn", "serve", "--run-dir", f"{tmp_path}/r", "--limit", limit]
    result = subprocess.run([*command, config], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert result.returncode == 100
    assert "write connections=NUMBER, calls=NUMBER, failures=NUMBER" in result.stderr


# Unix sockets.


class UnixHTTP(http.client.HTTPConnection):
    """HTTP over a unix socket, as `curl --unix-socket` speaks it."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(self._path)

    def get(self, path: str) -> tuple[int, Any]:
        self.request("GET", path)
        response = self.getresponse()
        return response.status, json.loads(response.read())


def test_root_and_the_own_user_need_no_token_on_the_unix_socket(tmp_path: Path, config: str) -> None:
    path = str(tmp_path / "web")
    with serving(tmp_path, "--unix", path, config) as server:
        connection = UnixHTTP(path)
        for number in ("1", "2"):
            status, reply = connection.get(f"/api/t/echo?a={number}")
            assert (status, reply["response"]["stdout"]) == (200, [f"[{number}]"])
        connection.close()
        with unix_connect(path, "ws://localhost/api", compression=None) as socket:
            client = WebClient(socket)
            pid = client.call("t/count")["response"]["pid"]
            client.call("t/count", {"action": "stop"})
            assert client.final(pid)["status"] == {"signal": "Interrupt"}
        assert server.stop() == (0, "")
    assert not os.path.exists(path)


@pytest.mark.root
def test_others_need_a_token_on_the_unix_socket(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, as_user: Ordinary, config: str
) -> None:
    path = str(as_user.home / "web")
    with serving(tmp_path, "--unix", path, config) as server:
        command = ["curl", "--silent", "--unix-socket", path]

        def ask(*more: str) -> Any:
            process = as_user.popen([*command, *more, "http://localhost/api/t/ping"], stdout=subprocess.PIPE)
            return json.loads(process.communicate(timeout=PATIENCE)[0])["request"]["status"]

        assert ask() == "insufficient-scope"
        assert ask("-H", "Authorization: Bearer x") == "insufficient-scope"
        assert ask("-H", f"Authorization: Bearer {server.token}") == "success"
    assert not os.path.exists(path)


def test_who_acts_for_somebody_has_that_ones_rights(server: Server) -> None:
    with socket.socket(socket.AF_UNIX) as control:
        control.settimeout(PATIENCE)
        control.connect(str(server.run_dir / "control"))
        statuses = []
        for number, user in enumerate((None, 0, os.geteuid(), 12345)):
            behalf = {} if user is None else {"behalf": user}
            control.sendall(encode({"id": number, "call": "t/ping", "single": True, **behalf}))
            statuses.append(json.loads(control.recv(65536)[4:])["status"])
    assert statuses == ["success", "success", "success", "insufficient-scope"]


def test_what_unix_sockets_cannot_be(tmp_path: Path, config: str) -> None:
    (tmp_path / "file").write_text("kept")
    for options, what in (
        (("--unix", str(tmp_path / "file")), "Address already in use"),
        (("--unix", str(tmp_path / "no" / "such")), "No such file or directory"),
        (("--unix", "x" * 108), "too long"),
        (("--ws-server", "tcp:localhost:1/t"), "write unix:"),
        (("--ws-server", f"unix:{tmp_path}/other"), "there is no API 'other'; served are t"),
    ):
        command = [sys.executable, "-m", "initspawn", "serve", "--port", "0", "--run-dir", f"{tmp_path}/r"]
        result = subprocess.run(
            [*command, *options, config], capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert result.returncode in (100, 111)
        assert what in result.stderr
        assert "Traceback" not in result.stderr
    assert (tmp_path / "file").read_text() == "kept"


def test_a_service_socket(tmp_path: Path, config: str) -> None:
    """`afb-client --direct`, byte for byte as it speaks."""
    service = f"unix:{tmp_path}/t"
    with serving(tmp_path, "--ws-server", service, config), socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(PATIENCE)
        peer.connect(f"{tmp_path}/t")
        peer.sendall(bytes.fromhex("820756 09144c17 01 01 820b54 0100 04000000 544f4b00"))
        call = b"K\x01\0" + nstr(b"count") + b"\0\0\1\0" + nstr(b"null") + nstr(None)
        peer.sendall(b"\x82%c" % len(call) + call)
        received = b""
        while b"final-event" not in received:
            received += peer.recv(65536)
            if b"k\1\0" in received and b"S\x02" not in received:
                stop = b"K\x02\0" + nstr(b"count") + bytes(4) + nstr(b'{"action":"stop"}') + nstr(None)
                peer.sendall(b"\x82%c" % len(stop) + stop)
                received += b"S\x02"  # sent
        known = b"E\1\0" + nstr(b"t/count")
        messages = [b"\x82\2v\1", known, b"X\1\0\1\0", b"k\1\0" + bytes(8), b"P\1\0"]
        places = [received.index(message) for message in messages]
        assert places == sorted(places)
    assert not (tmp_path / "t").exists()


# Tokens that come and go, and what is written down of it.


def token(place: Path, *arguments: str) -> tuple[int, str]:
    """`initspawn token`: exit code and output."""
    command = [sys.executable, "-m", "initspawn", "token", *arguments, "--state-dir", str(place)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert "Traceback" not in result.stderr
    return result.returncode, result.stdout.strip() or result.stderr.strip()


def test_a_token_is_made_used_and_revoked_while_the_server_runs(tmp_path: Path, config: str) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    with serving(tmp_path, "--state-dir", str(state), config) as server:
        code, shown = token(state, "add", "viewer", "--scope", "start", "--scope", "output")
        assert code == 0
        assert shown not in (state / "tokens").read_text()

        def ping() -> bool:
            viewer = {"Authorization": f"Bearer {shown}"}
            return request(server, "POST", "/api/t/echo", {"a": "1"}, **viewer)[0] == 200

        wait_for(ping, "the token")
        code, listed = token(state, "list")
        assert listed == "viewer  output start  never ends"
        assert token(state, "add", "viewer", "--scope", "see")[0] == 100
        with server.client(f"{server.open_url}?token={shown}") as client:
            pid = client.call("t/count")["response"]["pid"]
            assert token(state, "revoke", "viewer") == (0, "")
            wait_for(lambda: not ping(), "the revocation")
            # The open connection is nobody's any more: no call, and no event of its own task either.
            assert client.call("t/echo", {"a": "1"})["request"]["status"] == "insufficient-scope"
            request(server, "POST", f"/api/t/count?token={server.token}", {"action": "stop"})
            with Client(str(server.run_dir / "control"), PATIENCE) as local:
                wait_for(
                    lambda: [t for t in local.call("initspawn/tasks").response
                             if t["pid"] == pid and t["state"] == "ended"], "its end"
                )  # fmt: skip
            assert client.call("t/ping")["request"]["status"] == "insufficient-scope"
            assert client.events == []
        assert token(state, "revoke", "viewer")[0] == 127
        assert server.stop() == (0, "")
    lines = [json.loads(line) for line in (state / "audit.jsonl").read_text().splitlines()]
    seen = {(line["door"], line["who"], line["call"], line.get("action"), line["decision"]) for line in lines}
    assert {
        ("network", "token:viewer", "t/echo", None, "allowed"),
        ("network", "token:viewer", "t/count", None, "allowed"),
        ("network", "nobody", "t/echo", None, "insufficient-scope"),
        ("network", "token:start", "t/count", "stop", "allowed"),
    } <= seen
    assert not any(shown in json.dumps(line) or server.token in json.dumps(line) for line in lines)


def test_a_token_is_over_when_its_time_is(tmp_path: Path, config: str) -> None:
    with serving(tmp_path, config) as server:
        _, shown = token(server.run_dir, "add", "short", "--scope", "*", "--expires", "3s")
        with server.client(f"{server.open_url}?token={shown}") as client:
            wait_for(lambda: client.call("t/ping", None)["request"]["status"] != "success", "the end")
        assert request(server, "GET", f"/api/t/ping?token={shown}")[0] == 403
        assert server.stop() == (0, "")


def test_of_a_damaged_file_no_token_is_valid(tmp_path: Path, config: str) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    _, shown = token(state, "add", "one", "--scope", "*")
    with serving(tmp_path, "--state-dir", str(state), config) as server:
        path = f"/api/t/ping?token={shown}"
        assert request(server, "GET", path)[0] == 200
        (state / "tokens").chmod(0o644)
        os.utime(state / "tokens")
        (state / "tokens").write_text((state / "tokens").read_text())
        wait_for(lambda: request(server, "GET", path)[0] == 403, "the refusal")
        assert request(server, "GET", f"/api/t/ping?token={server.token}")[0] == 200
        code, said = server.stop()
    assert code == 0
    assert "no token of the file is valid" in said
    assert "chmod 600" in said


def test_the_page_logs_in(server: Server) -> None:
    host = server.page.split("/")[2]
    ours = {"Origin": f"http://{host}"}
    connection = http.client.HTTPConnection(host, timeout=PATIENCE)
    connection.request("POST", "/login", None, {"Authorization": f"Bearer {server.token}", **ours})
    response = connection.getresponse()
    connection.close()
    assert response.status == 204
    cookie = response.headers["Set-Cookie"].partition(";")[0]
    assert server.token not in cookie
    assert request(server, "POST", "/api/t/ping", None, Cookie=cookie, **ours)[0] == 200
    assert request(server, "GET", "/api/t/ping", None, Cookie=cookie, **ours)[0] == 403
    assert request(server, "POST", "/logout", None, Cookie=cookie, **ours)[0] == 204
    assert request(server, "POST", "/api/t/ping", None, Cookie=cookie, **ours)[0] == 403


@pytest.mark.parametrize(
    "arguments",
    [
        ("add",), ("add", "x"), ("add", "a b", "--scope", "see"), ("list", "x"), ("revoke",),
        ("add", "x", "--scope", "see", "--expires", "soon"), ("nope",),
    ],
)  # fmt: skip
def test_wrong_usage_of_token(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    assert token(tmp_path / "state", *arguments)[0] == 100
    assert not (tmp_path / "state" / "tokens").exists()


def test_a_further_directory(tmp_path: Path, config: str) -> None:
    tools = tmp_path / "tools"
    tools.mkdir(mode=0o755)
    (tools / "index.html").write_text("<p>tools")
    (tools / "index.html").chmod(0o644)
    for place in (tmp_path, tools):
        place.chmod(0o755)
    with serving(tmp_path, "--alias", f"/devtools:{tools}", config) as server:
        connection = http.client.HTTPConnection(server.page.split("/")[2], timeout=PATIENCE)
        connection.request("GET", "/devtools/")
        response = connection.getresponse()
        assert (response.status, response.read()) == (200, b"<p>tools")
        connection.close()
        assert server.stop() == (0, "")
