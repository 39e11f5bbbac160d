"""TLS: the certificate that clients are shown, and how it is replaced while connections go on.

The supervisor reads certificate and key and hands them over as descriptors, now and whenever they change:
this process could open neither. Connections that are open keep what they were made with.
"""

from __future__ import annotations

import ssl

from initspawn.errors import InitspawnError


class BadPair(InitspawnError):
    """Certificate and key cannot be used; the reason."""


def make_context() -> ssl.SSLContext:
    """A server's context without a certificate yet: TLS 1.2 or newer, HTTP/1.1 alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    return context


def load(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Use this pair of files for connections from now on. Raises BadPair; the context is as it was then."""
    for one in (make_context(), context):  # the first is a trial: OpenSSL takes a pair in two steps
        try:
            one.load_cert_chain(certificate, key, password=_nobody_to_ask)
        except (OSError, ValueError) as error:
            raise BadPair(_reason(error)) from None


def _nobody_to_ask() -> str:
    raise ValueError("the key needs a passphrase, and there is nobody to ask")


def _reason(error: Exception) -> str:
    if not isinstance(error, ssl.SSLError):
        return str(error)
    if error.reason == "KEY_VALUES_MISMATCH":
        return "the key is not that of the certificate"
    reason = (error.reason or "").lower().replace("_", " ")
    return f"no certificate chain and key in PEM form{f' ({reason})' if reason else ''}"


class Tls:
    """The pair in use. `context` is for new connections."""

    def __init__(self) -> None:
        self.context = make_context()
        self.loaded = False

    def take(self, certificate: int, key: int) -> str:
        """Use the pair behind two descriptors, which stay open; empty, or why that cannot be done."""
        try:
            load(self.context, f"/proc/self/fd/{certificate}", f"/proc/self/fd/{key}")
        except BadPair as error:
            return str(error)
        self.loaded = True
        return ""
