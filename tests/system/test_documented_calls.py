"""The examples of docs/api.md, as they stand there: curl, Python and JavaScript against a real server.

`afb-client` comes with AFB binders, not from where the tests have their packages: its lines are not tried.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.certificates import make_pair
from tests.system.server import PATIENCE, Server, serving

pytestmark = pytest.mark.needs("userns")

ROOT = Path(__file__).parents[2]
DEMO = str(ROOT / "configs" / "demo.yaml")
TEXT = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
BLOCKS = [(language, code) for language, code in re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.S | re.M)]
NOT_TRIED = ("initspawn serve", "afb-client", "export TOKEN")  # the server is the test's own


def lines_to_try(code: str) -> list[str]:
    """The commands of a shell block that can be tried here."""
    return [line for line in code.splitlines() if not line.startswith(NOT_TRIED)]


CURLS = [line for language, code in BLOCKS if language == "sh" for line in lines_to_try(code)]
PYTHON = [code for language, code in BLOCKS if language == "python"]
NODE = [code for language, code in BLOCKS if language == "js"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("documented")


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[Server]:
    with serving(place, "--unix", f"{place}/demo.web", "--ws-server", f"unix:{place}/demo", DEMO) as running:
        yield running


def tried(server: Server, place: Path, command: list[str], code: str) -> str:
    """Run an example against a server; what it printed."""
    code = code.replace("127.0.0.1:1234", server.page.split("/")[2])
    code = code.replace("/run/initspawn/control", f"{server.run_dir}/control").replace(
        "/run/demo", f"{place}/demo"
    )
    result = subprocess.run(
        [*command, code], capture_output=True, text=True, timeout=PATIENCE, check=False, cwd=place,
        env={**os.environ, "TOKEN": server.token, "no_proxy": "*", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_there_are_examples_of_each_kind() -> None:
    assert len(CURLS) >= 5
    assert len(PYTHON) == 3
    assert len(NODE) == 2
    assert all(line.startswith("curl ") for line in CURLS if line != "sh")


@pytest.mark.needs("curl")
@pytest.mark.parametrize("line", [line for line in CURLS if "https:" not in line and "page" not in line])
def test_curl(server: Server, place: Path, line: str) -> None:
    assert '"status":"success"' in tried(server, place, ["sh", "-c"], line)


@pytest.mark.needs("curl", "openssl")
@pytest.mark.parametrize("line", [line for line in CURLS if "https:" in line])
def test_curl_with_tls(tmp_path: Path, line: str) -> None:
    pair = make_pair(tmp_path)
    with serving(tmp_path, "--tls-certificate", pair.certificate, "--tls-key", pair.key, DEMO) as server:
        assert '"status":"success"' in tried(server, tmp_path, ["sh", "-c"], line)


@pytest.mark.parametrize("code", PYTHON)
def test_python(server: Server, place: Path, code: str) -> None:
    said = tried(server, place, [sys.executable, "-c"], code)
    assert "final-event" in said or "line 20" in said or "'pid'" in said


@pytest.mark.needs("node")
@pytest.mark.parametrize("code", NODE)
def test_javascript(server: Server, place: Path, code: str) -> None:
    said = tried(server, place, ["node", "--experimental-websocket", "--input-type=module", "-e"], code)
    assert "line 20" in said or "pid:" in said
