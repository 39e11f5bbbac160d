"""Options for what listens: of `serve`, and of `compile` for a device that serves by itself."""

from __future__ import annotations

import argparse
import ipaddress
import re
from collections.abc import Callable
from typing import Any

from initspawn.boot.supervise import NOW, UP, WHILE_UP
from initspawn.cli.confinement import USER, gateway_config
from initspawn.cli.exits import UsageError
from initspawn.cli.page import aliases_of, page_of
from initspawn.cli.rundir import DEVICE
from initspawn.cli.sockets import wanted_sockets
from initspawn.config.compile import compile_raw
from initspawn.config.interpreter import of_image, ours
from initspawn.config.target import Target
from initspawn.gateway.quota import parse
from initspawn.limits import CONNECTIONS, WEBSOCKETS
from initspawn.plan import ADDRESS, LINK, NEVER, ROUTE, Plan

PORT = 1234
HOST = "127.0.0.1"
STATE = "/var/lib/initspawn"
# What a plan's doors have where the command line says nothing.
_DEFAULTS: dict[str, Any] = {
    "host": HOST, "port": PORT, "allow_host": [], "limit": [], "network_up": ADDRESS, "state_dir": STATE,
    "gateway_user": USER, "tls_certificate": None, "tls_key": None, "unix": [], "ws_server": [],
    "alias": [], "page": None,
}  # fmt: skip


def configure(parser: argparse.ArgumentParser) -> None:
    """The options that both have, with the defaults of `serve`."""
    parser.add_argument("--host", default=HOST, help=f"address to listen on (default {HOST})")
    parser.add_argument(
        "--port", type=_port, default=PORT, help=f"TCP port; 0: a free one, which is printed (default {PORT})"
    )
    parser.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", type=_host_name,
        help="believe this name in a request's Host header; repeatable (default: this machine's own)",
    )  # fmt: skip
    parser.add_argument(
        "--limit", action="append", default=[], metavar="NAME=NUMBER", type=_limit,
        help="what one address may: connections at once, calls per second, failures (wrong tokens) per "
        "minute; 0: any number; websockets: of all addresses at once; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--gateway", choices=(NOW, UP, WHILE_UP), default=NOW,
        help="when to run the gateway, for clients over the network: at once, from when that is up on, or "
        f"only while it is up (default {NOW})",
    )  # fmt: skip
    parser.add_argument(
        "--network-up", choices=(LINK, ADDRESS, ROUTE, NEVER), default=ADDRESS,
        help="the network is up when a link is, has an address, or carries a default route; or it never is "
        f"(default {ADDRESS})",
    )  # fmt: skip
    parser.add_argument(
        "--state-dir", metavar="DIR",
        help="token file and audit log, which then outlive this run (default: the run directory)",
    )  # fmt: skip
    parser.add_argument(
        "--gateway-user", default=USER, metavar="NAME", help=f"who the gateway is, as root (default {USER})"
    )
    parser.add_argument(
        "--unix", action="append", default=[], metavar="PATH",
        help="serve WebSocket, REST and the page on this unix socket too; root and you need no token there",
    )  # fmt: skip
    parser.add_argument(
        "--ws-server", action="append", default=[], metavar="unix:PATH/API",
        help="serve one API to AFB binders and `afb-client --direct` on this unix socket",
    )  # fmt: skip
    parser.add_argument(
        "--alias", action="append", default=[], metavar="/PREFIX:DIR",
        help="serve the files of a directory at the addresses that begin so; repeatable",
    )  # fmt: skip
    parser.add_argument("--page", metavar="DIR", help="serve this page of yours instead of the test page")
    parser.add_argument("--tls-certificate", metavar="FILE", help="serve HTTPS and WSS with this chain (PEM)")
    parser.add_argument("--tls-key", metavar="FILE", help="its key (PEM); a change of both is taken over")


def configure_ahead(parser: argparse.ArgumentParser) -> None:
    """The same for a plan: without `--gateway` it has no doors, and none of the others makes sense."""
    configure(parser)
    parser.set_defaults(gateway=None, **dict.fromkeys(_DEFAULTS))


