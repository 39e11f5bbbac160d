"""The cache of images: made once, never seen half made, the oldest go."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from qemu import cache


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "initspawn"


def test_made_once(place: Path) -> None:
    calls = []

    def make(folder: Path) -> None:
        calls.append(folder)
        (folder / "file").write_text("x")

    for _ in range(2):
        assert cache.made("kind", "name", make) == place / "kind-name"
    assert len(calls) == 1
    assert (place / "kind-name" / "file").read_text() == "x"


def test_what_fails_leaves_nothing_that_looks_made(place: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("")
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        cache.made("kind", "name", fail)
    assert not (place / "kind-name").exists()
    made = cache.made("kind", "name", lambda folder: None)
    assert list(made.iterdir()) == []


def test_two_at_once_make_it_once() -> None:
    calls = []

    def make(folder: Path) -> None:
        calls.append(folder)
        time.sleep(0.1)

    threads = [threading.Thread(target=cache.made, args=("kind", "name", make)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1


def test_the_oldest_go_and_those_in_use_stay(place: Path) -> None:
    old = time.time() - 2 * cache.UNTOUCHED_SECONDS
    for number in range(cache.KEPT + 2):
        made = cache.made("kind", str(number), lambda folder: None)
        os.utime(made, (old + number, old + number))
    cache.made("other", "0", lambda folder: None)
    cache.made("kind", "0", lambda folder: None)  # used: the newest now
    left = sorted(path.name for path in place.glob("*-*"))
    assert left == ["kind-0", *(f"kind-{n}" for n in range(3, cache.KEPT + 2)), "other-0"]


def test_keys_depend_on_content_and_boundaries() -> None:
    assert cache.key("a", "b") == cache.key(b"a", b"b")
    assert len({cache.key("ab"), cache.key("a", "b"), cache.key("b", "a"), cache.key()}) == 4
