"""Plans: compiled ahead, served and run from, and made anew when what they were made of has changed."""

from __future__ import annotations

import json
import os
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.users import Ordinary
from tests.system.server import serving, write

pytestmark = pytest.mark.needs("userns", "seccomp")

ALLOW, EDQUOT = 0x7FFF0000, 0x00050000 | 122
PLUGIN = """
class Count:
    def __init__(self, options):
        self.bytes = 0
    def feed(self, stream, data):
        self.bytes += len(data)
    def finish(self):
        return [self.bytes]

ENCODERS = NAMES
"""


def filter_for(path: Path, action: int) -> None:
    """A ready filter that answers mkdir(2) and mkdirat(2), by their x86-64 or generic numbers, this way."""
    numbers = {"x86_64": (83, 258), "aarch64": (34, 34)}[os.uname().machine]
    program = [(0x20, 0, 0, 0), (0x15, 1, 0, numbers[0]), (0x15, 0, 1, numbers[1])]
    code = [*program, (0x06, 0, 0, action), (0x06, 0, 0, ALLOW)]
    path.write_bytes(b"".join(struct.pack("=HBBI", *instruction) for instruction in code))
    path.chmod(0o644)


@pytest.fixture
def place(as_user: Ordinary) -> Path:
    """A directory with a filter, a plug-in, what execfd reads, and a configuration that names them."""
    home = as_user.home
    filter_for(home / "filter.bpf", ALLOW)
    (home / "count.py").write_text(PLUGIN.replace("NAMES", '{"count": Count}'))
    (home / "told").write_text("first\n")
    shell = {"cmdpath": "/bin/sh"}
    mkdir = {"cmdpath": "/bin/sh", "args": ["-c", "mkdir /tmp/made 2>&1; echo $$?"]}
    sandbox: dict[str, Any] = {
        "uid": "box",
        "seccomp": {"rulespath": str(home / "filter.bpf")},
        "namespace": {
            "mounts": [
                *({"target": path, "mode": "ro"} for path in ("/usr", "/bin", "/lib", "/lib64")),
                {"target": "/tmp", "mode": "tmpfs"},
                {"target": "/proc", "mode": "procfs"},
                {"target": "/told", "source": f"cat {home}/told", "mode": "execfd"},
            ]
        },
        "commands": [
            {"uid": "mkdir", "exec": mkdir, "encoder": "sync"},
            {"uid": "told", "exec": {**shell, "args": ["-c", "cat /told; echo $PID"]}, "encoder": "sync"},
        ],
    }
    plugin = {"uid": "mine", "spath": str(home), "libs": "count"}
    counted = {"uid": "count", "exec": {**shell, "args": ["-c", "echo abc"]}}
    counting = {**counted, "encoder": {"plugin": "mine", "output": "count"}}
    metadata = {"uid": "u", "api": "t"}
    write(home, "plain.json", {"metadata": metadata, "sandboxes": sandbox})
    with_plugin = {**sandbox, "commands": [*sandbox["commands"], counting]}
    write(home, "all.json", {"metadata": metadata, "plugins": plugin, "sandboxes": with_plugin})
    return home


def initspawn(user: Ordinary, *words: str) -> subprocess.CompletedProcess[str]:
    return user.run([*user.initspawn, *words])


def test_compiled_for_the_tree_we_live_in_served_called_and_run(as_user: Ordinary, place: Path) -> None:
    words = ["--root", "/", "--user", str(as_user.uid)] if as_user.uid == 65534 else []
    done = initspawn(as_user, "compile", *words, "plain.json", "-o", "plan")
    assert (done.returncode, done.stderr) == (0, "")
    (place / "told").write_text("second\n")  # `execfd` is of the start, not of the compilation
    with serving(place, str(place / "plan"), user=as_user) as server, server.client() as client:
        assert client.call("t/mkdir")["response"]["stdout"] == ["0"]
        said, pid = client.call("t/told")["response"]["stdout"]
        assert (said, int(pid)) == ("second", server.process.pid)
        assert server.stop() == (0, "")
    done = initspawn(as_user, "run", "plan", "told")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "second"


def test_a_kept_plan_is_made_anew_when_a_file_that_it_depends_on_changes(
    as_user: Ordinary, place: Path
) -> None:
    words = ["--plan", str(place / "plan"), str(place / "all.json")]

    def served() -> tuple[list[Any], str]:
        """What mkdir's call gives, what the plug-in tells, and what the server says of its plan."""
        with serving(place, *words, user=as_user) as server, server.client() as client:
            made = client.call("t/mkdir")["response"]["stdout"]
            pid = client.call("t/count")["response"]["pid"]
            client.final(pid)
            (told,) = (event["data"] for event in client.events if event["type"] == "data")
            code, said = server.stop()
            assert code == 0
        return [made[-1], told], said

    assert served() == (["0", 4], f"initspawn: {place}/plan: not there yet; compiling anew")
    before = (place / "plan").read_bytes()
    assert served() == (["0", 4], "")
    assert (place / "plan").read_bytes() == before
    filter_for(place / "filter.bpf", EDQUOT)
    stale = f"initspawn: {place}/plan: stale, {place}/%s has changed since: compile it again; compiling anew"
    assert served() == (["1", 4], stale % "filter.bpf")
    assert served() == (["1", 4], "")
    plugin = place / "count.py"
    plugin.write_text(plugin.read_text().replace("[self.bytes]", "[-self.bytes]"))
    assert served() == (["1", -4], stale % "count.py")
    plugin.write_text(PLUGIN.replace("NAMES", '{"other": Count}'))
    done = initspawn(as_user, "serve", *words)
    assert done.returncode == 100
    assert "count" in done.stderr
    assert json.loads((place / "all.json").read_text())["plugins"]["libs"] == "count"
