"""Capabilities, clean-up checks and ordinary users, for all tests.

@pytest.mark.needs("userns", "bwrap")   runs where all of them work (see tests/support/probes.py)
@pytest.mark.root, @pytest.mark.userns  the same for one of them
@pytest.mark.guest                      runs in the guest of qemu/ only; `make test` has it run there
@pytest.mark.guest_too                  runs here, and `make test` has it run in the guest as well
@pytest.mark.not_emulated("reason")     does not run under tools/aarch64-tests, see docs/soak.md
@pytest.mark.soak                       a rare case that costs much: runs in `make soak` only
@pytest.mark.racy                       `make soak` runs it REPEATS times

What is missing skips a test. With INITSPAWN_MUST_WORK=1 it fails instead, as does every other skip.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TypeVar

import hypothesis
import pytest

from tests.support import leftovers, users
from tests.support.pace import EMULATED, IN_GUEST
from tests.support.probes import NOBODY, PROBES, missing

HERE = Path(__file__).parent
MUST_WORK = os.environ.get("INITSPAWN_MUST_WORK", "") not in ("", "0")
# What depends on no kernel and would make the image large, and what its Linux 6.1 has not got.
NOT_IN_GUEST = {"node", "lua", "tcl", "chromium", "openssl", "landlock", "peerpidfd"}
# What QEMU's user mode has not got, being no kernel, or what tools/aarch64-tests does not set up.
NOT_EMULATED = {"root", "userns", "bwrap", "cgroup", "prctl"}
Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

MADE_UP = 54321  # a user that no file names
REPEATS = 20  # of what depends on who comes first, in `make soak`
CLEAN = ("system", "gateway", "browser")  # folders whose tests leave nothing behind

# No deadline: a busy machine is not a wrong result.
hypothesis.settings.register_profile("default", deadline=None, max_examples=100)
hypothesis.settings.register_profile("soak", deadline=None, max_examples=5000)
hypothesis.settings.load_profile("default")


def pytest_sessionstart() -> None:
    leftovers.adopt_orphans()
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a shell's `&`: what we start would never hear it
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Each test goes to the machines it is meant for; this is no skip, for it does run on the other."""
    soak = _soaks(config)
    elsewhere = [
        item for item in items if not _belongs_here(item) or (item.get_closest_marker("soak") and not soak)
    ]
    if elsewhere:
        config.hook.pytest_deselected(items=elsewhere)
        items[:] = [item for item in items if item not in elsewhere]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if _soaks(metafunc.config) and any(metafunc.definition.iter_markers("racy")):
        metafunc.fixturenames.append("repetition")
        metafunc.parametrize("repetition", range(REPEATS))


def _soaks(config: pytest.Config) -> bool:
    return config.getoption("--hypothesis-profile", None) == "soak"


def _belongs_here(item: pytest.Item) -> bool:
    needs = {name for mark in item.iter_markers("needs") for name in mark.args}
    if IN_GUEST:
        return not needs & NOT_IN_GUEST
    if EMULATED:
        needs |= {name for name in ("root", "userns") if item.get_closest_marker(name)}
        return not needs & NOT_EMULATED and item.get_closest_marker("not_emulated") is None
    return item.get_closest_marker("guest") is None


def pytest_runtest_setup(item: pytest.Item) -> None:
    names = [name for mark in item.iter_markers("needs") for name in mark.args]
    names += [name for name in ("root", "userns") if item.get_closest_marker(name)]
    for name in names:
        if name not in PROBES:
            pytest.fail(f"no such capability: {name}")
        if reason := missing(name):
            pytest.skip(f"needs {name}: {reason}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    return report if hasattr(report, "wasxfail") else _no_skip(report)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _no_skip((yield))


def _no_skip(report: Report) -> Report:
    """Under INITSPAWN_MUST_WORK a skip is a failure."""
    if MUST_WORK and report.skipped:
        report.outcome = "failed"
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.longrepr = f"INITSPAWN_MUST_WORK forbids skipping. {reason}"
    return report


@pytest.fixture(autouse=True)
def leaves_nothing(request: pytest.FixtureRequest) -> Iterator[None]:
    """No process, mount, cgroup or network namespace outlives a test of the folders in CLEAN."""
    folder = request.path.relative_to(HERE).parts[0]
    if folder not in CLEAN:
        yield
        return
    before = leftovers.snapshot()
    yield
    left = leftovers.left_since(before)
    assert not left, "left behind: " + "; ".join(left)


@pytest.fixture(scope="session")
def library() -> Iterator[str]:
    """A PYTHONPATH with initspawn that every user of this machine can read."""
    place = Path(tempfile.mkdtemp(prefix="initspawn-library-"))
    try:
        yield users.library_for_all(place)
    finally:
        shutil.rmtree(place)


USERS = [NOBODY, MADE_UP] if os.geteuid() == 0 else [os.geteuid()]


@pytest.fixture(params=USERS, ids=lambda uid: f"uid{uid}")
def as_user(request: pytest.FixtureRequest, library: str) -> Iterator[users.Ordinary]:
    """An ordinary user: each test runs once per user. See tests/support/users.py."""
    if reason := missing("python"):
        pytest.skip(f"needs python: {reason}")
    home = Path(tempfile.mkdtemp(prefix="initspawn-home-"))
    try:
        yield users.Ordinary(request.param, home, library)
    finally:
        shutil.rmtree(home)
