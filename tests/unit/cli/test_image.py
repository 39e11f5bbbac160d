"""What `compile --root` says of an image that could not boot with its plan."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from initspawn.cli.image import PROGRAMS, SHA, STANDARD
from initspawn.cli.main import main
from tests.law.test_imports import AHEAD, RECORDS

STUB = Path(__file__).parents[3] / "rootfs-overlay/usr/sbin/initspawn-init"
COMMAND = "{uid: do, exec: {cmdpath: /bin/sh}}"
CONFIG = f"metadata: {{uid: t, api: t}}\nsandboxes: {{uid: s, acls: {{user: 0}}, commands: [{COMMAND}]}}\n"
LIBRARY = "usr/lib/python3.12"
OURS = ("usr/lib/initspawn/initspawn/boot/__main__.py", "usr/sbin/initspawn-init")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """The tree of a machine that can boot, its programs where BusyBox has them."""
    root = tmp_path / "root"
    library = [f"{LIBRARY}/{name}.pyc" for name in (*STANDARD, SHA[1])]
    for path in (*OURS, "bin/sh", "usr/bin/python3.12", *library, *(f"bin/{name}" for name in PROGRAMS)):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch(0o755)
    (root / "usr/bin/python3").symlink_to("python3.12")
    (tmp_path / "t.yaml").write_text(CONFIG)
    return root


def told(image: Path, capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    plan = image.parent / "plan"
    assert main(["compile", "--root", str(image), *words, str(image.parent / "t.yaml"), "-o", str(plan)]) == 0
    assert plan.exists()
    return capsys.readouterr().err.splitlines()


def test_nothing_of_one_that_has_all(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(image, capsys) == []


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        *((path, f"has no /{path}: a boot needs it, now or later; it is of ") for path in OURS),
        ("usr/bin/python3", "has no program /usr/bin/python3: a boot needs it; Buildroot: BR2_PACKAGE_PY"),
        *((f"bin/{name}", f"has no program {name}: a boot needs it; coreutils") for name in PROGRAMS),
    ],
)
def test_each_that_is_missing_is_a_line(
    gone: str, said: str, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (image / gone).unlink()
    (line,) = told(image, capsys)
    assert line.startswith(f"warning: {image} {said}")


def test_a_python_without_parts_of_its_library(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As python3-core of Yocto and python3-minimal of Debian are; some parts may be built in."""
    for name in (*STANDARD, SHA[1]):
        (image / LIBRARY / f"{name}.pyc").unlink()
    (image / LIBRARY / "difflib.py").touch()
    (image / LIBRARY / "lib-dynload").mkdir()
    (image / LIBRARY / "lib-dynload/_ctypes.cpython-312-aarch64-linux-gnu.so").touch()
    (image / "usr/bin/python3.12").write_bytes(b"\0PyInit__socket\0PyInit_select\0mmap\0PyInit_fcntl\0")
    (line,) = told(image, capsys)
    assert line == (
        f"warning: {image} has a Python without ctypes, json, mmap, resource, _sha2: a boot needs all of it; "
        "Yocto: python3-ctypes python3-json python3-mmap python3-resource python3-crypt; "
        "Debian: python3, not only python3-minimal"
    )


def test_these_parts_are_what_the_supervisor_imports() -> None:
    """The rest is in every Python: built in, or part of what a bare interpreter starts with."""
    code = STUB.parents[3] / "initspawn"
    found = {"_ctypes"}
    floors = ("boot", "control", "encoders", "linux", "sandbox", "supervisor", "verbs")
    files = [path for name in floors for path in (code / name).glob("**/*.py") if path.name != "host.py"]
    for path in (*files, *(code / f"{name}.py" for name in (*RECORDS.split(), *AHEAD.split()))):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(str(node.module).partition(".")[0])
    core = {
        "__future__", "_codecs", "_collections", "_operator", "_signal", "binascii", "collections",
        "contextlib", "errno", "gc", "heapq", "initspawn", "marshal", "os", "re", "selectors", "signal",
        "stat", "struct", "subprocess", "sys", "time", "typing",
    }  # fmt: skip
    assert found - core == {*STANDARD, *SHA}


def test_what_is_not_executable(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (image / OURS[1]).chmod(0o644)
    (image / "bin/head").chmod(0o644)
    own, head = told(image, capsys)
    assert "/usr/sbin/initspawn-init is not executable" in own
    assert "has no program head" in head


def test_another_users_supervisor_is_no_boots(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (image / OURS[0]).unlink()
    (image / "etc").mkdir()
    (image / "etc/passwd").write_text("maker:x:12:12::/:\n")
    (image.parent / "t.yaml").write_text(CONFIG.replace("user: 0", "user: maker"))
    assert told(image, capsys, "--user", "maker") == []


def test_the_programs_are_those_that_the_stub_calls() -> None:
    """Its own words say which they are; `mount` is called where a file system is missing."""
    text = STUB.read_text()
    named = re.search(r"Only builtins of the shell, and (.*?)\. ", text.replace("\n# ", " "))
    assert named is not None
    assert set(re.findall(r"`(\w+)`", named[1])) | {"mount"} == set(PROGRAMS)
    code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for name in PROGRAMS:
        assert re.search(rf"(^|[\s(|]){name} [-/\"$0-9]", code, re.MULTILINE), name
