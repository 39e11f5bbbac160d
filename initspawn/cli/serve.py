"""`initspawn serve`: compile the files, then become the supervisor that serves them."""

from __future__ import annotations

import _socket
import argparse
import fcntl
import ipaddress
import marshal
import os
import pwd
import secrets
import sys

from initspawn.boot import supervise
from initspawn.boot.supervise import GATEWAY, LOCK
from initspawn.cli import doors
from initspawn.cli.certificate import tls_files
from initspawn.cli.compiled import FILES, plan_to_serve
from initspawn.cli.confinement import gateway_config
from initspawn.cli.doors import in_table, refuse_gateway_user
from initspawn.cli.exits import UsageError
from initspawn.cli.page import aliases_of, page_of
from initspawn.cli.rundir import default_run_dir, prepare_run_dir
from initspawn.cli.sockets import listen_all, listen_network, wanted_sockets
from initspawn.config.compile import compile_raw
from initspawn.errors import InitspawnError
from initspawn.planfile import save
from initspawn.verbs.access import EVERYTHING, digest

HELP = "serve configuration files: every command becomes a verb over WebSocket"
EXAMPLES = """\
examples:
  initspawn serve configs/demo.yaml
  initspawn serve --port 0 vpn.json reset.yaml        a free port, which is printed
  initspawn serve --run-dir /tmp/second --port 1235 other.json
  initspawn serve --plan /var/lib/initspawn/plan vpn.json     compiled only when it changed
  initspawn serve vpn.plan                                    what `initspawn compile` made
"""
_BOOT = os.path.join(os.path.dirname(os.path.abspath(supervise.__file__)), "__main__.py")


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `serve`."""
    parser.epilog = EXAMPLES
    parser.add_argument("files", nargs="+", metavar="FILE", help=FILES)
    parser.add_argument(
        "--plan", metavar="PLAN", help="keep the compiled plan here; while FILEs are as they were, use it"
    )
    doors.configure(parser)
    parser.add_argument("--run-dir", metavar="DIR", help="sockets and run-time state (default: yours)")
    parser.add_argument("--no-auth", action="store_true", help="ask nobody for a token; loopback only")


def main(arguments: argparse.Namespace) -> int:
    """Does not return: the process becomes the supervisor. Raises ConfigError, OSError."""
    if arguments.no_auth and not _is_loopback(arguments.host):
        raise UsageError(f"--no-auth works on loopback only, and {arguments.host} is not")
    run_dir = os.path.abspath(arguments.run_dir or default_run_dir())
    user, group = os.geteuid(), os.getegid()
    plan = plan_to_serve(arguments.files, arguments.plan)
    if user == 0:
        refuse_gateway_user(plan, arguments.gateway_user, _number)
    page = page_of(plan, arguments.page, privileged=user == 0)
    aliases = aliases_of(arguments.alias, privileged=user == 0)
    tls = tls_files(arguments.tls_certificate, arguments.tls_key)
    sockets = wanted_sockets(arguments.unix, arguments.ws_server, plan)
    listener = listen_network(arguments.host, arguments.port)
    prepare_run_dir(run_dir)
    state_dir = arguments.state_dir and os.path.abspath(arguments.state_dir)
    if state_dir is not None:
        prepare_run_dir(state_dir)
    _lock(run_dir)
    os.makedirs(os.path.join(run_dir, GATEWAY), exist_ok=True)
    os.chmod(os.path.join(run_dir, GATEWAY), 0o711)  # whatever our umask: the gateway is another user
    token = secrets.token_urlsafe(24)
    hidden = compile_raw(
        gateway_config(
            run_dir, user=arguments.gateway_user if user == 0 else None, open_door=arguments.no_auth,
            hosts=arguments.allow_host, page=page, aliases=aliases, tls=tls is not None,
            limits=dict(arguments.limit),
        ),
        file="the gateway's own sandbox", user=user, group=group, environ={}, hidden=True,
    )  # fmt: skip
    plan_file = os.path.join(run_dir, "plan")
    save(plan.replace(apis=(*plan.apis, hidden), sources=(), further=()), plan_file)
    start = {
        "tokens": {digest(token): ("start", (EVERYTHING,))},
        **({"state": state_dir} if state_dir is not None else {}),
        "open": arguments.no_auth,
        "listen": listener.fileno(),
        "unix": listen_all(sockets),
        "limits": in_table(dict(arguments.limit)),
        **({"tls": tls} if tls is not None else {}),
        "gateway": arguments.gateway,
        "up": arguments.network_up,
        "files": [os.path.abspath(path) for path in arguments.files],
        **({"plan": os.path.abspath(arguments.plan)} if arguments.plan is not None else {}),
        "temporary": True,
        "announce": _announcement(listener, None if arguments.no_auth else token, "s" if tls else ""),
    }
    _become_supervisor(run_dir, plan_file, start, listener)
    return 0


def _become_supervisor(
    run_dir: str, plan_file: str, start: dict[str, object], listener: _socket.socket
) -> None:
    """Replace this process, with all it has imported, by the lean supervisor."""
    start_fd = os.memfd_create("initspawn-start", 0)  # inherited; a command line would show the token
    os.write(start_fd, marshal.dumps(start))
    os.lseek(start_fd, 0, os.SEEK_SET)
    os.set_inheritable(listener.fileno(), True)
    sys.stdout.flush()
    options = ["--run-dir", run_dir, "--plan", plan_file, "--start-fd", str(start_fd)]
    os.execv(sys.executable, [sys.executable, "-I", "-S", _BOOT, *options])


def _announcement(listener: _socket.socket, token: str | None, s: str) -> str:
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    page, query = (f"/#token={token}", f"?token={token}") if token else ("/", "")
    return f"initspawn: ready at http{s}://{place}{page} (WebSocket: ws{s}://{place}/api{query})"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _lock(run_dir: str) -> None:
    """Two supervisors cannot share a run directory: whoever has its lock has it. The descriptor stays open
    across the exec, so the lock lasts as long as the supervisor. Raises InitspawnError, OSError.
    """
    fd = os.open(os.path.join(run_dir, LOCK), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise InitspawnError(
            f"a supervisor is already running in {run_dir}; give this one another --run-dir"
        ) from None
    os.set_inheritable(fd, True)


def _number(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None
