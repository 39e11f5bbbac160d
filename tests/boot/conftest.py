"""The machine of these tests: booted once, for all that leave it as it was.

It is made of this checkout; the first time that takes half a minute more. See docs/image.md.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from qemu import cache
from qemu.guest import Guest
from qemu.image import Image, build
from qemu.machine import Shape


@pytest.fixture(scope="session")
def image() -> Iterator[Image]:
    """The image of this checkout, and the right to run two guests at the same time: one session of tests
    has it, for two with one guest each would wait for each other.
    """
    made = build()
    with cache.locked(cache.folder() / "tests.lock"):
        yield made


@pytest.fixture(scope="session")
def guest(image: Image) -> Iterator[Guest]:
    """A booted guest that serves the demonstration on its port 1234."""
    with Guest(Shape(image, cpus=2, memory=1024, append="quiet initspawn.demo=1234")) as machine:
        yield machine.wait_agent()
