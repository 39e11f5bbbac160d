"""The machines of these tests, made of this checkout; the first time that takes half a minute more.

`make test` has two processes of pytest-xdist do them: docs/image.md. A process has one machine at a time, and
so never waits for a slot of qemu/machine.py while it holds one.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from qemu.guest import Guest
from qemu.image import Image, build
from qemu.machine import Shape

GUEST = "guest"
# Files of which all tests use it, and those of tests with a machine of their own each.
SHARING = ("test_agent", "test_clock", "test_facts", "test_limits", "test_root_image", "test_system")
ALONE = ("test_faults", "test_kiosk", "test_machine", "test_watchdog")


class Shared:
    """The machine of the tests that leave theirs as it was."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._guest: Guest | None = None

    def booted(self, image: Image) -> Guest:
        """That machine, ready for commands."""
        if self._guest is None:
            shape = Shape(image, memory=1024, append="quiet")
            self._guest = self._stack.enter_context(Guest(shape))
        return self._guest.wait_agent()

    def close(self) -> None:
        """End it, if there is one."""
        self._guest = None
        self._stack.close()


SHARED = pytest.StashKey[Shared]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[SHARED] = Shared()


class Scheduling(LoadScopeScheduling):
    """Tests with the same machine go to one process, all others to whoever is free."""

    def _split_scope(self, nodeid: str) -> str:
        return scope(nodeid)


def scope(nodeid: str) -> str:
    """What a test shares its machine with: all that use `guest`, its file, or nobody."""
    file = Path(nodeid.partition("::")[0]).stem
    return nodeid if file in ALONE else GUEST if file in SHARING else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    return Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: scope(item.nodeid) != GUEST)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if isinstance(item, pytest.Function) and "guest" not in item.fixturenames:
        item.config.stash[SHARED].close()


def pytest_sessionfinish(session: pytest.Session) -> None:
    session.config.stash[SHARED].close()


@pytest.fixture(scope="session")
def image() -> Image:
    """The image of this checkout."""
    return build()


@pytest.fixture
def guest(image: Image, pytestconfig: pytest.Config) -> Guest:
    """A booted guest that others use as well."""
    return pytestconfig.stash[SHARED].booted(image)
