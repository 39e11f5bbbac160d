"""Certificates for tests: each signed by its own key, for 127.0.0.1 and localhost."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple


class Pair(NamedTuple):
    """The files of a certificate and of its key."""

    certificate: str
    key: str


def make_pair(place: Path, name: str = "server") -> Pair:
    """A new certificate and its key in a directory; only their owner can read the key."""
    pair = Pair(str(place / f"{name}.crt"), str(place / f"{name}.key"))
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", "1", "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
         "-keyout", pair.key, "-out", pair.certificate],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    Path(pair.key).chmod(0o600)
    return pair
