"""The tests that need the guest's kernel, and some of all the others, run inside it.

`make test-guest` runs the whole of tests/system there.
"""

from __future__ import annotations

from xml.etree import ElementTree

from qemu.guest import Guest
from qemu.testing import run_tests


def test_representative_system_tests(guest: Guest) -> None:
    arguments = ["-n", "2", "-q", "-m", "guest or guest_too", "tests/system"]
    outcome = run_tests(guest, arguments, timeout=900)
    assert outcome.code == 0, outcome.output[-20000:]
    suite = ElementTree.fromstring(outcome.junit).find("testsuite")
    assert suite is not None
    assert int(suite.attrib["tests"]) >= 50
    assert suite.attrib["skipped"] == "0"