def plan_with_doors(arguments: argparse.Namespace, plan: Plan, target: Target) -> Plan:
    """The plan of a device that serves by itself, if that was asked for. Raises InitspawnError."""
    given = {name: value for name in _DEFAULTS if (value := getattr(arguments, name)) is not None}
    if arguments.gateway is None:
        if given:
            option = next(iter(given)).replace("_", "-")
            raise UsageError(f"--{option} goes with --gateway: the plan of a device that serves by itself")
        return plan
    wanted = _DEFAULTS | given
    if plan.user != 0:
        raise UsageError("--gateway: the supervisor of a device is root's; leave --user out")
    if not wanted["port"]:
        raise UsageError("--port 0: nobody would know it; name one")
    _check_paths(wanted)
    try:
        host = str(ipaddress.ip_address(wanted["host"]))
    except ValueError:
        raise UsageError(f"--host {wanted['host']}: write an address, such as 0.0.0.0 for all") from None
    refuse_gateway_user(plan, wanted["gateway_user"], lambda name: _number(target, name))
    files = wanted["tls_certificate"], wanted["tls_key"]  # which the device may get after its plan
    if (files[0] is None) != (files[1] is None):
        raise UsageError("--tls-certificate and --tls-key belong together")
    tls = {} if files[0] is None else {"tls": files}
    sockets = wanted_sockets(wanted["unix"], wanted["ws_server"], plan, absolute=True)
    limits = dict(wanted["limit"])
    config = gateway_config(
        DEVICE, user=wanted["gateway_user"], open_door=False, hosts=wanted["allow_host"], limits=limits,
        page=page_of(plan, wanted["page"], privileged=True, tree=target.tree),
        aliases=aliases_of(wanted["alias"], privileged=True, tree=target.tree), tls=bool(tls),
        python=of_image(target.tree) if target.tree.root else ours(),
    )  # fmt: skip
    hidden = compile_raw(
        config, file="the gateway's own sandbox", user=0, group=0, environ={}, hidden=True, target=target
    )
    doors = {
        "host": host, "port": wanted["port"], "gateway": arguments.gateway, "up": wanted["network_up"],
        "state": wanted["state_dir"], "limits": in_table(limits), **tls,
        "unix": tuple(tuple(one) for one in sockets),
    }  # fmt: skip
    return plan.replace(apis=(*plan.apis, hidden), doors=doors)


def _check_paths(wanted: dict[str, Any]) -> None:
    """A device's begin at its root. Raises UsageError."""
    named = [(name, wanted[name]) for name in ("state_dir", "tls_certificate", "tls_key", "page")]
    named += [("alias", alias.partition(":")[2]) for alias in wanted["alias"]]
    for name, path in named:
        if path and not path.startswith("/"):
            raise UsageError(f"--{name.replace('_', '-')} {path}: write the device's path, from / on")


def _number(target: Target, name: str) -> int | None:
    found = target.accounts.user(name)
    return None if found is None else found.number


def refuse_gateway_user(plan: Plan, name: str, number_of: Callable[[str], int | None]) -> None:
    """What runs as the gateway's user could look into it, and take the tokens of its clients.

    `number_of`: a user's number by name. Raises UsageError.
    """
    number = int(name) if name.isdecimal() else number_of(name)
    if number is None:
        raise UsageError(f"--gateway-user: there is no user {name!r}")
    for api in plan.apis:
        for sandbox in api.sandboxes:
            if sandbox.user == number:
                raise UsageError(
                    f"sandbox `{sandbox.uid}` of `{api.api}` runs as user {number}, and so would the "
                    "gateway; give one of them another (--gateway-user)"
                )


def in_table(given: dict[str, int]) -> dict[str, int]:
    """What `--limit` says by the names of `limits.TABLE`. Each WebSocket has a control connection."""
    found = {f"address_{name}": number for name, number in given.items() if name != "websockets"}
    if "websockets" in given:
        found["websockets"] = given["websockets"]
        found["connections"] = given["websockets"] + CONNECTIONS - WEBSOCKETS
    return found


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: write a number from 0 to 65535")
    return int(text)


def _limit(text: str) -> tuple[str, int]:
    try:
        return parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _host_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]+|[0-9a-fA-F:.]+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no host: write a name or address, without a port")
    return text
