"""The sockets that `serve` listens on; the supervisor inherits them."""

from __future__ import annotations

import _socket
import errno
import os
import socket
from typing import NamedTuple

from initspawn.cli.exits import UsageError
from initspawn.control.server import listen_tcp, listen_unix
from initspawn.errors import InitspawnError
from initspawn.plan import Plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

PATH_BYTES = 107  # sun_path has 108 bytes, one of them for the NUL (unix(7))
HTTP = "http"
WSAPI = "wsapi"


class UnixSocket(NamedTuple):
    """A unix socket to listen on: its path, with a NUL first if it is abstract, and what is spoken there."""

    path: str
    protocol: str


def listen_network(host: str, port: int) -> _socket.socket:
    """The network's listening socket. Raises InitspawnError that names the address."""
    try:
        return listen_tcp(host, port)
    except OSError as error:
        hint = "another --port, or 0 for a free one"
        if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
            hint = "another --host, an address of this machine"
        reason = error.strerror or str(error)
        raise InitspawnError(f"cannot listen on {host} port {port}: {reason}; {hint}?") from error


def wanted_sockets(
    unix: list[str], services: list[str], plan: Plan, *, absolute: bool = False
) -> list[UnixSocket]:
    """What `--unix` and `--ws-server` ask for. `absolute`: their paths are a device's, so none is taken from
    here. Raises UsageError.
    """
    return [
        *(UnixSocket(_path(path, absolute), HTTP) for path in unix),
        *(_service(spec, [api.api for api in plan.apis], absolute) for spec in services),
    ]


def _service(spec: str, apis: list[str], absolute: bool) -> UnixSocket:
    """`unix:PATH/API` or `unix:@NAME`, perhaps with `?as-api=API`, as AFB binders write it."""
    kind, _, rest = spec.partition(":")
    path, _, query = rest.partition("?")
    if kind != "unix" or not path:
        raise UsageError(f"--ws-server {spec!r}: write unix:/path/of/socket/API or unix:@API")
    api = query.removeprefix("as-api=") if query.startswith("as-api=") else path.lstrip("@").split("/")[-1]
    if api not in apis:
        raise UsageError(f"--ws-server {spec!r}: there is no API {api!r}; served are {', '.join(apis)}")
    return UnixSocket(_path(path, absolute), f"{WSAPI} {api}")


def _path(path: str, absolute: bool) -> str:
    """The path as the kernel takes it. Raises UsageError."""
    if absolute and not path.startswith(("/", "@")):
        raise UsageError(f"{path!r}: write the device's path, from / on")
    if len(os.fsencode(path)) > PATH_BYTES:
        raise UsageError(f"{path!r} is longer than {PATH_BYTES} bytes, too long for a socket")
    return "\0" + path[1:] if path.startswith("@") else os.path.abspath(path)


def listen_all(wanted: Iterable[UnixSocket]) -> list[tuple[int, str]]:
    """(descriptor, protocol) of each: inheritable, listening. Raises InitspawnError that names the path."""
    found = []
    for path, protocol in wanted:
        try:
            fd = listen_unix(path).detach()
        except OSError as error:
            shown = path.replace("\0", "@")
            raise InitspawnError(f"cannot listen on {shown}: {error.strerror}") from error
        os.set_inheritable(fd, True)
        found.append((fd, protocol))
    return found
