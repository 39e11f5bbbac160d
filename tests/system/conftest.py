"""Who the supervisors of these tests run as."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MADE_UP, USERS
from tests.support.probes import missing
from tests.system.harness import Person
from tests.system.server import Client, Server

EVERYBODY = [0, *USERS] if os.geteuid() == 0 else USERS
ROOT_AND_A_USER = [0, MADE_UP] if os.geteuid() == 0 else USERS


@pytest.fixture
def who(request: pytest.FixtureRequest, library: str) -> Iterator[Person]:
    """The person of this test: root, or an ordinary user; `indirect` parameters give the number."""
    uid: int = request.param
    if uid != 0 and (reason := missing("python")):
        pytest.skip(f"needs python: {reason}")
    if uid == 0 and (reason := missing("root")):
        pytest.skip(f"needs root: {reason}")
    home = Path(tempfile.mkdtemp(prefix="initspawn-home-"))
    home.chmod(0o755)
    try:
        yield Person(uid, home, library)
    finally:
        shutil.rmtree(home)


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """A WebSocket client of the file's own server."""
    with server.client() as connected:
        yield connected


def _name(uid: int) -> str:
    return f"uid{uid}" if uid else "root"


everybody = pytest.mark.parametrize("who", EVERYBODY, ids=_name, indirect=True)
root_and_a_user = pytest.mark.parametrize("who", ROOT_AND_A_USER, ids=_name, indirect=True)
root = pytest.mark.parametrize("who", [0], ids=_name, indirect=True)
a_user = pytest.mark.parametrize("who", ROOT_AND_A_USER[-1:], ids=_name, indirect=True)
