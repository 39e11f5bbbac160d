"""`--tls-certificate` and `--tls-key`: the pair is tried before anything is served."""

from __future__ import annotations

import os

from initspawn.cli.exits import UsageError
from initspawn.control.certificate import Files, read_pair
from initspawn.errors import InitspawnError
from initspawn.gateway.tls import BadPair, load, make_context


def tls_files(certificate: str | None, key: str | None) -> Files | None:
    """The two files, absolute; None without TLS. Raises UsageError, InitspawnError."""
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise UsageError("--tls-certificate and --tls-key belong together")
    files = os.path.abspath(certificate), os.path.abspath(key)
    read_pair(files)
    try:
        load(make_context(), *files)
    except BadPair as error:
        raise InitspawnError(f"{certificate} and {key}: {error}") from None
    return files
