"""Every door, action and role, with one's own tasks and those of others, against a table written by hand.

A door, route, verb or action that is not in the tables makes a test fail: whoever adds one says here who may.
"""

from __future__ import annotations

import ast
import http.client
import inspect
import json
import os
import secrets
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from starlette.routing import Route

from initspawn.boot import front, supervise
from initspawn.cli import sockets
from initspawn.control import wire
from initspawn.control.client import Client, ErrorReply
from initspawn.control.tokens import write as write_tokens
from initspawn.gateway.admission import HostPolicy
from initspawn.gateway.pages import FILES, application
from initspawn.verbs import access, builtin, monitor, query
from initspawn.verbs.access import Token, digest
from tests.system.server import PATIENCE, Server, serving, wait_for, write

pytestmark = pytest.mark.needs("userns")

DENIED = "insufficient-scope"
PRIVILEGE = "urn:p"


class May(NamedTuple):
    """What a role may do, as letters: s start, k stop, o output, i input; e see, r records, x exec."""

    scopes: tuple[str, ...]
    general: str = ""
    own: str = ""  # with one's own tasks of a plain command
    foreign: str = ""
    guarded: str = ""  # with one's own of a command that names a privilege
    guarded_foreign: str = ""


ROLES = {
    "nothing": May(()),
    "see": May(("see",), general="e"),
    "start": May(("start",), own="s"),
    "stop": May(("stop",), own="k"),
    "output": May(("output",), own="o"),
    "input": May(("input",), own="i"),
    "write to all": May(("input", "others"), own="i", foreign="i"),
    "others": May(("others",)),
    "records": May(("records",), general="r"),
    "exec": May(("exec",), general="x"),
    "operator": May(("see", "start", "stop", "output"), general="e", own="sko"),
    "stop all": May(("stop", "others"), own="k", foreign="k"),
    "watch all": May(("output", "others"), own="o", foreign="o"),
    "privilege": May((PRIVILEGE,), guarded="skoi"),
    "privilege stop": May((f"{PRIVILEGE}#stop",), guarded="k"),
    "privilege all": May((PRIVILEGE, f"{PRIVILEGE}#others"), guarded="skoi", guarded_foreign="koi"),
    "another privilege": May(("urn:q", "urn:q#others")),
    "everything": May(("*",), "er", "skoi", "koi", "skoi", "koi"),
}
LETTERS = {
    "start": "s", "stop": "k", "output": "o", "input": "i", "see": "e", "records": "r", "exec": "x",
}  # fmt: skip
HOW_FAR = {"others"}  # not an action of its own, but which tasks the others are about
NETWORK = ("websocket", "rest")  # a token decides
LOCAL = ("control", "unix", "wsapi")  # the peer's credentials do


def test_every_action_is_in_the_table() -> None:
    assert set(access.ACTIONS) == LETTERS.keys() | HOW_FAR
    assert set(query.ACTIONS) == {"start", "stop", "subscribe", "unsubscribe", "input", "resize"}
    assert set(access.ACTIONS) <= ROLES.keys()
    assert access.CONFIGURE not in access.ACTIONS  # see test_reload.py: nobody's but of the control socket


def test_every_route_is_in_the_table(tmp_path: Path) -> None:
    """REST is decided call by call; the others ask for no right, or for a token that they trade."""
    routes = [route for route in application(HostPolicy(), {}).routes if isinstance(route, Route)]
    assert {route.path for route in routes} == {*FILES, "/api/{procedure:path}", "/login", "/logout"}
    assert len(routes) == len(application(HostPolicy(), {}).routes)


def test_every_built_in_verb_is_in_the_table() -> None:
    """All of the monitor API takes the right to see."""
    assert builtin.EVERYWHERE == {"ping": access.SEE, "info": access.SEE}
    assert builtin.OURS == {
        "ping": access.SEE, "info": access.SEE, "tasks": access.RECORDS, "services": access.RECORDS,
        "timeline": access.RECORDS, "sources": access.CONFIGURE, "reload": access.CONFIGURE,
    }  # fmt: skip
    assert monitor.VERBS.keys() == {
        "get", "set", "session", "subscribe", "unsubscribe", "apis", "trace", "info",
    }  # fmt: skip
    assert set(wire.ORDERS) == {"login", "logout", "unsubscribe"}  # none of them needs or gives a right


