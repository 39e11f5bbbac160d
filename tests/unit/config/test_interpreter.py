"""What a Python of an image has to have, against what the gateway really imports here."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from initspawn.config.interpreter import GATEWAY, of_image, ours
from initspawn.errors import InitspawnError
from initspawn.tree import Tree

ROOT = Path(__file__).parents[3]
SSL = "_ssl.cpython-311-aarch64-linux-gnu.so"
# Imports what the gateway does, without the modules that are named; tells what came from where.
IMPORTS = """
import sys, json
sys.modules.update(dict.fromkeys(sys.argv[1:]))
import initspawn.gateway.process
print(json.dumps({name: getattr(module, "__file__", None) for name, module in sys.modules.items() if module}))
"""
# Modules written in C, and packages, that no Python for Linux is built or installed without: they need no
# library, and both Debian's python3-minimal and Yocto's python3-core have the packages.
ALWAYS = {
    "_ast", "_contextvars", "_csv", "_datetime", "_multiprocessing", "_posixsubprocess", "_random", "_socket",
    "_string", "_struct", "array", "atexit", "binascii", "errno", "itertools", "math", "resource", "select",
    "_blake2", "_collections", "_functools", "_locale", "_operator", "_sha512", "_sre", "_stat",
    "collections", "importlib", "re", "zipfile",
}  # fmt: skip


def imports(*without: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", IMPORTS, *without]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_list_is_what_the_gateway_cannot_start_without() -> None:
    bare = subprocess.run(
        [sys.executable, "-I", "-S", "-c", "import sys; print(*sys.modules)"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    loaded: dict[str, str | None] = json.loads(imports().stdout)
    site = sysconfig.get_paths()["purelib"]
    packages = {name.partition(".")[0] for name, file in loaded.items() if (file or "").startswith(site)}
    own = {name for name in loaded if "." not in name} - set(bare.stdout.split()) - packages - {"__mp_main__"}
    compiled = {name for name in own if not (file := loaded[name]) or file.endswith(".so")}
    directories = {name for name in own if (loaded[name] or "").endswith("/__init__.py")} - {"initspawn"}
    extensions = {name for name, file in loaded.items() if "." in name and (file or "").endswith(".so")}

    listed = {*GATEWAY.packages, *GATEWAY.standard, *(part.replace("/", ".") for part in GATEWAY.compiled)}
    others = (packages | compiled | directories | extensions) - listed - ALWAYS
    result = imports(*others)
    assert result.returncode == 0, f"one of {sorted(others)} is needed and not listed: {result.stderr}"
    with ThreadPoolExecutor(2) as pool:
        results = pool.map(imports, listed)
        assert not [name for name, result in zip(listed, results, strict=True) if result.returncode == 0]


def test_a_gateway_that_cannot_be_imported_says_one_line() -> None:
    code = (
        "import sys, runpy\n"
        "sys.modules['_ssl'] = None\n"
        "runpy.run_module('initspawn.gateway', run_name='__main__')\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, "--control", "/nowhere"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.returncode == 111
    (line,) = result.stderr.splitlines()
    assert line.startswith("initspawn gateway: cannot start: ModuleNotFoundError: ")
    assert "_ssl" in line


def test_ours_has_all() -> None:
    found = ours()
    assert (found.path, found.lacks) == (sys.executable, ())
    with pytest.raises(InitspawnError, match=r"needs `_nothing`, and .* is without"):
        ours(GATEWAY._replace(standard=("_nothing",)))


def test_ours_behind_a_link(tmp_path: Path) -> None:
    """A sandbox has what the link leads to, not the link."""
    (tmp_path / "link").symlink_to(ROOT)
    code = "from initspawn.config.interpreter import ours; print(ours().libraries[0])"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path / 'link')!r}); {code}"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout == f"{ROOT}\n"


def test_an_image_of_byte_code(python: Path) -> None:
    places = ("/usr/lib/initspawn", "/usr/lib/python3.11/site-packages")
    assert of_image(Tree(str(python))).libraries == places


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        *((f"usr/lib/python3.11/site-packages/{name}", f"needs `{name}`") for name in GATEWAY.packages[1:]),
        (f"usr/lib/python3.11/lib-dynload/{SSL}", "needs `_ssl`.*BR2_PACKAGE_PYTHON3_SSL=y"),
        *((f"usr/lib/python3.11/{name}", f"`{name}`.*python3-modules") for name in GATEWAY.standard[1:]),
    ],
)
def test_what_is_missing_is_named(gone: str, said: str, python: Path) -> None:
    path = next(python.glob(f"{gone}*"))
    path.rename(python / "gone")
    with pytest.raises(InitspawnError, match=said):
        of_image(Tree(str(python)))


def test_a_package_for_another_machine(python: Path) -> None:
    (found,) = python.glob("usr/lib/python3.11/site-packages/msgspec/_core.*")
    found.rename(found.with_name("_core.cpython-311-x86_64-linux-gnu.so"))
    wanted = r"needs `msgspec` for .*has _core\.cpython-311-x86_64.*wanted is _core\.cpython-311-aarch64"
    with pytest.raises(InitspawnError, match=wanted):
        of_image(Tree(str(python)))
    for name in found.parent.iterdir():
        name.unlink()
    (found.parent / "__init__.py").touch()
    with pytest.raises(InitspawnError, match="has no _core, and wanted"):
        of_image(Tree(str(python)))
    (found.parent / "_core.abi3.so").touch()
    of_image(Tree(str(python)))


def test_a_module_may_be_part_of_the_interpreter(python: Path) -> None:
    (python / f"usr/lib/python3.11/lib-dynload/{SSL}").unlink()
    for name in ("bin/python3.11", "lib/libpython3.11.so.1.0"):
        file = python / "usr" / name
        file.write_bytes(b"\0_ssl\0_ssl._SSLContext\0")
        of_image(Tree(str(python)))
        file.write_bytes(b"\0_ssl\0")  # sys.stdlib_module_names of every Python
        with pytest.raises(InitspawnError, match="needs `_ssl`"):
            of_image(Tree(str(python)))


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """The tree of an aarch64 machine with all the gateway needs, byte code only where that can be."""
    library = "usr/lib/python3.11"
    files = ["usr/bin/python3.11", "usr/lib/initspawn/initspawn/__init__.py", f"{library}/lib-dynload/{SSL}"]
    files += [f"{library}/{name}/__init__.pyc" for name in GATEWAY.standard[1:]]
    files += [f"{library}/site-packages/{name}/__init__.pyc" for name in GATEWAY.packages[1:-1]]
    files += [f"{library}/site-packages/{GATEWAY.packages[-1]}.py"]
    files += [f"{library}/site-packages/msgspec/_core.{SSL.partition('.')[2]}"]
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch(0o755)
    (tmp_path / "usr/bin/python3").symlink_to("python3.11")
    return tmp_path
