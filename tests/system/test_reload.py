"""Another configuration while the supervisor runs: what runs goes on, what is wrong changes nothing."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from initspawn.boot import ask
from initspawn.config.compile import compile_files
from initspawn.control import wire
from initspawn.control.client import Client, ErrorReply
from initspawn.control.tokens import write as write_tokens
from initspawn.linux import cgroup
from initspawn.plan import Plan
from initspawn.verbs.access import Token, digest
from tests.support.users import Ordinary
from tests.system import test_notified
from tests.system.server import PATIENCE, Server, children, read, serving, wait_for, write

pytestmark = pytest.mark.needs("userns")

COUNT = "i=0; while :; do i=$(expr $i + 1); echo $i; sleep 0.02; done"
USER = {"user": "65534"} if os.geteuid() == 0 else {}


def command(uid: str, line: str, **keys: Any) -> dict[str, Any]:
    """A shell's line; a `$` there is its own."""
    run = {"cmdpath": "/bin/sh", "args": ["-c", line.replace("$", "$$")]}
    return {"uid": uid, "exec": run, "encoder": "line", **keys}


def box(*commands: dict[str, Any], uid: str = "box", umask: str = "022", **keys: Any) -> dict[str, Any]:
    own = {"uid": uid, "acls": {**USER, "umask": umask}, "namespace": {"shares": {"all": "disable"}}}
    return {**own, **keys, "commands": list(commands)}


def config(*boxes: dict[str, Any], api: str = "t", **keys: Any) -> dict[str, Any]:
    return {"metadata": {"uid": api, "api": api}, "sandboxes": list(boxes), **keys}


def reload(server: Server, *arguments: str, run_dir: bool = True) -> subprocess.CompletedProcess[str]:
    """As a person does it, from anywhere."""
    place = ["--run-dir", str(server.run_dir)] if run_dir else []
    return subprocess.run(
        [sys.executable, "-m", "initspawn", "reload", *place, *arguments],
        capture_output=True, text=True, cwd="/", timeout=PATIENCE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "RELOAD_ONLY": "mine"},
    )  # fmt: skip


def reloaded(server: Server) -> str:
    done = reload(server)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def status(client: Client, procedure: str, arguments: Any = None) -> str:
    """The error that a call is answered with; empty for none."""
    try:
        client.call(procedure, arguments)
    except ErrorReply as error:
        return f"{error.status}: {error.info}" if error.info else error.status
    return ""


def said(client: Client, procedure: str) -> list[str]:
    """What a command writes that ends."""
    pid = client.call(procedure).response["pid"]
    lines = []
    for event in client.events():
        if event.data["pid"] == pid and "stdout" in event.data:
            lines.append(event.data["stdout"])
        if event.data["pid"] == pid and event.data["type"] == "final-event":
            return lines
    raise AssertionError("no end came")


def tasks(client: Client) -> dict[str, dict[str, Any]]:
    every = client.call("initspawn/tasks").response
    return {task["id"]: task for task in every if task["state"] == "running"}


def test_what_runs_goes_on_without_a_gap(tmp_path: Path) -> None:
    """Its verb goes, another comes; afterwards it can still be heard and stopped, but not started."""
    file = write(tmp_path, "t.json", config(box(command("count", COUNT), command("old", "echo old"))))
    with serving(tmp_path, file) as server, server.local() as client, server.local() as other:
        pid = client.call("t/count").response["pid"]
        events = client.events()
        counted = [next(events).data["stdout"] for _ in range(5)]
        write(tmp_path, "t.json", config(box(command("new", "echo new"))))
        assert reloaded(server) == (
            "initspawn: reloaded: 1 API, 1 command (1 new or changed, 2 gone), 1 sandbox (0 new or changed)\n"
        )
        assert said(other, "t/new") == ["new"]
        assert status(other, "t/old").startswith("unknown-verb")
        assert "not in the configuration any more" in status(other, "t/count")
        verbs = [verb["verb"] for group in other.call("t/info").response["groups"] for verb in group["verbs"]]
        assert verbs == ["new"]
        counted += [next(events).data["stdout"] for _ in range(50)]
        assert counted == [str(number) for number in range(1, 56)]
        assert [task["pid"] for task in tasks(other).values()] == [pid]
        assert other.call("t/count", {"action": "subscribe"}).response == [f"box/count@{pid}"]
        assert other.call("t/count", {"action": "stop", "args": {"signal": "SIGTERM"}}).response
        final = next(event.data for event in events if event.data["type"] == "final-event")
        assert final["reason"] == "stop"
        wait_for(lambda: status(other, "t/count", {"action": "stop"}).startswith("unknown-verb"), "its end")


