"""The gateway as a process: its command line, what it inherits, what it says. `__main__` runs it."""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import logging
import resource
import socket
from typing import NoReturn

from initspawn.gateway.admission import HostPolicy
from initspawn.gateway.quota import Limits, parse
from initspawn.gateway.server import serve

USAGE, SYSTEM = 100, 111


class Parser(argparse.ArgumentParser):
    """argparse with this project's exit status for wrong usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {message}\n")


class OneLine(logging.Formatter):
    """A record as one line, exceptions included: what reads stderr reads lines."""

    def format(self, record: logging.LogRecord) -> str:
        text = f"initspawn gateway: {record.getMessage()}"
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            trace = error.__traceback__
            while trace is not None and trace.tb_next is not None:
                trace = trace.tb_next
            place = f" at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""
            text += f": {type(error).__name__}: {error}{place}"
        return " ".join(text.split())


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line, checked."""
    parser = Parser(prog="initspawn.gateway", description="AFB JSON over WebSocket for a supervisor.")
    parser.add_argument("--listen-fd", type=int, default=3, help="inherited listening TCP socket (default 3)")
    parser.add_argument(
        "--handover-fd", type=int, help="inherited socket over which the supervisor hands us local clients"
    )
    parser.add_argument("--control", required=True, help="path of the supervisor's control socket")
    parser.add_argument("--no-auth", action="store_true", help="the supervisor asks nobody for a credential")
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="believe this Host header; repeatable (default: loopback names and the bound address)",
    )
    parser.add_argument(
        "--alias", action="append", default=[], type=_alias, metavar="PREFIX=DIR",
        help="serve the files of a directory there; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--tls", action="store_true", help="speak TLS, with the certificate that the handover socket brings"
    )
    parser.add_argument(
        "--limit", action="append", default=[], metavar="NAME=NUMBER",
        help="what one address may: connections, calls, failures (0: any number); websockets of all",
    )  # fmt: skip
    parser.add_argument("--page", metavar="DIR", help="the user's own page, served instead of ours")
    options = parser.parse_args(argv)
    if options.tls and options.handover_fd is None:
        parser.error("--tls needs --handover-fd: the certificate comes from there")
    return options


def _alias(text: str) -> tuple[str, str]:
    prefix, _, directory = text.partition("=")
    return prefix, directory


def inherited(descriptor: int) -> socket.socket:
    """The listening TCP socket behind a descriptor. Raises OSError or ValueError."""
    listener = socket.socket(fileno=descriptor)
    listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if listener.family not in (socket.AF_INET, socket.AF_INET6) or not listening:
        listener.detach()
        raise ValueError(f"descriptor {descriptor} is not a listening TCP socket")
    listener.set_inheritable(False)
    listener.setblocking(False)
    return listener


def report_errors() -> None:
    """Send what goes wrong to stderr, one line each."""
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine())
    logging.basicConfig(handlers=[handler], level=logging.ERROR)


def main(argv: list[str] | None = None) -> int:
    """Run the gateway; the value is the exit status."""
    options = arguments(argv)
    report_errors()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # two descriptors for each connection
    logger = logging.getLogger("initspawn.gateway")
    try:
        listener = inherited(options.listen_fd)
        address = listener.getsockname()[0]
        if options.no_auth and not ipaddress.ip_address(address.partition("%")[0]).is_loopback:
            logger.error("warning: anybody who reaches %s may call: authentication is off", address)
        handover = None if options.handover_fd is None else socket.socket(fileno=options.handover_fd)
        hosts = HostPolicy(options.allow_host)
        limits = Limits(**dict(map(parse, options.limit)))
        more = {
            "handover": handover, "page": options.page, "aliases": dict(options.alias), "tls": options.tls,
            "limits": limits,
        }  # fmt: skip
        asyncio.run(serve(listener, options.control, hosts, **more))
    except (OSError, ValueError) as error:
        logger.error("%s", error)
        return SYSTEM
    return 0

