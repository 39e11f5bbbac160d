"""Asking a supervisor to reload: of whom."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from initspawn.boot import ask
from initspawn.control.client import Client
from initspawn.errors import InitspawnError


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ((1, 1, 1, 0, 1, 0), "1 API, 1 command (1 new or changed), 1 sandbox (0 new or changed)"),
        ((2, 3, 0, 2, 4, 1), "2 APIs, 3 commands (0 new or changed, 2 gone), 4 sandboxes (1 new or changed)"),
    ],
)
def test_the_line_about_a_reload(numbers: tuple[int, ...], said: str) -> None:
    names = ("apis", "commands", "new-commands", "gone", "sandboxes", "new-sandboxes")
    assert ask.summary(dict(zip(names, numbers, strict=True))) == f"initspawn: reloaded: {said}"


def test_nobody_follows_a_supervisor_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answer says which files are read, and which shell lines in them are run, by whoever asks."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "control"))
        listener.listen()
        with Client(str(tmp_path / "control"), 1.0) as client, listener.accept()[0] as peer:
            assert client.user == os.geteuid()
            own = os.geteuid()
            monkeypatch.setattr(os, "geteuid", lambda: own + 1)
            with pytest.raises(InitspawnError, match=f"runs as user {own}: only that user"):
                ask.ask_sources(client)
            monkeypatch.undo()
            peer.setblocking(False)
            with pytest.raises(BlockingIOError):  # nothing was asked
                peer.recv(1)
