"""The script that docs/boot.md has for an image is run, as it is written there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from initspawn.cli.image import PROGRAMS, STANDARD
from initspawn.config.interpreter import GATEWAY
from initspawn.planfile import load

ROOT = Path(__file__).parents[3]
CONFIG = """
metadata: {uid: t, api: t}
sandboxes: {uid: s, acls: {user: 0}, commands: [{uid: do, exec: {cmdpath: /bin/sh}}]}
"""


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """What Buildroot has made by then: a Python and programs; beside it wheels, and a Python of the host."""
    root = tmp_path / "target"
    parts = (*GATEWAY.standard[1:], *STANDARD, "_sha256")
    standard = [f"usr/lib/python3.11/{name}/__init__.pyc" for name in parts]
    programs = [f"bin/{name}" for name in ("sh", *PROGRAMS)]
    files = ["usr/bin/python3.11", "usr/lib/python3.11/lib-dynload/_ssl.so", *standard, *programs]
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch(0o755)
    (root / "usr/bin/python3").symlink_to("python3.11")
    for name in ("wheels", "host/bin"):
        (tmp_path / name).mkdir(parents=True)
    for name in GATEWAY.packages[1:]:
        with zipfile.ZipFile(tmp_path / f"wheels/{name}.whl", "w") as wheel:
            wheel.writestr(f"{name}/__init__.py", "")
            if name == "msgspec":
                wheel.writestr("msgspec/_core.so", "")
    (tmp_path / "host/bin/python3").symlink_to(sys.executable)
    initspawn = tmp_path / "host/bin/initspawn"
    initspawn.write_text(f'#!/bin/sh\nexec {sys.executable} -m initspawn "$@"\n')
    initspawn.chmod(0o755)
    (tmp_path / "t.yaml").write_text(CONFIG)
    return root


def build(target: Path, *, gateway: str = "") -> None:
    """Run the script; nothing may be missing in the image afterwards."""
    text = (ROOT / "docs/boot.md").read_text()
    (script,) = re.findall(r"^```sh\n(#!/bin/sh\n.*?)^```\n", text, re.MULTILINE | re.DOTALL)
    place = target.parent
    environ = os.environ | {
        "SOURCE": str(ROOT), "WHEELS": str(place / "wheels"), "ARCH": "aarch64",
        "CONFIG": str(place / "t.yaml"), "HOST_DIR": str(place / "host"),
        "PATH": f"{place}/host/bin:{os.environ['PATH']}", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    (place / "post-build").write_text(script.replace('"$CONFIG"', f'{gateway} "$CONFIG"'))
    done = subprocess.run(
        ["/bin/sh", str(place / "post-build"), str(target)],
        env=environ, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_the_script_installs_all(target: Path) -> None:
    build(target, gateway="--gateway up --host 0.0.0.0")
    plan = load(str(target / "etc/initspawn/boot.plan"))
    assert plan.machine == "aarch64"
    assert plan.doors is not None
    assert (target / "var/lib/initspawn").stat().st_mode & 0o777 == 0o700
    unit = target / "etc/systemd/system/sysinit.target.wants/initspawn.service"
    assert (target / os.readlink(unit).lstrip("/")).is_file()
    own = target / "usr/lib/initspawn/initspawn"
    (code,) = own.glob("boot/__pycache__/__main__.*.pyc")
    assert code.read_bytes()[4:8] == b"\1\0\0\0"  # PEP 552: a file's time does not matter
    build(target)  # a build is repeated in the same tree
    assert load(str(target / "etc/initspawn/boot.plan")).doors is None


@pytest.mark.parametrize("order", ["call initspawn/info", "reload", "explain --boot", "token list"])
def test_its_command_needs_no_package(order: str, target: Path) -> None:
    """A device has Python's standard library and nothing else."""
    wanted = "initspawn: (no supervisor answers at|there are no tokens in) .*\n"
    assert re.fullmatch(wanted, said(order, target))


def test_what_needs_one_names_it(target: Path) -> None:
    assert said("explain t.yaml --boot", target).startswith("initspawn: this needs `msgspec`")


def said(order: str, target: Path) -> str:
    """What the launcher says on stderr, with the standard library alone."""
    launcher = ROOT / "rootfs-overlay/usr/bin/initspawn"
    assert os.access(launcher, os.X_OK)
    code = launcher.read_text().replace('"/usr/lib/initspawn"', repr(str(ROOT)))
    assert repr(str(ROOT)) in code
    here = target.parent / "launcher"
    here.write_text(code)
    place = [] if "t.yaml" in order else ["--run-dir", str(target / "run")]
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(here), *order.split(), *place],
        cwd=target.parent, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.stderr
