"""HTTPS and WSS of a real server: a confined gateway, its key, and what happens when the files change."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from tests.support.certificates import Pair, make_pair
from tests.system.server import PATIENCE, SUBPROTOCOL, Client, Server, serving, wait_for, write
from tests.system.test_serve import config

pytestmark = [pytest.mark.needs("userns", "openssl")]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pair, Pair]:
    place = tmp_path_factory.mktemp("pairs")
    return make_pair(place, "first"), make_pair(place, "second")


@pytest.fixture
def used(tmp_path: Path, pairs: tuple[Pair, Pair]) -> Pair:
    """Files that a test may change."""
    pair = Pair(str(tmp_path / "crt"), str(tmp_path / "key"))
    put(pairs[0], pair)
    return pair


def put(source: Pair, target: Pair) -> None:
    """Replace certificate and key as a renewal does: written beside them, then renamed."""
    for name in ("certificate", "key"):
        path = getattr(target, name)
        shutil.copy2(getattr(source, name), f"{path}.new")
        os.rename(f"{path}.new", path)


@contextlib.contextmanager
def client(server: Server, certificate: str) -> Iterator[Client]:
    """A WebSocket client that believes only this certificate."""
    trust = ssl.create_default_context(cafile=certificate)
    with connect(
        server.url,
        subprotocols=[SUBPROTOCOL],
        compression=None,
        proxy=None,
        ssl=trust,  # type: ignore[list-item]
    ) as socket:
        yield Client(socket)


def options(pair: Pair) -> tuple[str, ...]:
    return "--tls-certificate", pair.certificate, "--tls-key", pair.key


def believed(server: Server, certificate: str) -> bool:
    """Whether a client that trusts only this certificate gets in."""
    try:
        with client(server, certificate):
            return True
    except ssl.SSLCertVerificationError:
        return False


def test_calls(tmp_path: Path, used: Pair) -> None:
    with serving(tmp_path, *options(used), write(tmp_path, "t.json", config())) as server:
        assert server.page.startswith("https://127.0.0.1:")
        assert server.url.startswith("wss://127.0.0.1:")
        with client(server, used.certificate) as web:
            assert web.call("test/ping")["response"] == "pong=1"
            assert web.call("initspawn/info")["response"]["tls"] == {
                "certificate": used.certificate, "replaced": 0,
            }  # fmt: skip
        assert server.stop() == (0, "")


@pytest.mark.needs("curl")
def test_curl_believes_the_certificate(tmp_path: Path, used: Pair, pairs: tuple[Pair, Pair]) -> None:
    with serving(tmp_path, *options(used), write(tmp_path, "t.json", config())) as server:
        address = f"{server.page.partition('#')[0]}api/test/ping"

        def curl(certificate: str, address: str) -> subprocess.CompletedProcess[str]:
            command = ["curl", "--silent", "--noproxy", "*", "--cacert", certificate]
            command += ["--header", f"Authorization: Bearer {server.token}", address]
            return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)

        assert json.loads(curl(used.certificate, address).stdout)["response"] == "pong=1"
        assert curl(pairs[1].certificate, address).returncode == 60  # not believed
        assert curl(used.certificate, address.replace("https:", "http:")).returncode in (52, 56)  # no answer


def test_a_renewed_certificate(tmp_path: Path, used: Pair, pairs: tuple[Pair, Pair]) -> None:
    with serving(tmp_path, *options(used), write(tmp_path, "t.json", config())) as server:
        with client(server, pairs[0].certificate) as old:
            put(pairs[1], used)
            wait_for(lambda: believed(server, pairs[1].certificate), "the new certificate")
            assert old.call("test/ping")["response"].startswith("pong=")
        with server.local() as local:
            assert local.call("initspawn/info").response["tls"]["replaced"] == 1
        assert server.stop() == (0, "")


def test_a_broken_pair_changes_nothing(tmp_path: Path, used: Pair, pairs: tuple[Pair, Pair]) -> None:
    with serving(tmp_path, *options(used), write(tmp_path, "t.json", config())) as server:
        put(Pair(pairs[1].certificate, pairs[0].key), used)
        with server.local() as local:

            def problem() -> Any:
                return local.call("initspawn/info").response["tls"].get("problem")

            said = wait_for(problem, "the complaint")
            assert said == "the one before stays in use: the key is not that of the certificate"
            assert believed(server, pairs[0].certificate)
            os.kill(server.gateway(), 9)  # the next gateway gets the pair that works
            wait_for(lambda: reachable(server, pairs[0].certificate), "the next gateway")
            put(pairs[1], used)
            wait_for(lambda: not problem(), "the end of the problem")
            assert believed(server, pairs[1].certificate)
        code, error = server.stop()
        assert code == 0
        assert f"initspawn: certificate {used.certificate}: {said}" in error


def reachable(server: Server, certificate: str) -> bool:
    try:
        return believed(server, certificate)
    except OSError:
        return False


@pytest.mark.root
def test_the_gateway_cannot_open_the_key(tmp_path: Path, used: Pair) -> None:
    """It has the bytes in its memory, but neither the file nor a descriptor of it."""
    with serving(tmp_path, *options(used), write(tmp_path, "t.json", config())) as server:
        gateway = f"/proc/{server.gateway()}"
        with client(server, used.certificate) as web:
            web.call("test/ping")
        opened = []
        for fd in os.listdir(f"{gateway}/fd"):
            with contextlib.suppress(FileNotFoundError):  # it goes on meanwhile
                opened.append(os.readlink(f"{gateway}/fd/{fd}"))
        assert len(opened) > 5
        assert not any("memfd" in name or used.key in name for name in opened)
        assert not os.path.exists(f"{gateway}/root{used.key}")


@pytest.mark.parametrize("broken", ["mode", "mixed", "alone", "missing"])
def test_what_serve_refuses(tmp_path: Path, used: Pair, pairs: tuple[Pair, Pair], broken: str) -> None:
    wanted = options(used)
    if broken == "mode":
        os.chmod(used.key, 0o604)
    elif broken == "mixed":
        shutil.copy2(pairs[1].key, used.key)
    elif broken == "missing":
        os.unlink(used.key)
    else:
        wanted = wanted[:2]
    said = {
        "mode": f"{used.key} can be read by others: make a new key, and chmod o-rwx {used.key}",
        "mixed": "the key is not that of the certificate",
        "alone": "--tls-certificate and --tls-key belong together",
        "missing": f"{used.key}: No such file or directory",
    }[broken]
    command = [sys.executable, "-m", "initspawn", "serve", "--port", "0", "--run-dir", f"{tmp_path}/run"]
    result = subprocess.run(
        [*command, *wanted, write(tmp_path, "t.json", config())],
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert result.returncode == (100 if broken == "alone" else 111)
    assert said in result.stderr
    assert "Traceback" not in result.stderr
