"""A page of the user's own, served by the confined gateway."""

from __future__ import annotations

import os
import shutil
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.support.users import Ordinary
from tests.system.server import read, serving, write

ROOT = Path(__file__).parents[2]
DEMO = str(ROOT / "configs" / "demo.yaml")
PAGE = ROOT / "configs" / "page"

pytestmark = pytest.mark.needs("userns")


def get(page: str, path: str) -> tuple[int, bytes]:
    """Status and body of a file at the page's server."""
    base = page.partition("#")[0].rstrip("/")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{base}{path}", timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def copied(place: Path) -> Path:
    page = place / "mine"
    shutil.copytree(PAGE, page)
    (place / "secret.txt").write_text("secret")
    (page / "link.txt").symlink_to(place / "secret.txt")
    return page


def check(page: str) -> None:
    for path, name in (("/", "index.html"), ("/page.js", "page.js"), ("/page.css", "page.css")):
        assert get(page, path) == (200, (PAGE / name).read_bytes())
    for path in ("/link.txt", "/../secret.txt", "/..%2fsecret.txt", "/etc/passwd", "/proc/self/environ"):
        assert get(page, path) == (404, b"")
    assert b"<title>initspawn</title>" in get(page, "/initspawn/")[1]


def test_by_option(as_user: Ordinary) -> None:
    page = copied(as_user.home)
    with serving(as_user.home, DEMO, "--page", str(page), user=as_user) as server, server.client() as client:
        check(server.page)
        assert client.call("demo/ping")["response"] == "pong=1"
        mounts = read(f"/proc/{server.gateway()}/mountinfo").decode().splitlines()
        (options,) = [line.split()[5] for line in mounts if line.split()[4] == "/page"]
        assert {"ro", "nosuid", "nodev"} <= set(options.split(","))
        (page / "new.txt").write_text("new")
        (page / "new.txt").chmod(0o644)
        assert get(server.page, "/new.txt") == (200, b"new")


def test_by_configuration(as_user: Ordinary) -> None:
    copied(as_user.home)
    file = write(as_user.home, "t.json", {"metadata": {"uid": "t", "api": "t", "page": "mine"}})
    with serving(as_user.home, file, user=as_user) as server:
        check(server.page)


@pytest.mark.root
def test_as_root_for_the_gateways_user(tmp_path: Path) -> None:
    page = copied(tmp_path)
    (page / "private.txt").write_text("private")
    os.chmod(page / "private.txt", 0o600)
    with serving(tmp_path, DEMO, "--page", str(page)) as server:
        check(server.page)
        assert get(server.page, "/private.txt") == (403, b"")
