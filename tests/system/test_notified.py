"""Calls that a filter notifies: another command answers them, over the listener it gets as descriptor 3."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from initspawn.plan import Sandbox
from initspawn.sandbox import listener
from initspawn.supervisor import handler
from tests.conftest import MADE_UP
from tests.support.users import Ordinary
from tests.system import boxes
from tests.system.conftest import root_and_a_user
from tests.system.harness import PATIENCE, PYTHON, Person, Result, alive, bench
from tests.system.server import Client, serving, write

pytestmark = pytest.mark.needs("userns", "seccomp")

# Answers each call with error 77, which the kernel has no reason to give.
HANDLER = """
import fcntl, os, struct
RECEIVE, SEND = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_RECV, SECCOMP_IOCTL_NOTIF_SEND
assert os.readlink("/proc/self/fd/3") == "anon_inode:seccomp notify"
assert len(os.listdir("/proc/self/fd")) == 5, "and the one the list is read with"
while True:
    call = bytearray(80)
    fcntl.ioctl(3, RECEIVE, call)
    fcntl.ioctl(3, SEND, bytearray(struct.pack("=QqiI", struct.unpack_from("=Q", call)[0], 0, -77, 0)))
"""
ASKS = """
import os, sys, time
def attempt():
    try: os.mkdir("/tmp/initspawn-notified")
    except OSError as error: return error.errno
print(*[attempt() for _ in range(50)][-3:], sorted(os.listdir("/proc/self/fd")), flush=True)
with open("/proc/self/status") as file:
    print(*[line.split()[1] for line in file if line.startswith(("Seccomp:", "NoNewPrivs"))], flush=True)
if sys.argv[1:] == ["lives"]: time.sleep(1000)
time.sleep(0.2)
print(attempt(), flush=True)
"""
NOTIFIED = {"syscall": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}


def python(uid: str, script: str, *arguments: str) -> dict[str, Any]:
    text = script.replace("%", "%%").replace("$", "$$")
    return {
        "uid": uid, "encoder": "line",
        "exec": {"cmdpath": PYTHON, "args": ["-I", "-S", "-c", text, *arguments]},
    }  # fmt: skip


def config(script: str, *, root: bool, **seccomp: Any) -> dict[str, Any]:
    acls: dict[str, Any] = {"acls": {"user": "nobody"}} if root else {}
    asks: dict[str, Any] = {
        "uid": "asks", **acls, "namespace": {},
        "seccomp": {"default": "allow", "handler": "guard/answer", "rules": NOTIFIED, **seccomp},
        "commands": [python("once", ASKS), python("lives", ASKS, "lives")],
    }  # fmt: skip
    if seccomp.get("profile"):
        del asks["seccomp"]["default"]
    guard = {"uid": "guard", **acls, "namespace": {}, "commands": python("answer", script)}
    if root:
        guard["acls"] = {"user": MADE_UP, "group": MADE_UP}  # no need to be the same user
    return {"metadata": {"uid": "t", "api": "t"}, "sandboxes": [asks, guard]}


@contextmanager
def served(
    place: Path, user: Ordinary | None, script: str = HANDLER, **seccomp: Any
) -> Iterator[tuple[Client, Any]]:
    file = write(place, "config.json", config(script, root=user is None, **seccomp))
    with serving(place, file, user=user) as server, server.client() as client:
        yield client, server


def tasks(client: Client, command: str) -> list[dict[str, Any]]:
    every = client.call("initspawn/tasks")["response"]
    return [task for task in every if task["command"] == command]


def said(client: Client, pid: int) -> list[str]:
    client.final(pid)
    return [event["stdout"] for event in client.events if event.get("pid") == pid and "stdout" in event]


def check(client: Client) -> None:
    pid = client.call("t/asks/once")["response"]["pid"]
    answers, state, last = said(client, pid)
    assert answers == "77 77 77 ['0', '1', '2', '3']"  # the last is what the list is read with
    assert state == "1 2"
    assert last == "77"


@pytest.mark.root
@pytest.mark.parametrize("seccomp", [{}, {"profile": "default"}, {"locked": True}], ids=repr)
def test_a_handler_answers_for_root(tmp_path: Path, seccomp: dict[str, Any]) -> None:
    with served(tmp_path, None, **seccomp) as (client, _):
        for _ in range(3):  # the next ones wait in the reserve
            check(client)


def test_a_handler_answers_for_an_ordinary_user(as_user: Ordinary) -> None:
    with served(as_user.home, as_user) as (client, _):
        for _ in range(3):
            check(client)


def test_each_task_has_a_handler_that_ends_with_it(as_user: Ordinary) -> None:
    with served(as_user.home, as_user) as (client, _):
        pids = [client.call("t/asks/lives")["response"]["pid"] for _ in range(2)]
        for pid in pids:
            client.until(lambda event, pid=pid: event.get("pid") == pid and event.get("stdout") == "1 2")
        handlers = [task["pid"] for task in tasks(client, "answer") if task["state"] == "running"]
        assert len(handlers) == 2
        client.call("t/asks/lives", {"action": "stop", "args": {"pid": pids[0]}})
        client.final(pids[0])
        end = time.monotonic() + PATIENCE
        while alive(handlers[0]) and time.monotonic() < end:
            time.sleep(0.01)
        assert [alive(pid) for pid in handlers] == [False, True]


def test_without_its_handler_a_call_fails(as_user: Ordinary) -> None:
    """It has ended: the kernel answers ENOSYS."""
    with served(as_user.home, as_user, "raise SystemExit") as (client, _):
        pid = client.call("t/asks/once")["response"]["pid"]
        assert said(client, pid)[0].startswith("38 38 38")


def test_a_handler_that_cannot_be_started_ends_the_task(as_user: Ordinary) -> None:
    file = as_user.home / "config.json"
    made = config(HANDLER, root=False)
    program = as_user.home / "program"
    program.write_text(f"#!{PYTHON}\n")
    program.chmod(0o755)
    os.chown(program, as_user.uid, as_user.gid)
    made["sandboxes"][1]["commands"]["exec"] = {"cmdpath": str(program)}
    write(as_user.home, "config.json", made)
    with serving(as_user.home, str(file), user=as_user) as server, server.client() as client:
        program.unlink()
        pid = client.call("t/asks/lives")["response"]["pid"]
        final = client.final(pid)
        assert (final["status"], final["reason"]) == ({"signal": "Killed"}, "handler")


@root_and_a_user
def test_without_a_listener_nothing_runs(who: Person) -> None:
    result = who.call(_no_listener, boxes.sandbox(who, handler="any", filters=(boxes.bpf({}),)))
    assert (result.step, result.detail) == ("seccomp", "its listener was not there before the exec")


def _no_listener(box: Sandbox) -> Result:
    listener.fetch = lambda pid, pidfd: -1
    with bench(box) as made:
        return made.run("/bin/true")


@root_and_a_user
def test_a_listener_is_in_no_sandbox_whose_filter_forbids_all_else(who: Person) -> None:
    """Behind the filter nothing but the execve is called before the program runs."""
    ends = boxes.bpf({"execve": boxes.ALLOW}, default=boxes.KILL)
    result = who.call(_refuses_all, boxes.sandbox(who, handler="any", filters=(ends,)))
    assert result == ({"signal": "Bad system call"}, True)


def _refuses_all(box: Sandbox) -> tuple[dict[str, Any], bool]:
    found: list[int] = []
    handler.begin = lambda supervisor, task: found.append(task.start.listener)
    with bench(box) as made:
        result = made.run("/bin/true")
    return result.status, found[0] >= 0
