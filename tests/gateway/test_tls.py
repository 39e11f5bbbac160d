"""HTTPS and WSS: the handshake, what browsers are told, and a certificate that is replaced."""

from __future__ import annotations

import socket
import ssl
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from initspawn.gateway.tls import BadPair, load, make_context
from tests.gateway.conftest import Gateway
from tests.gateway.raw_client import RawClient
from tests.support.certificates import Pair, make_pair

pytestmark = pytest.mark.needs("openssl")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pair, Pair]:
    place = tmp_path_factory.mktemp("pairs")
    return make_pair(place, "first"), make_pair(place, "second")


@pytest.fixture(scope="module")
def gateway(pairs: tuple[Pair, Pair]) -> Iterator[Gateway]:
    with Gateway(tls=pairs[0], HEAD_SECONDS=1.0) as running:
        yield running
        assert running.stop() == 0
        assert running.errors == b""


def trusting(certificate: str, newest: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=certificate)
    if newest is not None:
        context.maximum_version = newest
    return context


def client(gateway: Gateway, certificate: str, newest: ssl.TLSVersion | None = None) -> RawClient:
    """A client that believes this certificate only."""
    plain = socket.create_connection(("127.0.0.1", gateway.port), timeout=30)
    try:
        wrapped = trusting(certificate, newest).wrap_socket(plain, server_hostname="localhost")
    except OSError:
        plain.close()
        raise
    return RawClient(gateway.port, connected=wrapped)


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_calls_over_wss(gateway: Gateway, pairs: tuple[Pair, Pair], newest: ssl.TLSVersion) -> None:
    with client(gateway, pairs[0].certificate, newest) as connection:
        connection.open()
        assert connection.call("x/echo", {"a": 1})[2]["response"] == {"a": 1}


def test_older_protocols_are_refused(gateway: Gateway) -> None:
    def shake_hands(newest: ssl.TLSVersion) -> str | None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # it is what is asked for
            context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, newest
        plain = socket.create_connection(("127.0.0.1", gateway.port), timeout=30)
        with plain, context.wrap_socket(plain) as wrapped:
            return wrapped.version()

    with pytest.raises(ssl.SSLError, match=r"EOF|alert"):
        shake_hands(ssl.TLSVersion.TLSv1_1)
    assert shake_hands(ssl.TLSVersion.TLSv1_2) == "TLSv1.2"


def test_rest_and_its_cookie(gateway: Gateway, pairs: tuple[Pair, Pair]) -> None:
    with client(gateway, pairs[0].certificate) as connection:
        status, head, _ = connection.request("/api/x/echo?a=1")
        assert status == 200
        (cookie,) = (line for line in head.split("\r\n") if line.lower().startswith("set-cookie"))
        assert cookie.endswith("; HttpOnly; SameSite=Lax; Secure")


def test_the_cookie_of_a_log_in(gateway: Gateway, pairs: tuple[Pair, Pair]) -> None:
    with client(gateway, pairs[0].certificate) as connection:
        _, head, _ = connection.request(
            "/login", "Authorization: Bearer good", "Content-Length: 0", method="POST"
        )
        assert "SameSite=Strict; Secure" in head


@pytest.mark.parametrize(("scheme", "status"), [("https", 101), ("http", 403)])
def test_the_origin_has_the_scheme(
    gateway: Gateway, pairs: tuple[Pair, Pair], scheme: str, status: int
) -> None:
    with client(gateway, pairs[0].certificate) as connection:
        found, _, _ = connection.upgrade("/api", f"Origin: {scheme}://127.0.0.1:{gateway.port}")
        assert found == status
    with client(gateway, pairs[0].certificate) as connection:
        found, _, _ = connection.request("/", f"Origin: {scheme}://127.0.0.1:{gateway.port}")
        assert found == (200 if status == 101 else 403)


def test_a_close_is_answered(gateway: Gateway, pairs: tuple[Pair, Pair]) -> None:
    with client(gateway, pairs[0].certificate) as connection:
        connection.open()
        connection.text('[1,"1","a/b",null]')
        assert connection.closed() == (1008, "invalid-frame")


def test_what_is_no_tls_is_dropped(gateway: Gateway) -> None:
    for said in (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"\0" * 100, b""):
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as plain:
            plain.sendall(said)  # for one that says nothing the time for a head counts
            received = b"something"
            try:
                while received:
                    received = plain.recv(1024)
                    assert b"HTTP" not in received
            except ConnectionResetError:
                pass


def test_a_new_certificate_for_new_connections(pairs: tuple[Pair, Pair]) -> None:
    first, second = pairs
    with Gateway(tls=first) as gateway, client(gateway, first.certificate) as old:
        old.open()
        mixed = Pair(second.certificate, first.key)
        gateway.certify(7, mixed)
        assert gateway.handover.recv(512) == b"tls 0"
        assert gateway.handover.recv(512) == b"tls 7 the key is not that of the certificate"
        client(gateway, first.certificate).socket.close()  # the one before is in use
        gateway.certify(8, second)
        assert gateway.handover.recv(512) == b"tls 8"
        client(gateway, second.certificate).socket.close()
        with pytest.raises(ssl.SSLCertVerificationError):
            client(gateway, first.certificate)
        assert old.call("x/echo", 1)[2]["response"] == 1  # goes on
        assert gateway.stop() == 0
        assert gateway.errors == b""


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no certificate chain and key in PEM form"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "PEM form"),
        (b"\0" * 1000, "PEM form"),
    ],
)
def test_files_that_are_no_pair(
    tmp_path: Path, pairs: tuple[Pair, Pair], content: bytes, reason: str
) -> None:
    (tmp_path / "file").write_bytes(content)
    for certificate, key in ((tmp_path / "file", pairs[0].key), (pairs[0].certificate, tmp_path / "file")):
        with pytest.raises(BadPair, match=reason):
            load(make_context(), str(certificate), str(key))
    with pytest.raises(BadPair, match="No such file"):
        load(make_context(), str(tmp_path / "none"), pairs[0].key)
