"""The user's own page: what is served of its directory, and how nothing leads out of it."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from initspawn.gateway.bounds import PAGE_BYTES
from initspawn.gateway.files import KINDS, Directory
from initspawn.gateway.pages import BUILT_IN, FILES, WWW
from tests.gateway.conftest import Gateway

LARGE = os.urandom(300_000)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page, with all that must not be served beside it and in it."""
    base = tmp_path_factory.mktemp("site")
    (base / "secret.txt").write_text("secret")
    page = base / "page"
    (page / "sub" / "deep").mkdir(parents=True)
    (page / "index.html").write_text("<p>mine")
    (page / "sub" / "index.html").write_text("sub")
    (page / "sub" / "deep" / "a b.JS").write_text("code")
    (page / "no-suffix").write_text("what")
    (page / "large.bin").write_bytes(LARGE)
    (page / ".hidden").write_text("secret")
    (page / ".git").mkdir()
    (page / ".git" / "config").write_text("secret")
    (page / "out.txt").symlink_to(base / "secret.txt")
    (page / "up").symlink_to(base)
    (page / "inner.html").symlink_to("index.html")
    os.mkfifo(page / "pipe")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(page / "socket"))
    listener.close()
    with open(page / "huge", "wb") as file:
        file.truncate(PAGE_BYTES + 1)
    return page


@pytest.fixture(scope="module")
def own(site: Path) -> Iterator[Gateway]:
    with Gateway("--page", str(site)) as running:
        yield running
        assert running.stop() == 0
        assert running.errors == b""


@pytest.mark.parametrize(
    ("target", "body", "kind"),
    [
        ("/", b"<p>mine", "text/html; charset=utf-8"),
        ("/index.html", b"<p>mine", "text/html; charset=utf-8"),
        ("/?a=1", b"<p>mine", "text/html; charset=utf-8"),
        ("/sub/", b"sub", "text/html; charset=utf-8"),
        ("/sub/deep/a%20b.JS", b"code", "text/javascript; charset=utf-8"),
        ("/no-suffix", b"what", "application/octet-stream"),
        ("/large.bin", LARGE, "application/octet-stream"),
    ],
)
def test_files(own: Gateway, target: str, body: bytes, kind: str) -> None:
    with own.client() as client:
        status, head, found = client.request(target)
        assert (status, found) == (200, body)
        assert f"content-type: {kind}\r\n" in f"{head.lower()}\r\n"
        assert f"content-length: {len(body)}" in head.lower()
        for line in ("x-content-type-options: nosniff", "content-security-policy: default-src 'none'"):
            assert line in head.lower()


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        ("/../secret.txt", 404),
        ("/%2e%2e/secret.txt", 404),
        ("/..%2fsecret.txt", 404),
        ("/sub/../../secret.txt", 404),
        ("/sub/..", 404),
        ("/./index.html", 404),
        ("//index.html", 404),
        ("/sub//index.html", 404),
        ("//example.org/..", 404),
        ("/.hidden", 404),
        ("/.git/config", 404),
        ("/.git/", 404),
        ("/out.txt", 404),
        ("/up/secret.txt", 404),
        ("/up", 404),
        ("/inner.html", 404),
        ("/index.html/", 404),
        ("/index.html/x", 404),
        ("/nothing", 404),
        ("/index.html%00", 404),
        ("/%ff%fe", 404),
        ("/" + "x" * 300, 404),
        ("/sub/deep/", 404),
        ("/pipe", 403),
        ("/socket", 404),
        ("/huge", 403),
        ("/api", 404),
    ],
)
def test_what_is_not_served(own: Gateway, target: str, wanted: int) -> None:
    with own.client() as client:
        status, _, body = client.request(target)
        assert (status, body) == (wanted, b"")


def test_a_directory_has_its_own_address(own: Gateway) -> None:
    with own.client() as client:
        status, head, _ = client.request("/sub?a=%20b")
        assert status == 301
        assert "location: /sub/?a=%20b\r\n" in f"{head.lower()}\r\n"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_only_reading(own: Gateway, method: str) -> None:
    with own.client() as client:
        assert client.request("/index.html", method=method)[0] == 405


