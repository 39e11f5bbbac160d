"""Who may open a connection, judged from the request's head alone. Pure functions.

The credential is only found here, never judged: that is the supervisor's work.
"""

from __future__ import annotations

import ipaddress
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from initspawn.errors import InitspawnError
from initspawn.gateway.bounds import HEAD_BYTES, QUERY_FIELDS

SUBPROTOCOL = "x-afb-ws-json1"
API_PATH = "/api"
DEFAULT_PORTS = {"http": 80, "https": 443}

_AUTHORITY = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")
_SESSION = re.compile(r"[!#-+\--:<-\[\]-~]{0,36}")  # what a cookie may hold (RFC 6265, section 4.1.1)
_ORIGIN = re.compile(r"(https?)://(.+)")

Headers = Sequence[tuple[str, str]]


class Refused(InitspawnError):
    """The request is answered with this HTTP status, these headers and this JSON, or nothing else."""

    def __init__(self, status: int, *headers: tuple[str, str], body: bytes = b"") -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.headers = headers
        self.body = body


class HostPolicy:
    """Which `Host` headers are believed (DNS rebinding) and, with it, which `Origin`.

    Without a list: loopback names and addresses, and the address the connection came in on. With one:
    exactly the names in it.
    """

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        self._allowed = frozenset(name.lower() for name in allowed)

    def check(self, headers: Headers, *, scheme: str, local: str) -> str:
        """The request's Host. Raises Refused(403) unless Host is believed and Origin matches it.

        `local` is the address of our end of the connection. An absent Origin is fine: only browsers
        send one, and only they can be tricked into a foreign request (RFC 6455, section 10.2).
        """
        hosts = list(values(headers, "host"))
        if len(hosts) != 1:
            raise Refused(403)
        name, port = _authority(hosts[0])
        if name not in self._allowed if self._allowed else not _is_local(name, local):
            raise Refused(403)
        for origin in values(headers, "origin"):
            match = _ORIGIN.fullmatch(origin)
            if match is None or match[1] != scheme:
                raise Refused(403)
            default = DEFAULT_PORTS[scheme]
            other, other_port = _authority(match[2])
            if (other, other_port or default) != (name, port or default):
                raise Refused(403)
        return hosts[0]


def _authority(text: str) -> tuple[str, int | None]:
    """`host[:port]` as (lower-case name without brackets and trailing dot, port). Raises Refused(403)."""
    match = _AUTHORITY.fullmatch(text)
    if match is None:
        raise Refused(403)
    return match[1].strip("[]").rstrip(".").lower(), int(match[2]) if match[2] else None


def _is_local(name: str, local: str) -> bool:
    """Whether a host name means this machine without asking anybody's DNS."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address(name)
    return address is not None and (address.is_loopback or address == _address(local))


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    # a dual-stack socket reports IPv4 addresses as ::ffff:a.b.c.d
    return getattr(address, "ipv4_mapped", None) or address


def check_framing(headers: Headers) -> None:
    """One way to tell where a body ends (RFC 9112, section 6.3), and a head within its bound, however it
    came. Raises Refused(400 or 431), and the connection ends: nobody reads what is behind it.
    """
    if any(values(headers, "transfer-encoding")) and any(values(headers, "content-length")):
        raise Refused(400, ("Connection", "close"))
    if sum(len(name) + len(value) + 4 for name, value in headers) > HEAD_BYTES:
        raise Refused(431, ("Connection", "close"))


def values(headers: Headers, name: str) -> Iterator[str]:
    """The values of a header, in order."""
    return (value for key, value in headers if key.lower() == name)


def choose_subprotocol(headers: Headers) -> str | None:
    """The subprotocol to name in the answer: None if none was offered. Raises Refused(412)."""
    offers = list(values(headers, "sec-websocket-protocol"))
    if not offers:
        return None
    for token in re.split(r"[ \t,]+", ",".join(offers)):
        if token.lower() == SUBPROTOCOL:
            return SUBPROTOCOL
    raise Refused(412)


def check_version(headers: Headers) -> None:
    """RFC 6455 section 4.2.2: another version than 13 is answered with the one we speak."""
    if list(values(headers, "sec-websocket-version")) != ["13"]:
        raise Refused(426, ("Sec-WebSocket-Version", "13"), ("Upgrade", "websocket"))


def check_fetch_site(headers: Headers) -> None:
    """Browsers say whose page asks (Fetch Metadata): only ours, or the address bar. Raises Refused(403)."""
    if any(value not in ("same-origin", "none") for value in values(headers, "sec-fetch-site")):
        raise Refused(403)


def find_token(headers: Headers, fields: Mapping[str, str | None]) -> str | None:
    """The credential of a request; the first of the five places that has one wins."""
    for value in values(headers, "authorization"):
        scheme, _, bearer = value.partition(" ")
        if scheme.lower() == "bearer" and bearer.strip():
            return bearer.strip()
    arguments = {name.lower(): value for name, value in fields.items()}
    header = next(values(headers, "x-afb-token"), "")
    return (
        arguments.get("access_token")
        or header
        or arguments.get("x-afb-token")
        or arguments.get("token")
        or None
    )


def find_session(headers: Headers, fields: Mapping[str, str | None], port: int) -> str:
    """The session's name; the first of the four places that has one wins, else a new name is made.

    It grants nothing. Raises Refused(400) for one that is too long or that a cookie could not hold.
    """
    arguments = {name.lower(): value for name, value in fields.items()}
    places = (
        next(values(headers, "x-afb-uuid"), None),
        arguments.get("x-afb-uuid"),
        find_cookie(headers, session_cookie(port)),
        arguments.get("uuid"),
    )
    found = next((name for name in places if name is not None), None)
    if found is None:
        return str(uuid.uuid4())
    if not _SESSION.fullmatch(found):
        raise Refused(400)
    return found


def port_of(server: tuple[str, int | None] | None) -> int:
    """Our port from the `server` of an ASGI scope; 0 on a unix socket, which has none."""
    return (server[1] if server else None) or 0


def session_cookie(port: int) -> str:
    """The name of the cookie that holds a session's name: cookies know no ports."""
    return f"x-afb-uuid-{port}"


def token_cookie(port: int) -> str:
    """The name of the cookie with the credential."""
    return f"initspawn-token-{port}"


def believed_cookie(headers: Headers, port: int) -> str | None:
    """The credential of a request that has no other one, if a page of ours has sent it."""
    if not any(values(headers, "origin")):
        return None
    return find_cookie(headers, token_cookie(port)) or None


def secure(scope: Mapping[str, Any]) -> str:
    """What a cookie's definition ends with: one that came over TLS goes over nothing else (RFC 6265)."""
    return "; Secure" if scope["scheme"] == "https" else ""


def find_cookie(headers: Headers, name: str) -> str | None:
    """The first cookie of that name (RFC 6265, section 5.4)."""
    for value in values(headers, "cookie"):
        for pair in value.split(";"):
            key, equals, text = pair.strip().partition("=")
            if equals and key == name:
                return text
    return None


def query_fields(query: str) -> dict[str, str | None]:
    """Query arguments by name, None without `=`, the last one wins; `+` stays: AFB clients encode nothing."""
    arguments: dict[str, str | None] = {}
    for field in query.split("&", QUERY_FIELDS)[:QUERY_FIELDS]:
        name, equals, value = field.partition("=")
        arguments[unquote(name)] = unquote(value) if equals else None
    return arguments
