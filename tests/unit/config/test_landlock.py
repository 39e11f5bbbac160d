"""`landlock`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from initspawn.linux import landlock as kernel
from initspawn.linux.landlock import BIND, CONNECT, FS, OF_FILES, SCOPES
from initspawn.plan import Landlock

Build = Callable[..., Any]
MOVE = FS["move"]
DEFAULT = sum(bits for word, bits in FS.items() if word != "ioctl")


@pytest.fixture(autouse=True)
def newest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever runs these tests."""
    monkeypatch.setattr(kernel, "version", lambda: 7)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ({}, {"fs": DEFAULT}),
        ({"restrict": []}, None),
        ({"restrict": ["write", "IOCTL"]}, {"fs": FS["write"] | FS["ioctl"] | MOVE}),
        (
            {"restrict": "read", "paths": {"path": "/usr", "allow": "read"}, "optional": True},
            {"fs": FS["read"] | MOVE, "paths": (("/usr", FS["read"]),), "optional": True},
        ),
        ({"restrict": [], "bind": []}, {"net": BIND}),
        (
            {"restrict": [], "bind": [80, 80], "connect": 443},
            {"net": BIND | CONNECT, "ports": ((80, BIND), (443, CONNECT))},
        ),
        ({"restrict": [], "scope": ["signals", "abstract-sockets"]}, {"scopes": sum(SCOPES.values())}),
    ],
)
def test_words_become_masks(build: Build, problems: Build, value: Any, wanted: dict[str, Any] | None) -> None:
    if wanted is None:
        assert "holds nothing back" in problems({"landlock": value})[0]
    else:
        assert build({"landlock": value}).sandboxes[0].landlock == Landlock(**wanted)


def test_links_are_followed(build: Build, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    entry = {"path": str(tmp_path / "link"), "allow": ["read", "create"]}
    found = build({"landlock": {"paths": entry}}).sandboxes[0].landlock
    assert found.paths == ((str(tmp_path / "real"), FS["read"] | FS["create"]),)


def test_paths_are_those_inside(build: Build, problems: Build) -> None:
    mounts = [
        {"target": "/usr", "mode": "ro"}, {"target": "/bin", "source": "usr/bin", "mode": "symlink"},
        {"target": "/lib", "source": "usr/lib", "mode": "symlink"},
        {"target": "/lib64", "source": "usr/lib64", "mode": "symlink"}, {"target": "/tmp", "mode": "tmpfs"},
    ]  # fmt: skip
    box = {"namespace": {"mounts": mounts}}
    paths = [{"path": "/bin", "allow": "execute"}, {"path": "/tmp", "allow": "write"}]
    found = build(box | {"landlock": {"paths": paths}}).sandboxes[0].landlock
    assert [path for path, _ in found.paths] == ["/usr/bin", "/tmp"]
    (said,) = problems(box | {"landlock": {"paths": {"path": "/etc", "allow": "read"}}})
    assert "landlock.paths.path: '/etc' is not there inside the sandbox" in said


def test_what_is_wrong(problems: Build, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    file = str(tmp_path / "file")
    for value, message in (
        ({"paths": {"path": "usr", "allow": "read"}}, "'usr' is not absolute"),
        ({"paths": {"path": "/nothing", "allow": "read"}}, "'/nothing' is not there"),
        ({"paths": {"path": "/usr", "allow": "reed"}}, "did you mean `read`?"),
        ({"paths": {"path": "/usr"}}, "`allow` is missing"),
        ({"paths": {"path": "/$NOPE", "allow": "read"}}, "$NOPE"),
        ({"paths": {"path": "/usr", "allow": "ioctl"}}, "`ioctl` is not held back anywhere"),
        ({"paths": {"path": file, "allow": ["read", "create"]}}, "is a file: `create` is for directories"),
        ({"bind": [65536]}, "must be from 0 to 65535"),
        ({"path": "/usr"}, "unknown key"),
    ):
        (said,) = problems({"landlock": value})
        assert message in said, (value, said)
    (said,) = problems({"landlock": {}, "allow_setuid": True})
    assert "does not go together with `landlock`" in said


def test_a_kernel_that_knows_less(build: Build, problems: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "version", lambda: 2)
    (said,) = problems({"landlock": {}})
    assert "needs Landlock ABI 3, and this kernel has ABI 2 (say `optional: true`" in said
    assert build({"landlock": {"optional": True}}).sandboxes[0].landlock.fs == DEFAULT
    assert build({"landlock": {"restrict": "execute"}}).sandboxes[0].landlock.fs == FS["execute"] | MOVE
    monkeypatch.setattr(kernel, "version", lambda: 0)
    (said,) = problems({"landlock": {"restrict": "execute"}})
    assert "needs Landlock ABI 2, and this kernel has no Landlock" in said


def test_what_rules_for_files_may_name() -> None:
    assert FS["execute"] | FS["write"] | FS["ioctl"] | 1 << 2 == OF_FILES
