"""Plain HTTP: the page's files, their headers, and what is not served."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest

from initspawn.gateway.pages import FILES, WWW
from tests.gateway.conftest import Gateway


@pytest.mark.parametrize("path", FILES)
def test_files(gateway: Gateway, path: str) -> None:
    with gateway.client() as client:
        status, head, body = client.request(path)
        name, kind = FILES[path]
        assert (status, body) == (200, (WWW / name).read_bytes())
        assert f"content-type: {kind}" in head


@pytest.mark.parametrize(
    ("method", "target", "wanted"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/api", 404),
        ("GET", "/api/", 404),
        ("GET", "/api/x", 404),
        ("GET", "/index.html/", 404),
        ("GET", "/../afb.py", 404),
        ("GET", "/%2e%2e/afb.py", 404),
        ("GET", "/..%2fafb.py", 404),
        ("GET", "//app.js", 404),
        ("GET", "/app.js%00", 404),
        ("POST", "/", 405),
        ("DELETE", "/app.js", 405),
        ("OPTIONS", "/", 405),
    ],
)
def test_what_is_not_served(gateway: Gateway, method: str, target: str, wanted: int) -> None:
    with gateway.client() as client:
        status, _, body = client.request(target, method=method)
        assert (status, body) == (wanted, b"")


@pytest.mark.parametrize("target", ["/", "/nothing", "/api/x/y"])
def test_headers_of_every_answer(gateway: Gateway, target: str) -> None:
    with gateway.client() as client:
        head = client.request(target)[1].lower()
        for line in (
            "x-content-type-options: nosniff",
            "cache-control: no-store",
            "referrer-policy: no-referrer",
        ):
            assert line in head
        policy = head.split("content-security-policy: ")[1].split("\r\n")[0]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "server:" not in head


def test_a_refused_host_is_not_repeated(gateway: Gateway) -> None:
    with gateway.client() as client:
        status, head, body = client.request("/", host="evil.example")
        assert (status, body) == (403, b"")
        assert "evil" not in head


def test_broken_requests(gateway: Gateway) -> None:
    """Nothing of this may reach stderr either, see conftest."""
    tls_hello = b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n"
    for data in (tls_hello, b"GET /\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/9\r\nHost: x\r\n\r\n"):
        with gateway.client() as client:
            client.send(data)
            assert client.response()[0] == 400
            assert client.buffer or client.socket.recv(4096)  # some words about it, chunked
            while client.socket.recv(4096):
                pass


def test_what_is_no_http_behind_a_refused_head(gateway: Gateway) -> None:
    """It has had its answer; nothing of this may reach stderr either."""
    head = b"POST /api/a/b HTTP/1.1\r\nHost: elsewhere\r\nTransfer-Encoding: chunked\r\n\r\n"
    with gateway.client() as client:
        client.send(head + b"1\r\n")
        assert client.response()[0] == 403
        with contextlib.suppress(ConnectionError):
            client.send(b"no chunk\r\n")
        assert client.at_end()


def test_huge_head(gateway: Gateway) -> None:
    with gateway.client() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 70_000)
        assert client.response()[0] == 400


def test_keep_alive_and_pipelining(gateway: Gateway) -> None:
    with gateway.client() as client:
        client.send(
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\nGET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n"
        )
        assert [client.response()[0] for _ in range(2)] == [200, 404]


def test_allowed_hosts() -> None:
    with Gateway("--allow-host", "board.lan") as gateway:
        for host, wanted in (("board.lan:1", 200), ("localhost", 403)):
            with gateway.client() as client:
                assert client.request("/", host=host)[0] == wanted


def test_open_to_the_network_without_authentication() -> None:
    with Gateway("--no-auth", address="0.0.0.0") as gateway:
        with gateway.client() as client:
            assert client.request("/")[0] == 200
        assert gateway.stop() == 0
        assert gateway.errors.startswith(b"initspawn gateway: warning: ")


def test_the_page_needs_nothing_from_elsewhere() -> None:
    """What the policy would block anyway should not be there in the first place."""
    page = (WWW / "index.html").read_text()
    script = (WWW / "app.js").read_text()
    assert sorted(path.name for path in Path(WWW).iterdir()) == sorted(name for name, _ in FILES.values())
    assert "//" not in re.sub(r"<!--.*?-->", "", page)
    assert not re.search(r"\son[a-z]+=|style=|<script>|<style>", page)
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", script
    )
