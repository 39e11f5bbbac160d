"""Attacks on arguments, queries, tokens and the order of things, through the whole of a running server."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import random
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from websockets.asyncio.client import connect

from tests.system.server import PATIENCE, SUBPROTOCOL, Server, children, read, serving, write

pytestmark = pytest.mark.needs("userns")


def config() -> dict[str, Any]:
    acls = {"acls": {"user": "nobody"}} if os.geteuid() == 0 else {}
    hold = {"cmdpath": "/bin/sh", "args": ["-c", "echo up; sleep 1000; true", "sh", "%a%", "x=?b?"]}
    commands = [
        {"uid": "hold", "encoder": "line", "exec": hold},
        {"uid": "echo", "encoder": "sync", "exec": {"cmdpath": "/bin/echo", "args": ["%a%"]}},
        {"uid": "env", "encoder": "sync", "exec": {"cmdpath": "/usr/bin/env", "args": []}},
        {"uid": "id", "encoder": "sync", "exec": {"cmdpath": "/bin/sh", "args": ["-c", "id -u; pwd; umask"]}},
        {"uid": "one", "max": 1, "exec": {"cmdpath": "/bin/sleep", "args": "1000"}},
        {"uid": "count", "encoder": "line", "exec": {"cmdpath": "/usr/bin/seq", "args": "40"}},
    ]
    box = {"uid": "box", "namespace": {}, **acls, "commands": commands}
    return {"metadata": {"uid": "t", "api": "t"}, "sandboxes": box}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = tmp_path_factory.mktemp("attacks")
    with serving(place, write(place, "t.json", config())) as running:
        yield running
        assert running.stop() == (0, "")


def post(server: Server, verb: str, body: bytes) -> tuple[int, dict[str, Any]]:
    """Status and reply of a REST call."""
    connection = http.client.HTTPConnection(server.page.split("/")[2], timeout=PATIENCE)
    headers = {"Authorization": f"Bearer {server.token}", "Content-Type": "application/json"}
    connection.request("POST", f"/api/t/{verb}", body, headers)
    answer = connection.getresponse()
    reply = json.loads(answer.read())
    connection.close()
    return answer.status, reply


PIECES = [
    ";", "|", "&", "$(id)", "`id`", "${IFS}", "\n", "\t", "\r", "'", '"', "\\", "*", "?", "~", "!", " ", "=",
    "%a%", "%s%n", "../", "/etc/passwd", "\x1b[31m", "\x7f", "\u202e", "\u200b", "\u0430", "\xe9",
    "\U00010348", "--", "@f", "{}", "<", ">", "#", "\ufeff", "\u2028",
]  # fmt: skip


def random_texts() -> list[str]:
    """The same ones each time: what shells, terminals, parsers and readers stumble over, in any order."""
    chooser = random.Random(1)
    return ["x" + "".join(chooser.choices(PIECES, k=8)) for _ in range(30)]


VALUES = [
    "", " ", "\n", "a;id", "$(id)", "`id`", "a\tb", "\u202etxt.exe", "\uff41", "\xe9" * 100, "@/etc/passwd",
    "x" * 131_071, "\u20ac" * 43_690, 1, 1.5, True, [1, "a"], {"k": [None]}, *random_texts(),
]  # fmt: skip


def test_arguments_are_what_the_kernel_says_they_are(server: Server) -> None:
    """One item for each template, byte for byte, in the /proc/PID/cmdline of what runs."""
    with server.client() as client:
        for value in VALUES:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            pid = client.call("t/hold", {"a": value, "b": "end"})["response"]["pid"]
            client.until(lambda event, pid=pid: event.get("stdout") == "up" and event["pid"] == pid)
            words = read(f"/proc/{pid}/cmdline").split(b"\0")
            assert words[-3:] == [text.encode(), b"x=end", b""]
            assert len(words) == 7
            client.call("t/hold", {"action": "stop", "args": {"pid": pid, "signal": "SIGKILL"}})


@pytest.mark.parametrize(
    "value",
    ["-rf", "--output=/etc/x", "-", "a\0b", "x" * 131_072, "\u20ac" * 43_691],
    ids=lambda value: repr(value[:20]),
)
def test_arguments_that_are_refused(server: Server, value: str) -> None:
    status, reply = post(server, "echo", json.dumps({"a": value}).encode())
    assert (status, reply["request"]["status"]) == (200, "invalid-request")
    assert "argument" in reply["request"]["info"]


CALLERS = [
    {"env": {"LD_PRELOAD": "/x.so"}, "envs": {"PYTHONPATH": "/x"}, "environment": ["BASH_ENV=/x"]},
    {"LD_PRELOAD": "/x.so", "PYTHONPATH": "/x", "BASH_ENV": "/x", "PATH": "/x", "IFS": "x"},
    {"action": "start", "args": {"env": {"LD_PRELOAD": "/x.so"}}},
    {"user": "root", "uid": 0, "acls": {"user": 0, "umask": "0777"}, "cwd": "/etc", "chdir": "/etc"},
    {"run_id": "../../x", "log": "/etc/x", "encoder": {"output": "log", "opts": {"stdout": "/etc/x"}}},
    {"exec": {"cmdpath": "/bin/sh"}, "sandbox": "other", "cmdpath": "/bin/sh", "timeout": 0, "stdin": True},
]


def test_a_caller_chooses_nothing_but_arguments(server: Server) -> None:
    """Environment, user, directory, umask, program and files are those of the configuration."""
    for verb in ("env", "id"):
        _, plain = post(server, verb, b"null")
        for asked in CALLERS:
            _, reply = post(server, verb, json.dumps(asked).encode())
            assert reply["request"]["status"] == "success"
            assert reply["response"]["stdout"] == plain["response"]["stdout"], asked


async def _echoes(url: str, first: int, count: int) -> int:
    """Starts on one connection, all at once, each with an argument of its own; how many there was no room for
    at first, which are asked for again.
    """
    again = 0
    async with connect(url, subprotocols=[SUBPROTOCOL], compression=None, proxy=None) as socket:  # type: ignore[list-item]
        left = set(range(first, first + count))
        for number in left:
            await socket.send(f'[2,"{number}","t/echo",{{"a":"<{number}>"}}]')
        while left:
            kind, name, answer = json.loads(await asyncio.wait_for(socket.recv(), 4 * PATIENCE))
            if kind == 3:
                assert answer["response"]["stdout"] == [f"<{name}>"]
                left.remove(int(name))
            elif kind == 4:
                info = answer["request"]["info"]
                assert "refused at 'slot'" in info or "refused at 'spawner'" in info
                again += 1
                await asyncio.sleep(0.05)
                await socket.send(f'[2,"{name}","t/echo",{{"a":"<{name}>"}}]')
            else:
                assert answer["data"]["type"] == "initial-event"
    return again


def test_a_thousand_starts_at_once_do_not_mix_their_arguments(server: Server) -> None:
    async def every() -> None:
        await asyncio.gather(*(_echoes(server.url, 1000 * part, 50) for part in range(20)))

    asyncio.run(every())


def test_of_many_starts_at_once_as_many_run_as_may(server: Server) -> None:
    def start(_: int) -> str:
        return str(post(server, "one", b"null")[1]["request"]["status"])

    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(start, range(200)))
    assert sorted(set(answers)) == ["bad-state", "success"]
    assert answers.count("success") == 1
    with server.client() as client:
        (name,) = client.call("t/one", {"action": "stop", "args": {"signal": "SIGKILL"}})["response"]
        assert name.startswith("box/one@")


def test_from_every_number_on_the_same_events_follow(server: Server) -> None:
    url = f"{server.url}&events=numbered"
    with server.client(url) as client:
        pid = client.call("t/count")["response"]["pid"]
        whole = []
        while not whole or whole[-1]["data"]["type"] != "final-event":
            whole.append(client.receive()[2])
    assert [event["seq"] for event in whole] == list(range(1, len(whole) + 1))
    for first in range(1, len(whole) + 1):
        with server.client(url) as client:
            asked = client.send("t/count", {"action": "subscribe", "args": {"pid": pid, "from": first}})
            found = []
            while len(found) < len(whole) - first + 1:
                message = client.receive()
                found += [message[2]] if message[0] == 5 else []
            assert found == whole[first - 1 :]
            client.reply(asked)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (b'{"a":1e400}', "invalid-request"),
        (b'{"a":[-1e400]}', "invalid-request"),
        (b'{"a":%b}' % (b"9" * 5000), "invalid-request"),
        (b'{"a":%b1%b}' % (b"[" * 400, b"]" * 400), "success"),
        (b'{"a":"1","a":"2"}', "success"),
        (b'{"action":"stop","action":"subscribe"}', "success"),
        (b'{"action":"\\u017ftart"}', "invalid-request"),
        (b'{"action":"stop","args":{"signal":"\\u017figkill"}}', "invalid-request"),
        (b'{"action":"stop","args":{"pid":1e400}}', "invalid-request"),
        (b'{"action":"stop","args":{"pid":%b}}' % (b"9" * 100), "invalid-request"),
    ],
    ids=lambda value: repr(value[:25]),
)
def test_odd_json_is_answered(server: Server, arguments: bytes, status: str) -> None:
    code, reply = post(server, "echo", arguments)
    assert (code, reply["request"]["status"]) == (200, status)
    with server.client() as client:
        client.socket.send(b'[2,"1","t/echo",%b]' % arguments, text=True)
        assert client.reply("1")["request"]["status"] == status


def test_json_of_any_depth_is_answered(server: Server) -> None:
    """Neither side takes what the other one does not."""
    for depth in [10, 500, *range(930, 1010), 5000, 100_000]:
        code, reply = post(server, "echo", b'{"a":' + b"[" * depth + b"]" * depth + b"}")
        said = reply["request"]["status"]
        assert (code, said) in ((200, "success"), (200, "invalid-request"), (400, "invalid-request")), depth


def _secrets_in(pid: int) -> bytes:
    return b"\n".join(read(f"/proc/{pid}/{name}") for name in ("cmdline", "environ", "comm"))


def test_the_token_is_in_no_command_line_environment_or_log(server: Server) -> None:
    with server.client() as client:
        client.call("t/env")
        pid = client.call("t/hold", {"a": "x"})["response"]["pid"]
        rest = http.client.HTTPConnection(server.page.split("/")[2], timeout=PATIENCE)
        for target in (f"/api/t/ping?token={server.token}", f"/nothing?access_token={server.token}"):
            rest.request("GET", target)
            rest.getresponse().read()
        rest.request("POST", "/login", headers={"Authorization": f"Bearer {server.token}"})
        cookie = re.search(r"=(\w+);", rest.getresponse().headers["Set-Cookie"])
        assert cookie
        rest.close()
        below = [server.process.pid]
        for one in below:
            below += children(one)
        assert server.gateway() in below
        assert pid in below
        files = [path.read_bytes() for path in server.run_dir.iterdir() if path.is_file()]
        everything = b"\n".join([*map(_secrets_in, below), *files])
        assert b"audit.jsonl" in b" ".join(os.fsencode(path) for path in server.run_dir.iterdir())
        for secret in (server.token, cookie[1]):
            assert secret.encode() not in everything
        client.call("t/hold", {"action": "stop", "args": {"pid": pid, "signal": "SIGKILL"}})


@pytest.mark.userns
def test_no_core_dump_tells_the_token(server: Server) -> None:
    """Whoever is not dumpable leaves no core, and its files in /proc belong to root (proc(5))."""
    for pid in (server.process.pid, *children(server.process.pid)):
        assert os.stat(f"/proc/{pid}/environ").st_uid == 0
    limits = read(f"/proc/{server.gateway()}/limits")
    assert re.search(rb"Max core file size +0 +0 ", limits)


def test_a_client_that_leaves_at_any_moment_ends_nothing(server: Server) -> None:
    """After each byte of a handshake and a call the connection is lost; the server answers the next one."""
    host = server.page.split("/")[2]
    name, _, port = host.partition(":")
    request = (
        f"GET /api?token={server.token} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: MfpIVG082jFTV7SxTNNijQ==\r\n\r\n"
    ).encode() + b"\x81\x16" + b'[2,"1","t/env",{}]    '
    for size in [*range(0, len(request), 7), len(request)]:
        with socket.create_connection((name, int(port))) as client:
            client.sendall(request[:size])
    with server.client() as client:
        assert client.call("t/ping")["request"]["status"] == "success"


