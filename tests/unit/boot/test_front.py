"""What the gateway needs of the supervisor: all of it is there, or nothing is."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from initspawn.boot.front import DOOR, Front
from initspawn.control.certificate import CertificateError
from initspawn.control.server import Door, listen
from initspawn.plan import Api, Command, Sandbox
from initspawn.supervisor.reactor import Reactor
from initspawn.verbs.access import NOBODY, Tokens

BOX = Sandbox(uid="b", user=os.getuid(), group=os.getgid(), groups=())
COMMAND = Command(uid="g", verb="g", sandbox="b", path="/g")
API = Api(uid="gateway", api="gateway", sandboxes=(BOX,), commands=(COMMAND,))


@pytest.fixture
def main(tmp_path: Path) -> Iterator[Any]:
    """A supervisor as far as its doors see it."""
    (tmp_path / "gateway").mkdir()
    reactor = Reactor()
    yield SimpleNamespace(
        run_dir=str(tmp_path), reactor=reactor, tokens=Tokens(), peer=lambda *_: NOBODY,
        registry=SimpleNamespace(about={}),
        supervisor=SimpleNamespace(roster=SimpleNamespace(barred=""), closing=True),
    )  # fmt: skip
    reactor.close()


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def service(path: Path) -> tuple[int, str]:
    listener = socket.create_server(str(path), family=socket.AF_UNIX)
    return listener.detach(), "http"


def test_closed_it_leaves_nothing(main: Any, tmp_path: Path) -> None:
    before = open_descriptors()
    start = {"listen": -1, "unix": [service(tmp_path / "s")]}
    front = Front(main, API, start, lambda: None)
    assert len(main.tokens.on_change) == 2
    assert (tmp_path / DOOR).exists()
    front.close()
    assert open_descriptors() == before
    assert main.tokens.on_change == []
    assert not (tmp_path / DOOR).exists()
    assert not (tmp_path / "s").exists()


def failing(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("where", ["pair", "listen", "chown", "second door", "watch", "certificate"])
def test_one_that_cannot_be_made_leaves_nothing(
    where: str, main: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = open_descriptors()
    start: dict[str, Any] = {"listen": -1, "unix": [service(tmp_path / "s")]}
    if where == "pair":
        monkeypatch.setattr("_socket.socketpair", failing)
    elif where == "listen":
        monkeypatch.setattr("initspawn.boot.front.listen", failing)
    elif where == "chown":
        monkeypatch.setattr(os, "chown", failing)
    elif where == "second door":
        monkeypatch.setattr("initspawn.boot.front.ServiceDoor", failing)
    elif where == "watch":
        watch, doors = main.reactor.watch, []

        def third(*arguments: Any) -> None:
            doors.append(arguments)
            watch(*arguments) if len(doors) < 3 else failing()

        main.reactor.watch = third
    else:
        start["tls"] = (str(tmp_path / "none"), str(tmp_path / "none"))
    with pytest.raises((OSError, CertificateError), match="No s"):
        Front(main, API, start, lambda: None)
    assert open_descriptors() == before
    assert main.tokens.on_change == []
    assert not (tmp_path / DOOR).exists()
    assert main.registry.about == {}


def test_a_door_that_cannot_be_watched_hears_of_no_token(main: Any, tmp_path: Path) -> None:
    main.reactor.watch = failing
    with closing(listen(str(tmp_path / "s"))) as listener, pytest.raises(OSError, match="No space"):
        Door(
            listener, name="t", reactor=main.reactor, registry=main.registry, tokens=main.tokens,
            identify=lambda *_: NOBODY,
        )  # fmt: skip
    assert main.tokens.on_change == []
