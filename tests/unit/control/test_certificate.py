"""The files of the certificate: which are refused, and when a change of them is taken over."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from initspawn.control.certificate import Certificate, CertificateError, Files, read_pair
from initspawn.limits import TLS_CHECK_SECONDS, TLS_FILE_BYTES
from initspawn.supervisor.reactor import Reactor


@pytest.fixture
def files(tmp_path: Path) -> Files:
    found = []
    for name in ("crt", "key"):
        (tmp_path / name).write_text(f"{name} 1")
        (tmp_path / name).chmod(0o600)
        found.append(str(tmp_path / name))
    return found[0], found[1]


class Bench:
    """A certificate, its clock, and the gateway's end of the socket."""

    def __init__(self, files: Files) -> None:
        self.now = 0.0
        self.files = files
        self.reactor = Reactor(lambda: self.now)
        ours, self.gateway = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ours = ours
        self.gateway.setblocking(False)
        self.certificate = Certificate(files, ours, self.reactor)

    def later(self) -> None:
        """The time of one look passes."""
        self.now += TLS_CHECK_SECONDS
        self.reactor.turn()

    def replace(self, certificate: str, key: str) -> None:
        for path, text in zip(self.files, (certificate, key), strict=True):
            Path(f"{path}.new").write_text(text)
            os.chmod(f"{path}.new", 0o600)
            os.rename(f"{path}.new", path)

    def handed_over(self) -> tuple[str, list[str]] | None:
        """The next message of the gateway's socket: its text and what its descriptors hold."""
        try:
            message, descriptors, _, _ = socket.recv_fds(self.gateway, 256, 2)
        except BlockingIOError:
            return None
        held = []
        for fd in descriptors:
            with pytest.raises(PermissionError):
                os.pwrite(fd, b"x", 0)  # sealed
            with open(f"/proc/self/fd/{fd}") as file:  # as OpenSSL opens it
                held.append(file.read())
            os.close(fd)
        return message.decode(), held

    def close(self) -> None:
        self.ours.close()
        self.gateway.close()
        self.reactor.close()


@pytest.fixture
def bench(files: Files) -> Iterator[Bench]:
    made = Bench(files)
    yield made
    made.close()


def test_each_gateway_gets_the_pair(bench: Bench) -> None:
    for _ in range(2):
        bench.certificate.introduce()
        assert bench.handed_over() == ("tls 0", ["crt 1", "key 1"])
    assert bench.certificate.about() == {"certificate": bench.files[0], "replaced": 0}


def test_a_change_is_offered_when_it_is_complete(bench: Bench) -> None:
    bench.later()
    assert bench.handed_over() is None
    bench.replace("crt 2", "key 1")
    bench.later()
    bench.replace("crt 2", "key 2")
    bench.later()  # it has changed again since
    assert bench.handed_over() is None
    bench.later()
    assert bench.handed_over() == ("tls 1", ["crt 2", "key 2"])
    bench.certificate.answered(b"1")
    bench.later()
    assert bench.handed_over() is None
    bench.certificate.introduce()
    assert bench.handed_over() == ("tls 0", ["crt 2", "key 2"])


def test_a_pair_that_cannot_be_used(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.replace("crt 2", "no key")
    bench.later()
    bench.later()
    assert bench.handed_over() == ("tls 1", ["crt 2", "no key"])
    bench.certificate.answered(b"1 the key is not \x1b[2J that of the certificate\x7f")
    problem = "the one before stays in use: the key is not ?[2J that of the certificate?"
    assert bench.certificate.about()["problem"] == problem
    assert capsys.readouterr().err == f"initspawn: certificate {bench.files[0]}: {problem}\n"
    bench.certificate.introduce()
    assert bench.handed_over() == ("tls 0", ["crt 1", "key 1"])
    assert bench.handed_over() is None
    bench.replace("crt 3", "key 3")
    bench.later()
    bench.later()
    assert bench.handed_over() == ("tls 2", ["crt 3", "key 3"])
    bench.certificate.answered(b"1")  # late, or a lie
    assert "problem" in bench.certificate.about()
    bench.certificate.answered(b"2")
    assert bench.certificate.about() == {"certificate": bench.files[0], "replaced": 2}


def test_a_file_that_is_gone_or_open_keeps_the_pair(bench: Bench) -> None:
    Path(bench.files[1]).chmod(0o644)
    bench.later()
    bench.later()
    assert "make a new key" in bench.certificate.about()["problem"]
    os.unlink(bench.files[0])
    bench.later()
    bench.later()
    assert "No such file" in bench.certificate.about()["problem"]
    assert bench.handed_over() is None
    bench.replace("crt 2", "key 2")
    bench.later()
    bench.later()
    assert bench.handed_over() == ("tls 1", ["crt 2", "key 2"])


def test_a_gateway_that_reads_nothing(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2000):
        bench.certificate.introduce()
        if bench.certificate.problem:
            break
    assert "could not be handed to the gateway" in capsys.readouterr().err
    while bench.handed_over():
        pass


@pytest.mark.parametrize("message", [b"", b"0", b"x y", b"1", b"\xff" * 512, b"9" * 400])
def test_answers_that_mean_nothing(bench: Bench, message: bytes) -> None:
    bench.certificate.answered(message)
    assert bench.certificate.problem == ""


@pytest.mark.parametrize(
    ("mode", "which", "hint"),
    [(0o644, 1, "chmod o-rwx"), (0o620, 1, "chmod go-w"), (0o622, 0, "chmod go-w"), (0o646, 0, "chmod go-w")],
)
def test_files_that_others_may_touch(files: Files, mode: int, which: int, hint: str) -> None:
    os.chmod(files[which], mode)
    with pytest.raises(CertificateError, match=hint):
        read_pair(files)


def test_what_a_group_may_read(files: Files) -> None:
    os.chmod(files[0], 0o644)
    os.chmod(files[1], 0o640)
    assert read_pair(files) == (b"crt 1", b"key 1")


@pytest.mark.needs("root")
def test_a_key_of_somebody_else(files: Files) -> None:
    os.chown(files[1], 12345, 12345)
    with pytest.raises(CertificateError, match="root must own it"):
        read_pair(files)


def test_what_is_no_file_or_too_much_or_encrypted(tmp_path: Path, files: Files) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "large").write_bytes(b"x" * (TLS_FILE_BYTES + 1))
    (tmp_path / "secret").write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----")
    for name in ("large", "secret"):
        (tmp_path / name).chmod(0o600)
    for name, reason in (
        ("fifo", "is no file"), ("large", "larger than"), ("secret", "openssl pkey"),
        ("none", "No such file"),
    ):  # fmt: skip
        with pytest.raises(CertificateError, match=reason):
            read_pair((files[0], str(tmp_path / name)))
