"""What command line tests share: a configuration of our own user, and a supervisor that only answers."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from initspawn.control.wire import FrameReader, decode, encode

CONFIGURATION = """\
metadata: {uid: trial, api: trial, version: "1", info: for tests}
sandboxes:
  - uid: plain
    prefix: plain
    acls: {user: USER, timeout: 7}
    namespace: {shares: {users: disable}}
    commands:
      - {uid: list, info: list a directory, exec: {cmdpath: /bin/ls, args: [-l, --, "%dir%", "x?more?"]}}
  - uid: box
    prefix: box
    privilege: admin
    acls: {user: USER, umask: "027"}
    seccomp: {default: SCMP_ACT_ALLOW, rules: [{syscall: mkdir, action: SCMP_ACT_KILL}]}
    namespace:
      opts: {hostname: box}
      shares: {all: disable, pid: enable}
      mounts:
        - {target: /usr, mode: ro}
        - {target: /bin, source: usr/bin, mode: symlink}
        - {target: /lib, source: usr/lib, mode: symlink}
        - {target: /lib64, source: usr/lib64, mode: symlink}
        - {target: /etc/motd, source: echo hello, mode: execfd}
        - {target: /tmp, mode: tmpfs}
    commands:
      - {uid: "true", encoder: line, single: true, exec: {cmdpath: /bin/true}}
"""


@pytest.fixture
def configuration(tmp_path: Path) -> str:
    """The path of a correct configuration for whoever runs the tests."""
    path = tmp_path / "trial.yaml"
    path.write_text(CONFIGURATION.replace("USER", str(os.geteuid())), encoding="utf-8")
    return str(path)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would change the outcome of a test."""
    for name in ("INITSPAWN_DEBUG", "INITSPAWN_TOKEN", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)


Script = Callable[[dict[str, Any]], list[dict[str, Any]]]


class Answering:
    """A control socket that answers each call with what `script(call)` returns, `id` filled in."""

    def __init__(self, path: str, script: Script) -> None:
        self.path = path
        self.calls: list[dict[str, Any]] = []
        self._script = script
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(path)
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        peer, _ = self._socket.accept()
        reader = FrameReader()
        with peer:
            while data := peer.recv(65536):
                for body in reader.feed(data):
                    call = decode(body)
                    self.calls.append(call)
                    for message in self._script(call):
                        named = {"id": call["id"], **message} if "status" in message else message
                        peer.sendall(encode(named))

    def close(self) -> None:
        """No more calls."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)


@pytest.fixture
def supervisor() -> Iterator[Callable[[Script], Answering]]:
    """supervisor(script): a socket that answers one connection's calls."""
    made: list[Answering] = []
    with tempfile.TemporaryDirectory(prefix="initspawn-cli-") as place:  # short: a socket's path is limited

        def make(script: Script) -> Answering:
            made.append(Answering(f"{place}/control", script))
            return made[-1]

        yield make
        for one in made:
            one.close()
