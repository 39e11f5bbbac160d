"""What waits for devices, with the real watcher: in a network and a /sys of the test's own, without udevd.

Its network has links that come and go, of which the kernel tells; what udevd would add is a file of its
database, and its socket. Real disks and a real udevd are in tests/boot.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from initspawn.config.compile import compile_files
from initspawn.control.client import Client
from initspawn.plan import Plan
from initspawn.planfile import save
from tests.support.users import Ordinary
from tests.system.server import PATIENCE, Server, children, read, serving, wait_for, write
from tests.system.test_autostart import ENDLESS, service, until
from tests.system.test_reload import reload
from tests.system.test_serve import config, shell

pytestmark = pytest.mark.needs("root")

# A network of its own has a /sys of its own, which shows its links; cgroups are mounted there, too.
ALONE = """
mount --rbind /sys/fs/cgroup "$1" && mount -t sysfs none /sys && mount --rbind "$1" /sys/fs/cgroup &&
umount -l "$1" && mount -t tmpfs -o mode=755 none /run && ip link set lo up && shift && exec "$@"
"""
LINK = {"SUBSYSTEM": "net", "INTERFACE": "late*"}
MARKED = {"SUBSYSTEM": "net", "ID_TEST": "a|b?"}


def waiting(uid: str, *devices: dict[str, str], **conditions: str) -> dict[str, Any]:
    return shell(uid, ENDLESS, autostart={"conditions": {"udev": [*devices], **conditions}})


def alone(place: Path) -> tuple[str, ...]:
    """What a server is to be started by."""
    (place / "cgroup").mkdir()
    return ("unshare", "-mn", "sh", "-c", ALONE, "sh", str(place / "cgroup"))


@contextmanager
def served(tmp_path: Path, *commands: dict[str, Any]) -> Iterator[tuple[Server, Client]]:
    file = write(tmp_path, "test.json", config(*commands))
    with serving(tmp_path, file, before=alone(tmp_path)) as server, server.local() as client:
        yield server, client


def inside(server: Server, line: str) -> str:
    """A shell line beside that server."""
    command = ["nsenter", "-t", str(server.pid), "-m", "-n", "sh", "-c", line]
    pipe = subprocess.PIPE
    null = subprocess.DEVNULL
    return subprocess.run(command, stdin=null, text=True, stdout=pipe, check=True, timeout=PATIENCE).stdout


def hears(client: Client, source: str) -> dict[str, Any]:
    """What is told of devices, once the watcher has said something and hears that."""

    def told() -> dict[str, Any] | None:
        found: dict[str, Any] = client.call("initspawn/info").response["devices"]
        return found if found.get("known") and found["hears"] == source else None

    return wait_for(told, f"{source} to be heard")  # type: ignore[no-any-return]


def watcher(server: Server) -> int:
    """The pid of the watcher that runs."""

    def look() -> int:
        found = [pid for reaper in server.children() for pid in children(reaper)]
        return next((pid for pid in found if b"watcher.py" in read(f"/proc/{pid}/cmdline")), 0)

    return int(wait_for(look, "the watcher"))


def test_a_device_that_comes(tmp_path: Path) -> None:
    commands = [
        waiting("link", LINK),
        waiting("both", LINK, {"DEVNAME": "/dev/null", "SUBSYSTEM": "mem"}),
        waiting("there", {"DEVNAME": "/dev/null"}),
        waiting("skipped", {"SUBSYSTEM": "net", "INTERFACE": "never"}, otherwise="skip"),
        waiting("marked", MARKED),
    ]
    with served(tmp_path, *commands) as (server, client):
        until(client, "there", "running")
        lacking = "there is no device with SUBSYSTEM=net, INTERFACE={}, says the kernel, "
        lacking += "so without udev's database"
        assert until(client, "skipped", "skipped")["why"] == lacking.format("never")
        for verb in ("link", "both"):
            assert service(client, verb)["why"] == lacking.format("late*")
        assert hears(client, "kernel") == {"hears": "kernel", "known": True, "there": 2, "of": 5, "starts": 1}
        assert not [one for one in client.call("initspawn/tasks").response if one["command"] == "kernel"]
        inside(server, "ip link add $(printf 'b\\377d') type veth peer name bad")
        inside(server, "ip link add late0 type veth peer name other")
        until(client, "link", "running")
        until(client, "both", "running")
        assert service(client, "marked")["state"] == "waiting"
        inside(server, "ip link delete late0")
        wait_for(lambda: hears(client, "kernel")["there"] == 2, "it to be gone again")
        assert service(client, "link")["state"] == "running", "what runs runs on"


def test_it_is_confined(tmp_path: Path) -> None:
    with served(tmp_path, waiting("link", LINK)) as (server, client):
        hears(client, "kernel")
        pid = watcher(server)
        status = dict(line.split(":\t", 1) for line in read(f"/proc/{pid}/status").decode().splitlines())
        assert status["Uid"] == status["Gid"] == "64997\t64997\t64997\t64997"
        assert status["Groups"].strip() == ""
        assert {int(status[f"Cap{name}"], 16) for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {0}
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        mounts = [line.split()[4:6] for line in read(f"/proc/{pid}/mountinfo").decode().splitlines()]
        seen = {place: options.split(",")[0] for place, options in mounts}
        assert seen["/sys"] == seen["/usr"] == "ro"
        assert not {"/run", "/etc", "/home", "/var", "/root"} & seen.keys()
        assert not os.path.exists(f"/proc/{pid}/root/run/udev")
        held = {int(fd): os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
        assert held[0] == "/dev/null"
        assert all(held[fd].startswith("pipe:") for fd in (1, 2))
        assert all(held[fd].startswith("socket:") for fd in (3, 4)), "to the supervisor, and for events"
        assert held.keys() == {0, 1, 2, 3, 4}
        names = ("net", "user", "pid", "mnt", "ipc")
        shared = {name: os.readlink(f"/proc/{pid}/ns/{name}") for name in names}
        ours = {name: os.readlink(f"/proc/{server.pid}/ns/{name}") for name in shared}
        assert {name for name in shared if shared[name] == ours[name]} == {"net", "user"}


def test_what_udevd_says(tmp_path: Path) -> None:
    denied = waiting("denied", {**LINK, "ID_BUS": "!usb"})
    with served(tmp_path, waiting("marked", MARKED), waiting("link", LINK), denied) as (server, client):
        hears(client, "kernel")
        inside(server, "ip link add late0 type veth peer name other")
        until(client, "link", "running")
        assert service(client, "denied")["state"] == "waiting", "udevd might still say that it is"
        index = inside(server, "cat /sys/class/net/late0/ifindex").strip()
        database = f"mkdir -p /run/udev/data; printf 'I:1\\nE:ID_TEST=bx\\n' >/run/udev/data/n{index}"
        inside(server, f"{database}; touch /run/udev/control")
        until(client, "marked", "running")
        until(client, "denied", "running")
        assert hears(client, "udev")["there"] == 3
        assert read(f"/proc/{watcher(server)}/root/run/udev/data/n{index}"), "its sandbox shows the database"
        inside(server, "rm /run/udev/control")
        assert hears(client, "kernel")["starts"] == 3


def fill(server: Server) -> bool:
    """Have the kernel tell of the loopback again and again. Returns whether anything was lost by then."""
    told = "i=0; while [ $i -lt 5000 ]; do echo change >/sys/class/net/lo/uevent; i=$((i + 1)); done"
    rows = [line.split() for line in inside(server, f"{told}; cat /proc/net/netlink").splitlines()[1:]]
    return any(int(row[8]) for row in rows if row[1] == "15")


def test_more_events_than_its_socket_holds(tmp_path: Path) -> None:
    with served(tmp_path, waiting("link", LINK), waiting("gone", {"INTERFACE": "gone"})) as (server, client):
        inside(server, "ip link add gone type veth peer name other")
        until(client, "gone", "running")
        pid = watcher(server)
        os.kill(pid, signal.SIGSTOP)
        try:
            wait_for(lambda: fill(server), "events to be lost")
            inside(server, "ip link delete gone; ip link add late type veth peer name more")
        finally:
            os.kill(pid, signal.SIGCONT)
        until(client, "link", "running")
        wait_for(lambda: hears(client, "kernel")["there"] == 1, "the other to be gone")
        assert watcher(server) == pid, server.stop()


def test_one_that_is_killed_comes_back_and_another_configuration_leaves_it(tmp_path: Path) -> None:
    with served(tmp_path, waiting("link", LINK)) as (server, client):
        hears(client, "kernel")
        pid = watcher(server)
        other = shell("first", "exit 0")
        write(tmp_path, "test.json", config(other, waiting("link", LINK)))
        assert reload(server).stderr == ""
        assert client.call("test/first").response
        assert watcher(server) == pid
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: watcher(server) != pid, "another one")
        inside(server, "ip link add late0 type veth peer name other")
        until(client, "link", "running")
        told = hears(client, "kernel")
        assert told["starts"] >= 2


def test_another_configuration_may_wait_for_others_or_for_none(tmp_path: Path) -> None:
    null, runs = {"DEVNAME": "/dev/null"}, shell("runs", ENDLESS, autostart={})
    with served(tmp_path, runs) as (server, client):

        def told() -> dict[str, Any]:
            found: dict[str, Any] = client.call("initspawn/info").response["devices"]
            return found

        until(client, "runs", "running")
        alone = len(server.children())
        write(tmp_path, "test.json", config(runs, waiting("there", null)))
        assert reload(server).stderr == ""
        until(client, "there", "running")
        first = watcher(server)
        write(tmp_path, "test.json", config(runs, waiting("there", null), waiting("link", LINK, null)))
        assert reload(server).stderr == ""
        wait_for(lambda: told().get("of") == 2, "both to be asked for")
        assert watcher(server) != first
        assert service(client, "there")["starts"] == 1
        inside(server, "ip link add late0 type veth peer name other")
        until(client, "link", "running")
        write(tmp_path, "test.json", config(runs))
        assert reload(server).stderr == ""
        wait_for(lambda: len(server.children()) == alone, "the end of the watcher, and of who waited")
        assert told() == {"known": False}
        assert service(client, "runs")["starts"] == 1


def with_watcher(tmp_path: Path, change: list[str]) -> str:
    """A plan whose watcher is called with these arguments instead, before those for its devices."""
    file = write(tmp_path, "test.json", config(waiting("link", LINK), shell("free", ENDLESS, autostart={})))
    plan = compile_files([file], user=0, group=0, environ={})
    assert plan.watcher is not None
    commands = []
    for command in plan.watcher.commands:
        program, *rest = command.arguments[3:]
        words = [program[0][1] if word == "PROGRAM" else word for word in change]
        arguments = (*((("text", word),) for word in words), *rest)
        commands.append(command.replace(arguments=arguments))
    boxes = tuple(box.replace(environment=()) for box in plan.watcher.sandboxes)
    made: Plan = plan.replace(watcher=plan.watcher.replace(commands=tuple(commands), sandboxes=boxes))
    save(made, str(tmp_path / "plan"))
    return str(tmp_path / "plan")


def test_a_machine_without_pyudev(tmp_path: Path) -> None:
    plan = with_watcher(tmp_path, ["-I", "-S", "PROGRAM"])
    with serving(tmp_path, plan, before=alone(tmp_path)) as server, server.local() as client:
        why = "devices cannot be followed: No module named 'pyudev'"
        wait_for(lambda: service(client, "link")["why"] == why, why)
        assert client.call("initspawn/info").response["devices"]["why"] == "No module named 'pyudev'"
        assert service(client, "free")["state"] == "running"
        inside(server, "ip link add late0 type veth peer name other")
        assert service(client, "link")["state"] == "waiting"
        _, said = server.stop()
        lines = [line for line in said.splitlines() if "devices: cannot" in line]
        assert lines == [f"initspawn: {why.replace(' cannot', ': cannot')}; who waits for one is not started"]


# One that has been taken over: it tells what it cannot do, and says when it is through.
CAPTIVE = """
import os, socket
def refused(call, *arguments):
    try:
        call(*arguments)
    except PermissionError:
        return True
    except OSError:
        pass
    return False