def test_every_door_is_in_the_table() -> None:
    """They are opened in two places; `network` and `unix ...` are the gateway's, with two protocols."""
    sources = [inspect.getsource(module) for module in (supervise, front)]
    nodes = [node for source in sources for node in ast.walk(ast.parse(source))]
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    opened = {
        ast.unparse(word.value)
        for call in calls
        for word in call.keywords
        if ast.unparse(call.func) in ("Door", "ServiceDoor") and word.arg == "name"
    }
    assert opened == {"'control'", "'network'", "f'unix {protocol}'"}
    protocols = {value for name, value in vars(sockets).items() if name.isupper() and isinstance(value, str)}
    assert protocols == {"http", "wsapi"}
    assert len(NETWORK + LOCAL) == 5  # two protocols of the network, two of unix sockets, control


NEW: list[tuple[object, str, object, Callable[..., None]]] = [
    (access, "ACTIONS", (*access.ACTIONS, "new"), test_every_action_is_in_the_table),
    (query, "ACTIONS", (*query.ACTIONS, "new"), test_every_action_is_in_the_table),
    (wire, "ORDERS", (*wire.ORDERS, "new"), test_every_built_in_verb_is_in_the_table),
    (monitor, "VERBS", {**monitor.VERBS, "new": None}, test_every_built_in_verb_is_in_the_table),
    (builtin, "OURS", {**builtin.OURS, "new": access.SEE}, test_every_built_in_verb_is_in_the_table),
    (builtin, "EVERYWHERE", {**builtin.EVERYWHERE, "new": "see"}, test_every_built_in_verb_is_in_the_table),
    (sockets, "NEW", "rpc", test_every_door_is_in_the_table),
]


@pytest.mark.parametrize(("module", "name", "value", "check"), NEW, ids=lambda value: str(value)[:20])
def test_what_is_new_is_noticed(
    module: object, name: str, value: object, check: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, value, raising=False)
    with pytest.raises(AssertionError):
        check()


def test_a_new_route_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = application

    def more(*arguments: Any) -> Any:
        made = before(*arguments)
        made.routes.append(Route("/new", lambda _: None))
        return made

    monkeypatch.setattr(f"{__name__}.application", more)
    with pytest.raises(AssertionError):
        test_every_route_is_in_the_table(tmp_path)


class Site:
    """A server with two long tasks of `token:me` and two of the local user."""

    def __init__(self, server: Server, place: Path) -> None:
        self.server = server
        self.place = place
        self.token = ""
        self.be(("*",))
        self.own = {verb: self.start("websocket", verb) for verb in ("sleep", "psleep")}
        self.foreign = {verb: self.start("control", verb) for verb in ("sleep", "psleep")}

    def be(self, scopes: tuple[str, ...]) -> None:
        """From now on `me` has these scopes, and a new token."""
        self.token, probe = secrets.token_hex(), secrets.token_hex()
        me = Token(name="me", digest=digest(self.token), scopes=frozenset(scopes))
        other = Token(name="probe", digest=digest(probe), scopes=frozenset(("see",)))
        write_tokens(str(self.server.run_dir / "tokens"), [me, other])
        wait_for(lambda: self.call("rest", "t/ping", None, probe)[0] == "success", "the tokens")

    def start(self, door: str, verb: str) -> int:
        return int(self.call(door, f"t/{verb}", None)[1]["pid"])

    def call(self, door: str, procedure: str, arguments: Any, token: str = "") -> tuple[str, Any]:
        """(status, response) of a call by `me`."""
        if door == "control":
            with Client(str(self.server.run_dir / "control"), PATIENCE) as client:
                try:
                    return "success", client.call(procedure, arguments, "wrong").response
                except ErrorReply as error:
                    return error.status, None
        if door == "wsapi":
            return self._wsapi(procedure.removeprefix("t/"), json.dumps(arguments))
        token = token or self.token
        if door == "websocket":
            with self.server.client(f"{self.server.open_url}?token={token}") as web:
                reply = web.call(procedure, arguments)
            return reply["request"]["status"], reply.get("response")
        connection = http.client.HTTPConnection(self.server.page.split("/")[2], timeout=PATIENCE)
        if door == "unix":
            token = "wrong"
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.connect(str(self.place / "web"))
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        connection.request("POST", f"/api/{procedure}", json.dumps(arguments), headers)
        reply = json.loads(connection.getresponse().read())
        connection.close()
        return reply["request"]["status"], reply.get("response")

    def _wsapi(self, verb: str, arguments: str) -> tuple[str, Any]:
        fields = [len(text.encode() + b"\0").to_bytes(4, "little") + text.encode() + b"\0"
                  for text in (verb, arguments)]  # fmt: skip
        call = b"K\1\0" + fields[0] + bytes(4) + fields[1] + bytes(4)
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(PATIENCE)
            peer.connect(str(self.place / "t"))
            peer.sendall(b"\x82\x7e" + len(call).to_bytes(2, "big") + call)
            received = b""
            while b"k\1\0" not in received or len(received) < received.index(b"k\1\0") + 12:
                received += peer.recv(65536)
        reply = received[received.index(b"k\1\0") + 3 :]
        size = int.from_bytes(reply[:4], "little")
        return (reply[4 : 3 + size].decode() if size else "success"), None


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    place = tmp_path_factory.mktemp("matrix")
    acls = {"acls": {"user": "nobody"}} if os.geteuid() == 0 else {}
    sleep, true = {"cmdpath": "/bin/sleep", "args": "1000"}, {"cmdpath": "/bin/true"}
    commands = [
        {"uid": "sleep", "terminal": True, "exec": sleep},
        {"uid": "psleep", "terminal": True, "exec": sleep, "privilege": PRIVILEGE},
        {"uid": "true", "exec": true}, {"uid": "ptrue", "exec": true, "privilege": PRIVILEGE},
    ]  # fmt: skip
    box = {"uid": "box", "namespace": {}, **acls, "commands": commands}
    file = write(place, "t.json", {"metadata": {"uid": "t", "api": "t"}, "sandboxes": box})
    options = "--unix", str(place / "web"), "--ws-server", f"unix:{place}/t", "--limit", "failures=0"
    with serving(place, *options, file) as server:
        yield Site(server, place)
        assert server.stop() == (0, "")
    assert not server.run_dir.exists()