def test_a_changed_sandbox_is_measured_as_it_is_now(tmp_path: Path) -> None:
    line = command("show", "umask; echo $V $RELOAD_ONLY $$ $PPID; pwd")
    sleep = command("sleep", "sleep 1000")
    before = box(line, sleep, envs=[{"name": "V", "value": "one"}])
    after = box(line, envs=[{"name": "V", "value": "two"}], umask="077")
    file = write(tmp_path, "t.json", config(before))
    with serving(tmp_path, file) as server, server.local() as client:
        client.call("t/sleep")
        for wanted, new in ((["0022", "one 2 1", "/"], after), (["0077", "two 2 1", "/"], before)):
            for _ in range(3):  # those that waited, and those made anew
                assert said(client, "t/show") == wanted
            write(tmp_path, "t.json", config(new))
            assert "1 sandbox (1 new or changed)" in reloaded(server)
        assert [task["measurement"]["umask"] for task in tasks(client).values()] == [0o022]


def test_what_is_equal_keeps_the_starts_that_wait(tmp_path: Path) -> None:
    """The second sandbox is another, the first is not: nobody who waits in it is made anew."""
    kept = box(command("true", "true", warm=3), uid="kept")
    file = write(tmp_path, "t.json", config(kept, box(command("a", "true", warm=1), uid="other")))
    with serving(tmp_path, file) as server, server.local() as client:

        def waiting() -> dict[int, str]:
            """The reapers whose command is held, with the name of their host."""
            return {pid: os.readlink(f"/proc/{pid}/ns/mnt") for pid in server.children() if children(pid)}

        before = wait_for(lambda: len(found := waiting()) == 5 and found, "four that wait, and the gateway")
        changed = box(command("a", "true", warm=1), uid="other", umask="077")
        write(tmp_path, "t.json", config(kept, changed))
        reloaded(server)
        after = wait_for(lambda: len(found := waiting()) == 5 and found != before and found, "another")
        assert len(before.items() & after.items()) == 4
        assert said(client, "t/kept/true") == []


@contextmanager
def unchanged(place: Path) -> Iterator[tuple[Server, str]]:
    """A server with a task that counts, and another verb: both are as they were afterwards."""
    file = write(place, "t.json", config(box(command("count", COUNT), command("here", "echo here"))))
    with serving(place, file) as server, server.local() as client, server.local() as other:
        pid = client.call("t/count").response["pid"]
        events = client.events()
        served = wait_for(lambda: len(found := server.children()) >= 4 and found, "all processes")[:2]
        before = other.call("t/info").response, other.call("initspawn/info").response
        yield server, file
        assert (other.call("t/info").response, other.call("initspawn/info").response) == before
        assert said(other, "t/here") == ["here"]
        assert [task["pid"] for task in tasks(other).values()] == [pid]
        counted = [next(events).data["stdout"] for _ in range(20)]
        assert counted == [str(number) for number in range(1, 21)]
        assert set(served) <= set(server.children())  # the spawner and its spare
        assert not [name for name in os.listdir(server.run_dir) if name.startswith("plan.")]


def _text(text: str) -> Callable[[Path], object]:
    return lambda file: file.write_text(text, encoding="utf-8")


def _link(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.with_name("nowhere"))


