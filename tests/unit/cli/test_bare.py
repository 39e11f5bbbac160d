"""The command line where Python has its standard library only, as on a device that boots with a plan."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from initspawn.cli import exits, main
from tests.support.bare import bare

TOLD = {"marks": [{"what": "init started", "time": 0.5}], "services": []}


def test_the_time_line_needs_no_compiler(supervisor: Any) -> None:
    answering = supervisor(lambda _: [{"status": "success", "code": 0, "response": TOLD}])
    done = bare("initspawn", "explain", "--boot", "--socket", answering.path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "0.500  init started" in done.stdout


def test_a_plan_is_looked_at_without_its_compiler(configuration: str, tmp_path: Path) -> None:
    plan = str(tmp_path / "plan")
    assert main.main(["compile", configuration, "-o", plan]) == 0
    for words, said in (
        (["explain", plan, "--boot"], "WAITS FOR"),
        (["explain", plan, "box/true"], "confined by sandbox box"),
        (["check", plan], "box/true"),
    ):
        done = bare("initspawn", *words)
        assert (done.returncode, done.stderr) == (0, ""), words
        assert said in done.stdout


@pytest.mark.parametrize(
    "words",
    [("check", "FILE"), ("explain", "FILE", "list"), ("explain", "FILE", "--boot"), ("run", "FILE", "list"),
     ("compare", "FILE", "list", "--sandbox", "box"), ("serve", "FILE"), ("compile", "FILE", "-o", "/x"),
     ("schema",)],
    ids=" ".join,
)  # fmt: skip
def test_what_compiles_says_what_to_install(words: tuple[str, ...], configuration: str) -> None:
    done = bare("initspawn", *(configuration if word == "FILE" else word for word in words))
    assert (done.returncode, done.stdout) == (exits.SYSTEM, "")
    said = "initspawn: this needs `msgspec`, a package of Python: install PyYAML, msgspec, pyseccomp\n"
    assert done.stderr == said


def test_so_does_what_finds_no_library_for_filters(configuration: str) -> None:
    code = f"""if True:
        import ctypes.util, sys
        find = ctypes.util.find_library
        ctypes.util.find_library = lambda name: None if name == "seccomp" else find(name)
        from initspawn.cli.main import main
        sys.exit(main(["check", {configuration!r}]))
    """
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    said = "initspawn: libseccomp is not found: install it, 2.5 or newer (Debian: libseccomp2)\n"
    assert (done.returncode, done.stdout, done.stderr) == (exits.SYSTEM, "", said)


def test_so_does_the_gateway() -> None:
    done = bare("initspawn.gateway", "--control", "/x")
    said = "initspawn gateway: it needs the package uvicorn of Python: install initspawn[gateway]\n"
    assert (done.returncode, done.stderr) == (111, said)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("starlette.types", "initspawn: this needs `starlette`, a package of Python: install starlette\n"),
        ("sqlite3", f"initspawn: {sys.executable} lacks `sqlite3`: install the whole of Python's standard "),
        ("initspawn.nope", "initspawn: internal error: ModuleNotFoundError: "),
    ],
)
def test_other_modules_that_are_missing(
    name: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(_: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(main, "import_module", missing)
    assert main.main(["check"]) == exits.SYSTEM
    assert capsys.readouterr().err.startswith(said)