def outcomes(site: Site, door: str) -> dict[str, str]:
    """What `me` can do through a door, in the letters of the table."""

    def letters(verb: str, start: str, pid: int) -> str:
        args = {"pid": pid, "signal": 0}
        found = ""
        if start and site.call(door, f"t/{start}", None)[0] == "success":
            found += "s"
        if site.call(door, f"t/{verb}", {"action": "stop", "args": args})[0] == "success":
            found += "k"
        if site.call(door, f"t/{verb}", {"action": "subscribe", "args": {"pid": pid}})[0] == "success":
            found += "o"
        args = {"pid": pid, "data": "", "detach": True}
        if site.call(door, f"t/{verb}", {"action": "input", "args": args})[0] == "success":
            found += "i"
        size = {"pid": pid, "rows": 50, "columns": 132}
        resized = site.call(door, f"t/{verb}", {"action": "resize", "args": size})[0] == "success"
        assert resized == ("i" in found)  # the same right
        return found

    general = "e" if site.call(door, "t/ping", None)[0] == "success" else ""
    if door != "wsapi" and site.call(door, "initspawn/tasks", None)[0] == "success":
        general += "r"
    if site.call(door, "t/exec", None)[0] != DENIED:
        general += "x"
    return {
        "general": general,
        "own": letters("sleep", "true", site.own["sleep"]),
        "foreign": letters("sleep", "", site.foreign["sleep"]),
        "guarded": letters("psleep", "ptrue", site.own["psleep"]),
        "guarded_foreign": letters("psleep", "", site.foreign["psleep"]),
    }


@pytest.mark.parametrize("role", ROLES)
def test_a_token_decides(site: Site, role: str) -> None:
    may = ROLES[role]
    site.be(may.scopes)
    wanted = may._asdict()
    del wanted["scopes"]
    for door in NETWORK:
        assert outcomes(site, door) == wanted, door


def test_an_unknown_token_may_nothing(site: Site) -> None:
    for door in NETWORK:
        site.token = "unknown"
        assert set(outcomes(site, door).values()) == {""}


@pytest.mark.parametrize("door", LOCAL)
def test_the_own_user_may_everything(site: Site, door: str) -> None:
    general = "ex" if door == "wsapi" else "erx"
    assert outcomes(site, door) == {
        "general": general, "own": "skoi", "foreign": "koi", "guarded": "skoi", "guarded_foreign": "koi",
    }  # fmt: skip


def test_the_records_of_others_are_not_shown(site: Site) -> None:
    def running(scopes: tuple[str, ...]) -> set[int]:
        site.be(scopes)
        records = site.call("rest", "initspawn/tasks", None)[1]
        return {record["pid"] for record in records if record["state"] == "running"}

    assert running(("records",)) == set(site.own.values())
    assert running(("records", "others")) >= {*site.own.values(), *site.foreign.values()}