def _directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_text('{"metadata": {"uid": "t", "api"'), "t.json:1"),
        (_text(json.dumps(config(box({"uid": "x", "exec": {"cmdpath": "/none"}})))), "/none"),
        (_text(json.dumps(config(box(command("count", COUNT), colour="red")))), "colour"),
        (_text(""), "t.json"),
        (_text("\0" * 5000), "t.json"),
        (_text("[" * 100_000), "t.json"),
        (_text('{"metadata": ' + " " * (20 << 20)), "t.json"),
        (Path.unlink, "t.json"),
        (_link, "t.json"),
        (_directory, "t.json"),
        (lambda file: file.chmod(0o666), "t.json"),
    ],
    ids=["half", "unknown program", "unknown key", "empty", "zeros", "deep", "huge", "gone", "nowhere",
         "directory", "everybody's"],
)  # fmt: skip
def test_attack_39_a_bad_file_changes_nothing(
    tmp_path: Path, spoil: Callable[[Path], object], told: str
) -> None:
    """What is told is what `check` says, with file and line."""
    with unchanged(tmp_path) as (server, file):
        spoil(Path(file))
        done = reload(server)
        checked = subprocess.run(
            [sys.executable, "-m", "initspawn", "check", file], capture_output=True, text=True,
            timeout=PATIENCE,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (checked.returncode, "")
        assert done.returncode == 100
        assert done.stderr == checked.stderr
        assert told in done.stderr
        assert "Traceback" not in done.stderr


def test_attack_39_what_cannot_become_another_while_it_runs_is_refused(tmp_path: Path) -> None:
    with unchanged(tmp_path) as (server, file):
        (tmp_path / "www").mkdir(mode=0o755)
        write(tmp_path / "www", "index.html", "")
        plain = config(box(command("a", "true")))
        for more, told in (
            ({"page": str(tmp_path / "www")}, "its `page` differs"),
        ):
            Path(file).write_text(json.dumps({**plain, "metadata": {**plain["metadata"], **more}}))
            done = reload(server)
            assert (done.returncode, done.stdout) == (100, "")
            assert told in done.stderr
            assert "restart the supervisor for that" in done.stderr


def test_what_does_not_fit_the_doors_is_refused(tmp_path: Path) -> None:
    """An API that has a socket of its own; the user that the gateway is."""
    file = write(tmp_path, "t.json", config(box(command("here", "echo here"))))
    with serving(tmp_path, "--ws-server", f"unix:{tmp_path}/t", file) as server, server.local() as client:
        gateway = box(command("here", "echo here"), acls={"user": "64999", "group": "64999"})
        refused = [(config(box(command("a", "true")), api="u"), "`t` is served on a socket of its own")]
        if os.geteuid() == 0:
            refused.append((config(gateway), "runs as user 64999, and so does the gateway"))
        for new, told in refused:
            Path(file).write_text(json.dumps(new))
            done = reload(server)
            assert (done.returncode, done.stdout) == (100, "")
            assert told in done.stderr
            assert said(client, "t/here") == ["here"]


BAD = [
    None, {}, [], "plan.1", {"plan": "plan.1"}, {"plan": "plan.1", "file": "", "x": 1},
    {"plan": 1, "file": ""},
    {"plan": "plan", "file": ""}, {"plan": "/etc/passwd", "file": ""}, {"plan": "plan.1/../plan", "file": ""},
    {"plan": "plan.x", "file": ""}, {"plan": "plan.1\n", "file": ""}, {"plan": "plan.1", "file": None},
    {"plan": "plan.99999999", "file": ""},
]  # fmt: skip


def test_attack_39_a_bad_plan_changes_nothing(tmp_path: Path) -> None:
    """Whoever reaches the control socket is trusted, and yet may make mistakes."""
    with unchanged(tmp_path) as (server, _), server.local() as client:
        for arguments in BAD:
            assert status(client, "initspawn/reload", arguments).startswith("invalid-request"), arguments
        good = (server.run_dir / "plan").read_bytes()
        spare = server.run_dir / "plan.77"
        for content, mode in (
            (b"", 0o600), (good[:-1], 0o600), (good + b"x", 0o600), (good[:100] + b"x" + good[101:], 0o600),
            (b"x" * len(good), 0o600), (good, 0o666), (good, 0o620),
        ):  # fmt: skip
            spare.write_bytes(content)
            spare.chmod(mode)
            told = status(client, "initspawn/reload", {"plan": "plan.77", "file": ""})
            assert told.startswith("invalid-request: refused, all is as it was: "), told
            assert not spare.exists()  # whoever made it may have been killed
        for make in (os.mkfifo, os.mkdir, lambda path: os.symlink("plan", path)):
            make(spare)
            assert status(client, "initspawn/reload", {"plan": "plan.77", "file": ""})
            spare.rmdir() if spare.is_dir() else spare.unlink(missing_ok=True)


def test_only_the_control_socket_may(tmp_path: Path) -> None:
    """No token can, and no other door, whoever is behind it."""
    token = secrets.token_urlsafe(24)
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    scopes = frozenset(("*", "exec", "configure", "see", "records"))
    write_tokens(str(state / "tokens"), [Token(name="all", digest=digest(token), scopes=scopes)])
    file = write(tmp_path, "t.json", config(box(command("a", "true"))))
    path = tmp_path / "unix"
    with serving(tmp_path, file, "--state-dir", str(state), "--unix", str(path)) as server:
        (server.run_dir / "plan.1").write_bytes((server.run_dir / "plan").read_bytes())
        (server.run_dir / "plan.1").chmod(0o600)
        good = {"plan": "plan.1", "file": ""}
        with server.local() as client:
            assert client.call("initspawn/reload", good, token).response["new-sandboxes"] == 0
            assert client.call("initspawn/sources").response["files"] == [file]
        with server.client() as remote, Client(str(server.run_dir / "gateway" / "door"), PATIENCE) as door:
            for verb in ("reload", "sources"):
                assert remote.call(f"initspawn/{verb}", good)["request"]["status"] == "insufficient-scope"
                for shown in (token, server.token):
                    with pytest.raises(ErrorReply, match="insufficient-scope"):
                        door.call(f"initspawn/{verb}", good, shown)
        for verb in ("reload", "sources"):
            assert b"insufficient-scope" in _posted(path, f"initspawn/{verb}", good)
        assert not (server.run_dir / "plan.1").exists()


def _posted(path: Path, procedure: str, arguments: Any) -> bytes:
    """The answer of REST on a unix socket, where we are trusted by our user."""
    body = json.dumps(arguments).encode()
    head = f"POST /api/{procedure} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(str(path))
        sock.sendall(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        answer = b""
        while data := sock.recv(65536):
            answer += data
    return answer


def test_who_waits_in_a_queue_gets_what_was_asked_for_or_is_told(tmp_path: Path) -> None:
    """An unchanged command keeps its queue; of one that is another, nobody runs what was asked for before."""

    def both(uid: str, line: str) -> dict[str, Any]:
        queue = {"max": 1, "queue": {"length": 3}}
        return box(command("kept", "sleep 1000", **queue), command(uid, line, **queue))

    file = write(tmp_path, "t.json", config(both("other", "sleep 1000")))
    with serving(tmp_path, file) as server, server.local() as client:
        for verb in ("kept", "other"):
            client.call(f"t/{verb}")
        numbers = {client.post(f"t/{verb}"): verb for verb in ("kept", "other") for _ in range(2)}
        with server.local() as other:

            def states() -> list[str]:
                return [task["state"] for task in other.call("initspawn/tasks").response]

            wait_for(lambda: states().count("queued") == 4, "the queue")
            write(tmp_path, "t.json", config(both("other", "echo another; sleep 1000")))
            reloaded(server)
            refused = [next(client.receive()) for _ in range(2)]
            for number, answer in refused:  # type: ignore[misc]
                assert numbers[number] == "other"
                assert isinstance(answer, ErrorReply)
                assert (answer.status, answer.info[-9:]) == ("not-available", "ask again")
            assert states().count("queued") == 2
            (running,) = other.call("t/other", {"action": "stop"}).response
            assert running.startswith("box/other@")
            wait_for(lambda: running not in tasks(other), "its end")
            other.call("t/other")  # there is room for the new one
            stop = {"action": "stop", "args": {"signal": "SIGKILL", "pid": _pid(other, "kept")}}
            other.call("t/kept", stop)
            wait_for(lambda: states().count("queued") == 1, "the next one's turn")


def test_who_waits_in_a_queue_has_the_handler_of_the_new_file(tmp_path: Path) -> None:
    """Its own command and sandbox are as they were, and so it keeps its place."""
    made = test_notified.config(test_notified.HANDLER, root=os.geteuid() == 0)
    asks, guard = made["sandboxes"]
    asks["commands"][1] |= {"max": 1, "queue": {"length": 1}}
    file = write(tmp_path, "t.json", made)
    with serving(tmp_path, file) as server, server.local() as client, server.local() as other:
        client.call("t/asks/lives")
        client.post("t/asks/lives")
        every = lambda: other.call("initspawn/tasks").response  # noqa: E731
        wait_for(lambda: any(task["state"] == "queued" for task in every()), "the queue")
        guard.setdefault("acls", {})["umask"] = "077"
        write(tmp_path, "t.json", made)
        assert "2 sandboxes (1 new or changed)" in reloaded(server)
        first = _pid(other, "lives")
        other.call("t/asks/lives", {"action": "stop", "args": {"pid": first}})
        event = next(one.data for one in client.events() if one.data["pid"] != first and "stdout" in one.data)
        assert event["stdout"].startswith("77 77 77 ")
        umasks = [task["measurement"]["umask"] for task in every() if task["command"] == "answer"]
        assert umasks[-1] == 0o077


def _pid(client: Client, uid: str) -> int:
    return next(task["pid"] for task in tasks(client).values() if task["command"] == uid)


def test_more_room_is_used_by_those_that_come(tmp_path: Path) -> None:
    """What runs by the old plan counts for the new one."""
    file = write(tmp_path, "t.json", config(box(command("a", "sleep 1000", max=2))))
    with serving(tmp_path, file) as server, server.local() as client:
        client.call("t/a")
        client.call("t/a")
        write(tmp_path, "t.json", config(box(command("a", "sleep 1001", max=3))))
        reloaded(server)
        client.call("t/a")
        assert status(client, "t/a") == "bad-state: `a` is running 3 times already"
        write(tmp_path, "t.json", config(box(command("a", "sleep 1001", max=1))))
        reloaded(server)
        assert status(client, "t/a").startswith("bad-state")
        assert len(client.call("t/a", {"action": "stop"}).response) == 3


def test_starts_around_reloads_run_as_the_old_or_the_new_file_says(tmp_path: Path) -> None:
    """None is lost, none is answered twice, and what is asked for afterwards is the new one's."""

    def made(umask: str) -> Plan:
        show = command("show", "umask", encoder="sync", warm=1)
        file = write(tmp_path, "t.json", config(box(show, umask=umask), box(uid="other", umask=umask)))
        return compile_files([file], user=os.geteuid(), group=os.getegid(), environ={})

    file = write(tmp_path, "t.json", config(box(command("a", "true"))))
    with serving(tmp_path, file) as server, server.local() as client, server.local() as other:
        told = ask.ask_sources(other)
        plans = {umask: made(umask) for umask in ("077", "027")}
        ask.hand_over(other, told, plans["077"])
        for umask in ["027", "077"] * 10:
            numbers = {client.post("t/box/show") for _ in range(4)}
            ask.hand_over(other, told, plans[umask])
            numbers |= {client.post("t/box/show") for _ in range(2)}
            last = client.post("t/box/show")
            found: dict[int, Any] = {}
            while len(found) < 7:
                found |= dict(item for item in client.receive() if isinstance(item, tuple))
            assert found.keys() == numbers | {last}
            shown = {number: reply.response["stdout"] for number, reply in found.items()}
            assert all(lines in (["0077"], ["0027"]) for lines in shown.values())
            assert shown[last] == ["0" + umask]


def test_a_privilege_that_is_new_counts_at_once(tmp_path: Path) -> None:
    """For who hears a task already, too."""
    token = secrets.token_urlsafe(24)
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    scopes = frozenset(("start", "stop", "output"))
    write_tokens(str(state / "tokens"), [Token(name="x", digest=digest(token), scopes=scopes)])
    file = write(tmp_path, "t.json", config(box(command("count", COUNT))))
    with serving(tmp_path, file, "--state-dir", str(state)) as server, socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(str(server.run_dir / "gateway" / "door"))
        frames = wire.FrameReader()

        def until(wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
            while True:
                for body in frames.feed(sock.recv(65536)):
                    if wanted(message := json.loads(body)):
                        return message

        sock.sendall(wire.encode({"id": 1, "call": "t/count", "token": token}))
        until(lambda message: message.get("event") == "t/count")
        write(tmp_path, "t.json", config(box(command("count", COUNT, privilege="urn:new"))))
        reloaded(server)
        until(lambda message: message.get("unsubscribed") == "t/count")
        for action in ("start", "stop", "subscribe"):
            sock.sendall(wire.encode({"id": 2, "call": "t/count", "args": {"action": action}}))
            assert until(lambda message: message.get("id") == 2)["status"] == "insufficient-scope"


def test_what_was_started_by_exec_stays_with_exec(tmp_path: Path) -> None:
    file = write(tmp_path, "t.json", config(box(command("a", "true"))))
    asked = {"sandbox": "box", "exec": {"cmdpath": "/bin/sleep", "args": ["1000"]}, "uid": "mine"}
    with serving(tmp_path, file) as server, server.local() as client:
        started = client.call("t/exec", asked).response
        write(tmp_path, "t.json", config(box(command("b", "true"), umask="077")))
        reloaded(server)
        assert client.call("t/exec", {"action": "stop"}).response == [f"box/mine@{started['pid']}"]
        client.call("t/exec", asked)
        assert said(client, "t/b") == []


def test_events_and_calls_at_the_load_are_those_of_the_new_file(tmp_path: Path) -> None:
    count = command("count", COUNT, encoder="line")
    note, other = command("note", "echo note"), command("other", "echo other")
    onload = {"uid": "begin", "action": "api://t#count"}

    def heard(verb: str) -> dict[str, Any]:
        actions = {"uid": "t/count", "action": f"api://t#{verb}"}
        return config(box(count, note, other), onload=[onload], events=[actions])

    file = write(tmp_path, "t.json", heard("note"))
    with serving(tmp_path, file) as server, server.local() as client:

        def ran() -> set[str]:
            return {task["command"] for task in client.call("initspawn/tasks").response}

        wait_for(lambda: "note" in ran(), "the event's command")
        write(tmp_path, "t.json", heard("other"))
        reloaded(server)
        wait_for(lambda: "other" in ran(), "the new one")
        counting = [task for task in tasks(client).values() if task["command"] == "count"]
        assert len(counting) == 1  # the call at the load was made once: it is as it was
        more = {"uid": "more", "action": "api://t#count"}
        write(tmp_path, "t.json", {**heard("other"), "onload": [onload, more]})
        reloaded(server)
        counts = lambda: [1 for task in tasks(client).values() if task["command"] == "count"]  # noqa: E731
        wait_for(lambda: len(counts()) == 2, "the second")


def test_the_spare_knows_the_new_sandboxes(tmp_path: Path) -> None:
    """And so does the one after it."""
    file = write(tmp_path, "t.json", config(box(command("a", "echo a"))))
    with serving(tmp_path, file) as server, server.local() as client:
        for umask in ("077", "027"):
            write(tmp_path, "t.json", config(box(command("a", "umask"), umask=umask), box(uid="empty")))
            reloaded(server)
            for _ in range(2):
                spawner = min(pid for pid in server.children() if not children(pid) and _is_spawner(pid))
                os.kill(spawner, signal.SIGKILL)
                wait_for(lambda gone=spawner: gone not in server.children(), "its end")
                wait_for(lambda: len([*filter(_is_spawner, server.children())]) == 2, "another")
                assert said(client, "t/box/a") == ["0" + umask]
        server.stop()


def _is_spawner(pid: int) -> bool:
    return read(f"/proc/{pid}/comm") == b"initspawn-spawn\n"


def test_fifty_reloads_leave_nothing_behind(tmp_path: Path) -> None:
    """No descriptor, process, mount or group; starts go on all the time."""

    def numbered(number: int) -> dict[str, Any]:
        run = command("a", f"echo {number}", warm=1)
        changing = box(run, uid=f"box{number % 3}", umask=f"0{number % 8}7")
        return config(box(command("here", "echo here", warm=1), uid="kept"), changing)

    file = write(tmp_path, "t.json", numbered(0))
    with serving(tmp_path, file) as server, server.local() as client:
        client.call("t/kept/here")

        def state() -> tuple[int, ...]:
            spawners = [pid for pid in server.children() if _is_spawner(pid)]
            groups = [path for base in _groups(server.pid) for path, _, _ in os.walk(base)]
            mounts = read(f"/proc/{server.pid}/mountinfo").count(b"\n")
            descriptors = [len(os.listdir(f"/proc/{pid}/fd")) for pid in (server.pid, *spawners[:2])]
            return len(server.children()), len(spawners), len(groups), mounts, *descriptors

        def settled() -> tuple[int, ...]:
            def still() -> bool:
                return len({state() for _ in range(20) if not time.sleep(0.02)}) == 1

            wait_for(still, "nothing to happen")
            return state()

        for number in range(1, 4):
            write(tmp_path, "t.json", numbered(number))
            reloaded(server)
        before = settled()
        plan = ask.ask_sources(client)
        for number in range(4, 54):
            made = compile_files([write(tmp_path, "t.json", numbered(number))], user=os.geteuid(),
                                 group=os.getegid(), environ=plan["environment"])  # fmt: skip
            assert ask.hand_over(client, plan, made)["new-sandboxes"] == 1
            assert said(client, f"t/box{number % 3}/a") == [str(number)]
        write(tmp_path, "t.json", numbered(3))
        reloaded(server)
        assert settled() == before
        assert server.stop()[1] == ""


def _groups(pid: int) -> list[str]:
    """The directories of a supervisor's tasks."""
    mount = cgroup.mount_point()
    own = next(line for line in read(f"/proc/{pid}/cgroup").decode().splitlines() if line.startswith("0::"))
    base = f"{mount}{own[3:]}".rstrip("/")
    return [str(path) for path in Path(base).glob(f"initspawn-{pid}-*")] if mount else []


def test_what_a_plan_kept_or_made_ahead_was_made_of_is_looked_at_again(tmp_path: Path) -> None:
    """And expanded as the supervisor would: its pid, its variables, its directory."""

    def shows(word: str) -> dict[str, Any]:
        value = [{"name": "V", "value": f"{word} $PID $RELOAD_HERE"}]
        return config(box(command("show", "echo $V"), envs=value))

    plan, file = tmp_path / "kept.plan", write(tmp_path, "t.json", shows("one"))
    before = ("env", "RELOAD_HERE=there")
    for number, arguments in enumerate((("--plan", str(plan), file), (str(plan),), (file,))):
        write(tmp_path, "t.json", shows("one"))
        place = tmp_path / str(number)
        place.mkdir()
        with serving(place, *arguments, before=before) as server, server.local() as client:
            assert said(client, "t/show") == [f"one {server.pid} there"]
            write(tmp_path, "t.json", shows("two"))
            done = reload(server)
            assert done.returncode == 0, done.stderr
            assert ("compiling anew" in done.stderr) == (arguments != (file,))
            assert said(client, "t/show") == [f"two {server.pid} there"]
            assert reload(server).stderr == ""


PLUGIN = """
class Encoder:
    def __init__(self, options): pass
    def feed(self, stream, data): yield {"NAME": data.decode()}
    def finish(self): return None
ENCODERS = {"e": Encoder}
"""


def test_a_plugin_goes_on_with_its_task_and_another_comes_with_the_next(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text(PLUGIN.replace("NAME", name))

    def with_plugin(name: str) -> dict[str, Any]:
        talk = command("talk", COUNT) | {"encoder": {"plugin": "p", "output": "e"}}
        return config(box(talk), plugins={"uid": "p", "libs": str(tmp_path / f"{name}.py")})

    file = write(tmp_path, "t.json", with_plugin("one"))
    with serving(tmp_path, file) as server, server.local() as first, server.local() as second:
        first.call("t/talk")
        old = first.events()
        assert "one" in next(old).data
        write(tmp_path, "t.json", with_plugin("two"))
        reloaded(server)
        second.call("t/talk")
        assert "two" in next(second.events()).data
        write(tmp_path, "t.json", config(box(command("talk", "echo plain"))))
        reloaded(server)
        for _ in range(20):
            assert "one" in next(old).data


@pytest.mark.root
def test_an_ordinary_users_supervisor_is_its_own(as_user: Ordinary) -> None:
    """A file it may not read any more is refused; root cannot put a plan of its own there."""
    run = {"cmdpath": "/bin/sh", "args": ["-c", "umask"]}
    shown = {"uid": "a", "exec": run, "encoder": "line"}

    def umask(value: str) -> dict[str, Any]:
        return config({"uid": "box", "acls": {"umask": value}, "namespace": {}, "commands": [shown]})

    file = write(as_user.home, "t.json", umask("022"))
    os.chown(file, as_user.uid, as_user.gid)
    with serving(as_user.home, file, user=as_user) as server:
        asked = [*as_user.initspawn, "reload", "--run-dir", str(server.run_dir)]

        def now() -> str:
            return as_user.run([*as_user.initspawn, "call", "t/a", "--run-dir", str(server.run_dir)]).stdout

        assert now() == "0022\n"
        Path(file).write_text(json.dumps(umask("077")))
        done = as_user.run(asked)
        assert (done.returncode, done.stderr) == (0, "")
        assert now() == "0077\n"
        os.chmod(file, 0)
        Path(file).write_text(json.dumps(umask("027")))
        done = as_user.run(asked)
        assert done.returncode == 100
        assert "t.json: " in done.stderr
        os.chmod(file, 0o644)
        by_root = reload(server, "--socket", str(server.run_dir / "control"), run_dir=False)
        assert by_root.returncode != 0
        assert now() == "0077\n"
