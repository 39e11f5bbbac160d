"""The guest's image: Debian's packages, the wheels the tests need, this project. No loop device, no mount.

Three things are kept apart in the cache, each under a name made of everything that decides its content:
the base system (half a minute, changes with qemu/packages), the wheels, and the image made of both and
the project (some seconds). Root is not needed: without it mmdebstrap uses a user namespace, and fakeroot
tells mke2fs(8) who owns what.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from qemu import cache

HERE = Path(__file__).parent
ROOT = HERE.parent
SUITE = "bookworm"
GUEST_PYTHON = (3, 11)
# What of the project the guest gets.
PROJECT = ("initspawn", "tests", "configs", "docs", "qemu", "pyproject.toml")
INSTALLED = {"rootfs-overlay": "", "units": "usr/lib/systemd/system"}  # and what belongs elsewhere there, too
PLACE = "opt/initspawn"
PACKAGES = "usr/local/lib/python3.11/dist-packages"
SIZE = "1G"  # sparse
PLATFORMS = ("manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux_2_28_x86_64")
# Of the test extra: what only looks at source text, and what the guest has as a Debian package.
NOT_IN_GUEST = ("initspawn", "ruff", "mypy", "types-", "python-prctl")
DEBIAN_OPTIONS = (
    "--mode=auto",
    "--variant=essential",
    "--format=tar",
    '--aptopt=Acquire::Languages "none"',
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
)

Progress = Callable[[str], None]


class Image(NamedTuple):
    """What QEMU needs to boot: a root file system (ext4, no partitions) and a kernel."""

    disk: Path
    kernel: Path


class BuildError(Exception):
    """A step of the build failed; the text says which, and the end of what it printed."""


def say(line: str) -> None:
    """Progress, as it comes, on stderr."""
    print(f"image: {line}", file=sys.stderr, flush=True)


def build(progress: Progress = say) -> Image:
    """The image of the project as it is now, from the cache if it is there. Raises BuildError, OSError."""
    sources = apt_sources()
    decisive = [(HERE / name).read_bytes() for name in ("packages", "modules", "base-hook")]
    base_key = cache.key(SUITE, *DEBIAN_OPTIONS, *decisive, sources.read_bytes() if sources else b"")
    base = cache.made("base", base_key, lambda place: _make_base(place, sources, progress))

    wanted = requirements()
    wheels_key = cache.key(str(GUEST_PYTHON), *PLATFORMS, *wanted)
    wheels = cache.made("wheels", wheels_key, lambda place: _make_wheels(place, wanted, progress))

    project = project_files()
    content = [part for path in project for part in (str(path), _content(ROOT / path))]
    image_key = cache.key(base_key, wheels_key, *content)
    image = cache.made("image", image_key, lambda place: _make_image(place, base, wheels, project, progress))
    return Image(image / "disk.ext4", base / "vmlinuz")


def apt_sources() -> Path | None:
    """Where packages come from: $INITSPAWN_APT_SOURCES, this machine's own list if it is of the same
    release, or else mmdebstrap's choice.
    """
    if named := os.environ.get("INITSPAWN_APT_SOURCES"):
        return Path(named)
    release = Path("/etc/os-release")
    if release.exists() and f"VERSION_CODENAME={SUITE}" in release.read_text(encoding="utf-8").splitlines():
        for name in ("/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"):
            if Path(name).is_file():
                return Path(name)
    return None


def package_list(path: Path) -> list[str]:
    """A list with one name a line and comments."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def requirements() -> list[str]:
    """What pip installs for the guest: the project's dependencies and what its tests import."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    everything: list[str] = [*project["dependencies"], *extras["gateway"], *extras["test"]]
    return sorted(name for name in everything if not name.startswith(NOT_IN_GUEST))


def project_files() -> list[Path]:
    """The project's files for the guest, relative to its root, sorted; links are files."""
    found = []
    for name in (*PROJECT, *INSTALLED):
        for folder, folders, names in os.walk(ROOT / name):
            folders[:] = [one for one in folders if one != "__pycache__"]
            links = [one for one in folders if os.path.islink(os.path.join(folder, one))]
            found += [Path(folder, one).relative_to(ROOT) for one in (*names, *links)]
        if (ROOT / name).is_file():
            found.append(Path(name))
    return sorted(found)


def _content(path: Path) -> bytes:
    if path.is_symlink():
        return b"->" + os.readlink(path).encode()
    return (b"x" if os.access(path, os.X_OK) else b"-") + path.read_bytes()


def _make_base(place: Path, sources: Path | None, progress: Progress) -> None:
    progress("base system from Debian's packages, about half a minute")
    names = ",".join(package_list(HERE / "packages"))
    tree = place / "tree.tar"
    hook = f"--customize-hook={HERE / 'base-hook'}"
    where = [SUITE, str(tree), *([str(sources)] if sources else [])]
    _run(["mmdebstrap", *DEBIAN_OPTIONS, f"--include={names}", hook, *where], progress)
    with (place / "vmlinuz").open("wb") as kernel:
        subprocess.run(["tar", "-xOf", str(tree), "./boot/vmlinuz"], stdout=kernel, check=True)


def _make_wheels(place: Path, wanted: list[str], progress: Progress) -> None:
    progress("Python packages")
    version = ".".join(map(str, GUEST_PYTHON))
    options = ["--quiet", "--only-binary=:all:", "--implementation=cp", f"--python-version={version}"]
    options += [f"--platform={platform}" for platform in PLATFORMS]
    _run([sys.executable, "-m", "pip", "install", "--target", str(place), *options, *wanted], progress)
    shutil.rmtree(place / "bin", ignore_errors=True)  # scripts that name this machine's interpreter


def _make_image(place: Path, base: Path, wheels: Path, project: list[Path], progress: Progress) -> None:
    progress("file system with the project, some seconds")
    stage = place / "stage"
    shutil.copytree(HERE / "rootfs-overlay", stage, symlinks=True)
    shutil.copytree(wheels, stage / PACKAGES, symlinks=True, dirs_exist_ok=True)
    for path in project:
        first, *rest = path.parts
        targets = [stage / PLACE / path]
        if first in INSTALLED:
            targets.append(stage.joinpath(INSTALLED[first], *rest))
        for target in targets:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, target, follow_symlinks=False)
    if sys.version_info[:2] == GUEST_PYTHON:  # the guest would take ten times as long
        compile_all = [sys.executable, "-m", "compileall", "-q", "-s", str(stage), "-p", "/"]
        _run([*compile_all, str(stage / PLACE)], progress)
    compiler = [sys.executable, "-m", "initspawn", "compile", "--arch", "x86_64"]
    disk = [str(base / "tree.tar"), str(stage), str(place / "disk.ext4"), SIZE]
    assemble = [str(HERE / "assemble"), *disk, *compiler]
    _run(assemble if os.geteuid() == 0 else ["fakeroot", *assemble], progress)
    shutil.rmtree(stage)


def _run(argv: list[str], progress: Progress) -> None:
    """Run one step; hands on what it reports as information (`I: …`). Raises BuildError."""
    begin = time.monotonic()
    output = []
    try:
        process = subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
    except FileNotFoundError as error:
        raise BuildError(f"{argv[0]} is missing: `make test-setup` installs or names its package") from error
    with process:
        assert process.stdout
        for line in process.stdout:
            output.append(line)
            if line.startswith("I: "):
                progress(f"  {time.monotonic() - begin:4.0f} s  {line[3:].rstrip()}")
    if process.returncode != 0:
        raise BuildError(f"{argv[0]} ended with {process.returncode}:\n{''.join(output[-25:])}")
