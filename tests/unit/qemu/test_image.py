"""What decides the content of an image."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from qemu import image
from qemu.image import BuildError


def test_the_lists_name_things() -> None:
    assert {"systemd", "python3", "bubblewrap"} <= set(image.package_list(image.HERE / "packages"))
    assert {"virtio_console", "overlay"} <= set(image.package_list(image.HERE / "modules"))


def test_requirements_are_what_the_tests_import() -> None:
    names = {name.partition(">")[0] for name in image.requirements()}
    assert {"pytest", "hypothesis", "websockets", "msgspec", "PyYAML", "pyseccomp"} <= names
    assert not names & {"mypy", "ruff", "python-prctl", "initspawn[gateway]"}


def test_project_files_are_sources_only() -> None:
    files = {str(path) for path in image.project_files()}
    assert {"initspawn/__init__.py", "tests/conftest.py", "qemu/agent.py", "pyproject.toml"} <= files
    assert not [name for name in files if "__pycache__" in name]
    mask = "qemu/rootfs-overlay/etc/systemd/system/systemd-firstboot.service"
    assert mask in files  # a link to nothing that can be read is a file of its own


def test_content_tells_modes_and_links_apart(tmp_path: Path) -> None:
    plain, script, link = tmp_path / "plain", tmp_path / "script", tmp_path / "link"
    for path in (plain, script):
        path.write_text("x")
    script.chmod(0o755)
    link.symlink_to("plain")
    assert len({image._content(path) for path in (plain, script, link)}) == 3


def test_apt_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INITSPAWN_APT_SOURCES", str(tmp_path / "sources"))
    assert image.apt_sources() == tmp_path / "sources"
    monkeypatch.delenv("INITSPAWN_APT_SOURCES")
    assert image.apt_sources() is None or image.apt_sources().is_file()  # type: ignore[union-attr]


def test_a_step_that_fails_shows_the_end_of_its_output() -> None:
    told: list[str] = []
    with pytest.raises(BuildError, match=r"sh ended with 3:\nI: begun\nbecause"):
        image._run(["sh", "-c", "echo I: begun; echo because >&2; exit 3"], told.append)
    assert [line.split(None, 2)[-1] for line in told] == ["begun"]
    with pytest.raises(BuildError, match="no-such-program is missing: `make test-setup`"):
        image._run(["no-such-program"], told.append)


def test_assembling_keeps_links_and_gives_everything_to_root(tmp_path: Path) -> None:
    """The overlay's lib/ goes where the base's link leads; debugfs reads the image without mounting it."""
    base, stage, disk = tmp_path / "base", tmp_path / "stage", tmp_path / "disk.ext4"
    (base / "usr/lib").mkdir(parents=True)
    (base / "lib").symlink_to("usr/lib")
    (stage / "lib").mkdir(parents=True)
    (stage / "lib/file").write_text("from the overlay")
    (stage / "lib/file").chmod(0o600)
    subprocess.run(["tar", "-C", str(base), "-cf", str(tmp_path / "base.tar"), "."], check=True)
    script = [str(image.HERE / "assemble"), str(tmp_path / "base.tar"), str(stage), str(disk), "16M"]
    note = 'told="$*"; while [ "$1" != --output ]; do shift; done; echo "$told" >"$2"'
    script += ["sh", "-c", note, "compile"]
    subprocess.run(["fakeroot", *script], check=True)

    def debugfs(request: str) -> str:
        tool = ["/sbin/debugfs", "-R", request, str(disk)]
        return subprocess.run(tool, capture_output=True, text=True, check=True).stdout

    assert debugfs("cat /usr/lib/file") == "from the overlay"
    boot, doors = (debugfs(f"cat /etc/initspawn/{name}.plan") for name in ("boot", "doors"))
    assert re.fullmatch(r"--root \S+ --output \S+/boot\.plan \S+/qemu/boot\.yaml\n", boot)
    assert re.match(r"--root \S+ --output \S+/doors\.plan --gateway .* \S+/qemu/devices\.yaml\n", doors)
    assert "Type: symlink" in debugfs("stat /lib")
    status = debugfs("stat /usr/lib/file")
    assert "Mode:  0644" in status
    assert "User:     0   Group:     0" in status
    assert sorted(tmp_path.glob("disk.ext4.*")) == []
