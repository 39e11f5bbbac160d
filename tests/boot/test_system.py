"""The tests that need the guest's kernel, and some of all the others, run inside it.

`make test-guest` runs the whole of tests/system there.
"""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from qemu.guest import Guest
from qemu.testing import run_tests


def test_representative_system_tests(guest: Guest) -> None:
    """Only files that have some are collected, and are executed as they are compiled in the image: to read
    all others, and to rewrite what they assert, takes the guest longer than these tests. Of the two ordinary
    users only the one is asked that no file names.
    """
    root = Path(__file__).parents[2]
    marked = re.compile(r"pytest\.mark\.guest(_too)?\b")
    every = sorted((root / "tests/system").glob("test_*.py"))
    names = [str(path.relative_to(root)) for path in every if marked.search(path.read_text())]
    arguments = ["-q", "--assert=plain", "-m", "guest or guest_too", "-k", "not uid65534", *names]
    outcome = run_tests(guest, arguments, timeout=900)
    assert outcome.code == 0, outcome.output[-20000:]
    suite = ElementTree.fromstring(outcome.junit).find("testsuite")
    assert suite is not None
    assert int(suite.attrib["tests"]) >= 45
    assert suite.attrib["skipped"] == "0"