tries = [(os.fork,), (os.kill, os.getpid(), 0), (os.open, "/sys/class/net/lo/uevent", os.O_WRONLY)]
tries += [(socket.socket, family) for family in (socket.AF_UNIX, socket.AF_INET, socket.AF_PACKET)]
tries += [(socket.socket, socket.AF_NETLINK, socket.SOCK_RAW, 0)]
may = [str(one) for one in tries if not refused(*one)]
os.write(3, ("!it may not, but " + ", ".join(may)).encode())
"""


def test_one_that_has_been_taken_over_reaches_nobody(tmp_path: Path) -> None:
    plan = with_watcher(tmp_path, ["-I", "-S", "-c", CAPTIVE])
    with serving(tmp_path, plan, before=alone(tmp_path)) as server, server.local() as client:
        why = wait_for(lambda: client.call("initspawn/info").response["devices"].get("why"), "its words")
        assert why == "it may not, but "


# Another: it writes what it likes, without end.
LIAR = """
import os
os.write(2, b"\\x1b[2Jlie\\n")
while 1:
    for data in (b"", b"x" * 9000, b"2", b"11", b"\\0"):
        os.write(3, data)
"""


def test_one_that_writes_nonsense_without_end(tmp_path: Path) -> None:
    plan = with_watcher(tmp_path, ["-I", "-S", "-c", LIAR])
    with serving(tmp_path, plan, before=alone(tmp_path)) as server, server.local() as client:

        def ignored() -> int:
            return int(client.call("initspawn/info").response["devices"].get("ignored", 0))

        wait_for(lambda: ignored() > 100, "what is ignored")
        assert service(client, "link")["state"] == "waiting"
        assert service(client, "free")["state"] == "running"
        code, said = server.stop()
        assert code == 0
        assert "initspawn: kernel: ?[2Jlie" in said


def test_an_ordinary_users(tmp_path: Path, as_user: Ordinary) -> None:
    """Events too: nothing of it needs root, but the network of the test."""
    made = config(waiting("link", LINK), waiting("there", {"DEVNAME": "/dev/null"}), acls={})
    file = write(as_user.home, "test.json", made)
    run_dir = as_user.home / "run"
    identity = ["setpriv", "--reuid", str(as_user.uid), "--regid", str(as_user.gid), "--clear-groups"]
    options = ["serve", "--port", "0", "--run-dir", str(run_dir), file]
    with subprocess.Popen(
        [*alone(tmp_path), *identity, *as_user.initspawn, *options],
        cwd=as_user.home, env=as_user.environment, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            server = Server(process, run_dir)
            with server.local() as client:
                until(client, "there", "running")
                status = read(f"/proc/{watcher(server)}/status").decode()
                assert f"Uid:\t{as_user.uid}\t" in status
                assert "CapEff:\t0000000000000000" in status
                inside(server, "ip link add late0 type veth peer name other")
                until(client, "link", "running")
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=PATIENCE)


def test_check_says_that_pyudev_is_missing(tmp_path: Path) -> None:
    file = write(tmp_path, "test.json", config(waiting("link", LINK)))
    hidden = tmp_path / "hidden.py"
    hidden.write_text(
        "import importlib.util, sys\n"
        "real = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name: None if name == 'pyudev' else real(name)\n"
        "from initspawn.cli.main import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    done = subprocess.run(
        [sys.executable, str(hidden), "check", file], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr.startswith("warning: this machine has no pyudev, and without it commands that wait ")
    assert "python3-pyudev" in done.stderr