def test_head_tells_the_size_and_sends_nothing(own: Gateway) -> None:
    with own.client() as client:
        client.send(b"HEAD /large.bin HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b""
        while data := client.socket.recv(65536):
            answer += data
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"content-length: 300000\r\n" in answer
        assert answer.endswith(b"\r\n\r\n")


def test_the_built_in_page_moves(own: Gateway) -> None:
    for path, (name, _) in FILES.items():
        with own.client() as client:
            assert client.request(BUILT_IN + path)[::2] == (200, (WWW / name).read_bytes())


def test_a_file_that_changes_is_served_as_it_is(own: Gateway, site: Path) -> None:
    for text in (b"one", b"another"):
        (site / "changing.txt").write_bytes(text)
        with own.client() as client:
            assert client.request("/changing.txt")[2] == text


def test_descriptors_are_given_back(own: Gateway) -> None:
    def count() -> int:
        return len(os.listdir(f"/proc/{own.process.pid}/fd"))

    with own.client() as client:
        client.request("/")
        before = count()
        for target in ("/", "/sub", "/pipe", "/huge", "/out.txt", "/sub/deep/x", "/nothing", "/.git/config"):
            client.request(target)
        assert count() <= before  # fewer: of an earlier client, gone meanwhile


def test_kinds_are_written_in_lower_case_and_say_their_letters() -> None:
    for suffix, kind in KINDS.items():
        assert suffix == suffix.lower()
        assert not kind.startswith("text/") or kind.endswith("; charset=utf-8")


NAMES = st.sampled_from(
    ["index.html", "sub", "deep", "up", "out.txt", "pipe", ".hidden", ".git", "config", "..", ".", "", "page",
     "secret.txt", "a b.JS", "etc", "passwd", "\0", "\ud800", "x" * 256]
) | st.text(max_size=5)  # fmt: skip


@given(st.lists(NAMES, min_size=1, max_size=6))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
def test_whatever_is_asked_for_it_lies_in_the_directory(site: Path, names: list[str]) -> None:
    inside = {os.stat(place).st_ino for place, _, _ in os.walk(site)}
    inside |= {os.lstat(Path(place) / name).st_ino for place, _, files in os.walk(site) for name in files}
    page = Directory(str(site))
    try:
        fd = page._open(names)
    except (OSError, ValueError):
        return
    finally:
        os.close(page._root)
    found = os.fstat(fd)
    os.close(fd)
    assert found.st_ino in inside
    assert not stat.S_ISLNK(found.st_mode)


def test_a_page_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Directory(str(tmp_path / "no"))


# Further directories.


@pytest.mark.parametrize("options", [(), ("--page", "{site}")], ids=["test page", "own page"])
def test_aliases(site: Path, options: tuple[str, ...]) -> None:
    more = [option.format(site=site) for option in options]
    with Gateway("--alias", f"/dev/tools={site}", "--alias", f"/sub={site}/sub", *more) as gateway:
        for target, status, body in (
            ("/dev/tools/", 200, b"<p>mine"),
            ("/dev/tools/sub/deep/a%20b.JS", 200, b"code"),
            ("/sub/", 200, b"sub"),
            ("/dev/tools/../secret.txt", 404, b""),
            ("/dev/tools/..%2fsecret.txt", 404, b""),
            ("/dev/tools/%2e%2e/secret.txt", 404, b""),
            ("/dev/tools/out.txt", 404, b""),
            ("/dev/tools/.hidden", 404, b""),
            ("/dev/tools//etc/passwd", 404, b""),
            ("/dev/toolsx", 404, b""),
            ("/dev", 404, b""),
        ):
            with gateway.client() as client:
                assert (client.request(target)[0::2]) == (status, body), target
        with gateway.client() as client:
            status, head, _ = client.request("/dev/tools?x=1")
            assert status == 301
            assert "location: /dev/tools/?x=1" in head
            assert "script-src 'self' 'unsafe-inline'" in client.request("/dev/tools/")[1]
            assert "unsafe" not in client.request("/")[1]
            assert client.request("/dev/tools/", method="POST")[0] == 405
        assert gateway.stop() == 0
        assert gateway.errors == b""
